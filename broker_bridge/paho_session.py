"""Sessions for the sensor hot path: messages go from paho's callback straight to their handler.

No queue and no task stand in between: the loop's reader calls the handler in the turn in which the bytes arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from broker_bridge._dispatch import dispatch
from broker_bridge._open import open_socket
from broker_bridge._paho import (
    Driver,
    answer_in_time,
    check_granted,
    clean_session,
    closing,
    protocol_version,
    requests,
)
from broker_bridge._password import read_password
from broker_bridge.config import BrokerConfig
from broker_bridge.session import Message, OnMessage, PublishRefused, Session, Will


class PahoConnector:
    """Opens paho sessions with one broker.

    Args:
        config: the broker.
    """

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """Open a session, as `Connector.connect` says."""
        return self._connect(client_id, on_message, will)

    @asynccontextmanager
    async def _connect(self, client_id: str, on_message: OnMessage, will: Will | None) -> AsyncIterator[Session]:
        config = self._config
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_session(config),
            protocol=protocol_version(config),
            reconnect_on_failure=False,
        )
        if config.username is not None:
            client.username_pw_set(config.username, await asyncio.to_thread(read_password, config.password_file))
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_message = partial(_hand_on, asyncio.get_running_loop(), on_message)
        async with answer_in_time(config) as stage:
            driver = Driver(client, await open_socket(config, stage), config)
            client.on_subscribe = client.on_unsubscribe = partial(_acknowledge, driver)
            try:
                client.connect(config.host, config.port, config.keepalive_s)
                await driver.accepted()
            except BaseException:
                driver.abort()
                raise
        async with closing(driver):
            yield _PahoSession(config, client, driver)


class _PahoSession:
    def __init__(self, config: BrokerConfig, client: mqtt.Client, driver: Driver) -> None:
        self._config = config
        self._client = client
        self._driver = driver

    @property
    def max_packet_bytes(self) -> int | None:
        return self._driver.max_packet_bytes

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        await self._driver.publish(topic, payload, qos=qos, retain=retain)

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        self._driver.check()
        code, mid = self._client.subscribe(requests(self._config, filters, qos))
        check_granted(self._config, filters, await self._answer(code, mid))

    async def unsubscribe(self, *filters: str) -> None:
        self._driver.check()
        await self._answer(*self._client.unsubscribe(list(filters)))

    async def wait_closed(self) -> None:
        await self._driver.wait_closed()

    async def _answer(self, code: MQTTErrorCode, mid: int | None) -> list[Any]:
        if code != mqtt.MQTT_ERR_SUCCESS or mid is None:
            raise PublishRefused(f"the request wasn't sent: {mqtt.error_string(code)}")
        return await self._driver.answer(mid)


def _hand_on(
    loop: asyncio.AbstractEventLoop, on_message: OnMessage, _client: mqtt.Client, _userdata: Any, got: mqtt.MQTTMessage
) -> None:
    dispatch(loop, on_message, Message(got.topic, bytes(got.payload), got.qos, got.retain))


def _acknowledge(
    driver: Driver, _client: mqtt.Client, _userdata: Any, mid: int, codes: list[Any], _properties: object
) -> None:
    driver.acknowledge(mid, codes)
