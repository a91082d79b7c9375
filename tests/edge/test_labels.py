"""Late labels: who has the last word, and what a run's end says."""

from __future__ import annotations

import numpy as np
import pytest

from edge.labels import LabelRecord, is_timely, remaining_steps, revised

AOI = LabelRecord(1.0, "aoi", 2, 1, 100.0)


def test_the_first_word_stands() -> None:
    assert revised(None, 1.0, "aoi", 2, 100.0) == AOI


@pytest.mark.parametrize("time_s", [50.0, 100.0, 500.0])
def test_a_stronger_source_revises_whenever_it_spoke(time_s: float) -> None:
    assert revised(AOI, 0.0, "repair", 0, time_s) == LabelRecord(0.0, "repair", 0, 2, time_s)


def test_a_weaker_source_changes_nothing() -> None:
    repaired = LabelRecord(0.0, "repair", 0, 2, 100.0)
    assert revised(repaired, 1.0, "aoi", 2, 900.0) is None


def test_a_source_corrects_itself_by_a_later_word_only() -> None:
    assert revised(AOI, 0.0, "aoi", 2, 101.0) == LabelRecord(0.0, "aoi", 2, 2, 101.0)
    assert revised(AOI, 0.0, "aoi", 2, 99.0) is None  # overtaken on its way
    assert revised(AOI, 1.0, "aoi", 2, 100.0) is None  # the same message again


def test_the_window_closes_in_event_time() -> None:
    assert is_timely(10.0, 110.0, 100.0)
    assert not is_timely(10.0, 110.5, 100.0)


def test_remaining_steps_count_back_from_the_end() -> None:
    times = np.array([0.0, 60.0, 119.0, 180.0])
    assert remaining_steps(times, 180.0, 0.0, 60.0).tolist() == [3, 2, 1, 0]
    assert remaining_steps(times, 180.0, 20.0, 60.0).tolist() == [23, 22, 21, 20]
