"""The two protobuf facts that version bytes rest on: length-delimited fields, and concatenation merges messages.

Only the top level of an ONNX `ModelProto` is read or written here; a graph is never parsed.
(protobuf.dev/programming-guides/encoding: "Last One Wins" and repeated fields; onnx.proto3: metadata_props = 14,
StringStringEntryProto key = 1, value = 2.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_METADATA_PROPS = 14
_LENGTH_DELIMITED = 2


class ProtobufError(ValueError):
    """The bytes are no protobuf message."""


def metadata_message(entries: Mapping[str, str]) -> bytes:
    """A ModelProto that holds only `metadata_props`, in the order given: append it to a model to add them."""
    out = bytearray()
    for key, value in entries.items():
        out += _field(_METADATA_PROPS, _field(1, key.encode()) + _field(2, value.encode()))
    return bytes(out)


def metadata_entries(raw: bytes) -> Iterator[tuple[int, str, str]]:
    """Each metadata entry of a ModelProto with the byte position of its field. Raises: ProtobufError."""
    for start, number, content in _fields(memoryview(raw)):
        if number == _METADATA_PROPS and content is not None:
            pair = {n: c for _, n, c in _fields(content) if c is not None}
            try:
                yield start, str(pair[1], "utf-8"), str(pair[2], "utf-8")
            except (KeyError, UnicodeDecodeError) as error:
                raise ProtobufError("a metadata entry without readable key and value") from error


def is_message(raw: bytes) -> bool:
    """Whether bytes parse to their end as fields of a message; what they mean stands in no message."""
    try:
        numbers = [number for _, number, _ in _fields(memoryview(raw))]
    except ProtobufError:
        return False
    return bool(numbers) and 0 not in numbers


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _read_varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise ProtobufError(f"a number that doesn't end at byte {at}")
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(raw: memoryview) -> Iterator[tuple[int, int, memoryview | None]]:
    """(position, field number, content) of each top-level field; content is None unless length-delimited."""
    at = 0
    while at < len(raw):
        start = at
        tag, at = _read_varint(raw, at)
        content = None
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _read_varint(raw, at)
        elif wire_type == _LENGTH_DELIMITED:
            length, at = _read_varint(raw, at)
            content = raw[at : at + length]
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise ProtobufError(f"wire type {wire_type} at byte {start}")
        if at > len(raw):
            raise ProtobufError(f"the field at byte {start} is longer than the file")
        yield start, tag >> 3, content
