"""What a payload is, and how it reads."""

from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.tree.decode import MAX_DECODED_BYTES, MAX_TEXT, describe
from headgate.tree.reading import Kind, Reading
from headgate.tree.text import size
from uns_topics.codes import Code
from uns_topics.envelope import Envelope, seal
from uns_topics.model import Value
from uns_topics.plan import Training
from uns_topics.presence import AggregatorStatus, BridgeStatus, ParticipantState, ParticipantStatus, Route
from uns_topics.protobuf import is_message, metadata_message
from uns_topics.reference import Reference
from uns_topics.reports import DataQuality, LastUpdate, Statistics
from uns_topics.rounds import ClientConfig, History, Receipt, RoundAnnouncement
from uns_topics.transfers import Chunk, encode_chunk, make_manifest


@pytest.mark.parametrize(
    ("payload", "kind", "text", "number"),
    [
        (b"21.50", Kind.NUMBER, "21.50", 21.5),
        (b" -3\n", Kind.NUMBER, "-3", -3.0),
        (b"true", Kind.BOOL, "true", 1.0),
        (b"NaN", Kind.NUMBER, "NaN", None),
        (b"1e999", Kind.NUMBER, "1e999", None),
        (b'"solder"', Kind.TEXT, "solder", None),
        ("grün".encode(), Kind.TEXT, "grün", None),
        (b"null", Kind.JSON, "null", None),
        (b"[1, 2]", Kind.JSON, "[1, 2]", None),
        (b"{}", Kind.JSON, "0 keys", None),
        (b'{"a": [1], "b": {"c": 1}, "d": 2.5}', Kind.JSON, "3 keys: a […], b {…}, d 2.5", None),
        (b"\x1b[31mred", Kind.TEXT, "\x1b[31mred", None),
        (b"9" * 5000, Kind.TEXT, "9" * MAX_TEXT, None),
        (b"[" * 60_000, Kind.TEXT, "[" * MAX_TEXT, None),
    ],
    ids=lambda value: str(value)[:24],
)
def test_texts(payload: bytes, kind: Kind, text: str, number: float | None) -> None:
    assert describe("a/b", payload) == Reading(kind, text, number)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"timestamp_ms": 1, "value": 0.25}, Reading(Kind.NUMBER, "0.25", 0.25)),
        ({"timestamp_ms": 1, "value": "gü"}, Reading(Kind.TEXT, "gü")),
        ({"timestamp_ms": 1, "value": {"a": 1}}, Reading(Kind.JSON, '{"a": 1}')),
        ({"value": True, "quality": 192}, Reading(Kind.BOOL, "true", 1.0)),
        ({"value": 4, "quality": 512, "unit": "bar"}, Reading(Kind.NUMBER, "4", 4.0, "bar", "quality 512")),
        ({"Value": 4, "Quality": "BAD", "engUnit": "°C"}, Reading(Kind.NUMBER, "4", 4.0, "°C", 'quality "BAD"')),
        ({"value": 4, "unit": 7}, Reading(Kind.NUMBER, "4", 4.0)),
        ({"timestamp_ms": 1, "temperature": 21.5}, Reading(Kind.NUMBER, "21.5", 21.5, None, "temperature")),
    ],
    ids=str,
)
def test_values_in_objects(content: dict[str, object], expected: Reading) -> None:
    assert describe("a/b", json.dumps(content).encode()) == expected


@pytest.mark.parametrize(
    ("payload", "kind", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(92), Kind.IMAGE, "PNG"),
        (b"\xff\xd8\xff" + bytes(97), Kind.IMAGE, "JPEG"),
        (b"RIFF\0\0\0\0WEBP" + bytes(88), Kind.IMAGE, "WebP"),
        (msgpack.packb({"a": 1, 2: bytes(4)}), Kind.MSGPACK, ""),
        (msgpack.packb([1, 2, b"\xff"]), Kind.MSGPACK, ""),
        (encode_chunk(Chunk("0" * 16, 0, 1, bytes(100))), Kind.CHUNK, ""),
        (
            msgpack.packb([{"participant": "lyon", "round_number": 1, "num_examples": 2, "v": 1}, b"", bytes(9)]),
            Kind.UPDATE,
            "",
        ),
        (metadata_message({"key": "value"}), Kind.PROTOBUF, ""),
        (b"\x0a\x01\xff\x10\x96\x01", Kind.PROTOBUF, ""),
        (bytes(2048), Kind.UNKNOWN, ""),
        (b"\xff\xfe\xfd", Kind.UNKNOWN, ""),
    ],
)
def test_binary_kinds_say_their_size(payload: bytes, kind: Kind, what: str) -> None:
    assert describe("a/b", payload) == Reading(kind, f"{what} {size(len(payload))}".strip())


