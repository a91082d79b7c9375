from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.embedded import EmbeddedBrokerError, free_port, serve
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import SessionLost
from tests.aio import Inbox, run


def test_it_serves_until_cancelled_and_gives_the_port_back() -> None:
    async def main() -> None:
        inbox = Inbox()
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(port=free_port(0), ready=ready.set_result))
        port = await ready
        connector = PahoConnector(BrokerConfig(url=f"mqtt://127.0.0.1:{port}"))
        async with connector.connect("one", on_message=inbox) as session:
            await session.subscribe("t")
            await session.publish("t", b"x")
            await inbox.count(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(SessionLost):
                await session.wait_closed()
        assert free_port(port) == port

    run(main())


def test_many_retained_messages_are_all_replayed() -> None:
    async def main() -> None:
        inbox = Inbox()
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(port=free_port(0), ready=ready.set_result))
        connector = PahoConnector(BrokerConfig(url=f"mqtt://127.0.0.1:{await ready}"))
        async with connector.connect("one", on_message=inbox) as session:
            await asyncio.gather(*(session.publish(f"kept/{n}", b"%d" % n, retain=True) for n in range(1000)))
            await session.subscribe("kept/#")
            await inbox.count(1000)
            assert inbox.payloads == [b"%d" % n for n in range(1000)]
            assert all(message.retain for message in inbox.messages)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_a_taken_port_is_named_and_another_one_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedBrokerError, match=rf"can't listen on 127\.0\.0\.1:{port}: .*in use"):
            run(serve(port=port))
        assert free_port(port) not in (0, port)


def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(EmbeddedBrokerError, match=r"loopback only, not 0\.0\.0\.0"):
        run(serve(host="0.0.0.0"))


def test_a_foreign_address_has_no_free_port() -> None:
    with pytest.raises(EmbeddedBrokerError, match=r"192\.0\.2\.1"):
        free_port(host="192.0.2.1")


def test_the_module_is_importable_without_amqtt() -> None:
    code = """
import asyncio, sys
sys.modules["amqtt"] = None
from broker_bridge.embedded import EmbeddedBrokerError, serve
try:
    asyncio.run(serve(port=1))
except EmbeddedBrokerError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "headgate[demo]" in done.stdout
