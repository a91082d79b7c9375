"""An update: one msgpack object `[header, pad, body]`, the body aligned to 64 bytes and read in place.

Unpacking tensors through msgpack objects costs six times as much as reading one aligned bin; any msgpack reader can
still unpack it. The header is a declared model, and every byte of the body belongs to a declared tensor group.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import msgpack
import numpy as np
from pydantic import Field, ValidationError, model_validator

from uns_topics.compression import CompressionError, compress, decompress
from uns_topics.encodings import EncodingError, encoding
from uns_topics.envelope import PayloadError, describe
from uns_topics.model import Count, Sha256, Slug, Value
from uns_topics.tensors import Role, TensorTable, Vector

UPDATE_VERSION: Literal[1] = 1
MAX_HEADER_BYTES = 8 * 1024
_ALIGNMENT = 64
_FIXARRAY_3 = 0x93
_BIN32 = 0xC6
_PLAIN = frozenset({"f32", "f16"})
ROLES = {"delta": Role.WEIGHT, "buffer": Role.BUFFER, "control": Role.WEIGHT}
"""Which tensors a group has an element for each of."""


Metric = Literal["loss"]
"""What a participant says of its training. A closed list: a name of its own choice could say anything."""


Compression = Literal["none", "zstd"]
"""Of the body as a whole. The sizes of groups are those before it."""


class TensorGroup(Value):
    """A run of the body: all tensors of one role in table order, in one encoding.

    `control` is the change of the participant's control variate (SCAFFOLD): as many elements as `delta`, always f32.
    """

    name: Literal["delta", "buffer", "control"]
    encoding: str = Field(max_length=32)
    elements: int = Field(ge=0, le=2**31)
    bytes: int = Field(ge=0, le=2**40)


class UpdateHeader(Value):
    """What the tensors are: `delta` is always local - global."""

    v: Literal[1] = UPDATE_VERSION
    federation: Slug
    participant: Slug
    round_number: int = Field(ge=1, le=2**31)
    attempt: int = Field(ge=1, le=1000)
    base: Sha256
    generation: int = Field(ge=0, le=2**31)
    num_examples: Count
    num_steps: Count
    contributors: int = Field(default=1, ge=1, le=100_000)
    metrics: dict[Metric, float] = Field(default_factory=dict)
    compression: Compression = "none"
    groups: tuple[TensorGroup, ...] = Field(min_length=1, max_length=3)

    @model_validator(mode="after")
    def _groups(self) -> Self:
        names = [g.name for g in self.groups]
        if len(set(names)) != len(names) or "delta" not in names:
            raise ValueError("groups need exactly one delta, and no group twice")
        return self


@dataclass(frozen=True)
class Update:
    """Header and body; the body is a view into the received bytes, or what they unpack to."""

    header: UpdateHeader
    body: memoryview
    sent: memoryview
    """The body as it was received."""

    def parts(self) -> Iterator[tuple[TensorGroup, memoryview]]:
        """Each group with its bytes, as the header declares them."""
        start = 0
        for group in self.header.groups:
            yield group, self.body[start : start + group.bytes]
            start += group.bytes


def pack_update(header: UpdateHeader, body: bytes) -> bytes:
    """The update's bytes, the body compressed where its encoding is a compact one and that makes it smaller.

    Floats are left as they are: a tenth is no gain worth hiding them from those who look into what leaves a plant.
    """
    if all(group.encoding in _PLAIN for group in header.groups) or len(small := compress(body)) >= len(body):
        return encode_update(header, body)
    return encode_update(header.model_copy(update={"compression": "zstd"}), small)


def encode_update(header: UpdateHeader, body: bytes) -> bytes:
    """The update's bytes. Args: body: compressed as the header says."""
    head = msgpack.packb(header.model_dump(mode="python"), use_bin_type=True)
    before_pad = 1 + len(head)
    pad = -(before_pad + 2 + 5) % _ALIGNMENT  # 2: the pad's bin8 header, 5: the body's bin32 header
    return b"".join(
        (bytes([_FIXARRAY_3]), head, b"\xc4", bytes([pad]), bytes(pad), struct.pack(">BI", _BIN32, len(body)), body)
    )


