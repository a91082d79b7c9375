"""Ten thousand mutated payloads and any JSON per form, through the signal map: no crash, no growth, a reason each."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.binding import bind
from edge.dialects import Decoded, Form, Refusal, TimestampFormat, make_decoder
from edge.effects import LabelSet, Problem, SampleReady
from edge.ingest import Ingest
from edge.problem_log import ProblemLog
from edge.signal_map import SignalMap
from edge.sparkplug import RebirthRequest
from tests.edge.examples import AOI, solder_contract
from uns_topics.codes import DataProblem
from uns_topics.sparkplug import DataType, MessageType, Metric, Payload, SparkplugTopic, encode_payload

MUTATED = 10_000
NOW = 1_700_000_100.0
STAMP = 1_700_000_000_123
TOKENS = (
    b"NaN",
    b"-Infinity",
    b"null",
    b"true",
    b"{",
    b"[",
    b'"',
    b"1e999",
    b"9" * 40,
    b"\\ud8",
    b"\xff",
    b"\x00",
    b"",
)


@dataclass(frozen=True)
class Dialect:
    """A source that reads tag, key and label as its form allows, and a good payload on its topic."""

    form: Form
    topic: str
    payload: bytes
    source: dict[str, Any]


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


VISCOSITY = {"feature": "viscosity", "unit": "cP"}
HEIGHT = {"feature": "height", "unit": "um"}
NODE = SparkplugTopic("acme", MessageType.NDATA, "line3")
DIALECTS = {
    "umh": Dialect(Form.UMH, "acme/line3/v", _json(timestamp_ms=STAMP, value=190_000), {"features": [VISCOSITY]}),
    "umh classic": Dialect(
        Form.UMH,
        "acme/line3/_historian",
        _json(timestamp_ms=STAMP, visc=190_000, serial="B-7", spi={"h": 119.5}),
        {"key": "serial", "features": [HEIGHT | {"field": "spi.h"}]},
    ),
    "vqt": Dialect(
        Form.VQT,
        "acme/line3/v",
        _json(v=190_000, q=192, t="2023-11-14T22:13:20.123Z"),
        {
            "keys": {"value": "v", "quality": "q", "timestamp": "t"},
            "timestamp_format": "iso8601",
            "features": [VISCOSITY],
        },
    ),
    "flat": Dialect(
        Form.FLAT,
        "acme/line3/spi",
        _json(timestamp=STAMP, serial="B-7", h=119.5, verdict="OK", nested={"a": [1, 2]}),
        {"key": "serial", "features": [HEIGHT | {"field": "h"}], "label": AOI},
    ),
    "scalar": Dialect(Form.SCALAR, "acme/line3/v", b"190000.5", {"features": [VISCOSITY]}),
    "sparkplug": Dialect(
        Form.SPARKPLUG,
        str(NODE),
        encode_payload(Payload(STAMP, (Metric("v", 1, datatype=DataType.FLOAT, value=190_000.0),), 1)),
        {"features": [VISCOSITY | {"field": "v"}]},
    ),
}


def ingest_of(dialect: Dialect) -> Ingest:
    """The dialect's source beside plain ones for the rest."""
    topic = dialect.topic.replace("line3", "{line}").replace("NDATA", "+")
    source = {"topic": topic, "form": dialect.form.value, **dialect.source}
    rest = {
        "topic": "rest/{line}",
        "form": "flat",
        "key": "serial",
        "features": [{"feature": n, "field": n, "unit": u} for n, u in (("viscosity", "cP"), ("height", "um"))],
    }
    fed = {feature["feature"] for feature in dialect.source["features"]}
    rest["features"] = [one for one in rest["features"] if one["feature"] not in fed]  # type: ignore[index]
    contract = solder_contract(context=None)
    content = {"instance": "acme/{line}", "sources": [source, rest]}
    return Ingest(bind(SignalMap.model_validate(content), contract), contract)


def birth() -> tuple[str, bytes]:
    metrics = (Metric("bdSeq", datatype=DataType.UINT64, value=1), Metric("v", 1, datatype=DataType.FLOAT, value=1.0))
    return str(SparkplugTopic("acme", MessageType.NBIRTH, "line3")), encode_payload(Payload(STAMP - 1000, metrics, 0))


