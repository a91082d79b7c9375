"""Control variates beside a version: exact sizes, finite values, and a bound that follows from the algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from tests.contracts.examples import TABLE, VECTOR, VERSION
from uns_topics.controls import full_bytes, join_full, max_control_norm, split_full
from uns_topics.plan import Tolerances, Training
from uns_topics.rounds import VersionManifest
from uns_topics.tensors import vector_sha256
from uns_topics.transfers import KIB, make_manifest

CONTROL = np.array([0.5, -1.0, 2.0, 0.0], np.float32)


def test_a_version_with_and_without_its_control_reads_back() -> None:
    for control in (None, CONTROL):
        content = join_full(VECTOR, control)
        assert len(content) == full_bytes(TABLE, control=control is not None)
        vector, beside = split_full(content, TABLE, control=control is not None)
        np.testing.assert_array_equal(vector, VECTOR)
        assert (beside is None) == (control is None)
        if control is not None and beside is not None:
            assert beside.tobytes() == control.tobytes()


@pytest.mark.parametrize("has_control", [False, True])
def test_every_other_length_is_refused(has_control: bool) -> None:
    content = join_full(VECTOR, CONTROL if has_control else None)
    for other in (content[:-1], content[:-4], content + b"\0", content + bytes(16), b""):
        with pytest.raises(ValueError, match="bytes for a version"):
            split_full(other, TABLE, control=has_control)
    with pytest.raises(ValueError, match="bytes for a version"):
        split_full(content, TABLE, control=not has_control)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_control_that_is_not_finite_is_refused(value: float) -> None:
    broken = CONTROL.copy()
    broken[2] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        split_full(join_full(VECTOR, broken), TABLE, control=True)


def test_the_manifest_s_hash_is_the_vector_s_alone() -> None:
    fields = VERSION.model_dump()
    full = make_manifest(join_full(VECTOR, CONTROL), "model", 15 * KIB, version=VERSION.version)
    made = VersionManifest.model_validate({**fields, "full": full, "control": vector_sha256(CONTROL)})
    assert made.sha256 == vector_sha256(VECTOR) != made.full.sha256
    with pytest.raises(ValidationError, match="another version"):
        VersionManifest.model_validate({**fields, "full": full})


def test_no_honest_change_is_above_the_bound() -> None:
    """The server's c and a participant's change of the longest deltas that the gate lets through, one way and back."""
    training, tolerances = Training(steps=5, learning_rate=0.1), Tolerances(max_delta_norm=3.0)
    most = max_control_norm(training, tolerances)
    c, longest = 0.0, 0.0
    for round_number in range(50):
        delta = -3.0 if round_number % 10 < 5 else 3.0
        change = -c - delta / (5 * 0.1)
        longest = max(longest, abs(change))
        c += change
    assert longest == pytest.approx(most) == pytest.approx(12.0)
