"""A Sparkplug node's metrics through a signal map: captured segments, tags, keyed events, windows, rights."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edge.binding import bind
from edge.effects import Effect, LabelSet, Problem, SampleReady
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from edge.sparkplug import RebirthRequest
from tests.edge.examples import AOI, engine_contract, flat, solder_contract
from uns_topics.codes import DataProblem
from uns_topics.sparkplug import DataType, MessageType, Metric, Payload, SparkplugTopic, encode_payload

D = DataType
LINE = "Werk Süd/smt/Linie 3"
NOW = 10_000.0
PRINTER = {
    "topic": "spBv1.0/Werk Süd/+/{line}/printer",
    "form": "sparkplug",
    "features": [
        {"feature": "viscosity", "field": "Paste/Viscosity (raw)", "unit": "cP"},
        {"feature": "temperature", "field": "Air", "unit": "degF", "join": "mean", "max_age_s": 60},
    ],
}
SPI = {
    "topic": "Werk Süd/smt/{line}/spi", "form": "flat", "key": "serial",
    "features": [{"feature": "height", "field": "h", "unit": "um"}],
}  # fmt: skip
KEYED = {
    "topic": "spBv1.0/Werk Süd/+/{line}/spi",
    "form": "sparkplug",
    "key": "Board/Serial",
    "features": [{"feature": "height", "field": "Board/Height", "unit": "um"}],
    "label": {**AOI, "field": "Board/Verdict"},
}


def make(*sources: dict[str, Any], contract: Any = None) -> Ingest:
    contract = contract or solder_contract()
    content = {"instance": "Werk Süd/smt/{line}", "sources": list(sources)}
    return Ingest(bind(SignalMap.model_validate(content), contract), contract)


class Node:
    """The node `Linie 3` of a plant."""

    def __init__(self, ingest: Ingest) -> None:
        self.ingest = ingest
        self.seq = 0

    def say(
        self, kind: MessageType, time_s: float, *metrics: Metric, device: str | None = None, **changes: Any
    ) -> list[Effect]:
        self.seq = 0 if kind is MessageType.NBIRTH else (self.seq + 1) % 256
        topic = str(SparkplugTopic("Werk Süd", kind, "Linie 3", device))
        raw = encode_payload(Payload(round(time_s * 1000), metrics, changes.pop("seq", self.seq)))
        return self.ingest.feed(topic, raw, arrival_s=NOW, **changes)

    def born(self, device: str, time_s: float, *metrics: Metric) -> list[Effect]:
        effects = self.say(MessageType.NBIRTH, time_s, Metric("bdSeq", datatype=D.UINT64, value=1))
        return effects + self.say(MessageType.DBIRTH, time_s, *metrics, device=device)

    def data(self, device: str, time_s: float, *metrics: Metric, **changes: Any) -> list[Effect]:
        return self.say(MessageType.DDATA, time_s, *metrics, device=device, **changes)


def viscosity(value: float | None, **changes: Any) -> Metric:
    return Metric("Paste/Viscosity (raw)", 1, datatype=D.INT32, value=value, **changes)


def board(ingest: Ingest, key: str, time_s: float) -> SampleReady:
    (sample,) = ingest.feed(f"{LINE}/spi", flat(time_s, serial=key, h=120.0), arrival_s=NOW)
    assert isinstance(sample, SampleReady)
    return sample


def test_all_of_a_node_is_subscribed_to() -> None:
    ingest = make(PRINTER, KEYED | {"label": None}, SPI | {"features": [], "label": AOI})
    assert ingest.filters == ("spBv1.0/Werk Süd/+/+/#", "Werk Süd/smt/+/spi")


def test_metrics_join_the_board_in_the_contracts_units() -> None:
    ingest = make(PRINTER, SPI)
    node = Node(ingest)
    air = Metric("Air", 2, datatype=D.FLOAT, value=68.0)
    assert node.born("printer", 90, viscosity(180_000), air) == []
    sample = board(ingest, "B-1", 91)
    assert sample.instance == LINE
    np.testing.assert_allclose(sample.values, [180, 20, 120], rtol=1e-6)
    assert node.data("printer", 95, Metric(alias=1, value=190_000), Metric(alias=2, value=86.0)) == []
    np.testing.assert_allclose(board(ingest, "B-2", 96).values, [190, 25, 120], rtol=1e-6)
    assert (ingest.instances, ingest.messages) == ((LINE,), 4)


@pytest.mark.parametrize("what", ["gap", "node death", "device death", "bad", "null"])
def test_what_is_stale_bad_or_null_is_missing_and_no_number(what: str) -> None:
    ingest = make(PRINTER | {"clock": "payload"}, SPI)
    node = Node(ingest)
    node.born("printer", 90, viscosity(180_000))
    if what == "gap":
        problem, request = node.data("printer", 95, viscosity(190_000), seq=7)
        assert isinstance(problem, Problem)
        assert isinstance(request, RebirthRequest)
    elif what == "node death":
        node.say(MessageType.NDEATH, 0, Metric("bdSeq", datatype=D.UINT64, value=1))
        assert not np.isnan(board(ingest, "B-0", 100).values[0])  # it died on arrival, at NOW
        assert np.isnan(board(ingest, "B-1", NOW).values[0])
        return
    elif what == "device death":
        node.say(MessageType.DDEATH, 95, device="printer")
    else:
        node.data("printer", 95, viscosity(None) if what == "null" else viscosity(1, properties={"Quality": 0}))
    assert np.isnan(board(ingest, "B-1", 96).values[0])
    if what in ("gap", "device death"):
        node.born("printer", 97, viscosity(185_000))
        assert board(ingest, "B-2", 98).values[0] == pytest.approx(185)


def test_a_key_and_its_values_in_one_payload_are_one_event() -> None:
    ingest = make(PRINTER, KEYED)
    node = Node(ingest)
    serial, height, verdict = (Metric(f"Board/{name}", datatype=D.STRING) for name in ("Serial", "Height", "Verdict"))
    assert node.born("spi", 90, serial, height, verdict) == []  # what a birth repeats is no board
    effects = node.data(
        "spi", 100,
        Metric("Board/Serial", value="B-1", timestamp_ms=100_001),
        Metric("Board/Height", value=118.5, timestamp_ms=100_004),
        Metric("Board/Verdict", value="BRIDGE"),
    )  # fmt: skip
    sample, label = effects
    assert isinstance(sample, SampleReady)
    assert (sample.key, sample.time_s, sample.values[2]) == ("B-1", 100.004, np.float32(118.5))
    assert isinstance(label, LabelSet)
    assert (label.key, label.value) == ("B-1", 1.0)
    (problem,) = node.data("spi", 101, Metric("Board/Height", value=1.0))
    assert isinstance(problem, Problem)
    assert problem.code == "no-key"
    assert node.data("spi", 102, Metric("Conveyor", value=1.0))[0] == Problem(
        "unknown-metric", "spBv1.0/Werk Süd/DDATA/Linie 3/spi", "a metric whose name or alias no birth named"
    )


def test_history_is_late_data_by_its_own_times() -> None:
    ingest = make(PRINTER, KEYED)
    node = Node(ingest)
    node.born("spi", 90, Metric("Board/Serial"), Metric("Board/Height"))
    past: dict[str, Any] = {"is_historical": True, "timestamp_ms": 50_000}
    (sample,) = node.data(
        "spi", 100, Metric("Board/Serial", value="B-1", **past), Metric("Board/Height", value=110.0, **past)
    )
    assert isinstance(sample, SampleReady)
    assert (sample.key, sample.time_s) == ("B-1", 50.0)


def test_history_does_not_move_a_clock() -> None:
    ingest = make(PRINTER | {"clock": "offset"}, SPI)
    node = Node(ingest)
    node.born("printer", NOW - 100, viscosity(180_000))  # its clock is 100 s behind
    node.data("printer", NOW - 100, viscosity(1, is_historical=True, timestamp_ms=5_000_000))
    node.data("printer", NOW - 100, viscosity(190_000))
    assert np.isnan(board(ingest, "B-0", NOW - 1).values[0])
    assert board(ingest, "B-1", NOW).values[0] == pytest.approx(190)
    arrival = make(PRINTER | {"clock": "arrival"}, SPI)
    node = Node(arrival)
    node.born("printer", 1, viscosity(180_000))
    node.data("printer", 1, viscosity(1, is_historical=True))
    assert arrival.counters == {"late": 1}
    assert board(arrival, "B-1", NOW).values[0] == pytest.approx(180)


def test_a_retained_birth_seeds_and_data_after_it_asks() -> None:
    ingest = make(PRINTER, SPI)
    node = Node(ingest)
    assert node.say(MessageType.DBIRTH, 90, viscosity(180_000), device="printer", retain=True) == []
    assert board(ingest, "B-1", 95).values[0] == pytest.approx(180)
    (request,) = node.data("printer", 96, viscosity(190_000))
    assert isinstance(request, RebirthRequest)
    assert ingest.counters == {"retained": 1, "no-birth": 1}


def test_windows_out_of_what_has_changed() -> None:
    features = [{"feature": "t24", "field": "T 24", "unit": "degR"}, {"feature": "p30", "field": "P 30", "unit": "psi"}]
    source = {
        "topic": "spBv1.0/Werk Süd/+/{line}", "form": "sparkplug", "group": "Engine", "features": features,
        "end_of_run": {"remaining": "Left"},
    }  # fmt: skip
    ingest = make(source, contract=engine_contract())
    node = Node(ingest)
    node.say(
        MessageType.NBIRTH, 0, Metric("Engine", value="E1"), Metric("Left"), Metric("T 24", value=600.0),
        Metric("P 30", value=300.0),
    )  # fmt: skip
    effects: list[Effect] = []
    for minute in range(1, 8):
        effects += node.say(MessageType.NDATA, 60 * minute, Metric("T 24", value=600.0 + minute))
    samples = [effect for effect in effects if isinstance(effect, SampleReady)]
    assert {sample.group for sample in samples} == {"E1"}
    np.testing.assert_allclose(samples[2].values, [[601, 300], [602, 300], [603, 300]])


def test_commands_and_states_are_nothing() -> None:
    ingest = make(PRINTER, SPI)
    for topic in ("spBv1.0/Werk Süd/NCMD/Linie 3", "spBv1.0/Werk Süd/DCMD/Linie 3/printer", "spBv1.0/STATE/scada"):
        assert ingest.feed(topic, b"\xff", arrival_s=NOW) == []
    assert not ingest.counters


def test_a_birth_with_another_unit_is_told_once_and_nothing_is_converted() -> None:
    ingest = make(PRINTER, SPI)
    node = Node(ingest)

    def birth(paste: str, air: str) -> list[Problem]:
        metrics = (
            Metric("Paste/Viscosity (raw)", 1, datatype=D.INT32, value=190_000, properties={"engUnit": paste}),
            Metric("Air", 2, datatype=D.FLOAT, value=68.0, properties={"engUnit": air}),
        )
        return [effect for effect in node.born("printer", 90, *metrics) if isinstance(effect, Problem)]

    (told,) = birth("Pa.s", "°F")
    assert (told.code, told.topic) == ("unit-mismatch", "spBv1.0/Werk Süd/DBIRTH/Linie 3/printer")
    said = "metric 'Paste/Viscosity (raw)' (viscosity): its birth says 'Pa.s', the map cP"
    assert told.detail == said
    assert birth("Pa.s", "F") == []  # said before; another spelling is the same unit
    assert birth("cP", "tons of paste") == []
    assert [p.code for p in birth("N", "C")] == ["unit-mismatch"] * 2
    assert ingest.counters["unit-mismatch"] == 3
    node.data("printer", 95, viscosity(190_000), Metric(alias=2, value=68.0))
    np.testing.assert_allclose(board(ingest, "B-1", 100).values, [190, 20, 120], rtol=1e-6)


def test_raw_counts_have_no_unit_to_compare() -> None:
    raw = {"feature": "viscosity", "field": "Paste/Viscosity (raw)", "unit": "cP", "scale": 10}
    node = Node(make(PRINTER | {"features": [raw]}, SPI))
    metric = Metric("Paste/Viscosity (raw)", 1, datatype=D.INT32, value=19_000, properties={"engUnit": "mV"})
    assert [e for e in node.born("printer", 90, metric) if isinstance(e, Problem)] == []


def test_malformed_payloads_are_counted_with_their_topic() -> None:
    ingest = make(PRINTER, SPI)
    topic = "spBv1.0/Werk Süd/DDATA/Linie 3/printer"
    (problem,) = ingest.feed(topic, b"{}", arrival_s=NOW)
    assert problem == Problem("undecodable", topic, "no Sparkplug B payload")
    assert ingest.counters == {"undecodable": 1}


def test_ten_thousand_mutated_payloads_have_a_reason_each() -> None:
    ingest = make(PRINTER | {"features": PRINTER["features"][:1]}, KEYED)
    node = Node(ingest)
    good = encode_payload(
        Payload(95_000, (Metric("Board/Serial", value="B-1"), Metric("Board/Height", value=118.5, alias=3)), 2)
    )
    rng = random.Random(5)
    topic = "spBv1.0/Werk Süd/DDATA/Linie 3/spi"
    before = told = 0
    for index in range(10_000):
        if index % 10 == 0:
            node.born("spi", 90, Metric("Board/Serial", datatype=D.STRING), Metric("Board/Height", 3))
        raw = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        before = ingest.counters.total()
        for effect in ingest.feed(topic, bytes(raw), arrival_s=NOW):
            if isinstance(effect, Problem):
                told += 1
                assert effect.topic == topic
                assert ingest.counters[effect.code] > 0
                assert ingest.counters.total() > before
    assert told > 1000
    assert {"undecodable", "sequence-gap", "unknown-metric"} <= ingest.counters.keys() <= set(DataProblem)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topic": "spBv1.0/g/DDATA/{line}/d"}, "stands for the message type"),
        ({"topic": "spBv1.0/g/+/{line}/#"}, "stands for the message type"),
        ({"topic": "acme/g/+/{line}"}, "stands for the message type"),
        ({"keys": {"value": "v"}}, "fixed for form sparkplug"),
        ({"features": [{"feature": "viscosity", "unit": "cP"}]}, "name one"),
        ({"end_of_run": {}}, "the metric that remains"),
    ],
)
def test_a_source_that_can_not_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(PRINTER | change, SPI)


def test_inference_does_not_go_into_the_sparkplug_tree() -> None:
    with pytest.raises(ValidationError, match=r"outside spBv1\.0"):
        SignalMap.model_validate({"instance": "spBv1.0/Werk Süd/NDATA/{line}", "sources": [PRINTER]})
