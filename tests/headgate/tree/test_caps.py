"""Caps: what is counted, and which branches go."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.tree.caps import BURST_S, MAX_FILTERS, TARGET, Limits, Load, Meter, narrow
from headgate.tree.model import Tree
from uns_topics.filters import matches

LIMITS = Limits(topics=100, messages=10.0, payload_bytes=1_000.0)


def test_a_meter_lets_bursts_through_and_no_lasting_excess() -> None:
    meter = Meter(LIMITS, 0.0)
    assert all(meter.take(1, 0.0) for _ in range(int(10 * BURST_S)))
    assert not meter.take(1, 0.0)
    meter.reset(0.0)
    assert all(meter.take(99, second / 10) for second in range(1, 1_000))
    assert not all(meter.take(1, 100 + second / 20) for second in range(2_000))
    meter.reset(0.0)
    assert not meter.take(int(1_000 * BURST_S) + 1, 0.0)


def busy(tree: Tree, topic: str, per_second: int, payload: bytes = b"1") -> None:
    for tick in range(20 * per_second):
        tree.record(topic, payload, tick / per_second)


def test_the_heaviest_branch_goes_and_its_siblings_stay() -> None:
    tree = Tree(100)
    for line in range(3):
        busy(tree, f"acme/berlin/line{line}/temp", 1)
    busy(tree, "acme/lyon/press/vibration", 200)
    busy(tree, "acme/lyon/press/temp", 1)
    found = narrow(tree, ("#",), LIMITS, 20.0)
    assert set(found.filters) == {"acme/berlin/#", "acme/lyon/press/temp"}
    (gone,) = found.left_out
    assert (gone.path, gone.kept) == (("acme", "lyon", "press", "vibration"), frozenset())
    assert str(gone).startswith("acme/lyon/press/vibration/# (1 topic, 200/s")


def test_many_topics_in_one_branch_stay_in_part() -> None:
    tree = Tree(1_000)
    for number in range(1_000):
        tree.record(f"flat/{number:04}", b"1", 0.0)
    tree.record("flat/one-more", b"1", 0.0)
    found = narrow(tree, ("#",), Limits(1_000, 1e6, 1e9), 0.0)
    assert len(found.filters) == MAX_FILTERS
    (gone,) = found.left_out
    assert (gone.path, len(gone.kept), gone.load.topics) == (("flat",), MAX_FILTERS, 1_000 - MAX_FILTERS + 1)
    assert str(gone).startswith("part of flat/#")


def test_topics_without_room_are_left_out_by_name_of_their_branch() -> None:
    tree = Tree(4)
    for number in range(4):
        tree.record(f"a/{number}", b"1", 0.0)
    for number in range(50):
        tree.record(f"a/crowd/{number}", b"1", 0.0)
    found = narrow(tree, ("#",), Limits(4, 1e6, 1e9), 0.0)
    assert found.left_out[0].path == ("a",)
    assert found.left_out[0].load.topics >= 50
    assert not any(matches(one, "a/crowd/7") for one in found.filters)


@pytest.mark.parametrize(
    ("given_filter", "expected"),
    [
        ("#", {"a/b/#", "a/c/#"}),
        ("a/#", {"a/b/#", "a/c/#"}),
        ("a/+/x/#", {"a/b/x/#", "a/c/x/#"}),
        ("+/+/+/t", {"a/b/+/t", "a/c/+/t"}),
        ("a/b/#", {"a/b/#"}),
        ("other/#", set()),
    ],
)
def test_a_narrowed_filter_never_says_more_than_the_one_given(given_filter: str, expected: set[str]) -> None:
    tree = Tree(100)
    for cell in ("x/t", "x/u", "y/t"):
        busy(tree, f"a/b/{cell}", 1)
        busy(tree, f"a/c/{cell}", 1)
    busy(tree, "a/d", 100)
    assert set(narrow(tree, (given_filter,), LIMITS, 20.0).filters) == expected


def test_a_topic_that_is_also_a_branch_can_stay_alone() -> None:
    tree = Tree(100)
    busy(tree, "a/b", 1)
    busy(tree, "a/b/c", 100)
    found = narrow(tree, ("#",), LIMITS, 20.0)
    assert found.filters == ("a/b",)
    assert [one.path for one in found.left_out] == [("a", "b", "c")]


def test_load_reads() -> None:
    assert str(Load(1_234, 56.0, 2048.0)) == "1,234 topics, 56/s, 2.0 KiB/s"


TOPICS = st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=5).map("/".join)


@settings(deadline=None)
@given(
    st.lists(st.tuples(TOPICS, st.integers(1, 60), st.integers(1, 500)), min_size=1, max_size=25),
    st.lists(st.sampled_from(["#", "a/#", "+/b/#", "+/+/c", "a"]), min_size=1, max_size=2),
)
def test_narrowing_fits_and_comes_to_an_end(said: list[tuple[str, int, int]], filters: list[str]) -> None:
    limits = Limits(6, 10.0, 1_000.0)
    tree = Tree(6)
    for topic, messages, payload_bytes in said:
        if any(matches(one, topic) for one in filters):
            for tick in range(messages):
                tree.record(topic, bytes(payload_bytes), tick / 10)
    now = tuple(filters)
    for _ in range(40):
        if not tree.topics:
            break
        found = narrow(tree, now, limits, 6.0)
        assert found.left_out
        for one in found.left_out:
            tree.leave_out(one.path, "why", one.kept)
        left = list(tree.root.leaves())
        assert all(any(matches(one, node.topic()) for one in found.filters) for node in left)
        assert all(any(matches(one, node.topic()) for one in filters) for node in left)
        leaves = [node.leaf for node in left if node.leaf is not None]
        load = sum((Load(1, leaf.load(6.0), leaf.byte_rate(6.0)) for leaf in leaves), Load())
        assert load.share(limits) <= TARGET
        now = found.filters
    assert not tree.topics