def test_of_a_large_payload_the_start_is_enough() -> None:
    total = MAX_DECODED_BYTES + 1
    assert describe("a", b"\x89PNG\r\n\x1a\n", total) == Reading(Kind.IMAGE, "PNG 64.0 KiB")
    assert describe("a", b'{"a": ', total) == Reading(Kind.JSON, "64.0 KiB")
    assert describe("a", bytes(8), total) == Reading(Kind.UNKNOWN, "64.0 KiB")
    chunk = describe("fl/v1/f/down/model/3/11", bytes(64), 256 * 1024)
    assert chunk == Reading(Kind.CHUNK, "12, 256 KiB")
    part = describe("fl/v1/f/up/lyon/update/00112233aabbccdd/0", bytes(64), 256 * 1024)
    assert part == Reading(Kind.UPDATE, "chunk 1, 256 KiB")


SHA = "0123456789abcdef" * 4
ROUND = RoundAnnouncement(
    round_number=7, attempt=2, epoch=1, state="open", base=6, base_sha256=SHA, generation=1, cohort=("berlin", "lyon"),
    client=ClientConfig(training=Training(), encoding="f32"), seed=1, seconds_left=9.0,
)  # fmt: skip
STATUS = ParticipantStatus(birth=1, state=ParticipantState.TRAINING, samples=1234)
STATISTICS = Statistics(generation=1, rows=10, label_counts=(), cells=())
LAST = LastUpdate(
    id=SHA[:16], round_number=7, base=SHA, result="rejected", code=Code.LATE, num_examples=70, num_steps=1,
    payload_bytes=9, train_seconds=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "sender", "body", "text"),
    [
        ("down/status", "aggregator", AggregatorStatus(birth=1, state="online", epoch=3), "online, epoch 3"),
        ("down/round", "aggregator", ROUND, "round 7 open, attempt 2, base 6, cohort of 2"),
        (
            "down/receipt/lyon", "aggregator", Receipt(id=SHA[:16], result="rejected", code=Code.NORM),
            "rejected, norm, 0123456789abcdef",
        ),
        (
            "down/reference", "aggregator", Reference(generation=2, participants=(), features=()),
            "generation 2, quantiles of 0 features",
        ),
        ("down/history", "aggregator", History(rounds=(), current=None), "0 rounds, current none"),
        ("down/to/lyon/via", "dmz", Route(bridges=("dmz", "hq")), "via dmz, hq"),
        ("up/lyon/status", "lyon", STATUS, "training, 1,234 samples"),
        ("up/lyon/via/dmz", "dmz", BridgeStatus(birth=1, state="offline"), "bridge offline"),
        ("up/lyon/last-update", "lyon", LAST, "round 7 rejected, late, 70 examples"),
        ("up/lyon/statistics", "lyon", STATISTICS, "generation 1, 10 rows"),
        (
            "up/lyon/data-quality", "lyon", DataQuality(verdict="hold", samples=9, matured=7, features=()),
            "hold, 7 of 9 matured",
        ),
        (
            "up/lyon/update/16c0b0ba4ab4b9f5/manifest", "lyon", make_manifest(bytes(2048), "update", round_number=7),
            f"manifest of update {make_manifest(bytes(2048), 'update').id}, round 7, 2.0 KiB",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)  # fmt: skip
def test_messages_of_the_fl_tree_are_a_sentence(path: str, sender: str, body: Value, text: str) -> None:
    payload = seal(Envelope("solder", sender, "0a1b2c3d", 1), body)
    assert describe(f"fl/v1/solder/{path}", payload) == Reading(Kind.HEADGATE, text)


def test_what_its_topic_does_not_declare_is_not_shown() -> None:
    reading = describe("fl/v1/solder/up/lyon/status", b'{"state": "\x1b[2Jowned"}')
    assert reading == Reading(Kind.HEADGATE, "22 B", note="not what its topic declares")
    assert describe("fl/v1/solder/else/where", b"1") == Reading(Kind.NUMBER, "1", 1.0)


@given(st.binary(max_size=300), st.sampled_from(["a/b", "fl/v1/f/down/round", "fl/v1/f/down/model/1/0"]))
def test_nothing_raises_and_texts_are_bounded(payload: bytes, topic: str) -> None:
    reading = describe(topic, payload)
    assert len(reading.text) <= MAX_TEXT


KEYS = st.text() | st.sampled_from(["value", "unit", "quality", "timestamp_ms"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["value", "unit", "quality"]), inner)
        ),
    )
)
def test_any_json_reads(content: object) -> None:
    reading = describe("a/b", json.dumps(content).encode())
    assert len(reading.text) <= MAX_TEXT
    assert len(reading.note) <= 50


def test_protobuf_is_told_by_its_fields() -> None:
    assert is_message(metadata_message({"a": "b"}))
    assert not is_message(b"")
    assert not is_message(b"\x02\x00")  # field 0
    assert not is_message(metadata_message({"a": "b"})[:-1])
