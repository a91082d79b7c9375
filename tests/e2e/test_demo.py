"""`headgate demo` and `headgate replay` as a user starts them: real processes, the embedded broker or Mosquitto."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from tests.aio import Inbox, run
from tests.headgate.test_cmapss import write as write_cmapss
from tests.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
GONE_S = 5.0
TOP_KEYS = {"rounds", "seconds", "model", "participants", "inference", "raw_bytes_kept_local"}
PARTICIPANT_KEYS = {
    *("id", "instances", "samples", "holds_version", "serves", "metric", "n_report"),
    *("constant", "linear", "local_only", "federated", "personalised", "served_minus_federated"),
    *("bytes_up", "bytes_down"),
}


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, as a shell starts it; its temporary files under `folder`."""
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            for left in (*_children(process.pid), process):
                left.kill()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_nothing_is_left(folder: Path, processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert alive == []
    assert list(folder.iterdir()) == []


def test_one_broker_per_plant_behind_bridges(tmp_path: Path) -> None:
    arguments = ("--once", "--json", "--rounds", "1", "--plants", "2", "--brokers", "per-plant")
    with demo(tmp_path, *arguments) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        processes = _children(process.pid)
        out, err = process.communicate()
    assert process.returncode == 0, first + err
    assert len(processes) >= 9  # three brokers, two bridges, two edges, two lines, the base model
    assert_nothing_is_left(tmp_path, processes)
    record = json.loads(out)
    assert all(p["serves"] is not None and p["bytes_up"] > 0 for p in record["participants"])


def test_one_round_of_two_plants_ends_with_one_json_object(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--json", "--rounds", "1", "--plants", "2") as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        processes = _children(process.pid)
        out, err = process.communicate()
    assert process.returncode == 0, first + err
    assert len(processes) >= 4  # broker, two edges, plants; the aggregator comes once there is a model
    assert_nothing_is_left(tmp_path, processes)
    assert out.count("\n") == 1
    record: dict[str, Any] = json.loads(out)
    assert set(record) == TOP_KEYS
    assert set(record["model"]) == {"version", "sha256", "bytes"}
    assert set(record["inference"]) == {"topics", "messages"}
    assert record["rounds"] == 1
    version = record["model"]["version"]
    assert version in (1, 2)  # promoted, or refused
    assert [p["id"] for p in record["participants"]] == ["berlin", "lyon"]
    for participant in record["participants"]:
        assert set(participant) == PARTICIPANT_KEYS
        assert participant["holds_version"] == version
        assert participant["serves"]["version"] == version
        assert participant["serves"]["variant"] in ("global", "personalised", "local")
        assert participant["n_report"] > 0
        assert 0 < participant["federated"] <= 1
        assert participant["bytes_up"] > 0
    assert record["inference"]["topics"] >= 8
    assert record["raw_bytes_kept_local"] > 100_000
    assert "round 1 " in err


@pytest.mark.parametrize("moment", ["broker", "first plant value", "round 1"])
def test_ctrl_c_ends_everything_within_seconds(moment: str, tmp_path: Path) -> None:
    with demo(tmp_path, "--plants", "2") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        processes = _children(process.pid)
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=4 * GONE_S)
        assert time.monotonic() - asked < GONE_S
    assert process.returncode == 0  # that is how a demo without --once is meant to end
    assert_nothing_is_left(tmp_path, processes)


def test_sigterm_is_no_success_of_a_run_that_was_to_finish(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--json", "--plants", "2") as process:
        assert process.stderr is not None
        process.stderr.readline()
        processes = _children(process.pid)
        process.terminate()
        out, _ = process.communicate(timeout=4 * GONE_S)
    assert (process.returncode, out) == (130, "")
    assert_nothing_is_left(tmp_path, processes)


def test_a_process_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--plants", "2") as process:
        assert process.stderr is not None
        process.stderr.readline()
        processes = _children(process.pid)
        (simulator,) = (p for p in processes if "simulate" in p.cmdline())
        simulator.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "headgate: the process plants ended with code -9; the end of its log:" in err
    assert "Traceback" not in err
    assert_nothing_is_left(tmp_path, processes)


def test_replay_publishes_recorded_cycles(broker: Server, tmp_path: Path) -> None:
    write_cmapss(tmp_path, ".gz")
    inbox = Inbox()

    async def body() -> str:
        async with PahoConnector(BrokerConfig(url=broker.url)).connect("watcher", on_message=inbox) as session:
            await session.subscribe("plant/#")
            command = ["replay", "--data", str(tmp_path), "--broker", broker.url, "--prefix", "plant/hamburg"]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headgate", *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await process.communicate()
            assert process.returncode == 0, err
            await inbox.count(int(out.split()[0]))
            return out.decode()

    said = run(body(), timeout_s=40)
    assert said.startswith("12 messages in ")
    assert said.endswith(" under plant/hamburg/testbed/bench1\n")
    cycles = [json.loads(m.payload) for m in inbox.messages if m.topic == "plant/hamburg/testbed/bench1/engine"]
    assert len(cycles) == 8
    assert cycles[0]["T24"] == 641.82
    ends = [json.loads(m.payload) for m in inbox.messages if m.topic == "plant/hamburg/testbed/bench1/engine_end"]
    assert len(ends) == 4
