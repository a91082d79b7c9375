"""Edge nodes as they are and as they should not be: births, gaps, aliases, deaths, quality."""

from __future__ import annotations

import random
from typing import Any

import pytest

from edge import sparkplug
from edge.sparkplug import Heard, Nodes, Update
from tests.uns_topics.sparkplug_bytes import NODE_RED, TAHU
from uns_topics.codes import DataProblem
from uns_topics.sparkplug import (
    DataType,
    MessageType,
    Metric,
    Payload,
    SparkplugTopic,
    Value,
    decode_payload,
    encode_payload,
)

NOW = 1_700_000_100.0
T = 1_700_000_000_000
D = DataType


class Node:
    """A Sparkplug edge node with one device, and the host that hears it."""

    def __init__(self) -> None:
        self.nodes = Nodes()
        self.seq = 0
        self.now = NOW

    def hear(self, kind: MessageType, *metrics: Metric, **changes: Any) -> Heard:
        device = "oven" if kind.value.startswith("D") else None
        at = changes.pop("at", T)
        retain = changes.pop("retain", False)
        seq = None
        if kind is not MessageType.NDEATH:
            seq = changes.pop("seq", 0 if kind is MessageType.NBIRTH else (self.seq + 1) % 256)
            self.seq = seq
        topic = SparkplugTopic("acme", kind, "line 1", device)
        raw = encode_payload(Payload(at, metrics, seq))
        return self.nodes.hear(topic, raw, retain=retain, now_s=self.now)

    def birth(self, bdseq: int = 7, **changes: Any) -> Heard:
        return self.hear(MessageType.NBIRTH, Metric("bdSeq", datatype=D.UINT64, value=bdseq), **changes)

    def device_birth(self, **changes: Any) -> Heard:
        return self.hear(
            MessageType.DBIRTH,
            Metric("Zone 1/Temperature", 1, T - 60_000, D.FLOAT, 240.0),
            Metric("offset", 2, None, D.INT16, -3),
            **changes,
        )

    def data(self, *metrics: Metric, **changes: Any) -> Heard:
        return self.hear(MessageType.DDATA, *(metrics or (Metric(alias=1, value=250.0),)), **changes)

    def death(self, bdseq: int = 7, **changes: Any) -> Heard:
        return self.hear(MessageType.NDEATH, Metric("bdSeq", datatype=D.UINT64, value=bdseq), **changes)


@pytest.fixture
def node() -> Node:
    made = Node()
    assert made.birth().rebirth is None
    assert made.device_birth().rebirth is None
    return made


def values(heard: Heard) -> dict[str, Value]:
    return {name: value for update in heard.updates for name, value in update.values.items()}


STALE = {"Zone 1/Temperature": None, "offset": None}


def test_a_birth_seeds_its_values_as_of_the_birth() -> None:
    node = Node()
    node.birth()
    heard = node.device_birth()
    assert heard.updates == [Update("oven", T / 1000, {"Zone 1/Temperature": 240.0, "offset": -3}, seed=True)]
    assert not heard.counted


def test_data_by_alias_and_by_name_is_typed_by_its_birth(node: Node) -> None:
    heard = node.data(
        Metric(alias=2, timestamp_ms=T + 5, value=-7), Metric("Zone 1/Temperature", timestamp_ms=T + 9, value=251.0)
    )
    assert heard.updates == [
        Update("oven", (T + 5) / 1000, {"offset": -7}),
        Update("oven", (T + 9) / 1000, {"Zone 1/Temperature": 251.0}),
    ]
    assert heard.whole == Update("oven", (T + 9) / 1000, {"offset": -7, "Zone 1/Temperature": 251.0})
    assert node.data(at=T + 20).updates == [Update("oven", (T + 20) / 1000, {"Zone 1/Temperature": 250.0})]


def test_the_same_alias_of_two_devices_is_two_metrics(node: Node) -> None:
    node.hear(MessageType.NDATA, Metric("bdSeq", value=7))
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}


