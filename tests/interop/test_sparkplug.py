"""MQTT.js with Cirrus Link's Sparkplug library: as a node that feeds an edge, and as a host that reads it."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.aio import run
from tests.e2e.federation import FEDERATION, Federation, federation, inspected
from tests.e2e.sparkplug_node import VOLUME, spi_source
from tests.interop.js_client import JsClient, js_client
from tests.interop.programs import HERE, node_module, program
from tests.servers import Server, mosquitto
from uns_topics.sparkplug import DataType, Metric, Payload, encode_payload

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]
INSTANCE = "acme/berlin/smt/line1"
SIGNAL_MAP: dict[str, Any] = {
    "signal_map": 1,
    "instance": "acme/{plant}/smt/line1",
    "sources": [spi_source(VOLUME)],
}
BIRTH = (("Board/Serial", "String", "none"), ("Board/Paste volume", "Double", 0.0), ("Board/Verdict", "String", "none"))
BDSEQ = {"name": "bdSeq", "type": "UInt64", "value": 4}


class Node:
    """A Sparkplug node in JavaScript: births with names and aliases, data by alias."""

    def __init__(self, js: JsClient) -> None:
        self._js, self._seq = js, 0

    async def birth(self, at_ms: int) -> None:
        rebirth = {"name": "Node Control/Rebirth", "type": "Boolean", "value": False}
        await self._say("NBIRTH/line1", at_ms, BDSEQ, rebirth)
        metrics = ({"name": n, "alias": i, "type": t, "value": v} for i, (n, t, v) in enumerate(BIRTH))
        await self._say("DBIRTH/line1/spi", at_ms, *metrics)

    async def board(self, index: int, at_ms: int) -> None:
        values = enumerate((f"B{index}", *inspected(index)))
        metrics = ({"alias": i, "type": BIRTH[i][1], "value": v, "timestamp": at_ms} for i, v in values)
        await self._say("DDATA/line1/spi", at_ms, *metrics)

    async def _say(self, where: str, at_ms: int, *metrics: dict[str, Any]) -> None:
        self._seq = 0 if where.startswith("NBIRTH") else (self._seq + 1) % 256
        payload = {"timestamp": at_ms, "seq": self._seq, "metrics": list(metrics)}
        await self._js.publish_sparkplug(f"spBv1.0/berlin/{where}", payload)


def said(host: JsClient, kind: str) -> list[dict[str, Any]]:
    """What the host decoded of our node, by message type."""
    return [m["sparkplug"] for m in host.messages if m["topic"].startswith(f"spBv1.0/headgate/{kind}/")]


def metrics_of(payload: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {metric["name"]: metric for metric in payload["metrics"]}


def test_data_by_alias_alone_is_null_to_a_javascript_reader() -> None:
    """Why `strict_alias` is off by default: without a datatype this library reads no value."""
    node_module("sparkplug-payload")
    by_alias, by_name = Metric(None, 3, 1000, None, 0.25), Metric("score", None, 1000, DataType.DOUBLE, 0.5)
    raw = base64.b64encode(encode_payload(Payload(1000, (by_alias, by_name), 1))).decode()
    command = [program("node"), str(HERE / "js" / "decode.js"), raw]
    decoded = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert [metric["value"] for metric in decoded["metrics"]] == [None, 0.5]


def test_a_javascript_node_feeds_an_edge_and_a_javascript_host_reads_it(tmp_path: Path, base_model: Path) -> None:
    async def main(broker: Server) -> None:
        start_ms = round(time.time() * 1000) - 200 * 30_000
        async with federation(tmp_path, broker, tolerances={"rounds": 1, "quorum": 1}) as f, js_client(broker) as host:
            await host.subscribe("spBv1.0/headgate/#")
            f.write("berlin/sparkplug.yaml", SIGNAL_MAP)
            inference = {"home": INSTANCE, "sparkplug": {"group": "headgate", "node": "berlin-edge"}}
            await f.start_edge("berlin", signal_map="sparkplug.yaml", inference=inference)
            await f.listening("berlin")
            death = ("spBv1.0/berlin/NDEATH/line1", {"timestamp": start_ms, "metrics": [BDSEQ]})
            async with js_client(broker, death=death) as js:
                node = Node(js)
                await node.birth(start_ms)
                for index in range(150):
                    await node.board(index, start_ms + (index + 1) * 30_000)
                await f.start_aggregator(base_model)
                await f.until(lambda: f.rests, "the round")
                assert f.view.current is not None
                version = f.view.current.version
                await f.until(lambda: f.serves("berlin", version), f"berlin serves version {version}")
                await host.until(lambda: times(host), "the value of the newest board so far, in a birth")
                at_ms = start_ms + 151 * 30_000
                await node.board(150, at_ms)
                await f.until(lambda: f.scores("berlin", version)[-1:] and is_of(f, "B150"), "an inference for B150")
                await f.until(lambda: published(f, at_ms) is not None, "its value as a leaf")
                await host.until(lambda: at_ms in times(host), "its value as a metric")
                check_node(host, f, at_ms, version)
                births = len(said(host, "NBIRTH"))
                await host.publish_sparkplug(
                    "spBv1.0/headgate/NCMD/berlin-edge",
                    {
                        "timestamp": at_ms,
                        "metrics": [{"name": "Node Control/Rebirth", "type": "Boolean", "value": True}],
                    },
                )
                await host.until(lambda: len(said(host, "NBIRTH")) > births, "the birth that was asked for")
            assert await f.stop("berlin") == 0
            await host.until(lambda: said(host, "NDEATH"), "the node's death")
            deaths = [metrics_of(payload)["bdSeq"]["value"] for payload in said(host, "NDEATH")]
            assert deaths == [metrics_of(said(host, "NBIRTH")[-1])["bdSeq"]["value"]]

    with mosquitto() as server:
        run(main(server), timeout_s=140)


def is_of(f: Federation, key: str) -> bool:
    root = f"{INSTANCE}/_inference/{FEDERATION}/event"
    return any(m.topic == root and f'"key":"{key}"'.encode() in m.payload for m in f.messages)


def times(host: JsClient) -> set[int]:
    """Event times of the scores that were decoded."""
    found = [metrics_of(p).get("score") for p in (*said(host, "DBIRTH"), *said(host, "DDATA"))]
    return {metric["timestamp"] for metric in found if metric is not None}


def published(f: Federation, at_ms: int) -> float | None:
    """The leaf's value of this event time; None while it hasn't come."""
    leaf = f"{INSTANCE}/_inference/{FEDERATION}/score"
    bodies = [json.loads(message.payload) for message in f.messages if message.topic == leaf]
    return next((float(body["value"]) for body in bodies if body["timestamp_ms"] == at_ms), None)


def check_node(host: JsClient, f: Federation, at_ms: int, version: int) -> None:
    """The births say names and types, data is read without a null, and its value is the leaf's."""
    born = metrics_of(said(host, "DBIRTH")[-1])
    types = {name: born[name]["type"] for name in ("quality", "model_version", "variant", "score")}
    assert types == {"quality": "Int32", "model_version": "Int32", "variant": "String", "score": "Double"}
    assert all(metric["value"] is not None for p in said(host, "DDATA") for metric in p["metrics"])
    scores = [metrics_of(payload).get("score", {}) for payload in said(host, "DDATA")]
    (score,) = [metric for metric in scores if metric.get("timestamp") == at_ms]
    assert score["value"] == pytest.approx(published(f, at_ms), rel=1e-5)
    assert score["type"] == "Double"
    assert score["properties"]["Quality"]["value"] in (0, 192, 500)
    check_sequence(host)
    last = metrics_of(said(host, "DDATA")[-1])
    assert "model_version" not in last or last["model_version"]["value"] == version


def check_sequence(host: JsClient) -> None:
    """One `seq` over all messages of the node, from 0 at each NBIRTH; a death has none."""
    expected = 0
    for message in host.messages:
        kind = message["topic"].split("/")[2]
        if kind in ("NDEATH", "NCMD"):
            continue
        expected = 0 if kind == "NBIRTH" else (expected + 1) % 256
        assert message["sparkplug"]["seq"] == expected, message["topic"]
