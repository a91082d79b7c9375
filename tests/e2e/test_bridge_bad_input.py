"""A bridge that is set up wrongly, and the commands around it: a sentence, an exit code, nothing forwarded or lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.bridge.custody import Custody
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from tests.aio import Inbox, run
from tests.e2e.bridged import data_of, policy, start_bridge
from tests.e2e.ends import case_of
from tests.e2e.federation import FEDERATION, Federation, Service
from tests.servers import Certificates, Server, make_certificates, mosquitto
from uns_topics.payloads import Writer
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import chunk_of, encode_chunk, make_manifest

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(90)]

CASE = case_of(2000)
EDGE = Writer(FEDERATION, "berlin", "0000000e")
PLAN_TOPIC = str(FlTopic(FEDERATION, Kind.PLAN))


def headgate(*words: str) -> tuple[int, str, str]:
    ended = subprocess.run([sys.executable, "-m", "headgate", *words], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


async def ended(service: Service) -> tuple[int, str]:
    async with asyncio.timeout(30):
        return await service.process.wait(), service.tail()


async def publish_update(url: str) -> None:
    """An honest update on the plant's broker."""
    manifest = CASE.manifest
    async with PahoConnector(BrokerConfig(url=url)).connect("edge", on_message=lambda _: None) as session:
        place = str(FlTopic(FEDERATION, Kind.UPDATE_MANIFEST, "berlin", transfer=manifest.id))
        await session.publish(place, EDGE.seal(manifest))
        for index in range(len(manifest.chunks)):
            place = str(FlTopic(FEDERATION, Kind.UPDATE_CHUNK, "berlin", transfer=manifest.id, index=index))
            await session.publish(place, encode_chunk(chunk_of(CASE.update, manifest, index)))


def kept_plan(f: Federation, bridge: str) -> None:
    """The plan as an earlier life of the bridge kept it."""
    data_of(f, bridge).mkdir(parents=True)
    custody = Custody(data_of(f, bridge) / "bridge.sqlite")
    custody.keep_plan(FEDERATION, Writer(FEDERATION, "aggregator", "000000a0").seal(CASE.plan))
    custody.close()


def held(f: Federation, bridge: str) -> list[str]:
    custody = Custody(data_of(f, bridge) / "bridge.sqlite")
    try:
        return [one.manifest.id for one in custody.queue(FEDERATION, "berlin")]
    finally:
        custody.close()


async def until_log(service: Service, words: str) -> None:
    """Wait for a sentence in the service's log."""
    async with asyncio.timeout(30):
        while words not in service.log.read_text():  # noqa: ASYNC110 - a file of another process tells nobody
            await asyncio.sleep(0.05)


def test_a_wrong_certificate_forwards_nothing_and_loses_nothing(
    tmp_path: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    others = make_certificates(tmp_path_factory.mktemp("others"))
    client = {
        "client_certificate_file": str(certificates.client),
        "client_key_file": str(certificates.client_key),
    }

    async def main(plant: Server, enterprise: Server) -> None:
        f = Federation(tmp_path, enterprise)
        kept_plan(f, "gate")
        heard = Inbox()
        trusted = BrokerConfig.model_validate({"url": enterprise.url, "ca_file": certificates.ca, **client})
        async with PahoConnector(trusted).connect("watch", on_message=heard) as watch:
            await watch.subscribe("fl/#")
            wrong = await start_bridge(
                f, "gate", plant.url, enterprise.url, ("berlin",),
                uplink={"ca_file": str(others.ca)}, credentials={"berlin": client},
            )  # fmt: skip
            await until_log(wrong, "certificate refused")
            await until_log(wrong, "the plant's broker is there")
            await publish_update(plant.url)
            async with asyncio.timeout(20):
                while not held(f, "gate"):  # noqa: ASYNC110 - another process's file
                    await asyncio.sleep(0.1)
            await f.stop("gate")
            assert heard.messages == []
            assert held(f, "gate") == [CASE.manifest.id]

            await start_bridge(
                f, "gate", plant.url, enterprise.url, ("berlin",),
                uplink={"ca_file": str(certificates.ca)}, credentials={"berlin": client},
            )  # fmt: skip
            await heard.until(lambda messages: chunks(messages) == len(CASE.manifest.chunks))
            await f.stop("gate")

    def chunks(messages: list[Message]) -> int:
        return len({m.topic for m in messages if "/update/" in m.topic and not m.topic.endswith("manifest")})

    with mosquitto() as plant, mosquitto(certificates=certificates) as enterprise:
        run(main(plant, enterprise), timeout_s=80)


def test_wrong_credentials_end_it_with_4(tmp_path: Path) -> None:
    async def main(plant: Server, enterprise: Server) -> None:
        f = Federation(tmp_path, enterprise)
        (tmp_path / "gate").mkdir()
        (tmp_path / "gate" / "password").write_text("wrong")
        own = {"berlin": {"password_file": "password"}}
        service = await start_bridge(f, "gate", plant.url, enterprise.url, ("berlin",), credentials=own)
        code, log = await ended(service)
        assert code == 4
        assert "refused the connection" in log
        assert "nothing is lost" in log
        assert "Traceback" not in log

    with mosquitto() as plant, mosquitto(passwords={"berlin": "right"}) as enterprise:
        run(main(plant, enterprise), timeout_s=60)


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({"export_policy": {**policy(), "alow": []}}, 2, "export-policy.yaml: alow: unknown key"),
        ({"export_policy": policy("status")}, 2, "'status' without 'presence'"),
        ({"surprise": 1}, 2, "surprise: unknown key"),
        ({"participants_": 1}, 2, "participants_: unknown key"),
        ({"health": {"listen": "localhost:9464"}}, 2, "health.listen"),
    ],
)
def test_a_file_that_can_t_be_used_is_named(tmp_path: Path, change: dict[str, Any], code: int, sentence: str) -> None:
    async def main() -> None:
        f = Federation(tmp_path, None)  # type: ignore[arg-type]
        service = await start_bridge(f, "gate", "mqtt://127.0.0.1:1", "mqtt://127.0.0.1:1", ("berlin",), **change)
        got, log = await ended(service)
        assert (got, sentence in log) == (code, True), log
        assert "Traceback" not in log

    run(main(), timeout_s=60)