def decode_update(raw: bytes, max_bytes: int) -> Update:
    """Read an update in place. Raises: PayloadError: too large, malformed, or with bytes that nothing declares."""
    if len(raw) > max_bytes:
        raise PayloadError(f"an update of {len(raw)} bytes where at most {max_bytes} are due")
    view = memoryview(raw)
    if len(raw) < 16 or view[0] != _FIXARRAY_3:
        raise PayloadError("an update is a msgpack array of header, pad and body")
    unpacker = msgpack.Unpacker(
        raw=False, use_list=False, max_buffer_size=MAX_HEADER_BYTES, max_str_len=256, max_bin_len=_ALIGNMENT,
        max_map_len=64, max_array_len=64, max_ext_len=0,
    )  # fmt: skip
    unpacker.feed(view[1 : 1 + MAX_HEADER_BYTES])
    try:
        fields, pad = unpacker.unpack(), unpacker.unpack()
        start = 1 + unpacker.tell()
        if not isinstance(pad, bytes) or any(pad):
            raise PayloadError("the pad of an update is zeros")
        marker, length = struct.unpack_from(">BI", raw, start)
        header = UpdateHeader.model_validate(fields)
    except ValidationError as error:
        raise PayloadError(describe(error)) from None
    except (ValueError, struct.error, msgpack.UnpackException) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"no msgpack update: {type(error).__name__}") from None
    sent = view[start + 5 :]
    declared = sum(g.bytes for g in header.groups)
    if marker != _BIN32 or length != len(sent) or (header.compression == "none" and declared != length):
        raise PayloadError(f"a body of {len(sent)} bytes where its header declares {declared}")
    if header.compression == "none":
        return Update(header, sent, sent)
    if not length < declared <= max_bytes:
        raise PayloadError(f"a body of {length} bytes that unpacks to {declared} where at most {max_bytes} are due")
    try:
        return Update(header, memoryview(decompress(sent, declared)), sent)
    except CompressionError as error:
        raise PayloadError(str(error)) from None


def unpacked(update: Update) -> bytes:
    """The same update without compression."""
    return encode_update(update.header.model_copy(update={"compression": "none"}), bytes(update.body))


def is_canonical(raw: bytes, update: Update) -> bool:
    """Whether the bytes are those that `encode_update` makes of what was read from them.

    msgpack has several ways to write one value and takes a key that stands twice: all others could carry something.
    """
    return encode_update(update.header, bytes(update.sent)) == raw


def pack_groups(
    delta: Vector, table: TensorTable, weight_encoding: str, control: Vector | None = None
) -> tuple[tuple[TensorGroup, ...], bytes]:
    """Encode a delta in vector order: weights in the given encoding, buffers as f32; frozen and local never leave.

    Args: control: shape (elements of role weight,), where the plan has control variates.
    Raises: EncodingError: unknown encoding, or a value that it can't carry.
    """
    groups, parts = [], []
    for name, values, chosen in (
        ("delta", table.gather(delta, Role.WEIGHT), weight_encoding),
        ("buffer", table.gather(delta, Role.BUFFER), "f32"),
        ("control", np.empty(0, np.float32) if control is None else control, "f32"),
    ):
        if name == "delta" or values.size:
            raw = encoding(chosen).encode(values)
            groups.append(TensorGroup(name=name, encoding=chosen, elements=values.size, bytes=len(raw)))  # type: ignore[arg-type]
            parts.append(raw)
    return tuple(groups), b"".join(parts)


def unpack_groups(update: Update, table: TensorTable, *, control: bool = False) -> Vector:
    """Decode an update into a delta in vector order; frozen and local elements are zero.

    Args: control: whether the plan has control variates, so that there must be such a group; `unpack_control` reads it.
    Returns: shape (table.size,), float32.
    Raises: EncodingError: unknown encoding or wrong length. ValueError: a group doesn't fit the table.
    """
    delta = np.zeros(table.size, np.float32)
    for group, (name, raw) in split_groups(update, table, control=control).items():
        if group != "control":
            role = ROLES[group]
            table.scatter(delta, role, encoding(name).decode(raw, table.elements(role)))
    return delta


def split_groups(update: Update, table: TensorTable, *, control: bool = False) -> dict[str, tuple[str, memoryview]]:
    """Each group's encoding and bytes, as they were sent, by the group's name.

    Args: control: whether the plan has control variates.
    Raises: EncodingError: another encoding than f32 where that is due, or a control of another length. ValueError: a
        group doesn't fit the table, or is missing.
    """
    found: dict[str, tuple[str, memoryview]] = {}
    for group, raw in update.parts():
        elements = table.elements(ROLES[group.name])
        if group.elements != elements or (group.name == "control" and not control):
            raise ValueError(f"group {group.name} of {group.elements} elements doesn't fit the table")
        if group.name != "delta" and group.encoding != "f32":
            raise EncodingError(f"group {group.name} travels as f32, not {group.encoding}")
        if group.name == "control" and len(raw) != 4 * elements:
            raise EncodingError(f"{len(raw)} bytes of group control for {elements} elements")
        found[group.name] = group.encoding, raw
    if table.elements(Role.BUFFER) and "buffer" not in found:
        raise ValueError("the table has buffers and the update has none")
    if control and "control" not in found:
        raise ValueError("the plan has control variates and the update has none")
    return found


def unpack_control(update: Update) -> Vector | None:
    """Group `control` of an update that `unpack_groups` took; None where it has none.

    Returns: shape (elements of role weight,), float32; not checked for NaN.
    """
    for group, raw in update.parts():
        if group.name == "control":
            return encoding(group.encoding).decode(raw, group.elements)
    return None


def max_update_bytes(table: TensorTable, encodings: tuple[str, ...], *, control: bool = False) -> int:
    """The most bytes that an update can take under a plan: what is allowed to be received."""
    elements = table.elements(Role.WEIGHT)
    weights = max(encoding(name).max_bytes(elements) for name in encodings)
    plain = 4 * (table.elements(Role.BUFFER) + (elements if control else 0))
    return MAX_HEADER_BYTES + 2 * _ALIGNMENT + weights + plain
