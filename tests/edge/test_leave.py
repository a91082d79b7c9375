"""An edge that leaves for good: nothing of it stays on a broker, and everything on its disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import Message
from edge.inventory import Inventory
from edge.leave import StillRuns, leave
from edge.sparkplug_session import SESSION_KEY
from edge.store import SampleStore
from tests.aio import run
from uns_topics.sparkplug import decode_payload

LEAVES = ("acme/line1/_inference/tiny/score", "acme/_inference/tiny/_edge/berlin/alive")


def published(store: SampleStore, *, alive: bytes) -> MemoryBroker:
    Inventory(store).add(LEAVES)
    broker = MemoryBroker()
    topics = [*LEAVES, "acme/line1/spi", "fl/v1/tiny/up/berlin/status", "fl/v1/tiny/up/lyon/status"]
    for topic in topics:
        broker.route(Message(topic, alive if topic.endswith("alive") else b"1"), retain=True)
    return broker


def test_it_clears_what_it_published_and_nothing_else(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        broker = published(store, alive=b"false")
        cleared = run(leave("tiny", "berlin", store, broker.connector(), broker.connector()))
        assert cleared == (2, 5)
        assert {topic for topic, message in broker.retained.items() if message.payload} == {
            "acme/line1/spi",
            "fl/v1/tiny/up/lyon/status",
        }
        assert Inventory(store).topics == frozenset()


def test_an_edge_that_runs_is_left_alone(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        broker = published(store, alive=b"true")
        before = dict(broker.retained)
        with pytest.raises(StillRuns, match="alive is true: the edge runs; stop it first"):
            run(leave("tiny", "berlin", store, broker.connector(), broker.connector()))
        assert broker.retained == before
        assert Inventory(store).topics == frozenset(LEAVES)


def test_an_inventory_is_kept_and_tells_what_is_foreign(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        inventory = Inventory(store)
        inventory.add(["b", "a"])
        inventory.add(["a"])
        inventory.forget(["b", "c"])
    with SampleStore(tmp_path / "samples.sqlite") as store:
        again = Inventory(store)
        assert again.topics == {"a"}
        assert again.foreign(lambda topic: topic == "a") == []
        assert again.foreign(lambda topic: topic == "b") == ["a"]


def test_an_edge_that_was_a_sparkplug_node_is_said_to_be_dead(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        broker = published(store, alive=b"false")
        store.put(SESSION_KEY, b'{"group": "Headgate", "node": "berlin-1", "bdseq": 41}')
        run(leave("tiny", "berlin", store, broker.connector(), broker.connector()))
    (death,) = [m for m in broker.record if m.topic.startswith("spBv1.0/")]
    assert (death.topic, death.qos, death.retain) == ("spBv1.0/Headgate/NDEATH/berlin-1", 1, False)
    assert [(m.name, m.value) for m in decode_payload(death.payload).metrics] == [("bdSeq", 41)]
