"""Real services with brokers that refuse, stay away, want certificates, or die; and edges that come back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from edge.outputs import alive_topic
from tests.aio import run
from tests.e2e.federation import FEDERATION, HANGING_TRAINER, Federation, Service, federation
from tests.servers import Certificates, Server, mosquitto
from uns_topics.presence import ParticipantState

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

ALIVE = alive_topic("acme/berlin/smt/line1", FEDERATION, "berlin")


@asynccontextmanager
async def services(folder: Path, server: Server) -> AsyncIterator[Federation]:
    """Services without a watcher; they end with the test."""
    made = Federation(folder, server)
    try:
        yield made
    finally:
        for service in made.services.values():
            if service.process.returncode is None:
                service.process.kill()
        await asyncio.gather(*(service.process.wait() for service in made.services.values()))


async def end_of(service: Service) -> tuple[int, str]:
    """Exit code and log of a service that ends by itself."""
    async with asyncio.timeout(30):
        code = await service.process.wait()
    log = service.log.read_text()
    assert "Traceback" not in log, log
    return code, log


def complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if " ERROR " in line or line.startswith("headgate: ")]


def test_wrong_credentials_end_both_services_with_code_4_and_a_sentence(tmp_path: Path, base_model: Path) -> None:
    async def main(server: Server) -> None:
        (tmp_path / "wrong").write_text("not the password\n")
        broker = {"url": server.url, "username": "berlin", "password_file": str(tmp_path / "wrong")}
        async with services(tmp_path, server) as f:
            edge = await f.start_edge("berlin", broker=broker)
            aggregator = await f.start_aggregator(base_model, broker=broker)
            for service in (edge, aggregator):
                code, log = await end_of(service)
                assert code == 4, log
                (sentence,) = complaints(log)
                assert "refused the connection" in sentence
                assert "not the password" not in log

    with mosquitto(passwords={"berlin": "right"}) as server:
        run(main(server), timeout_s=60)


@pytest.mark.parametrize("what", ["no password file", "no CA file", "CA is no certificate", "key is no key"])
def test_files_that_can_not_be_used_are_named(tmp_path: Path, base_model: Path, broker: Server, what: str) -> None:
    (tmp_path / "text").write_text("just text\n")
    files: dict[str, dict[str, str]] = {
        "no password file": {"username": "berlin", "password_file": "gone"},
        "no CA file": {"ca_file": "gone"},
        "CA is no certificate": {"ca_file": "text"},
        "key is no key": {"client_certificate_file": "text", "client_key_file": "text"},
    }
    scheme = "mqtt" if "password" in what else "mqtts"
    named = {k: str(tmp_path / v) if k != "username" else v for k, v in files[what].items()}

    async def main() -> None:
        settings: dict[str, Any] = {"url": f"{scheme}://{broker.host}:{broker.port}", **named}
        async with services(tmp_path, broker) as f:
            edge = await f.start_edge("berlin", broker=settings)
            aggregator = await f.start_aggregator(base_model, broker=settings)
            for service in (edge, aggregator):
                code, log = await end_of(service)
                assert code == 2, log
                (sentence,) = complaints(log)
                assert str(tmp_path / ("gone" if "gone" in files[what].values() else "text")) in sentence

    run(main(), timeout_s=60)


def test_a_map_that_does_not_fit_ends_the_edge_with_a_sentence(tmp_path: Path, broker: Server) -> None:
    async def main() -> None:
        async with services(tmp_path, broker) as f:
            path = f.write(
                "other.yaml", {"signal_map": 1, "instance": "a", "sources": [{"topic": "a/b", "form": "umh"}]}
            )
            code, log = await end_of(await f.start_edge("berlin", signal_map=str(path)))
            assert code == 2, log
            assert complaints(log)
            path.write_text("sources: [")
            code, log = await end_of(await f.start_edge("lyon", signal_map=str(path)))
            assert code == 2, log
            assert complaints(log)

    run(main(), timeout_s=60)


def test_a_broker_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        attempts: list[float] = []
        third = asyncio.Event()

        def on_connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            attempts.append(loop.time())
            writer.close()
            if len(attempts) >= 6:  # of two sessions
                third.set()

        away = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        port = away.sockets[0].getsockname()[1]
        async with services(tmp_path, Server("127.0.0.1", port, None, tmp_path)) as f:  # type: ignore[arg-type]
            edge = await f.start_edge("berlin")
            async with asyncio.timeout(30):
                await third.wait()
            away.close()
            await away.wait_closed()
            with mosquitto(port=port) as server:
                async with federation(tmp_path, server) as watch:
                    await watch.listening("berlin")
            assert edge.process.returncode is None
            log = edge.log.read_text()
            assert "waiting" in log
            assert len(log.splitlines()) < 12  # said once per session, not at each attempt
            assert await f.stop("berlin") == 0

    run(main(), timeout_s=90)


def test_an_edge_with_a_client_certificate(tmp_path: Path, certificates: Certificates) -> None:
    async def main(server: Server) -> None:
        tls = {
            "url": server.url,
            "ca_file": str(certificates.ca),
            "client_certificate_file": str(certificates.client),
            "client_key_file": str(certificates.client_key),
        }
        async with services(tmp_path, server) as f:
            connector = PahoConnector(BrokerConfig.model_validate(tls))
            async with connector.connect("test-watch", on_message=f.on_message) as f.session:
                await f.session.subscribe("acme/#", "fl/v1/+/up/#")
                await f.start_edge("berlin", broker=tls)
                await f.listening("berlin")
                await f.publish_boards("berlin", 5)
                await f.until(lambda: "berlin" in f.view.participants, "its status")
                without = {key: value for key, value in tls.items() if not key.startswith("client")}
                stranger = await f.start_edge("lyon", broker=without)
                await f.until(lambda: sees(f, "berlin", samples=5), "five samples")
                assert stranger.process.returncode is None  # a handshake that fails is waited for
                assert await f.stop("berlin") == 0
                await f.until(lambda: f.messages[-1].payload and alive(f) == b"false", "its death")

    with mosquitto(certificates=certificates) as server:
        run(main(server), timeout_s=60)


def alive(f: Federation) -> bytes | None:
    return next((m.payload for m in reversed(f.messages) if m.topic == ALIVE), None)


def sees(f: Federation, participant: str, **wanted: Any) -> bool:
    known = f.view.participants.get(participant)
    status = known.status if known is not None else None
    return status is not None and all(getattr(status, name) == value for name, value in wanted.items())


def variants(f: Federation, key: str) -> list[str]:
    """By which variant the board was judged, in order."""
    events = [json.loads(m.payload) for m in f.messages if m.topic.endswith(f"/_inference/{FEDERATION}/event")]
    return [event["variant"] for event in events if event["key"] == key]


def test_an_edge_that_was_killed_serves_its_last_good_version_at_once(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    """Its plant's broker stays, the federation's is away; when that comes back, the global version takes over."""

    async def main(fl: Server) -> None:
        own = {"broker": {"url": fl.url}, "plant_broker": {"url": broker.url}}
        tolerances = {"rounds": 1, "quorum": 1}
        async with federation(tmp_path, broker, tolerances=tolerances) as f:
            async with PahoConnector(BrokerConfig(url=fl.url)).connect("w", on_message=f.on_message) as watch:
                await watch.subscribe("fl/v1/#")
                await f.start_edge("berlin", **own)
                await f.listening("berlin")
                await f.publish_boards("berlin", 120)
                await f.start_aggregator(base_model, broker={"url": fl.url})
                await f.until(lambda: f.rests, "the last round")
                current = f.view.current
                assert current is not None
                await f.until(lambda: f.serves("berlin", current.version), "berlin serves")
            fl.kill()
            await f.stop("berlin", signal.SIGKILL)
            await f.until(lambda: alive(f) == b"false", "the plant session's will")
            await f.start_edge("berlin", **own)
            await f.until(lambda: alive(f) == b"true", "berlin is back")
            await f.publish_boards("berlin", 1)
            await f.until(lambda: variants(f, "B120") == ["last-good"], "an inference by the last good version")
            with mosquitto(port=fl.port):
                # Both services wait with a backoff that grew while the broker was away.
                await f.until(
                    lambda: variants(f, "B120")[-1:] == ["global"], "the global version takes over", timeout_s=90
                )
                log = f.services["berlin"].log.read_text()
                assert f"version {current.version} from disk serves" in log
                assert "Traceback" not in log
                assert await f.stop("berlin") == 0
                assert await f.stop("aggregator") == 0

    with mosquitto() as fl:
        run(main(fl), timeout_s=140)


def test_a_service_in_the_middle_of_training_stops_at_once(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker, trainer=HANGING_TRAINER, tolerances={"quorum": 1}) as f:
            await f.start_edge("berlin")
            await f.listening("berlin")
            await f.publish_boards("berlin", 120)
            await f.start_aggregator(base_model)
            await f.until(lambda: sees(f, "berlin", state=ParticipantState.TRAINING), "berlin trains")
            async with asyncio.timeout(5):
                assert await f.stop("berlin") == 0
            assert await f.stop("aggregator") == 0

    run(main(), timeout_s=60)


def test_what_a_trainer_that_never_ends_its_local_training_can_do(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    """The update went out; the local-only model hangs; a stop is a stop."""

    async def main() -> None:
        hanging = (*HANGING_TRAINER, "train_local")
        async with federation(tmp_path, broker, trainer=hanging, tolerances={"quorum": 1, "rounds": 1}) as f:
            await f.start_edge("berlin")
            await f.listening("berlin")
            await f.publish_boards("berlin", 120)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round")
            current = f.view.current
            assert current is not None
            await f.until(lambda: f.serves("berlin", current.version), "berlin serves")
            await f.publish_boards("berlin", 1)
            await f.until(lambda: f.scores("berlin", current.version), "an inference")
            async with asyncio.timeout(5):
                assert await f.stop("berlin") == 0

    run(main(), timeout_s=60)
