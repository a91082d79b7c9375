"""What a service says of its health: configuration, pages, conditions, and what systemd hears."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker_bridge.embedded import free_port
from broker_bridge.health import Health, HealthConfig
from broker_bridge.metrics import Sheet, service_registry
from broker_bridge.notify import Notifier
from broker_bridge.settings import ConfigError, validate
from tests.aio import run
from tests.support.prometheus import fetch


@pytest.mark.parametrize(
    ("listen", "address", "is_loopback", "url"),
    [
        (None, None, True, None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464), True, "http://127.0.0.1:9464"),
        ("127.8.8.8:1", ("127.8.8.8", 1), True, "http://127.8.8.8:1"),
        ("[::1]:9464", ("::1", 9464), True, "http://[::1]:9464"),
        ("0.0.0.0:9464", ("0.0.0.0", 9464), False, "http://127.0.0.1:9464"),
        ("[::]:65535", ("::", 65_535), False, "http://[::1]:65535"),
        ("192.0.2.7:80", ("192.0.2.7", 80), False, "http://192.0.2.7:80"),
    ],
)
def test_where_to_listen(
    listen: str | None, address: tuple[str, int] | None, is_loopback: bool, url: str | None
) -> None:
    config = HealthConfig(listen=listen)
    assert (config.address, config.is_loopback, config.url) == (address, is_loopback, url)


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [
        ("9464", "no address to listen on"),
        (":9464", "no address to listen on"),
        ("localhost:9464", "no address to listen on"),
        ("::1:9464", "no address to listen on"),
        ("[127.0.0.1]:9464", "no address to listen on"),
        ("127.0.0.1", "no address to listen on"),
        ("127.0.0.1:0", "a number from 1 to 65535"),
        ("127.0.0.1:65536", "a number from 1 to 65535"),
        ("127.0.0.1:", "a number from 1 to 65535"),
        ("127.0.0.1:²", "a number from 1 to 65535"),
    ],
)
def test_an_address_that_is_none_is_refused(listen: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"edge.yaml: listen: .*{sentence}"):
        validate(HealthConfig, {"listen": listen}, "edge.yaml")


Ask = Callable[[str], Awaitable[tuple[int, str]]]


@asynccontextmanager
async def asking(health: Health, config: HealthConfig) -> AsyncIterator[Ask]:
    """While the service answers: status and body by path."""
    async with health.serving():
        assert config.listen is not None
        yield functools.partial(fetch, config.listen)


def local() -> HealthConfig:
    return HealthConfig(listen=f"127.0.0.1:{free_port(0)}")


def silent() -> Notifier:
    return Notifier()


def test_ready_is_when_all_conditions_hold() -> None:
    async def main() -> None:
        config = local()
        health = Health(config, CollectorRegistry(), notifier=silent())
        away: dict[str, str | None] = {"fl": "no session\nwith the broker", "plant": None}
        health.condition("fl", lambda: away["fl"])
        health.condition("plant", lambda: away["plant"])
        async with asking(health, config) as ask:
            assert await ask("/readyz") == (503, "fl: no session with the broker\n")
            assert await ask("/healthz") == (200, "ok\n")
            away["plant"] = "no contract"
            assert await ask("/readyz") == (503, "fl: no session with the broker\nplant: no contract\n")
            away.update(fl=None, plant=None)
            assert await ask("/readyz") == (200, "ready\n")
            said: list[str | None] = ["generation 2 isn't followed:\nnothing feeds 'tilt'"]
            health.note("generation", lambda: said[0])
            assert await ask("/readyz") == (
                200,
                "ready\ngeneration: generation 2 isn't followed: nothing feeds 'tilt'\n",
            )
            said[0] = None
            assert await ask("/readyz") == (200, "ready\n")
            health.stopping()
            assert await ask("/readyz") == (503, "running: the service is stopping\n")
            assert (await ask("/nothing"))[0] == 404

    run(main())


def test_a_condition_has_one_name() -> None:
    health = Health(HealthConfig(), notifier=silent())
    health.condition("fl", lambda: None)
    with pytest.raises(ValueError, match="a condition fl already"):
        health.condition("fl", lambda: None)


def test_a_condition_that_fails_is_not_met(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(HealthConfig(), notifier=silent())
    health.condition("odd", lambda: str(1 // 0))
    assert health.unmet() == {"odd": "can't be told (ZeroDivisionError)"}
    assert health.unmet() == {"odd": "can't be told (ZeroDivisionError)"}
    assert caplog.text.count("the condition odd can't be told") == 1


def test_a_task_that_ends_is_not_healthy() -> None:
    async def main() -> None:
        config = local()
        health = Health(config, notifier=silent())
        end = asyncio.Event()
        short = asyncio.create_task(end.wait(), name="counts")
        long = asyncio.create_task(asyncio.Event().wait(), name="plant")
        health.watch(short, long)
        async with asking(health, config) as ask:
            assert await ask("/healthz") == (200, "ok\n")
            end.set()
            await short
            assert await ask("/healthz") == (503, "task counts has ended\n")
            assert await ask("/readyz") == (200, "ready\n")
            health.stopping()
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)
            assert await ask("/healthz") == (503, "task counts has ended\n")

    run(main())


def test_metrics_are_read_when_they_are_asked_for() -> None:
    async def main() -> None:
        config = local()
        samples = [3]

        def read() -> Sheet:
            sheet = Sheet("edge", {"participant": "berlin"})
            sheet.gauge("samples", "Samples in the store", samples[0])
            return sheet

        health = Health(config, service_registry(read), notifier=silent())
        async with asking(health, config) as ask:
            assert 'headgate_edge_samples{participant="berlin"} 3.0\n' in (await ask("/metrics"))[1]
            samples[0] = 4
            assert 'headgate_edge_samples{participant="berlin"} 4.0\n' in (await ask("/metrics"))[1]

    run(main())


def test_a_taken_port_is_a_matter_of_configuration() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ConfigError, match=f"health.listen: {listen} can't be listened on .*in use"):
                await Health(HealthConfig(listen=listen), notifier=silent()).run()
            with pytest.raises(ConfigError, match=r"health.listen: 192\.0\.2\.1:9464 can't be listened on"):
                await Health(HealthConfig(listen="192.0.2.1:9464"), notifier=silent()).run()

    run(main())


def test_off_means_that_nothing_is_listened_on() -> None:
    async def main() -> None:
        async with Health(HealthConfig(), notifier=silent()).serving():
            assert [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("health conn")] == []

    run(main())


def test_run_answers_until_it_is_cancelled() -> None:
    async def main() -> None:
        config = local()
        health = Health(config, notifier=silent())
        serving = asyncio.create_task(health.run())
        assert config.listen is not None
        while True:
            try:
                assert await fetch(config.listen, "/healthz") == (200, "ok\n")
                break
            except ConnectionRefusedError:
                continue
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        with pytest.raises(ConnectionRefusedError):
            await fetch(config.listen, "/healthz")

    run(main())


def test_systemd_hears_when_the_service_is_up_and_when_it_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(tmp_path / "notify"))
            server.setblocking(False)
            loop = asyncio.get_running_loop()

            async def heard() -> str:
                return (await loop.sock_recv(server, 1000)).decode()

            why: list[str | None] = ["no session"]
            health = Health(HealthConfig(), notifier=Notifier(str(tmp_path / "notify"), watchdog_s=0.03))
            health.condition("fl", lambda: why[0])
            async with health.serving():
                first = [await heard() for _ in range(5)]
                more = "EXTEND_TIMEOUT_USEC=30000000"
                assert first == [more, "STATUS=fl: no session", "WATCHDOG=1", more, "WATCHDOG=1"]
                why[0] = None
                while (said := await heard()) != "READY=1":
                    assert said in (more, "WATCHDOG=1")
                assert [await heard() for _ in range(4)] == ["STATUS=ready", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
                why[0] = "no session"  # up once is up: systemd waits for nothing any more
                while (said := await heard()) != "STATUS=fl: no session":
                    assert said == "WATCHDOG=1"
                assert await heard() == "WATCHDOG=1"
                health.stopping()
                health.stopping()
                while (said := await heard()) != "STOPPING=1":
                    assert said == "WATCHDOG=1"
            left = set()
            with suppress(BlockingIOError):  # nothing is left
                while True:
                    left.add(server.recv(1000).decode())
            assert left <= {"WATCHDOG=1", "STATUS=running: the service is stopping"}

    run(main())
