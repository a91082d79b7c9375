"""The Sparkplug B codec beside what others write, at its limits, and fed with rubbish."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.uns_topics.sparkplug_bytes import NODE_RED, TAHU
from uns_topics.sparkplug import (
    MAX_METRICS,
    MAX_NAME_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_PROPERTIES_BYTES,
    DataType,
    MessageType,
    Metric,
    Payload,
    SparkplugError,
    SparkplugTopic,
    decode_payload,
    encode_payload,
    rebirth_request,
    state_topic,
    typed_value,
)

D = DataType


def test_a_payload_of_tahus_schema_is_read() -> None:
    payload = decode_payload(TAHU)
    assert (payload.timestamp_ms, payload.seq) == (1_700_000_000_123, 255)
    named = {m.name: m for m in payload.metrics}
    zone = named["Oven/Zone 1/Température"]
    assert (zone.alias, zone.timestamp_ms, zone.datatype, zone.value) == (0, 1_700_000_000_120, D.FLOAT, 245.5)
    assert zone.properties == {"Quality": 192, "engUnit": "°C"}
    values = {name: m.value for name, m in named.items() if name is not None and not m.skipped}
    assert values == {
        "bdSeq": 7, "Oven/Zone 1/Température": 245.5, "i8": -5, "i32": -5, "i64": -5, "u32": 4_000_000_000,
        "d": -0.125, "b": False, "s": "B-4711", "null": None, "meta": 5, "nested": 1,
    }  # fmt: skip
    assert {name for name, m in named.items() if m.skipped} == {"set", "udt", "raw"}
    assert named["nested"].properties == {"Quality": 500}  # the property set in it is passed over
    assert (named["d"].alias, named["d"].is_historical, named["i32"].is_historical) == (2**40, False, True)
    by_alias = payload.metrics[-2]
    assert (by_alias.name, by_alias.alias, by_alias.datatype) == (None, 2, None)
    assert typed_value(by_alias.value, D.INT32) == -2


def test_a_payload_of_the_javascript_stack_is_read() -> None:
    payload = decode_payload(NODE_RED)
    assert payload.seq == 3
    assert {m.name: m.value for m in payload.metrics} == {
        "Oven/Zone 1/Temp": 245.5, "i8": -5, "i16": -300, "i32": -70_000, "i64": -5, "u8": 200, "u32": 4_000_000_000,
        "u64": 5, "b": True, "s": "B-4711", "t": 1_700_000_000_000, "null": None, "d": -0.125,
    }  # fmt: skip
    assert payload.metrics[0].properties == {"Quality": 192, "engUnit": "degC"}
    assert payload.metrics[-1].is_historical


def test_a_rebirth_request_by_hand() -> None:
    by_hand = (
        b"\x08\x05"  # timestamp 5
        b"\x12\x1c"  # a metric of 28 bytes
        b"\x0a\x14Node Control/Rebirth\x18\x05\x20\x0b\x70\x01"  # name, timestamp 5, datatype 11, true
    )
    assert rebirth_request(5) == by_hand


SIGNED = {D.INT8: 8, D.INT16: 16, D.INT32: 32, D.INT64: 64}
UNSIGNED = {D.UINT8: 8, D.UINT16: 16, D.UINT32: 32, D.UINT64: 64, D.DATETIME: 64}
TEXT = st.text("aZ7/ ü€\0\U0001f600", max_size=20)
TYPED = st.one_of(
    *(st.tuples(st.just(t), st.integers(-(1 << b - 1), (1 << b - 1) - 1)) for t, b in SIGNED.items()),
    *(st.tuples(st.just(t), st.integers(0, (1 << b) - 1)) for t, b in UNSIGNED.items()),
    st.tuples(st.just(D.FLOAT), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(D.DOUBLE), st.floats(allow_nan=False)),
    st.tuples(st.just(D.BOOLEAN), st.booleans()),
    st.tuples(st.sampled_from([D.STRING, D.TEXT, D.UUID]), TEXT),
    st.tuples(st.sampled_from(D), st.none()),
)
U64 = st.integers(0, 2**64 - 1)
PROPERTY = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    datatype, value = draw(TYPED)
    return Metric(
        draw(st.none() | TEXT.filter(bool)),
        draw(st.none() | U64),
        draw(st.none() | U64),
        int(datatype),
        value,
        draw(st.booleans()),
        draw(st.dictionaries(TEXT, PROPERTY.filter(lambda v: v is not None), max_size=3)),
    )


@given(st.builds(Payload, st.none() | U64, st.lists(metrics(), max_size=5).map(tuple), st.none() | U64))
def test_what_is_written_is_read(payload: Payload) -> None:
    assert decode_payload(encode_payload(payload)) == payload


@given(TYPED)
def test_a_value_without_its_datatype_is_read_by_the_births(typed: tuple[DataType, Any]) -> None:
    datatype, value = typed
    (metric,) = decode_payload(encode_payload(Payload(metrics=(Metric(alias=1, value=value),)))).metrics
    read = typed_value(metric.value, datatype)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("raw", [0xFB, 0xFFFF_FFFB, 2**64 - 5])
def test_a_short_integer_is_read_sign_extended_or_not(raw: int) -> None:
    assert typed_value(raw, D.INT8) == -5


def test_a_value_that_does_not_go_with_its_datatype_is_handed_on() -> None:
    assert typed_value("12", D.INT32) == "12"
    assert typed_value(1.5, D.INT32) == 1.5
    assert typed_value(True, D.INT8) is True


def length(content: bytes) -> bytes:
    size = len(content)
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def metric_bytes(content: bytes) -> bytes:
    return b"\x12" + length(content)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\0" * (MAX_PAYLOAD_BYTES + 1), "oversized"),
        (metric_bytes(b"") * (MAX_METRICS + 1), "oversized"),
        (metric_bytes(b"\x0a" + length(b"n" * (MAX_NAME_BYTES + 1))), "oversized"),
        (metric_bytes(b"\x4a" + length(b"\x0a" + length(b"k" * MAX_PROPERTIES_BYTES))), "oversized"),
        (metric_bytes(b"\x0a\x01\xff"), "undecodable"),  # a name that is no UTF-8
        (metric_bytes(b"\x7a\x01\xff"), "undecodable"),  # a text that is none
        (metric_bytes(b"\x4a\x05\x0a\x01\xff\x12\x00"), None),  # a property without a value is passed over
        (metric_bytes(b"\x4a\x07\x0a\x01\xff\x12\x02\x18\x01"), "undecodable"),  # a property's name
        (metric_bytes(b"\x0a\x05abc"), "undecodable"),  # a name that is longer than its metric
        (b"\x12\x05\x0a", "undecodable"),
        (b"\x0b" * 5000, "undecodable"),  # groups within groups
        (b"{}", "undecodable"),
    ],
)
def test_limits_and_malformed_payloads_have_a_reason(raw: bytes, code: str | None) -> None:
    if code is None:
        decode_payload(raw)
        return
    with pytest.raises(SparkplugError) as raised:
        decode_payload(raw)
    assert raised.value.code == code
    assert str(raised.value)


def test_nothing_looks_into_templates() -> None:
    nested = b"\x0a\x01t"
    for _ in range(2000):
        nested = b"\x92\x01" + length(b"\x12" + length(nested))
    (metric,) = decode_payload(metric_bytes(b"\x0a\x01u" + nested)).metrics
    assert (metric.name, metric.skipped) == ("u", True)


def code_of(raw: bytes) -> str:
    """Why a payload is refused, "" where it is taken."""
    try:
        payload = decode_payload(raw)
    except SparkplugError as error:
        return error.code
    assert all(type(m.value) in (int, float, bool, str, type(None)) for m in payload.metrics)
    return ""


def test_every_truncated_prefix_is_a_payload_or_an_error() -> None:
    assert {code_of(TAHU[:size]) for size in range(len(TAHU))} == {"", "undecodable"}


def test_ten_thousand_mutated_payloads_raise_nothing_else() -> None:
    rng = random.Random(7)
    codes = set()
    for index in range(10_000):
        raw = bytearray((TAHU, NODE_RED)[index % 2])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(raw))
            what = rng.random()
            if what < 0.6:
                raw[at] = rng.randrange(256)
            elif what < 0.8:
                del raw[at : at + rng.randint(1, 20)]
            else:
                raw[at:at] = rng.randbytes(rng.randint(1, 20))
            raw = raw or bytearray(b"\0")
        codes.add(code_of(bytes(raw)))
    assert codes <= {"", "undecodable", "oversized"}


def test_a_float_is_the_float32_that_was_sent() -> None:
    (metric,) = decode_payload(encode_payload(Payload(metrics=(Metric("f", datatype=D.FLOAT, value=0.1),)))).metrics
    assert metric.value == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    (metric,) = decode_payload(encode_payload(Payload(metrics=(Metric("f", value=math.nan),)))).metrics
    assert isinstance(metric.value, float)
    assert math.isnan(metric.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spBv1.0/g 1/NBIRTH/n", SparkplugTopic("g 1", MessageType.NBIRTH, "n")),
        ("spBv1.0/g/DDATA/n/Gerät", SparkplugTopic("g", MessageType.DDATA, "n", "Gerät")),
        ("spBv1.0/g/DDATA/n", None),
        ("spBv1.0/g/NDATA/n/d", None),
        ("spBv1.0/g/NDATA/n/d/e", None),
        ("spBv1.0/g/HELLO/n", None),
        ("spBv1.0/STATE/host", None),
        ("spAv1.0/g/NDATA/n", None),
    ],
)
def test_topics(text: str, expected: SparkplugTopic | None) -> None:
    assert SparkplugTopic.parse(text) == expected
    if expected is not None:
        assert str(expected) == text
    assert state_topic("plant") == "spBv1.0/STATE/plant"
