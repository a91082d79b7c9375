"""Unique values in raw data, labels, serials and file names: nowhere above the plant, and in nobody's log.

Everything that crosses the link to the enterprise broker is recorded byte by byte, everything said on that broker as
well, and `headgate ledger canary` searches it all, and what left by the bridges' own record.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.bridged import Plant, data_of, plant, start_bridge
from tests.e2e.federation import Federation, federation, signal_map
from tests.servers import Server, mosquitto
from tests.support.fault_proxy import fault_proxy

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(180)]

VOLUME, HEIGHT = 137.24683, 61.918273
SERIAL, LABEL, UNMAPPED = "SN-KANARIE-88421", "LABEL_KANARIE_7391", "CODE_KANARIE_5527"
FILE, DETAIL = "map-kanarie-4406", "NOTE-KANARIE-19"
TEXTS = (SERIAL, LABEL, UNMAPPED, FILE, DETAIL, "KANARIE")
CANARIES = (*TEXTS, str(VOLUME), str(HEIGHT))


async def publish_canaries(at: Plant) -> None:
    """Boards with unique values among the others: good ones, one with an unknown label, one that can't be read."""
    path = f"acme/{at.participant}/smt/line1"
    for index in range(40):
        stamp = 1_700_000_000_000 + 60_000 * (1000 + index)
        serial, code = f"{SERIAL}-{index}", LABEL if index % 5 else UNMAPPED
        board = {"timestamp_ms": stamp, "board": serial, "volume": VOLUME, "height": HEIGHT, "note": DETAIL}
        verdict = {"timestamp_ms": stamp + 5000, "board": serial, "verdict": code}
        await at.session.publish(f"{path}/spi", json.dumps(board).encode())
        await at.session.publish(f"{path}/aoi", json.dumps(verdict).encode())
    await at.session.publish(f"{path}/spi", f'{{"board": "{SERIAL}", "volume": {VOLUME}'.encode())


def write_map(f: Federation, participant: str) -> str:
    """A signal map under a name of its own, with a label code of its own."""
    content = signal_map(participant)
    content["sources"][1]["label"]["codes"][LABEL] = "defect"
    f.write(f"{participant}/{FILE}.yaml", content)
    return f"{FILE}.yaml"


def search(folder: Path, ledger: Path) -> tuple[int, str]:
    """`headgate ledger canary` over a bridge's record and a folder of recorded traffic."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "headgate", "ledger", "canary"),
            *("--dir", str(ledger), "--payloads", str(folder), *CANARIES),
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def test_canaries_stay_in_their_plants(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            f = await stack.enter_async_context(federation(tmp_path / "run", broker))
            link = await stack.enter_async_context(fault_proxy(broker.port, recording=True))
            servers = {name: stack.enter_context(mosquitto()) for name in ("berlin", "lyon", "dmz")}
            at = {name: await stack.enter_async_context(plant(f, name, servers[name])) for name in ("berlin", "lyon")}
            above = f"mqtt://127.0.0.1:{link.port}"
            await start_bridge(f, "berlin-gate", servers["berlin"].url, above, ("berlin",))
            await start_bridge(f, "lyon-gate", servers["lyon"].url, servers["dmz"].url, ("lyon",))
            await start_bridge(f, "dmz-gate", servers["dmz"].url, above, ("lyon",), behind=("lyon-gate",))
            for name, seen in at.items():
                await f.start_edge(name, broker={"url": servers[name].url}, signal_map=write_map(f, name))
                await f.listening(name)
                await f.publish_boards(name, 150)
                await publish_canaries(seen)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            history = f.view.history
            assert history is not None
            assert any(p.outcome == "accepted" for s in history.rounds for p in s.participants)
            for service in f.services.values():
                service.process.terminate()
            await asyncio.gather(*(service.process.wait() for service in f.services.values()))

            traffic, enterprise, logs, inside = (
                tmp_path / name for name in ("traffic", "enterprise", "logs", "inside")
            )
            for folder in (traffic, enterprise, logs, inside):
                folder.mkdir()
            (traffic / "link").write_bytes(link.record)
            assert len(link.record) > 20_000
            for number, message in enumerate(f.messages):
                if message.topic.startswith("fl/"):
                    (enterprise / str(number)).write_bytes(message.topic.encode() + b"\n" + message.payload)
            for name, seen in at.items():
                (inside / name).write_bytes(b"\n".join(m.payload for m in seen.messages))
            (logs / "broker").write_bytes(broker.log.read_bytes())
            for name, service in f.services.items():
                (logs / name).write_bytes(service.log.read_bytes())

            for bridge in ("berlin-gate", "lyon-gate", "dmz-gate"):
                ledger = data_of(f, bridge) / "ledger"
                for folder in (traffic, enterprise, logs):
                    code, said = search(folder, ledger)
                    assert code == 0, f"{bridge}, {folder.name}: {said}"
            code, said = search(inside, data_of(f, "berlin-gate") / "ledger")  # so that the search can fail
            assert code == 6
            for value in (SERIAL, LABEL, UNMAPPED, DETAIL, str(VOLUME), str(HEIGHT)):
                assert value in said, value

    run(main(), timeout_s=170)