def test_a_sequence_goes_round(node: Node) -> None:
    for _ in range(600):
        heard = node.data(at=T + node.seq)
        assert heard.rebirth is None
        assert values(heard) == {"Zone 1/Temperature": 250.0}


def test_a_gap_makes_all_stale_until_the_next_births(node: Node) -> None:
    heard = node.data(seq=node.seq + 2, at=T + 50)
    assert heard.counted == {"sequence-gap": 1}
    assert heard.problems[0].detail == "seq 3 after 1: something was lost"
    assert values(heard) == {"bdSeq": None} | STALE
    assert all(update.seed and update.time_s == (T + 50) / 1000 for update in heard.updates)
    assert heard.rebirth is not None
    assert heard.rebirth.topic == "spBv1.0/acme/NCMD/line 1"
    (command,) = decode_payload(heard.rebirth.payload).metrics
    assert (command.name, command.value) == ("Node Control/Rebirth", True)

    heard = node.data()
    assert (heard.updates, heard.counted, heard.rebirth) == ([], {"no-birth": 1}, None)
    node.birth()
    node.device_birth()
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}


def test_a_rebirth_is_asked_for_once_in_ten_seconds() -> None:
    node = Node()
    assert node.data().rebirth is not None
    node.now += 9.9
    assert node.data(at=T + 1).rebirth is None
    node.now += 0.1
    assert node.data(at=T + 2).rebirth is not None
    node.now -= 3600  # the clock was set back
    assert node.data(at=T + 3).rebirth is not None


def test_a_device_without_a_birth_asks_and_keeps_the_sequence() -> None:
    node = Node()
    node.birth()
    heard = node.data()
    assert (heard.updates, heard.counted, heard.rebirth is not None) == ([], {"no-birth": 1}, True)
    node.device_birth()
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}


def test_an_unknown_metric_asks_and_the_others_are_taken(node: Node) -> None:
    heard = node.data(
        Metric(alias=9, value=1.0), Metric("new", value=1.0), Metric(value=1.0), Metric(alias=1, value=250.0)
    )
    assert values(heard) == {"Zone 1/Temperature": 250.0}
    assert heard.counted == {"unknown-metric": 3}
    assert len(heard.problems) == 1
    assert heard.rebirth is not None


def test_a_death_of_this_session_makes_all_stale_on_arrival(node: Node) -> None:
    heard = node.death()
    assert values(heard) == {"bdSeq": None} | STALE
    assert {(update.time_s, update.seed) for update in heard.updates} == {(None, True)}
    assert heard.rebirth is None
    assert node.data().counted == {"no-birth": 1}


def test_a_death_of_an_older_session_is_ignored(node: Node) -> None:
    heard = node.death(bdseq=6)
    assert (heard.updates, heard.counted) == ([], {"old-death": 1})
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}


def test_a_death_of_a_node_that_nobody_knows_says_nothing() -> None:
    heard = Node().death()
    assert (heard.updates, heard.rebirth, heard.counted) == ([], None, {})


def test_a_new_session_without_a_death_makes_the_old_one_stale(node: Node) -> None:
    assert values(node.birth(at=T + 10)) == {"bdSeq": 7}  # the same session: it was asked for
    node.device_birth()
    heard = node.birth(bdseq=8, at=T + 20)
    assert STALE.items() <= values(heard).items()
    assert node.data().counted == {"no-birth": 1}


def test_a_device_dies_alone_at_its_own_time(node: Node) -> None:
    heard = node.hear(MessageType.DDEATH, at=T + 30)
    assert heard.updates == [Update("oven", (T + 30) / 1000, STALE, seed=True)]
    assert node.data().rebirth is not None
    node.device_birth()
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}


@pytest.mark.parametrize(
    ("quality", "value"), [(192, 250.0), (193, 250.0), (0, None), (500, None), (64, None), ("Good", 250.0)]
)
def test_quality_is_good_or_missing(node: Node, quality: Value, value: float | None) -> None:
    heard = node.data(Metric(alias=1, value=250.0, properties={"Quality": quality}))
    assert values(heard) == {"Zone 1/Temperature": value}
    assert heard.counted == ({} if value else {"bad-quality": 1})


