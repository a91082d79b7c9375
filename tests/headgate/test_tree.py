"""`headgate tree`: what is on a broker."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from headgate.commands.tree import Leaf, _shorten
from tests.aio import Inbox, run
from tests.servers import Server


@pytest.mark.parametrize(
    ("payload", "kind", "value"),
    [
        (b"21.5", "number", "21.5"),
        (b"-3", "number", "-3"),
        (b"true", "text", "true"),
        (b'"solder"', "text", "solder"),
        ("grün".encode(), "text", "grün"),
        (b'{"timestamp_ms": 1, "value": 0.25}', "number", "0.25"),
        ('{"timestamp_ms": 1, "value": "gü"}'.encode(), "text", "gü"),
        (b'{"timestamp_ms": 1, "value": {"a": 1}}', "json", '{"a": 1}'),
        (b'{"a": [1]}', "json", '{"a": [1]}'),
        (b"[1, 2]", "json", "[1, 2]"),
        (b"\xff\xfe", "binary", "2 bytes"),
        (bytes(2048), "binary", "2,048 bytes"),
        (b"[" * 100_000, "text", "[" * 100_000),
    ],
    ids=lambda value: str(value)[:24],
)
def test_kinds_and_values(payload: bytes, kind: str, value: str) -> None:
    leaf = Leaf(payload, seen=0.0, messages=1, retain=False)
    assert (leaf.kind(), leaf.value()) == (kind, value)


def test_a_long_topic_loses_its_middle() -> None:
    topic = "acme/berlin/smt/line1/_inference/solder-defect/model_version"
    shown = _shorten(topic, 30)
    assert len(shown) == 30
    assert shown.startswith("acme/")
    assert shown.endswith("model_version")
    assert _shorten("short", 30) == "short"


def tree(server: Server, *arguments: str) -> str:
    command = [sys.executable, "-m", "headgate", "tree", "--broker", server.url, "--once", "--seconds", "0.5"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.broker
def test_a_snapshot_of_a_real_broker(mosquitto_server: Server) -> None:
    said = {
        "tree/lyon/atelier CMS/température": b"21.5",
        "tree/lyon/state": b'{"timestamp_ms": 1, "value": "running"}',
        "tree/lyon/recipe": '{"name": "grün"}'.encode(),
        "tree/lyon/model": bytes(range(256)),
        "other/topic": b"1",
    }

    async def publish() -> None:
        async with PahoConnector(BrokerConfig(url=mosquitto_server.url)).connect(
            "publisher", on_message=Inbox()
        ) as session:
            for topic, payload in said.items():
                await session.publish(topic, payload, retain=True)

    run(publish())
    records: list[dict[str, Any]] = [
        json.loads(line) for line in tree(mosquitto_server, "--json", "tree/#").splitlines()
    ]
    assert records == [
        {"topic": "tree/lyon/atelier CMS/température", "kind": "number", "value": "21.5", "bytes": 4, "retain": True},
        {"topic": "tree/lyon/model", "kind": "binary", "value": "256 bytes", "bytes": 256, "retain": True},
        {"topic": "tree/lyon/recipe", "kind": "json", "value": '{"name": "grün"}', "bytes": 17, "retain": True},
        {"topic": "tree/lyon/state", "kind": "text", "value": "running", "bytes": 39, "retain": True},
    ]
    lines = tree(mosquitto_server, "tree/lyon/+", "other/#").splitlines()
    assert [line.split() for line in lines] == [
        ["topic", "value", "age", "kind"],
        ["other/topic", "1", "kept", "number"],
        ["tree/lyon/model", "256", "bytes", "kept", "binary"],
        ["tree/lyon/recipe", '{"name":', '"grün"}', "kept", "json"],
        ["tree/lyon/state", "running", "kept", "text"],
    ]