def test_two_bridges_never_share_a_directory(tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        f = Federation(tmp_path, server)
        first = await start_bridge(f, "gate", server.url, server.url, ("berlin",))
        try:
            await until_log(first, "the uplink is there")
            second = await f.start("second", "bridge", "--config", str(tmp_path / "gate" / "bridge.yaml"))
            code, log = await ended(second)
            assert code == 2
            assert "in use by another bridge" in log
        finally:
            first.process.kill()
            await first.process.wait()

    with mosquitto() as server:
        run(main(server), timeout_s=60)


def test_pause_and_resume_work_without_a_bridge(tmp_path: Path) -> None:
    f = Federation(tmp_path, None)  # type: ignore[arg-type]
    f.write("gate/export-policy.yaml", policy())
    one = {"federation": FEDERATION, "participant": "berlin"}
    content = {"bridge": "gate", "data_dir": "data", "plant": {}, "uplink": {}, "participants": [one]}
    config = str(f.write("gate/bridge.yaml", {**content, "policy": "export-policy.yaml"}))
    code, said, _ = headgate("bridge", "pause", "--config", config)
    assert (code, "nothing leaves" in said) == (0, True)
    assert (data_of(f, "gate") / "paused").exists()
    code, said, _ = headgate("bridge", "resume", "--config", config)
    assert (code, "resumed" in said) == (0, True)
    assert not (data_of(f, "gate") / "paused").exists()


def test_a_dry_run_says_what_would_leave_and_sends_nothing(tmp_path: Path) -> None:
    async def main(plant: Server, enterprise: Server) -> None:
        f = Federation(tmp_path, enterprise)
        kept_plan(f, "gate")
        f.write("gate/export-policy.yaml", policy("update", "status", "presence"))
        one = {"federation": FEDERATION, "participant": "berlin"}
        content = {"bridge": "gate", "data_dir": "data", "plant": {"url": plant.url}, "uplink": {"url": enterprise.url}}
        f.write("gate/bridge.yaml", {**content, "participants": [one], "policy": "export-policy.yaml"})
        heard = Inbox()
        async with (
            PahoConnector(BrokerConfig(url=enterprise.url)).connect("watch", on_message=heard) as watch,
            PahoConnector(BrokerConfig(url=plant.url)).connect("edge", on_message=lambda _: None) as edge,
        ):
            await watch.subscribe("#")
            place = f"fl/v1/{FEDERATION}/up/berlin"
            status = ParticipantStatus(birth=1, state=ParticipantState.ONLINE)
            await edge.publish(f"{place}/status", EDGE.seal(status), retain=True)
            await edge.publish(f"{place}/rows", b"SN-4711,150.25", retain=True)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headgate", "bridge", "--config", str(tmp_path / "gate" / "bridge.yaml")),
                *("--dry-run", "--json", "--minutes", "0.08"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr is not None
            assert b"listening" in await process.stderr.readline()
            await publish_update(plant.url)
            out, err = await process.communicate()
            assert process.returncode == 0, err
            assert heard.messages == []
        found = {(row["verdict"], row["kind"], row["because"]): row["messages"] for row in json.loads(out)["rows"]}
        assert found == {
            ("leaves", "status", "allow[0]"): 1,
            ("leaves", "update", "allow[0]"): 1 + len(CASE.manifest.chunks),
            ("stays", "?", "topic"): 1,
        }

    with mosquitto() as plant, mosquitto() as enterprise:
        run(main(plant, enterprise), timeout_s=60)


def test_a_dry_run_of_a_broker_that_isn_t_there(tmp_path: Path) -> None:
    f = Federation(tmp_path, None)  # type: ignore[arg-type]
    f.write("gate/export-policy.yaml", policy())
    one = {"federation": FEDERATION, "participant": "berlin"}
    broker = {"url": "mqtt://127.0.0.1:1"}
    content = {"bridge": "gate", "data_dir": "data", "plant": broker, "uplink": broker, "participants": [one]}
    config = f.write("gate/bridge.yaml", {**content, "policy": "export-policy.yaml"})
    code, _, err = headgate("bridge", "--config", str(config), "--dry-run", "--minutes", "0.1")
    assert code == 4
    assert "unreachable" in err
    assert "Traceback" not in err


ROWS = b"1700000000000,SN-4711,150.25,110.5,BRIDGE\n"


def hostile(content: bytes) -> dict[str, bytes]:
    """What an altered edge could publish, by topic below its own name: rows wherever there is room for them."""
    manifest = make_manifest(content, "update", 15 * 1024, base="a" * 64, round_number=1, attempt=1)
    at = f"update/{manifest.id}"
    good = EDGE.seal(manifest)
    chunk = encode_chunk(chunk_of(content, manifest, 0))
    return {
        "rows": ROWS,
        "SN-4711/rows.csv": ROWS,
        "update/0123456789abcdef/SN-4711": ROWS,
        "via/sn-4711": EDGE.seal(ParticipantStatus(birth=1, state=ParticipantState.ONLINE)),
        "status": good[:-1] + b',"note":"SN-4711"}',
        "evaluation": b'{"SN-4711": 150.25}',
        f"{at}/manifest": good,
        f"{at}/0": chunk[:-20] + ROWS[:20],
        "join": ROWS,
    }


@pytest.mark.parametrize("where", ["body", "header", "behind", "pad"])
def test_a_hostile_edge_on_real_brokers(tmp_path: Path, where: str) -> None:
    """Rows in a chunk body, a header field, an extra retained topic, a file name: refused each time."""
    raw = CASE.update
    if where == "body":
        raw = raw[:-400] + (ROWS * 20)[:400]
    elif where == "header":
        raw = raw.replace(b"participant\xa6berlin", b"participant\xa6SN4711")
    elif where == "behind":
        raw = raw + ROWS
    else:
        raw = raw[:1] + raw[1:].replace(bytes(16), ROWS[:16], 1)

    async def main(plant: Server, enterprise: Server) -> None:
        f = Federation(tmp_path, enterprise)
        kept_plan(f, "gate")
        above, below = Inbox(), Inbox()
        async with (
            PahoConnector(BrokerConfig(url=enterprise.url)).connect("watch", on_message=above) as watch,
            PahoConnector(BrokerConfig(url=plant.url)).connect("edge", on_message=below) as edge,
        ):
            await watch.subscribe("#")
            await edge.subscribe(f"fl/v1/{FEDERATION}/down/receipt/berlin")
            service = await start_bridge(f, "gate", plant.url, enterprise.url, ("berlin",))
            await until_log(service, "the uplink is there")
            await until_log(service, "the plant's broker is there")
            manifest = make_manifest(raw, "update", 15 * 1024, base="a" * 64, round_number=1, attempt=1)
            root = f"fl/v1/{FEDERATION}/up/berlin"
            await edge.publish(f"{root}/update/{manifest.id}/manifest", EDGE.seal(manifest))
            for index in range(len(manifest.chunks)):
                chunk = encode_chunk(chunk_of(raw, manifest, index))
                await edge.publish(f"{root}/update/{manifest.id}/{index}", chunk)
            await below.count(1)
            assert b'"rejected"' in below.payloads[0]
            assert b'"policy"' in below.payloads[0]
            for name, payload in hostile(CASE.update).items():
                await edge.publish(f"{root}/{name}", payload, retain=True)
            status = ParticipantStatus(birth=1, state=ParticipantState.ONLINE)
            await edge.publish(f"{root}/status", EDGE.seal(status), retain=True)
            await above.topic(f"{root}/status")
            await f.stop("gate")
            for message in above.messages:
                assert b"SN-4711" not in message.payload
                assert "4711" not in message.topic
                assert ROWS[:20] not in message.payload
            assert {m.topic for m in above.messages} == {f"{root}/status", f"{root}/via/gate"}
            assert "4711" not in service.log.read_text()

    with mosquitto() as plant, mosquitto() as enterprise:
        run(main(plant, enterprise), timeout_s=80)
