"""The flow's wiring; that it runs is shown by `make interop`, in Node-RED itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.exports.node_red import flow
from edge.outputs import Profile
from tests.edge.exports.plants import INSTANCES, broker, published
from uns_topics.filters import matches

OWN_NODES = {"tab", "mqtt-broker", "tls-config", "mqtt in", "function", "rbe", "switch", "debug", "link out"}


def nodes_of(what: Any, **settings: Any) -> dict[str, dict[str, Any]]:
    nodes = flow(what, broker(**settings))
    by_id = {node["id"]: node for node in nodes}
    assert len(by_id) == len(nodes)
    return by_id


@pytest.mark.parametrize("profile", list(Profile))
def test_every_wire_ends_at_a_node_and_every_node_is_node_reds_own(profile: Profile) -> None:
    nodes = nodes_of(published(profile=profile))
    assert {node["type"] for node in nodes.values()} <= OWN_NODES
    reached = set()
    for node in nodes.values():
        for port in node.get("wires", ()):
            reached |= set(port)
        assert node.get("z", node["id"]) in nodes
        assert node.get("broker") is None or node["type"] == "mqtt-broker" or node["broker"] in nodes
        assert len(node.get("wires", ())) == node.get("outputs", len(node.get("wires", ())))
    assert reached <= set(nodes)
    starts = {"tab", "mqtt-broker", "tls-config", "mqtt in"}
    assert {key for key, node in nodes.items() if node["type"] not in starts} == reached


def test_each_instance_and_alive_are_read_once() -> None:
    what = published(out_root="ai")
    topics = [node["topic"] for node in nodes_of(what).values() if node["type"] == "mqtt in"]
    assert len(topics) == len(INSTANCES) + 1
    for topic in (what.alive, *(what.topic(instance, spec) for instance in INSTANCES for spec in what.specs)):
        assert sum(matches(known, topic) for known in topics) == 1


def test_the_broker_without_its_credentials(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2")
    settings = {"username": "plant-edge", "password_file": str(tmp_path / "password"), "protocol": "5"}
    nodes = nodes_of(published(), url="mqtts://broker.example:8884", **settings)
    assert "hunter2" not in str(nodes)
    assert "plant-edge" not in str(nodes)
    (node,) = [node for node in nodes.values() if node["type"] == "mqtt-broker"]
    assert (node["broker"], node["port"], node["protocolVersion"]) == ("broker.example", "8884", "5")
    assert nodes[node["tls"]]["verifyservercert"] is True
    (plain,) = [n for n in nodes_of(published(), url="ws://b.example/mqtt").values() if n["type"] == "mqtt-broker"]
    assert plain["broker"] == "ws://b.example:80/mqtt"


def test_the_same_ids_at_each_export() -> None:
    assert nodes_of(published()).keys() == nodes_of(published(profile="vqt")).keys()