def test_null_is_missing(node: Node) -> None:
    heard = node.data(Metric(alias=1, datatype=D.FLOAT, value=None))
    assert (values(heard), heard.counted) == ({"Zone 1/Temperature": None}, {})


def test_history_comes_with_its_own_times(node: Node) -> None:
    heard = node.data(
        Metric(alias=1, timestamp_ms=T - 1000, value=1.0, is_historical=True),
        Metric(alias=1, timestamp_ms=T - 2000, value=2.0, is_historical=True),
        Metric(alias=1, timestamp_ms=T, value=3.0),
    )
    assert [(u.time_s, u.values["Zone 1/Temperature"], u.live) for u in heard.updates] == [
        (T / 1000 - 2, 2.0, False), (T / 1000 - 1, 1.0, False), (T / 1000, 3.0, True),
    ]  # fmt: skip
    assert heard.whole == heard.updates[-1]


def test_a_retained_birth_seeds_and_is_no_session() -> None:
    node = Node()
    heard = node.device_birth(retain=True)
    assert (heard.counted, heard.updates[0].seed) == ({"retained": 1}, True)
    assert node.death(retain=True).updates == []
    assert node.data().counted == {"no-birth": 1}


def test_a_repeated_message_is_taken_once(node: Node) -> None:
    node.data()
    heard = node.data(seq=node.seq)
    assert (heard.updates, heard.counted) == ([], {"duplicate": 1})


def test_a_new_session_with_the_broker_asks_all_known_nodes(node: Node) -> None:
    (request,) = node.nodes.reconnected(NOW)
    assert request.topic == "spBv1.0/acme/NCMD/line 1"
    assert node.data().counted == {"no-birth": 1}
    node.birth(bdseq=7)
    node.device_birth()
    assert values(node.data()) == {"Zone 1/Temperature": 250.0}
    assert node.nodes.reconnected(NOW + 1) == []


def test_timestamps_that_are_none(node: Node) -> None:
    assert node.data(Metric(alias=1, timestamp_ms=2**63, value=1.0)).counted == {"bad-timestamp": 1}
    assert node.data(at=None).counted == {"no-timestamp": 1}
    assert node.birth(at=2**63).counted == {"bad-timestamp": 1}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "MAX_NODES", 1)
    monkeypatch.setattr(sparkplug, "MAX_DEFINITIONS", 3)
    node = Node()
    node.birth()
    node.device_birth()
    node.device_birth()  # takes the place of the first
    assert node.data().counted == {}
    other = SparkplugTopic("acme", MessageType.NBIRTH, "other")
    assert node.nodes.hear(other, b"", retain=False, now_s=NOW).counted == {"too-many-instances": 1}
    monkeypatch.setattr(sparkplug, "MAX_DEFINITIONS", 2)
    assert node.device_birth().counted == {"oversized": 1}


def test_ten_thousand_mutated_messages_have_reasons_that_are_known(node: Node) -> None:
    rng = random.Random(11)
    codes: set[str] = set()
    seeds = (TAHU, NODE_RED, encode_payload(Payload(T, (Metric(alias=1, value=1.0),), 3)))
    for _ in range(10_000):
        raw = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(0, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        kind = rng.choice(list(MessageType))
        topic = SparkplugTopic("acme", kind, rng.choice("abc"), "d" if kind.value.startswith("D") else None)
        heard = node.nodes.hear(topic, bytes(raw), retain=rng.random() < 0.1, now_s=NOW + rng.random() * 100)
        codes |= heard.counted.keys()
        assert {problem.code for problem in heard.problems} <= heard.counted.keys()
    assert codes <= set(DataProblem)
    assert {"undecodable", "sequence-gap", "no-birth", "skipped-metric", "retained"} <= codes
