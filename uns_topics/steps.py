"""The step from a version to the next, as it goes down: vector[N] := vector[parent] + decode(step).

The aggregator takes the sum too, and keeps what the encoding left out for its next step: who adds the step to the
parent and who fetches the whole vector hold the same bits. Buffers travel as values in float32, since a sum may round
a variance below zero, and so does the control variate of a version that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from uns_topics.compression import CompressionError, compress, decompress
from uns_topics.encodings import EncodingError, encoding
from uns_topics.envelope import describe
from uns_topics.model import Sha256, Value, Version
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes, vector_from_bytes, vector_sha256

STEP_VERSION: Literal[1] = 1
_MAX_HEAD_BYTES = 1024


class StepError(ValueError):
    """A step that is malformed, or one from another parent."""


class StepHeader(Value):
    """The first line of a step, as JSON; what follows is weights, then buffers, then the control variate."""

    v: Literal[1] = STEP_VERSION
    version: Version
    parent_sha256: Sha256
    encoding: str = Field(max_length=32)
    compression: Literal["none", "zstd"]
    weight_bytes: int = Field(ge=0, le=2**40)
    """Before compression."""
    control_bytes: int = Field(default=0, ge=0, le=2**40)
    """Before compression; 0 where the plan has no control variates."""


@dataclass(frozen=True)
class Step:
    """A step and what comes of it.

    Attributes: vector: the new version's; residual: weights that the step left out, shape (elements of role weight,).
    """

    content: bytes = field(repr=False)
    vector: Vector = field(repr=False)
    residual: Vector = field(repr=False)


def make_step(
    version: int,
    parent: Vector,
    target: Vector,
    residual: Vector | None,
    table: TensorTable,
    name: str,
    control: Vector | None = None,
) -> Step:
    """The step that brings holders of the parent near the target.

    Args:
        target: what the round made; residual: what the step to the parent left out.
        name: of the encoding.
        control: the new version's control variate, shape (elements of role weight,), where the plan has one.

    Raises: EncodingError: a step that the encoding can't carry.
    """
    way = encoding(name)
    due = table.gather(target, Role.WEIGHT)
    np.subtract(due, table.gather(parent, Role.WEIGHT), out=due)  # in place: models are what memory runs out of
    if residual is not None:
        np.add(due, residual, out=due)
    raw = way.encode(due)
    sent = way.decode(raw, due.size)
    np.subtract(due, sent, out=due)
    buffers = table.gather(target, Role.BUFFER)
    vector = _moved(parent, sent, buffers, table)
    del sent
    beside = vector_bytes(control) if control is not None else b""
    body = raw + vector_bytes(buffers) + beside
    small = compress(body)
    is_small = len(small) < len(body)
    header = StepHeader(
        version=version,
        parent_sha256=vector_sha256(parent),
        encoding=name,
        compression="zstd" if is_small else "none",
        weight_bytes=len(raw),
        control_bytes=len(beside),
    )
    content = header.model_dump_json().encode() + b"\n" + (small if is_small else body)
    return Step(content, vector, due)


def read_header(content: bytes) -> StepHeader:
    """What a step says of itself. Raises: StepError."""
    head = content.partition(b"\n")[0]
    if len(head) > _MAX_HEAD_BYTES:
        raise StepError("a step without a header")
    try:
        return StepHeader.model_validate_json(head)
    except ValidationError as error:
        raise StepError(describe(error)) from None


def take_step(
    parent: Vector, content: bytes, table: TensorTable, *, control: bool = False
) -> tuple[Vector, Vector | None]:
    """The version that a step leads to; its hashes are still to be compared with the manifest's.

    Args: control: whether the plan has control variates.
    Returns: its vector, and its control variate where the plan has them.
    Raises: StepError.
    """
    header = read_header(content)
    sent = content.partition(b"\n")[2]
    try:
        way = encoding(header.encoding)
        elements, buffers = table.elements(Role.WEIGHT), 4 * table.elements(Role.BUFFER)
        if header.weight_bytes > way.max_bytes(elements):
            raise StepError(f"{header.weight_bytes} bytes of {header.encoding} for {elements} elements")
        if header.parent_sha256 != vector_sha256(parent):
            raise StepError("the step is from another parent than the one that is here")
        if header.control_bytes != (due := 4 * elements if control else 0):
            raise StepError(f"{header.control_bytes} bytes of a control variate where the plan takes {due}")
        size = header.weight_bytes + buffers + header.control_bytes
        body = decompress(sent, size) if header.compression == "zstd" else sent
        if len(body) != size:
            raise StepError(f"a step of {len(body)} bytes where {size} are due")
        weights = way.decode(body[: header.weight_bytes], elements)
        beside = vector_from_bytes(body[size - header.control_bytes :], elements) if control else None
    except (EncodingError, CompressionError, ValueError) as error:
        raise StepError(str(error)) from None
    values = np.frombuffer(body, "<f4", buffers // 4, header.weight_bytes) if buffers else np.empty(0, np.float32)
    return _moved(parent, weights, values.astype(np.float32), table), beside


def _moved(parent: Vector, weights: Vector, buffers: Vector, table: TensorTable) -> Vector:
    """The version that this leads to: made by the aggregator and by those who take the step, by the same sum."""
    vector = parent.copy()
    table.add(vector, Role.WEIGHT, weights)
    table.scatter(vector, Role.BUFFER, buffers)
    return vector
