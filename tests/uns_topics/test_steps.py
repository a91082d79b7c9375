"""Steps down: full and step holders agree to the bit, and what a step leaves out comes with the next."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uns_topics.encodings import ENCODINGS, EncodingError, encoding
from uns_topics.steps import StepError, make_step, take_step
from uns_topics.tensors import Role, Tensor, TensorTable

TABLE = TensorTable(
    tensors=(
        Tensor(name="standardise.mean", shape=(4,), role=Role.FROZEN, offset=0, file_offset=0),
        Tensor(name="network.weight", shape=(50, 60), role=Role.WEIGHT, offset=4, file_offset=100),
        Tensor(name="network.running_var", shape=(8,), role=Role.BUFFER, offset=3004, file_offset=20_000),
        Tensor(name="calibration.scale", shape=(), role=Role.LOCAL, offset=3012, file_offset=30_000),
    )
)
RNG = np.random.default_rng(11)
PARENT = RNG.normal(0, 1, TABLE.size).astype(np.float32)


def moved(vector: np.ndarray, seed: int) -> np.ndarray:
    """What a round makes of it: weights and buffers move, the rest stays."""
    target, rng = vector.copy(), np.random.default_rng(seed)
    for role in (Role.WEIGHT, Role.BUFFER):
        size = TABLE.elements(role)
        TABLE.scatter(target, role, TABLE.gather(vector, role) + rng.normal(0, 0.01, size).astype(np.float32))
    return target


@pytest.mark.parametrize("name", ENCODINGS)
def test_full_and_step_holders_agree_to_the_bit(name: str) -> None:
    here, there, residual = PARENT, PARENT.copy(), None
    for version in range(2, 12):
        made = make_step(version, here, moved(here, version), residual, TABLE, name)
        there, _ = take_step(there, made.content, TABLE)
        assert there.tobytes() == made.vector.tobytes()
        here, residual = made.vector, made.residual


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_step_is_the_encoded_difference_with_what_was_left(name: str) -> None:
    target, residual = moved(PARENT, 1), RNG.normal(0, 0.01, 3000).astype(np.float32)
    due = TABLE.gather(target, Role.WEIGHT) - TABLE.gather(PARENT, Role.WEIGHT) + residual
    sent = encoding(name).decode(encoding(name).encode(due), due.size)
    made = make_step(2, PARENT, target, residual, TABLE, name)
    np.testing.assert_array_equal(made.residual, due - sent)
    np.testing.assert_array_equal(TABLE.gather(made.vector, Role.WEIGHT), TABLE.gather(PARENT, Role.WEIGHT) + sent)
    for role in (Role.BUFFER, Role.FROZEN, Role.LOCAL):
        np.testing.assert_array_equal(TABLE.gather(made.vector, role), TABLE.gather(target, role))


def test_what_is_left_out_arrives_later() -> None:
    here, residual = PARENT, None
    target = moved(PARENT, 1)
    for version in range(2, 60):
        made = make_step(version, here, target if version == 2 else here, residual, TABLE, "topk-sign")
        here, residual = made.vector, made.residual
    np.testing.assert_allclose(here, target, atol=2e-3)


def test_another_parent_is_refused() -> None:
    made = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, "int8")
    with pytest.raises(StepError, match="another parent"):
        take_step(made.vector, made.content, TABLE)


def test_a_step_that_cannot_be_carried_is_an_error() -> None:
    target = moved(PARENT, 1)
    target[10] = np.nan
    with pytest.raises(EncodingError):
        make_step(2, PARENT, target, None, TABLE, "ternary")


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_truncation_and_every_byte_too_many_is_refused(name: str) -> None:
    content = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, name).content
    for cut in [*range(300), *range(300, len(content), 41), len(content) - 1]:
        with pytest.raises(StepError):
            take_step(PARENT, content[:cut], TABLE)
    with pytest.raises(StepError):
        take_step(PARENT, content + b"\0", TABLE)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 800), st.binary(min_size=1, max_size=30))
def test_mutated_steps_are_read_or_refused(at: int, noise: bytes) -> None:
    raw = bytearray(make_step(2, PARENT, moved(PARENT, 1), None, TABLE, "ternary").content)
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(StepError):
        assert take_step(PARENT, bytes(raw), TABLE)[0].size == TABLE.size


def test_what_a_step_unpacks_to_is_bounded() -> None:
    content = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, "int8").content
    with pytest.raises(StepError, match="3000 elements"):
        take_step(PARENT, content.replace(b'"weight_bytes":3008', b'"weight_bytes":999999999'), TABLE)


CONTROL = RNG.normal(0, 1, 3000).astype(np.float32)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_control_variate_comes_exact_beside_every_encoding(name: str) -> None:
    made = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, name, CONTROL)
    vector, control = take_step(PARENT, made.content, TABLE, control=True)
    assert vector.tobytes() == made.vector.tobytes()
    assert control is not None
    assert control.tobytes() == CONTROL.tobytes()
    plain = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, name)
    assert plain.vector.tobytes() == made.vector.tobytes(), "the vector knows nothing of it"


@pytest.mark.parametrize("name", ["f32", "ternary"])
def test_a_control_variate_is_there_where_the_plan_says_so_and_nowhere_else(name: str) -> None:
    with_it = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, name, CONTROL).content
    without = make_step(2, PARENT, moved(PARENT, 1), None, TABLE, name).content
    with pytest.raises(StepError, match="control variate"):
        take_step(PARENT, with_it, TABLE)
    with pytest.raises(StepError, match="control variate"):
        take_step(PARENT, without, TABLE, control=True)
    for cut in (1, 4, 4 * 3000, len(with_it) // 2):
        with pytest.raises(StepError):
            take_step(PARENT, with_it[:-cut], TABLE, control=True)
    broken = CONTROL.copy()
    broken[7] = np.nan
    with pytest.raises(StepError, match="NaN"):
        take_step(PARENT, make_step(2, PARENT, PARENT, None, TABLE, name, broken).content, TABLE, control=True)
