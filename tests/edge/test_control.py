"""SCAFFOLD's part of a participant: option II's arithmetic, and which c_k belongs to a round."""

from __future__ import annotations

import numpy as np
import pytest

from edge.control import Controls, OwnControl, at
from uns_topics.template import Lineage

BEFORE, AFTER = np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32)
OWN = OwnControl(BEFORE, AFTER, version=5, round_number=7)


def test_option_ii_by_hand() -> None:
    """Two steps with learning rate 0.5 from y = 0 by gradients (3, 1) and (1, 1), corrected by c - c_k."""
    controls = Controls(np.array([0.5, -1.0], np.float32), np.array([1.5, 1.0], np.float32))
    np.testing.assert_array_equal(controls.correction, [-1.0, -2.0])
    delta = np.zeros(2, np.float32)
    for gradient in ([3.0, 1.0], [1.0, 1.0]):
        delta -= np.float32(0.5) * (np.array(gradient, np.float32) + controls.correction)
    change = controls.change(controls.own, delta, 2, 0.5)
    np.testing.assert_array_equal(controls.own + change, [2.0, 1.0])  # the mean gradient
    assert change.dtype == np.float32


def test_what_is_sent_is_the_change_of_what_the_server_counts() -> None:
    """A receipt that came while it trained: c_k^+ is the same, and what leaves is less by what counts already."""
    controls = Controls(np.zeros(2, np.float32), BEFORE)
    delta = np.array([-1.0, -1.0], np.float32)
    np.testing.assert_array_equal(
        AFTER + controls.change(AFTER, delta, 1, 0.5), BEFORE + controls.change(BEFORE, delta, 1, 0.5)
    )


def test_what_overflows_is_not_finite_and_no_warning() -> None:
    huge = np.full(2, 3e38, np.float32)
    assert not np.isfinite(Controls(BEFORE, BEFORE).change(BEFORE, huge, 1, 1e-9)).any()


@pytest.mark.parametrize(
    ("version", "parent", "round_number", "due"),
    [
        (6, 5, 7, AFTER),  # its own version was promoted
        (7, 6, 8, AFTER),  # and another one made from that
        (5, 4, 6, BEFORE),  # its version was refused, and the round starts over from the same base
        (8, 5, 9, BEFORE),  # refused, and a round without this participant made the next version
        (9, 8, 11, AFTER),  # versions in between passed by unseen
    ],
)
def test_an_update_counts_where_its_version_does(version: int, parent: int, round_number: int, due: np.ndarray) -> None:
    lineage = Lineage(origin="round", parent=parent, round_number=round_number, contributors=2)
    np.testing.assert_array_equal(at(OWN, version, lineage, 2), due)


def test_it_starts_at_zero() -> None:
    own = at(None, 1, Lineage(origin="statistics", parent=0), 3)
    np.testing.assert_array_equal(own, np.zeros(3, np.float32))
    assert own.dtype == np.float32


def test_an_aggregator_that_counts_from_the_start_again_begins_with_nothing() -> None:
    own = at(OWN, 1, Lineage(origin="round", parent=0, round_number=1), 2)
    np.testing.assert_array_equal(own, np.zeros(2, np.float32))
