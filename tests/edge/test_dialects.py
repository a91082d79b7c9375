"""Decoders: what each form says, and that nothing a plant sends raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.dialects import (
    MAX_PAYLOAD_BYTES,
    Decoded,
    Form,
    Refusal,
    TimestampFormat,
    is_good,
    make_decoder,
    read_number,
    read_text,
    read_timestamp,
)

SEEDS = {
    Form.UMH: b'{"timestamp_ms": 1700000000123, "value": 21.5}',
    Form.VQT: b'{"value": 21.5, "quality": 192, "timestamp": 1700000000123}',
    Form.FLAT: b'{"timestamp": 1700000000123, "serial": "B-7", "h": 119.5, "x": null, "nested": {"a": [1, 2]}}',
    Form.SCALAR: b"-21.5e3",
}


def test_classic_umh_has_tags_by_name_and_nested_ones_by_path() -> None:
    raw = b'{"timestamp_ms": 1700000000123, "temp": 21.5, "pos": {"x": 1, "in": {"y": null}}, "a.b": 3, "a": {"b": 4}}'
    fields = ("temp", "pos.x", "pos.in.y", "pos.in.z", "temp.x", "a.b")
    decoded = decode(Form.UMH, raw, fields=fields)
    assert decoded.time_s == 1700000000.123
    found = {name: decoded.fields[name] for name in fields if name in decoded.fields}
    assert found == {"temp": 21.5, "pos.x": 1, "pos.in.y": None, "a.b": 3}
    refused = make_decoder(Form.UMH, fields=fields)(b'{"temp": 1}')
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.detail) == ("undecodable", "no timestamp_ms")


def test_flat_json_reaches_into_objects_for_time_and_quality_too() -> None:
    raw = b'{"meta": {"t": 1700000000123, "q": "Bad"}, "head": {"x": 1.5}}'
    decoded = decode(Form.FLAT, raw, fields=("head.x",), timestamp_key="meta.t", quality_key="meta.q")
    assert (decoded.time_s, decoded.fields["head.x"], decoded.good) == (1700000000.123, 1.5, False)


def decode(form: Form, payload: bytes, **options: Any) -> Decoded:
    decoded = make_decoder(form, **options)(payload)
    assert isinstance(decoded, Decoded)
    return decoded


def test_each_form_gives_time_fields_and_quality() -> None:
    assert decode(Form.UMH, SEEDS[Form.UMH]).time_s == 1700000000.123
    assert decode(Form.UMH, SEEDS[Form.UMH]).fields["value"] == 21.5
    flat = decode(Form.FLAT, SEEDS[Form.FLAT])
    assert (flat.time_s, flat.fields["serial"], flat.fields["h"], flat.good) == (1700000000.123, "B-7", 119.5, True)
    vqt = decode(
        Form.VQT,
        b'{"v": 3, "q": "Bad", "t": "2024-03-01T10:00:00+01:00"}',
        quality_key="q",
        timestamp_key="t",
        timestamp_format=TimestampFormat.ISO8601,
    )
    assert (vqt.time_s, vqt.fields["v"], vqt.good) == (1709283600.0, 3, False)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"21.5", 21.5),
        (b" 7\n", 7),
        (b"true", True),
        (b"P-100", "P-100"),
        (b'"P 100"', "P 100"),
        (b"1_000", "1_000"),
        ("grün".encode(), "grün"),
    ],
)
def test_scalars(payload: bytes, value: object) -> None:
    decoded = decode(Form.SCALAR, payload)
    assert decoded.time_s is None
    assert decoded.fields["value"] == value
    assert type(decoded.fields["value"]) is type(value)


@pytest.mark.parametrize(
    ("form", "payload", "code"),
    [
        (Form.UMH, b"", "undecodable"),
        (Form.UMH, b"[1, 2]", "undecodable"),
        (Form.UMH, b'{"value": 1}', "undecodable"),
        (Form.UMH, b'{"timestamp_ms": 1}', "undecodable"),
        (Form.UMH, b'{"timestamp_ms": "1700", "value": 1}', "bad-timestamp"),
        (Form.UMH, b'{"timestamp_ms": true, "value": 1}', "bad-timestamp"),
        (Form.UMH, b'{"timestamp_ms": NaN, "value": 1}', "bad-timestamp"),
        (Form.UMH, b'{"timestamp_ms": -5, "value": 1}', "bad-timestamp"),
        (Form.UMH, b'{"timestamp_ms": 1e18, "value": 1}', "bad-timestamp"),
        (Form.UMH, b'{"timestamp_ms": 1' + b"0" * 5000 + b', "value": 1}', "undecodable"),
        (Form.FLAT, b'{"a": ' + b"[" * 30_000, "undecodable"),
        (Form.FLAT, b'{"a": "' + b"x" * MAX_PAYLOAD_BYTES + b'"}', "oversized"),
        (Form.FLAT, b'{"a": "\xff"}', "undecodable"),
        (Form.SCALAR, b"", "undecodable"),
        (Form.SCALAR, b"\xff\xfe", "undecodable"),
        (Form.SCALAR, b"1" * (MAX_PAYLOAD_BYTES + 1), "oversized"),
    ],
)
def test_refusals_are_named(form: Form, payload: bytes, code: str) -> None:
    refused = make_decoder(form)(payload)
    assert isinstance(refused, Refusal)
    assert refused.code == code


@pytest.mark.parametrize(
    ("form", "value", "seconds"),
    [
        (TimestampFormat.S, 1700000000.5, 1700000000.5),
        (TimestampFormat.MS, 1700000000500, 1700000000.5),
        (TimestampFormat.US, 1700000000500000, 1700000000.5),
        (TimestampFormat.NS, 1700000000500000000, 1700000000.5),
        (TimestampFormat.ISO8601, "2023-11-14T22:13:20.500Z", 1700000000.5),
    ],
)
def test_timestamps(form: TimestampFormat, value: Any, seconds: float) -> None:
    assert read_timestamp(value, form) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("text", ["2023-11-14T22:13:20", "yesterday", "", "9999-99-99T00:00:00Z", 5, None])
def test_a_time_that_nobody_can_know_is_refused(text: Any) -> None:
    refused = read_timestamp(text, TimestampFormat.ISO8601)
    assert isinstance(refused, Refusal)
    assert refused.code == "bad-timestamp"


@pytest.mark.parametrize("quality", [None, 192, 203, 255, 192.0, "GOOD", "Good", "good_unspecified", "192", True])
def test_good(quality: Any) -> None:
    assert is_good(quality)


@pytest.mark.parametrize(
    "quality",
    [0, 0.0, 64, 191, 256, 500, 512, 516, -1, "BAD", "Uncertain", "", "0", "²", False, [192], {}, float("nan")],
)
def test_not_good(quality: Any) -> None:
    assert not is_good(quality)


def test_numbers() -> None:
    assert read_number(3) == 3.0
    assert read_number(None) is None
    assert read_number(True, allow_bool=True) == 1.0
    for value, code in [
        (float("nan"), "not-finite"),
        (float("inf"), "not-finite"),
        (10**400, "not-finite"),
        (1e39, "not-finite"),
        (True, "wrong-type"),
        ("3", "wrong-type"),
        ([3], "wrong-type"),
        ({}, "wrong-type"),
    ]:
        refused = read_number(value)
        assert isinstance(refused, Refusal)
        assert refused.code == code


def test_keys_are_alike_in_every_json_type() -> None:
    assert read_text("B-7") == "B-7"
    assert read_text(" Größe 7 ") == " Größe 7 "
    assert read_text(7) == read_text(7.0) == "7"
    assert read_text(7.5) == "7.5"
    assert read_text(False) == "false"
    unusable: tuple[Any, ...] = (None, "", [], {}, float("nan"), float("inf"), 10**30, "x" * 257, "\ud800")
    assert [read_text(value) for value in unusable] == [None] * len(unusable)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(value=_JSON, quality=_JSON, timestamp=_JSON)
def test_any_json_is_decoded_or_refused(value: Any, quality: Any, timestamp: Any) -> None:
    payload = json.dumps({"value": value, "quality": quality, "timestamp": timestamp}).encode()
    for form in TimestampFormat:
        decoded = make_decoder(Form.VQT, timestamp_format=form)(payload)
        if isinstance(decoded, Decoded):
            assert decoded.time_s is None or 0 <= decoded.time_s < 1e11
            number = read_number(decoded.fields["value"])
            assert number is None or isinstance(number, Refusal) or abs(number) < 3.5e38
            assert isinstance(read_text(decoded.fields["value"]), str | None)
