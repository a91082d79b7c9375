"""What becomes of a residual, rule by rule; expected values are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge.residual import MAX_AGE_VERSIONS, Fate, Residual, after, due, fate, fresh
from uns_topics.codes import Code
from uns_topics.encodings import ENCODINGS, Encoding

DELTA = np.array([3.0, -4.0, 0.0], np.float32)  # of norm 5
SENT = np.array([2.0, -2.0, 0.0], np.float32)
BEFORE = Residual(np.array([0.5, 0.0, 1.0], np.float32), since=4, norm=1.0)


@pytest.mark.parametrize("code", [None, *Code])
def test_the_receipt_decides(code: Code | None) -> None:
    assert fate("accepted", code) is Fate.COMMIT
    assert fate(None, code) is Fate.ADD  # lost, or it gave way
    later = {"late", "wrong-round", "wrong-base", "stale", "policy", "budget"}
    assert fate("rejected", code) is (Fate.ADD if code is not None and code.value in later else Fate.DROP)


def test_accepted_leaves_what_was_due_and_not_sent() -> None:
    now = after(BEFORE, DELTA, SENT, 7, Fate.COMMIT)
    assert now is not None
    assert now.values.tolist() == [0.5 + 3 - 2, -4 + 2, 1.0]
    assert (now.since, now.norm) == (7, 5.0)
    first = after(None, DELTA, SENT, 7, Fate.COMMIT)
    assert first is not None
    assert first.values.tolist() == [1.0, -2.0, 0.0]


def test_what_never_counted_is_added_up_to_twice_the_last_accepted() -> None:
    now = after(BEFORE, DELTA, SENT, 7, Fate.ADD)
    assert now is not None
    # The norm of 5 is above 2 * 1: the delta is scaled by 2 / 5.
    np.testing.assert_allclose(now.values, [0.5 + 1.2, -1.6, 1.0], rtol=1e-6)
    assert (now.since, now.norm) == (4, 1.0)
    roomy = Residual(BEFORE.values, 4, norm=2.5)
    whole = after(roomy, DELTA, SENT, 7, Fate.ADD)
    assert whole is not None
    assert whole.values.tolist() == [3.5, -4.0, 1.0]


def test_a_first_update_that_never_counted_is_kept_whole() -> None:
    now = after(None, DELTA, SENT, 7, Fate.ADD)
    assert now is not None
    assert now.values.tolist() == DELTA.tolist()
    assert (now.since, now.norm) == (7, None)


def test_refused_content_changes_nothing() -> None:
    assert after(BEFORE, DELTA, SENT, 7, Fate.DROP) is BEFORE
    assert after(None, DELTA, SENT, 7, Fate.DROP) is None


def test_a_residual_of_old_is_dropped() -> None:
    assert fresh(BEFORE, 4 + MAX_AGE_VERSIONS) is BEFORE
    assert fresh(BEFORE, 5 + MAX_AGE_VERSIONS) is None
    assert fresh(None, 3) is None


def test_a_row_of_lost_updates_does_not_keep_a_residual_young() -> None:
    residual: Residual | None = None
    for version in range(1, 100):
        residual = after(fresh(residual, version), DELTA, SENT, version, Fate.ADD)
        assert residual is not None
        assert np.linalg.norm(residual.values) <= 5.0 * (MAX_AGE_VERSIONS + 1) + 1e-3


def test_inputs_are_left_as_they_are() -> None:
    delta, before = DELTA.copy(), BEFORE.values.copy()
    for how in Fate:
        now = after(BEFORE, delta, SENT, 7, how)
        assert now is not None
        if how is not Fate.DROP:
            now.values[:] = 99
    due(None, delta)[:] = 99
    np.testing.assert_array_equal(delta, DELTA)
    np.testing.assert_array_equal(BEFORE.values, before)


@pytest.mark.parametrize("way", [e for e in ENCODINGS.values() if e.feedback], ids=lambda e: e.name)
def test_all_that_was_learnt_arrives_in_the_end(way: Encoding) -> None:
    """Sum of what was sent + residual = sum of the deltas, and the residual stays bounded."""
    rng = np.random.default_rng(5)
    residual: Residual | None = None
    learnt, arrived = np.zeros(3000), np.zeros(3000)
    norms = []
    for version in range(1, 120):
        delta = (0.01 * rng.normal(0, 1, 3000) + 0.002).astype(np.float32)
        sent = way.decode(way.encode(due(residual, delta)), 3000)
        residual = after(residual, delta, sent, version, Fate.COMMIT)
        assert residual is not None
        learnt += delta
        arrived += sent
        norms.append(float(np.linalg.norm(residual.values)))
    np.testing.assert_allclose(arrived + residual.values, learnt, atol=1e-4)
    assert max(norms[60:]) < 1.5 * max(norms[:60])
