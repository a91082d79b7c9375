"""Windows: rows on a grid, never through a run's end, a changeover or a long gap."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge import windows
from edge.events import Tag, TagHistory
from edge.signal_map import Join
from edge.windows import TagGrid, Window, WindowBuilder, max_gap_rows
from uns_topics.contract import WindowSample

NAN = float("nan")


def builder(counters: Counter[str] | None = None, **rule: Any) -> WindowBuilder:
    content = {"period_s": 60, "length": 3} | rule
    return WindowBuilder(WindowSample.model_validate(content), 1, Counter() if counters is None else counters)


def feed(build: WindowBuilder, *times: float, group: str = "e1", context: int = 0) -> list[Window | None]:
    """Rows whose value is their time."""
    return [build.row(group, time_s, [time_s], context) for time_s in times]


def values(window: Window | None) -> list[float]:
    assert window is not None
    return [float(v) for v in window.values[:, 0]]


def test_the_start_of_a_run_is_padded() -> None:
    first, second, third, fourth = feed(builder(), 60, 120, 180, 240)
    np.testing.assert_equal(values(first), [NAN, NAN, 60])
    np.testing.assert_equal(values(second), [NAN, 60, 120])
    assert values(third) == [60, 120, 180]
    assert values(fourth) == [120, 180, 240]


def test_rows_are_handed_out_once() -> None:
    found = feed(builder(stride=2, pad=False), *range(60, 60 * 9, 60))
    ready = [w for w in found if w is not None]
    assert [w.step for w in ready] == [2, 4, 6]
    assert [w.rows[:, 0].tolist() for w in ready] == [[60, 120, 180], [240, 300], [360, 420]]
    assert {w.segment_s for w in ready} == {60}


def test_a_long_run_moves_through_its_buffer() -> None:
    found = feed(builder(), *[60.0 * i for i in range(500)])
    assert values(found[-1]) == [60.0 * 497, 60.0 * 498, 60.0 * 499]
    assert found[-1] is not None
    assert found[-1].step == 499


def test_groups_do_not_mix() -> None:
    build = builder()
    feed(build, 60, 120, group="e1")
    (other,) = feed(build, 130, group="e2")
    np.testing.assert_equal(values(other), [NAN, NAN, 130])
    (again,) = feed(build, 180, group="e1")
    assert values(again) == [60, 120, 180]


def test_a_short_gap_is_missing_and_a_long_one_cuts() -> None:
    counters: Counter[str] = Counter()
    build = builder(counters)
    assert max_gap_rows(WindowSample(period_s=60, length=3)) == 2
    *_, short = feed(build, 60, 120, 300)
    np.testing.assert_equal(values(short), [NAN, NAN, 300])
    assert short is not None
    assert short.step == 4
    assert len(short.rows) == 3
    (long,) = feed(build, 300 + 4 * 60)
    assert long is not None
    assert long.step == 0
    assert counters == {"run-cut": 1}


def test_jitter_and_drift_make_no_gaps() -> None:
    found = feed(builder(), 60, 121, 178, 245, 299, 371, 421)
    assert found[-1] is not None
    assert found[-1].step == 6
    assert not np.isnan(found[-1].values).any()


def test_late_rows_duplicates_and_extra_rows_are_counted() -> None:
    counters: Counter[str] = Counter()
    build = builder(counters)
    assert feed(build, 60, 120)[-1] is not None
    assert feed(build, 60, 120, 130) == [None, None, None]
    assert counters == {"late": 1, "duplicate": 1, "extra-row": 1}


def test_a_window_over_a_changeover_is_dropped() -> None:
    build = builder()
    feed(build, 60, 120, 180, context=1)
    first, second, third = feed(build, 240, 300, 360, context=2)
    assert first is None
    assert second is None
    assert values(third) == [240, 300, 360]


def test_nothing_comes_after_the_end_of_a_run() -> None:
    counters: Counter[str] = Counter()
    build = builder(counters)
    feed(build, 60, 120)
    assert build.end("e1", 125.0) == 120
    assert build.end("e1", 125.0) == 120  # said twice
    assert feed(build, 120) == [None]
    assert counters == {"late": 1}
    (repaired,) = feed(build, 600)
    assert repaired is not None
    assert repaired.step == 0
    assert build.end("never seen", 7.0) == 7.0


def test_open_runs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_OPEN_RUNS", 2)
    counters: Counter[str] = Counter()
    build = builder(counters)
    for group in ("a", "b", "c"):
        feed(build, 60, group=group)
    (again,) = feed(build, 120, group="a")
    assert again is not None
    assert again.step == 0
    assert counters["run-cut"] == 2


def grid(counters: Counter[str] | None = None, lateness_s: float = 0.0) -> TagGrid:
    tags = {0: Tag(Join.LAST, 25.0), 1: Tag(Join.MEAN, 600.0)}
    return TagGrid(2, tags, 10.0, lateness_s, Counter() if counters is None else counters)


def test_a_row_closes_when_event_time_has_passed_it() -> None:
    rows = grid()
    rows.tag(0, 101.0, 1.0)
    rows.tag(1, 102.0, 4.0)
    rows.tag(1, 110.0, 6.0)
    assert list(rows.close_before(110.0)) == []
    assert list(rows.close_before(110.5)) == [(110.0, [1.0, 5.0])]
    assert list(rows.close_before(111.0)) == []


def test_a_last_value_is_carried_and_a_mean_is_not() -> None:
    rows = grid()
    rows.tag(0, 101.0, 1.0)
    rows.tag(1, 101.0, 4.0)
    found = list(rows.close_before(150.1))
    np.testing.assert_equal(found, [(110.0, [1.0, 4.0]), (120.0, [1.0, NAN])])  # 25 s later it is too old


def test_late_readings_are_counted_and_lateness_waits_for_them() -> None:
    counters: Counter[str] = Counter()
    strict, patient = grid(counters), grid(counters, lateness_s=20.0)
    for rows in (strict, patient):
        rows.tag(0, 101.0, 1.0)
        closed = list(rows.close_before(115.0))
        assert len(closed) == (1 if rows is strict else 0)
        rows.tag(1, 102.0, 4.0)
    assert counters == {"late": 1}
    assert list(patient.close_before(131.0)) == [(110.0, [1.0, 4.0])]


def test_sums_and_counts_take_their_period() -> None:
    tags = {0: Tag(Join.SUM, 600), 1: Tag(Join.COUNT, 600)}
    grid = TagGrid(2, tags, 10, 0, Counter())
    for time_s, value in [(1, 2.0), (5, 3.5), (9, NAN), (25, 1.0)]:
        grid.tag(0, time_s, value)
        grid.tag(1, time_s, value)
    rows = dict(grid.close_before(60))
    assert rows == {10.0: [5.5, 2.0], 30.0: [1.0, 1.0]}  # nothing but a count of 0 makes no row
    grid.tag(0, 65, 4.0)
    assert dict(grid.close_before(71)) == {70.0: [4.0, 0.0]}


def test_a_count_is_missing_where_nothing_is_known_or_good() -> None:
    history = TagHistory(100)
    assert math.isnan(history.join(Join.COUNT, 10, 10))
    history.add(15, NAN)
    assert math.isnan(history.join(Join.COUNT, 20, 10))
    assert history.join(Join.COUNT, 40, 10) == 0.0


def test_a_linear_row_waits_for_its_neighbour() -> None:
    grid = TagGrid(2, {0: Tag(Join.LINEAR, 30), 1: Tag(Join.LAST, 600)}, 10, 0, Counter())
    grid.tag(0, 8, 1.0)
    for time_s in (9, 19, 29):
        grid.tag(1, time_s, 5.0)
    assert list(grid.close_before(29)) == []  # the line through 10 and 20 isn't known yet
    grid.tag(0, 28, 3.0)
    assert list(grid.close_before(29)) == [(10.0, [pytest.approx(1.2), 5.0]), (20.0, [pytest.approx(2.2), 5.0])]
    grid.tag(0, 30, 4.0)
    assert list(grid.close_before(31)) == [(30.0, [4.0, 5.0])]


def test_a_gap_that_is_too_long_is_no_line() -> None:
    grid = TagGrid(2, {0: Tag(Join.LINEAR, 15), 1: Tag(Join.LAST, 600)}, 10, 0, Counter())
    grid.tag(0, 8, 1.0)
    grid.tag(1, 8, 5.0)
    assert list(grid.close_before(23)) == []
    ((row_s, values), *_) = grid.close_before(23.5)
    assert row_s == 10.0
    assert math.isnan(values[0])
    grid.tag(0, 30, 3.0)
    history = TagHistory(100)
    for time_s, value in [(8, 1.0), (30, 3.0), (32, NAN), (40, 1.0)]:
        history.add(time_s, value)
    assert math.isnan(history.join(Join.LINEAR, 10, 21.9))
    assert history.join(Join.LINEAR, 10, 22) == pytest.approx(1 + 2 * 2 / 22)
    for time_s in (7, 31, 35, 41):  # nothing before, not good on either side, nothing after
        assert math.isnan(history.join(Join.LINEAR, time_s, 100))


def test_a_run_that_ends_waits_for_no_neighbour() -> None:
    grid = TagGrid(2, {0: Tag(Join.LINEAR, 1000), 1: Tag(Join.LAST, 600)}, 10, 0, Counter())
    grid.tag(0, 8, 1.0)
    grid.tag(1, 19, 5.0)
    rows = list(grid.close_all())
    assert [time_s for time_s, _ in rows] == [20.0]
    assert math.isnan(rows[0][1][0])


def test_a_silence_of_years_costs_nothing() -> None:
    rows = grid()
    rows.tag(0, 101.0, 1.0)
    assert len(list(rows.close_before(1e9))) == 2
    rows.tag(0, 1e9 + 5.0, 2.0)
    ((time_s, found),) = rows.close_before(1e9 + 10.5)
    assert (time_s, found[0]) == (1e9 + 10.0, 2.0)


def test_a_seeded_value_is_carried_but_makes_no_row() -> None:
    rows = grid()
    rows.seed(0, 95.0, 7.0)
    assert list(rows.close_before(1000.0)) == []
    rows.tag(1, 1001.0, 4.0)
    rows.seed(0, 1000.0, 8.0)
    assert list(rows.close_before(1010.5)) == [(1010.0, [8.0, 4.0])]


def test_an_end_closes_the_open_row() -> None:
    rows = grid()
    rows.tag(0, 101.0, 1.0)
    rows.tag(1, 112.0, 4.0)
    np.testing.assert_equal(list(rows.close_all()), [(110.0, [1.0, NAN]), (120.0, [1.0, 4.0])])
    assert list(rows.close_all()) == []


def test_a_row_that_waits_looks_once_at_each_linear_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    count, looks, newest_s = 100, [0], TagHistory.newest_s.fget
    assert newest_s is not None
    grid = TagGrid(count, {i: Tag(Join.LINEAR, 1000) for i in range(count)}, 10, 0, Counter())
    for index in range(count):
        grid.tag(index, 5.0, 1.0)

    def counted(history: TagHistory) -> float:
        looks[0] += 1
        return newest_s(history)

    monkeypatch.setattr(TagHistory, "newest_s", property(counted))
    for index in range(count - 1):  # the last one is silent
        assert list(grid.close_before(15.0)) == []
        grid.tag(index, 15.0, 3.0)
    before = looks[0]
    for _ in range(100):
        assert list(grid.close_before(16.0)) == []
    assert looks[0] - before <= 2 * count
    grid.tag(count - 1, 15.0, 3.0)
    assert list(grid.close_before(16.0)) == [(10.0, [2.0] * count)]
