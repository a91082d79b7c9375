"""The tensor table, and the bytes and the hash of a vector."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from pydantic import ValidationError

from uns_topics.tensors import Role, Tensor, TensorTable, Vector, vector_bytes, vector_from_bytes, vector_sha256


def tensor(name: str, shape: tuple[int, ...], role: Role, offset: int, file_offset: int | None = None) -> Tensor:
    return Tensor(
        name=name, shape=shape, role=role, offset=offset, file_offset=4 * offset if file_offset is None else file_offset
    )


TABLE = TensorTable(
    tensors=(
        tensor("mean", (2, 2), Role.FROZEN, 0),
        tensor("a.weight", (3, 2), Role.WEIGHT, 4),
        tensor("a.bias", (3,), Role.WEIGHT, 10),
        tensor("norm.running_var", (3,), Role.BUFFER, 13),
        tensor("b.weight", (1,), Role.WEIGHT, 16),
        tensor("scale", (), Role.LOCAL, 17),
    )
)


def counting() -> Vector:
    return np.arange(TABLE.size, dtype=np.float32)


def test_sizes_by_role() -> None:
    assert TABLE.size == 18
    assert {role: TABLE.elements(role) for role in Role} == {
        Role.FROZEN: 4,
        Role.WEIGHT: 10,
        Role.BUFFER: 3,
        Role.LOCAL: 1,
    }
    assert TABLE.named("scale").size == 1


def test_neighbours_of_one_role_are_one_run() -> None:
    assert TABLE.slices(Role.WEIGHT) == (slice(4, 13), slice(16, 17))
    assert TABLE.slices(Role.LOCAL) == (slice(17, 18),)


def test_gather_and_scatter_are_inverse_and_touch_their_role_alone() -> None:
    vector = counting()
    weights = TABLE.gather(vector, Role.WEIGHT)
    assert weights.tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 12, 16]
    weights[:] = -1
    assert vector[4] == 4  # a copy
    TABLE.scatter(vector, Role.WEIGHT, weights)
    assert vector.tolist() == [0, 1, 2, 3, *[-1] * 9, 13, 14, 15, -1, 17]
    with pytest.raises(ValueError, match="9 elements for 10 of role weight"):
        TABLE.scatter(vector, Role.WEIGHT, weights[1:])


def test_a_role_without_tensors_is_empty() -> None:
    table = TensorTable(tensors=(tensor("a", (2,), Role.WEIGHT, 0),))
    assert table.gather(np.ones(2, np.float32), Role.BUFFER).size == 0
    table.scatter(np.ones(2, np.float32), Role.BUFFER, np.empty(0, np.float32))


def test_a_view_has_its_shape_and_writes_through() -> None:
    vector = counting()
    assert TABLE.view(vector, "a.weight").tolist() == [[4, 5], [6, 7], [8, 9]]
    TABLE.view(vector, "scale")[...] = 9.5
    assert vector[17] == 9.5
    with pytest.raises(KeyError):
        TABLE.view(vector, "c")


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ((tensor("a", (2,), Role.WEIGHT, 1),), "starts at element 1, not at 0"),
        ((tensor("a", (2,), Role.WEIGHT, 0), tensor("b", (2,), Role.WEIGHT, 3)), "starts at element 3, not at 2"),
        ((tensor("a", (2,), Role.WEIGHT, 0), tensor("a", (2,), Role.WEIGHT, 2)), "stands twice"),
        ((tensor("a", (2,), Role.WEIGHT, 0, 0), tensor("b", (2,), Role.WEIGHT, 2, 7)), "overlaps"),
        ((tensor("a", (2, 0), Role.WEIGHT, 0),), "empty or negative dimension"),
        ((tensor("a", (-2,), Role.WEIGHT, 0),), "empty or negative dimension"),
        ((tensor("a", (2**16, 2**16), Role.WEIGHT, 0),), "more than 2\\^31"),
    ],
)
def test_a_table_that_lies_is_refused(tensors: tuple[Tensor, ...], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        TensorTable(tensors=tensors)


def test_the_order_in_the_file_is_free() -> None:
    table = TensorTable(tensors=(tensor("a", (2,), Role.WEIGHT, 0, 100), tensor("b", (2,), Role.WEIGHT, 2, 8)))
    assert table.size == 4


def test_a_vector_is_little_endian_float32_back_to_back() -> None:
    vector = np.array([1.0, -2.5, 3e38], np.float32)
    raw = struct.pack("<3f", 1.0, -2.5, 3e38)
    assert vector_bytes(vector) == vector_bytes(vector.astype(">f4")) == raw
    assert vector_bytes(np.repeat(vector, 2)[::2]) == raw
    assert vector_sha256(vector) == hashlib.sha256(raw).hexdigest()
    read = vector_from_bytes(memoryview(raw), 3)
    assert read.tolist() == vector.tolist()
    read[0] = 5.0  # its own memory
    assert raw == struct.pack("<3f", 1.0, -2.5, 3e38)


@pytest.mark.parametrize(("raw", "size"), [(b"\0" * 7, 2), (b"\0" * 8, 3), (b"", 1)])
def test_another_length_is_refused(raw: bytes, size: int) -> None:
    with pytest.raises(ValueError, match=f"{len(raw)} bytes for a vector of {size}"):
        vector_from_bytes(raw, size)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_vector_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        vector_from_bytes(struct.pack("<2f", 1.0, value), 2)
