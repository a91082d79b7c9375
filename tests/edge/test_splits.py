"""Splits: by time, by whole groups, with a gap, or as the data says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.dataset import Part
from edge.splits import NO_GROUP, SAID, split
from uns_topics.contract import Split

T, S, R, G = Part.TRAIN, Part.SELECT, Part.REPORT, Part.GAP


def parts(
    times: list[float], groups: list[int] | None = None, said: list[str] | None = None, **rule: object
) -> list[int]:
    found = split(
        np.array(times, float),
        np.array([NO_GROUP] * len(times) if groups is None else groups, np.int64),
        np.array([SAID[word] for word in said or [""] * len(times)], np.uint8),
        Split.model_validate(rule),
    )
    return [int(part) for part in found]


def test_sixty_twenty_twenty_by_time_whatever_the_order() -> None:
    assert parts([9, 0, 1, 2, 3, 4, 5, 6, 7, 8]) == [R, T, T, T, T, T, T, S, S, R]


def test_a_gap_lies_behind_each_part() -> None:
    assert parts([float(i) for i in range(10)], gap_s=2.0) == [T, T, T, T, T, T, G, S, G, R]


def test_a_group_is_never_cut() -> None:
    groups = [0, 0, 1, 1, 1, 1, 2, 2, 3, 3]
    assert parts([float(i) for i in range(10)], groups) == [T] * 6 + [S] * 2 + [R] * 2
    assert parts([float(i) for i in range(10)], [0] * 9 + [1]) == [T] * 9 + [R]


def test_the_gap_holds_for_groups_that_follow_each_other() -> None:
    times = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    groups = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert parts([float(t) for t in times], groups, gap_s=1.5) == [T] * 6 + [G] * 2 + [R] * 2


def test_a_fleet_side_by_side_has_no_gap_to_keep() -> None:
    times = [float(step) for _ in range(5) for step in range(10)]
    groups = [engine for engine in range(5) for _ in range(10)]
    assert parts(times, groups, gap_s=100.0) == [T] * 30 + [S] * 10 + [R] * 10


def test_report_as_the_data_says_and_the_rest_by_time() -> None:
    said = ["test", "train", "train", "train", "train"]
    assert parts([0, 1, 2, 3, 4], said=said, by="source") == [R, T, T, T, S]
    assert parts([0, 1, 2, 3], said=["train", "select", "", "report"], by="source") == [T, S, T, R]


def test_the_strongest_word_of_a_group_counts() -> None:
    assert parts([0, 1, 2, 3], [0, 0, 1, 1], ["train", "test", "train", "train"], by="source")[:2] == [R, R]


def test_only_the_last_row_of_a_reported_group_is_reported_on() -> None:
    found = parts(
        [3, 1, 2, 0, 9], [0, 0, 0, 1, NO_GROUP], ["test", "test", "test", "train", "test"],
        by="source", report_rows="last-of-group",
    )  # fmt: skip
    assert found == [R, G, G, T, R]


def test_no_samples_no_parts() -> None:
    assert parts([]) == []


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e9), st.integers(NO_GROUP, 4), st.sampled_from(["", "train", "select", "report", "test"])
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["time", "source"]),
    st.sampled_from([0.0, 10.0, 1e7]),
)
def test_no_group_crosses_and_parts_follow_in_time(
    samples: list[tuple[float, int, str]], by: str, gap_s: float
) -> None:
    times, groups, said = (list(column) for column in zip(*samples, strict=True))
    found = parts(times, groups, said, by=by, gap_s=gap_s)
    for group in set(groups) - {NO_GROUP}:
        assert len({part for part, of in zip(found, groups, strict=True) if of == group}) == 1
    if by == "time" and set(groups) == {NO_GROUP}:
        for earlier, later in [(T, S), (T, R), (S, R)]:
            before = [t for t, part in zip(times, found, strict=True) if part == earlier]
            after = [t for t, part in zip(times, found, strict=True) if part == later]
            if before and after:
                assert min(after) >= max(before) + (gap_s if earlier != T or later != R or S in found else 0)
