"""Sessions for the control plane, on aiomqtt (the project that was asyncio-mqtt).

aiomqtt connects, subscribes, receives and disconnects. Three things that it leaves out are taken from the paho client
beneath it: the reason code of a PUBACK, the limits in CONNACK, and waking whoever waits when the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from broker_bridge._dispatch import dispatch
from broker_bridge._open import open_socket
from broker_bridge._paho import (
    MAX_INFLIGHT,
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
from broker_bridge.session import Message, OnMessage, Session, SessionLost, Will

T = TypeVar("T")

# aiomqtt and paho log each end of a connection as an error; sessions raise it, and whoever retries says so once.
_QUIET = logging.getLogger("broker_bridge.aiomqtt")
_QUIET.setLevel(logging.CRITICAL)


class AiomqttConnector:
    """Opens aiomqtt sessions with one broker.

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
        config, loop = self._config, asyncio.get_running_loop()

        def hand_on(got: aiomqtt.Message) -> None:
            dispatch(loop, on_message, Message(str(got.topic), bytes(got.payload), got.qos, bool(got.retain)))

        client = aiomqtt.Client(
            config.host,
            config.port,
            identifier=client_id,
            username=config.username,
            password=await asyncio.to_thread(read_password, config.password_file),
            protocol=aiomqtt.ProtocolVersion(protocol_version(config)),
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            clean_session=clean_session(config),
            keepalive=config.keepalive_s,
            timeout=math.inf,  # each wait here has its own bound: the connection's end, or the connect timeout
            max_inflight_messages=MAX_INFLIGHT,
            queue_type=_inbox(hand_on),
            logger=_QUIET,
        )
        # What aiomqtt is told of the connection, also where it is refused before aiomqtt looks: we say so ourselves.
        for told in (client._connected, client._disconnected):  # noqa: SLF001 - see the module's text
            told.add_done_callback(lambda future: future.cancelled() or future.exception())
        async with answer_in_time(config) as stage:
            driver = Driver(client._client, await open_socket(config, stage), config)  # noqa: SLF001 - see the module's text
            entering = asyncio.create_task(client.__aenter__(), name=f"connect {client_id}")
            try:
                await driver.accepted()
                await entering
            except BaseException:
                driver.abort()
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
                raise

        async def disconnect() -> None:
            await client.__aexit__(None, None, None)

        async with closing(driver, disconnect):
            yield _AiomqttSession(config, client, driver)


class _AiomqttSession:
    def __init__(self, config: BrokerConfig, client: aiomqtt.Client, driver: Driver) -> None:
        self._config = config
        self._client = client
        self._driver = driver

    @property
    def max_packet_bytes(self) -> int | None:
        return self._driver.max_packet_bytes

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        await self._driver.publish(topic, payload, qos=qos, retain=retain)

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        answers = await self._request(self._client.subscribe(requests(self._config, filters, qos)))
        check_granted(self._config, filters, [code for code in answers if isinstance(code, ReasonCode)])

    async def unsubscribe(self, *filters: str) -> None:
        await self._request(self._client.unsubscribe(list(filters)))

    async def wait_closed(self) -> None:
        await self._driver.wait_closed()

    async def _request(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._driver.unless_lost(work)
        except aiomqtt.MqttError as error:
            raise SessionLost(f"broker {self._config.address} couldn't be asked: {error}") from error


def _inbox(hand_on: Callable[[aiomqtt.Message], None]) -> type[asyncio.Queue[aiomqtt.Message]]:
    """Return a queue type that hands each message on at once.

    aiomqtt's own queue either grows without a bound or throws away what is over it; here nothing waits in a queue.
    """

    class Inbox(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            hand_on(item)

    return Inbox