def mutated(payload: bytes, rng: random.Random) -> bytes:
    raw = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(4):
            case 0:
                raw[at:at] = rng.randbytes(rng.randint(1, 3))
            case 1:
                del raw[at : at + rng.randint(1, 5)]
            case 2:
                raw[at : at + 1] = rng.choice(TOKENS)
            case _:
                raw[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(raw)


def feeder(dialect: Dialect, ingest: Ingest, log: ProblemLog) -> Callable[[bytes], list[Problem]]:
    """Feeds a payload as the edge does."""

    def feed(payload: bytes) -> list[Problem]:
        if dialect.form is Form.SPARKPLUG:  # else a gap in the sequence would end it all at the first message
            ingest.feed(*birth(), arrival_s=NOW)
        effects = ingest.feed(dialect.topic, payload, arrival_s=NOW)
        assert all(isinstance(e, Problem | SampleReady | LabelSet | RebirthRequest) for e in effects)
        problems = [effect for effect in effects if isinstance(effect, Problem)]
        if problems:
            log.refused(dialect.topic, payload, problems, NOW)
        else:
            log.took(dialect.topic, payload, NOW)
        return problems

    return feed


@pytest.mark.parametrize("name", DIALECTS)
def test_ten_thousand_mutated_payloads_have_a_reason_each(name: str) -> None:
    dialect, rng = DIALECTS[name], random.Random(name)
    ingest, log = ingest_of(dialect), ProblemLog()
    feed = feeder(dialect, ingest, log)
    assert feed(dialect.payload) == []
    assert not ingest.counters
    told = 0
    for _ in range(MUTATED):
        problems = feed(mutated(dialect.payload, rng))
        told += len(problems)
        assert {problem.topic for problem in problems} <= {dialect.topic}
        assert all(len(problem.detail) < 200 for problem in problems)
    assert ingest.counters.keys() <= set(DataProblem)
    assert "undecodable" in ingest.counters
    (known,) = log.topics.values()
    assert known.counts.total() == told > MUTATED / 20
    assert known.good is not None
    good = ingest_of(dialect)
    if dialect.form is Form.SPARKPLUG:
        good.feed(*birth(), arrival_s=NOW)
    again = good.feed(dialect.topic, known.good.head, arrival_s=NOW)
    assert not [effect for effect in again if isinstance(effect, Problem)]  # it was one indeed
    assert len(log.dump()) < 3000


@pytest.mark.parametrize("name", DIALECTS)
def test_bad_payloads_leave_nothing_behind(name: str) -> None:
    dialect, rng = DIALECTS[name], random.Random(name)
    payloads = [mutated(dialect.payload, rng) for _ in range(1000)]
    feed = feeder(dialect, ingest_of(dialect), ProblemLog())
    for payload in payloads:  # what is remembered by intention (keys, readings) is there after this
        feed(payload)
    tracemalloc.start()
    try:
        for payload in payloads:
            feed(payload)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(4):
            for payload in payloads:
                feed(payload)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 30_000, f"{after - before} bytes for 4000 payloads"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abxh."), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["timestamp_ms", "timestamp", "value", "quality", "a", "a.b", "a.b.h", "x"])


@given(content=st.dictionaries(_KEYS, _VALUES, max_size=6), form=st.sampled_from(TimestampFormat))
@settings(max_examples=300, deadline=None)
def test_any_json_is_decoded_or_refused(content: dict[str, Any], form: TimestampFormat) -> None:
    payload = json.dumps(content).encode()
    for dialect in (Form.UMH, Form.FLAT, Form.VQT, Form.SCALAR):
        decoded = make_decoder(dialect, fields=("value", "a.b", "a.b.h", "x"), timestamp_format=form)(payload)
        if isinstance(decoded, Decoded):
            assert decoded.time_s is None or 0 <= decoded.time_s < 1e11
        else:
            assert isinstance(decoded, Refusal)
            assert decoded.code in set(DataProblem)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    for dialect in DIALECTS.values():
        effects = ingest_of_cached(dialect).feed(dialect.topic, payload, arrival_s=NOW)
        assert all(isinstance(e, Problem | SampleReady | LabelSet | RebirthRequest) for e in effects)


_INGESTS: dict[str, Ingest] = {}


def ingest_of_cached(dialect: Dialect) -> Ingest:
    return _INGESTS.setdefault(dialect.topic + dialect.form.value, ingest_of(dialect))
