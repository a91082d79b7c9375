"""pysparkplug's reading of what we write, and ours of what it writes, as processes."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from edge.config import SparkplugConfig
from edge.outputs import Outputs
from edge.sparkplug_node import EdgeNode, Publication
from edge.sparkplug_session import SparkplugSession
from edge.store import SampleStore
from tests.aio import run
from tests.edge.node_world import COMMAND, DEVICE, LINE, NOW_MS, World, prediction
from tests.servers import Server
from tests.support.pysparkplug_environment import ask, peer
from uns_topics.presence import Variant
from uns_topics.sparkplug import DataType, decode_payload, rebirth_request, state_payload

NOW = NOW_MS / 1000


def messages(*, strict: bool) -> list[Publication]:
    """All that a node says in a session with everything in it."""
    world = World(connect=False, strict_alias=strict, history=True, device_timeout_s=600.0)
    node = world.node
    said = [node.connecting(41, world.now), *node.connected(world.now)]
    said += node.serves(3, Variant.PERSONALISED, world.now)
    said += node.predicted([prediction(NOW, alarm=True, threshold=0.2)], world.now)
    said += node.predicted([prediction(NOW + 1, -12.5, quality=256), prediction(NOW - 5, 0.75)], world.now)
    said += node.predicted([prediction(NOW + 2, math.nan)], world.now)
    said += node.stale(LINE, world.now)
    world.clock_s += 5.0
    said += node.hear(COMMAND, rebirth_request(NOW_MS), retain=False, now=world.now)
    world.clock_s += 600.0
    said += node.tick(world.now)
    return said


@pytest.mark.parametrize("strict", [False, True], ids=["names", "aliases"])
def test_it_reads_what_a_node_says(strict: bool) -> None:
    said = messages(strict=strict)
    theirs = [json.loads(line) for line in ask("decode", [{"topic": m.topic, "hex": m.payload.hex()} for m in said])]
    kinds = ["NDEATH", "NBIRTH", "NDATA", "DBIRTH", "DDATA", "DDATA", "DDATA", "DDATA", "NBIRTH", "DBIRTH", "DDEATH"]
    assert [one["kind"] for one in theirs] == kinds
    assert [one["seq"] for one in theirs] == [None, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert [one["metrics"][0]["value"] for one in theirs if one["kind"] == "NDEATH"] == [41]
    for ours, one in zip(said, theirs, strict=True):
        decoded = decode_payload(ours.payload)
        assert one["timestamp"] == decoded.timestamp_ms
        for metric, their in zip(decoded.metrics, one["metrics"], strict=True):
            assert (their["value"], their["timestamp"], their["alias"], their["historical"]) == (
                metric.value, metric.timestamp_ms, metric.alias, metric.is_historical,
            )  # fmt: skip
            assert {key: value for key, (_, _, value) in their["properties"].items()} == metric.properties
            for key, (kind, field, _) in their["properties"].items():
                assert (kind, field) == ((3, "int_value") if key == "Quality" else (12, "string_value"))
    data = [{m["name"]: m for m in one["metrics"]} for one in theirs if one["kind"] == "DDATA"]
    assert [one["score"]["value"] for one in data] == [-12.5, 0.75, None, None]  # a name also where only an alias came
    assert [one["score"]["historical"] for one in data] == [False, True, False, False]
    assert all(m["datatype"] != 0 for one in theirs for m in one["metrics"])
    assert ("name" in data[0]["score"]["sent"], "datatype" in data[0]["score"]["sent"]) == (not strict, not strict)


BY_TYPE = {
    DataType.INT8: [-128, 127], DataType.INT16: [-32768, 32767], DataType.INT32: [-(2**31), 2**31 - 1, 0],
    DataType.INT64: [-(2**63), 2**63 - 1], DataType.UINT8: [255], DataType.UINT16: [65535],
    DataType.UINT32: [2**32 - 1], DataType.UINT64: [2**64 - 1], DataType.FLOAT: [0.5, -2.0], DataType.DOUBLE: [0.1],
    DataType.BOOLEAN: [True, False], DataType.STRING: ["Werk Köln", ""], DataType.TEXT: ["B-4711"],
}  # fmt: skip


def test_we_read_what_it_writes() -> None:
    metrics: list[dict[str, Any]] = [
        {"name": f"{datatype.name}/{index}", "datatype": int(datatype), "value": value, "alias": 100 + int(datatype)}
        for datatype, values in BY_TYPE.items()
        for index, value in enumerate([*values, None])
    ]
    metrics.append({"name": "late", "datatype": 10, "value": 1.5, "timestamp": NOW_MS, "historical": True})
    (raw,) = ask("encode", [metrics])
    payload = decode_payload(bytes.fromhex(raw))
    assert (payload.seq, payload.timestamp_ms) == (3, NOW_MS)
    assert [(m.name, m.value, m.datatype, m.alias) for m in payload.metrics] == [
        (m["name"], m["value"], m["datatype"], m.get("alias")) for m in metrics
    ]
    assert (payload.metrics[-1].is_historical, payload.metrics[-1].timestamp_ms) == (True, NOW_MS)


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_it_hears_a_session_with_strict_aliases_and_a_primary_host(
    mosquitto_server: Server, tmp_path: Path, protocol: Literal["3.1.1", "5"]
) -> None:
    async def main() -> None:
        config = SparkplugConfig(group="Headgate", node="berlin-1", strict_alias=True, primary_host="scada")
        connector = PahoConnector(BrokerConfig(url=mosquitto_server.url, protocol=protocol))
        executor = ThreadPoolExecutor(1)
        with SampleStore(tmp_path / "samples.sqlite") as store:
            node = EdgeNode(config, Outputs("solder-defect", "score"))
            session = SparkplugSession(connector, "berlin", node, store, executor)
            async with (
                peer(mosquitto_server, "read") as host,
                connector.connect("scada", on_message=lambda _: None) as scada,
                asyncio.TaskGroup() as tasks,
            ):
                running = tasks.create_task(session.run())

                def heard() -> list[dict[str, Any]]:
                    return [line for line in host.lines if line.get("kind") not in ("NCMD", "STATE")]

                def kinds() -> list[str]:
                    return [line.get("kind", line.get("error")) for line in heard()]

                session.predicted([prediction(NOW)])
                await scada.publish("spBv1.0/STATE/scada", state_payload(True, 1), retain=True)
                await host.until(lambda: kinds() == ["NBIRTH", "DBIRTH"], "the births")
                session.predicted([prediction(NOW + 1, 0.5)])
                await host.until(lambda: "DDATA" in kinds(), "data")
                data = heard()[-1]
                assert [(m["name"], m["value"], m["datatype"]) for m in data["metrics"]] == [("score", 0.5, 10)]
                assert data["device"] == DEVICE
                host.tell({"rebirth": ["Headgate", "berlin-1"]})
                await host.until(lambda: kinds().count("NBIRTH") == 2, "a rebirth")
                await scada.publish("spBv1.0/STATE/scada", state_payload(False, 2), retain=True)
                await host.until(lambda: "NDEATH" in kinds(), "the death with the host's")
                await scada.publish("spBv1.0/STATE/scada", state_payload(True, 3), retain=True)
                await host.until(lambda: kinds().count("NBIRTH") == 3, "births of a new session")
                await session.close()
                await running
                await host.until(lambda: kinds().count("NDEATH") == 2, "the last death")
                numbers = [m["value"] for line in heard() for m in line.get("metrics", ()) if m["name"] == "bdSeq"]
                assert numbers == [0, 0, 0, 1, 1]
                assert all((line["qos"], line["retain"]) == (int(line["kind"] == "NDEATH"), False) for line in heard())
                await scada.publish("spBv1.0/STATE/scada", b"", retain=True)
        executor.shutdown()

    run(main(), timeout_s=50)
