"""Metadata entries of a ModelProto, against onnx's own reader and writer, and against bytes that are no message."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from uns_topics.protobuf import ProtobufError, metadata_entries, metadata_message

GRAPH = helper.make_model(
    helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    ),
    producer_name="test",
)
TEXT = st.text(max_size=300)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_onnx_reads_what_is_appended(entries: dict[str, str]) -> None:
    raw = GRAPH.SerializeToString() + metadata_message(entries)
    model = onnx.load_model_from_string(raw)
    assert [(p.key, p.value) for p in model.metadata_props] == list(entries.items())
    assert model.graph == GRAPH.graph
    assert [(key, value) for _, key, value in metadata_entries(raw)] == list(entries.items())


@given(st.dictionaries(TEXT, TEXT, min_size=1, max_size=3), st.dictionaries(TEXT, TEXT, min_size=1, max_size=3))
def test_a_position_is_where_its_own_field_begins(first: dict[str, str], second: dict[str, str]) -> None:
    head = GRAPH.SerializeToString() + metadata_message(first)
    positions = [at for at, _, _ in metadata_entries(head + metadata_message(second))]
    assert positions[0] == len(GRAPH.SerializeToString())
    assert positions[len(first)] == len(head)


def test_a_value_longer_than_one_length_byte_is_read_back() -> None:
    for size in (0, 1, 127, 128, 16_383, 16_384, 100_000):
        raw = metadata_message({"key": "v" * size})
        assert list(metadata_entries(raw)) == [(0, "key", "v" * size)]


def test_what_onnx_wrote_itself_is_read_too() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(GRAPH)
    helper.set_model_props(model, {"a": "1", "ü": "ä"})
    assert [(k, v) for _, k, v in metadata_entries(model.SerializeToString())] == [("a", "1"), ("ü", "ä")]


def test_other_wire_types_are_stepped_over() -> None:
    fixed = b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x08\x96\x01"  # a 64-bit, a 32-bit and a varint field
    assert list(metadata_entries(fixed + metadata_message({"k": "v"}))) == [(len(fixed), "k", "v")]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x72",  # a tag without its length
        b"\x72\x05ab",  # longer than the file
        b"\x0b",  # a group, which ONNX never has
        b"\xff" * 11,  # a number that doesn't end
        b"\x72\x02\x0a\x00",  # an entry without a value
        b"\x72\x06\x0a\x01\xff\x12\x01a",  # a key that is no UTF-8
        b"\x09\x00",  # a fixed field that the file cuts off
    ],
)
def test_bytes_that_are_no_message_are_an_error(raw: bytes) -> None:
    with pytest.raises(ProtobufError):
        list(metadata_entries(raw))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        entries = list(metadata_entries(raw))
    except ProtobufError:
        return
    assert all(0 <= at < len(raw) for at, _, _ in entries)
