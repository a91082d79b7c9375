"""The event joiner: what a board's sample holds, whatever the order in which its parts came."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from edge import events
from edge.events import EventJoiner, Joined, Part, Tag, TagHistory
from edge.signal_map import Join

NAN = float("nan")


def joiner(counters: Counter[str] | None = None, keyed: frozenset[int] = frozenset({1, 2})) -> EventJoiner:
    """Feature 0 is a tag, 1 (required) and 2 (optional) come with the key."""
    tags = {0: Tag(Join.LAST, 50.0)}
    return EventJoiner(3, keyed, frozenset({0, 1}), tags, 100.0, Counter() if counters is None else counters)


def part(rank: int, time_s: float, **values: float) -> Part:
    return Part(rank, time_s, time_s + 0.5, {int(name[1:]): value for name, value in values.items()})


@pytest.mark.parametrize(("how", "expected"), [(Join.LAST, 7.0), (Join.MEAN, 5.0), (Join.MIN, 3.0), (Join.MAX, 7.0)])
def test_readings_join_as_of_a_time(how: Join, expected: float) -> None:
    history = TagHistory(1000.0)
    for time_s, value in [(30.0, 7.0), (10.0, 1.0), (40.0, 99.0), (20.0, 3.0)]:  # out of order
        history.add(time_s, value)
    assert history.join(how, 35.0, 20.0) == expected  # in (15, 35]: 3 and 7
    assert math.isnan(history.join(how, 5.0, 20.0))
    assert math.isnan(history.join(how, 70.0, 20.0))


def test_a_reading_that_is_not_good_hides_the_one_before() -> None:
    history = TagHistory(1000.0)
    history.add(10.0, 1.0)
    history.add(20.0, NAN)
    assert math.isnan(history.join(Join.LAST, 30.0, 100.0))
    assert history.join(Join.MEAN, 30.0, 100.0) == 1.0


def test_history_is_bounded_and_keeps_what_an_event_may_ask_for() -> None:
    history = TagHistory(10.0)
    for second in range(5000):
        history.add(float(second), float(second))
    assert len(history) < 300
    assert history.join(Join.LAST, 4989.0, 5.0) == 4989.0


def test_a_sample_is_complete_with_its_last_part() -> None:
    join = joiner()
    join.tag(0, 90.0, 5.0)
    join.tag(0, 105.0, 6.0)  # after the event
    assert join.part("B", part(1, 120.0, f2=2.0)) is None
    joined = join.part("B", part(0, 100.0, f1=1.0))
    assert joined == Joined("B", 100.0, 120.5, [5.0, 1.0, 2.0], 0, "", "")
    assert join.pending == 0


def test_a_late_tag_counts_for_events_that_come_after_it() -> None:
    join = joiner(keyed=frozenset({1}))
    join.tag(0, 200.0, 9.0)
    join.tag(0, 95.0, 4.0)  # overtaken on its way
    joined = join.part("B", part(0, 100.0, f1=1.0))
    assert joined is not None
    assert joined.values[0] == 4.0


def test_a_reading_that_is_too_old_is_missing() -> None:
    join = joiner(keyed=frozenset({1}))
    join.tag(0, 49.0, 5.0)
    joined = join.part("B", part(0, 100.0, f1=1.0))
    assert joined is not None
    assert math.isnan(joined.values[0])


def test_patience_ends_in_event_time() -> None:
    counters: Counter[str] = Counter()
    join = joiner(counters)
    join.part("optional part missing", part(0, 10.0, f1=1.0))
    join.part("required part missing", part(1, 11.0, f2=2.0))
    assert list(join.advance(110.0)) == []
    (joined,) = join.advance(111.5)
    assert joined.key == "optional part missing"
    assert joined.values[1] == 1.0
    assert math.isnan(joined.values[2])
    assert counters == {"incomplete": 1}
    assert join.part("required part missing", part(0, 11.0, f1=1.0)) is None  # too late: given up for good
    assert counters["duplicate"] == 1


def test_a_part_that_came_twice_is_counted_and_makes_no_second_sample() -> None:
    counters: Counter[str] = Counter()
    join = joiner(counters)
    assert join.part("B", part(0, 10.0, f1=1.0)) is None
    assert join.part("B", part(0, 10.0, f1=8.0)) is None
    joined = join.part("B", part(1, 10.0, f2=2.0))
    assert joined is not None
    assert joined.values[1] == 1.0
    assert join.part("B", part(1, 10.0, f2=2.0)) is None
    assert counters == {"duplicate": 2}


def test_context_is_taken_as_of_the_event() -> None:
    join = joiner(keyed=frozenset({1}))
    join.context(50.0, 1)
    join.context(150.0, 2)
    slots = []
    for key, time_s in [("a", 40.0), ("b", 100.0), ("c", 200.0)]:
        joined = join.part(key, part(0, time_s, f1=1.0))
        assert joined is not None
        slots.append(joined.context)
    assert slots == [0, 1, 2]


def test_pending_samples_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_PENDING", 2)
    counters: Counter[str] = Counter()
    join = joiner(counters)
    for number in range(5):
        join.part(f"B{number}", part(0, 10.0, f1=float(number)))
    assert [joined.key for joined in join.advance(10.0)] == ["B0", "B1", "B2"]
    assert join.pending == 2
    assert counters["pending-overflow"] == 3
