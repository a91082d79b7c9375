"""The tree of topics: what it shows, and that nothing in it grows without a bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.tree.model import MAX_LEVELS, MAX_TOPIC_BYTES, MAX_WAITING_BYTES, METRIC, NODES_PER_TOPIC, OWN, Node, Tree
from headgate.tree.reading import Kind
from uns_topics.sparkplug import DataType, Metric, Payload, encode_payload


def settled(tree: Tree) -> Tree:
    while tree.settle(1_000):
        pass
    return tree


def topics(tree: Tree) -> list[str]:
    return sorted(node.topic() for node in tree.root.leaves())


def count_nodes(node: Node) -> int:
    return sum(1 + count_nodes(child) for child in node.children.values())


def check(tree: Tree) -> None:
    """Every counter says what is there."""
    leaves = list(tree.root.leaves())
    assert tree.topics == len(leaves) <= tree.max_topics
    assert tree.nodes == count_nodes(tree.root) <= NODES_PER_TOPIC * tree.max_topics
    for node in leaves:
        assert tree.find(node.path()) is node
    below = {node: sum(1 for _ in node.leaves()) for node in (tree.root, *tree.root.children.values())}
    assert all(node.topics == number for node, number in below.items())


def test_values_by_topic() -> None:
    tree = Tree(10)
    tree.record("a/b/c", b"1", 0.0)
    tree.record("a/b", b"2", 0.0)
    tree.record("/x//y", b"3", 0.0)
    settled(tree)
    assert topics(tree) == ["/x//y", "a/b", "a/b/c"]
    node = tree.find(("a", "b"))
    assert node is not None
    assert node.leaf is not None
    assert (node.leaf.reading.text, node.topics) == ("2", 2)
    check(tree)


def test_a_newer_value_takes_the_place_of_one_that_waits() -> None:
    tree = Tree(10)
    for value in (b"1", b"22", b"333"):
        tree.record("a", value, 0.0)
    assert (tree.waiting_bytes, tree.unread) == (3, 2)
    assert settled(tree).waiting_bytes == 0
    (node,) = tree.root.leaves()
    assert node.leaf is not None
    assert (node.leaf.reading.number, list(node.leaf.history), node.leaf.messages) == (333.0, [333.0], 3)


def test_an_empty_payload_clears_its_topic_and_no_more() -> None:
    tree = Tree(10)
    for topic in ("a", "a/b/c", "a/b/d"):
        tree.record(topic, b"1", 0.0)
    tree.record("a/b/c", b"", 0.0)
    tree.record("a", b"", 0.0)
    tree.record("never/seen", b"", 0.0)
    assert topics(tree) == ["a/b/d"]
    assert tree.waiting_bytes == 1
    check(tree)
    tree.record("a/b/d", b"", 0.0)
    assert (tree.nodes, tree.waiting_bytes, tree.root.children) == (0, 0, {})


def test_no_room_is_said_and_counted_where_it_happened() -> None:
    tree = Tree(2)
    for number in range(5):
        tree.record(f"a/{number}", b"1", 0.0)
    assert (tree.is_full, tree.refused, tree.topics) == (True, 3, 2)
    node = tree.find(("a",))
    assert node is not None
    assert node.unlisted == 3
    tree.record("a/0", b"2", 0.0)  # the known ones go on
    assert tree.refused == 3
    check(tree)


def test_long_and_deep_topics() -> None:
    tree = Tree(2)
    tree.record("ü" * (MAX_TOPIC_BYTES // 2 + 1), b"1", 0.0)
    assert (tree.refused, tree.is_full, tree.topics) == (1, False, 0)
    deep = Tree(100)
    topic = "/".join("a" for _ in range(500))
    deep.record(topic, b"1", 0.0)
    (node,) = deep.root.leaves()
    assert (node.topic(), len(node.path())) == (topic, MAX_LEVELS)
    check(deep)


def test_payloads_that_wait_are_bounded() -> None:
    tree = Tree(1_000)
    payload = b"x" * 60_000
    for number in range(600):
        tree.record(f"a/{number}", payload, 0.0)
    assert tree.waiting_bytes <= MAX_WAITING_BYTES
    assert tree.unread > 0
    assert settled(tree).waiting_bytes == 0
    tree.record("large", b"\x89PNG\r\n\x1a\n" + bytes(10_000_000), 0.0)
    assert tree.waiting_bytes < 100
    node = settled(tree).find(("large",))
    assert node is not None
    assert node.leaf is not None
    assert (node.leaf.reading.kind, node.leaf.reading.text) == (Kind.IMAGE, "PNG 9.5 MiB")


def test_a_branch_that_is_left_out_keeps_its_name_and_takes_nothing() -> None:
    tree = Tree(10)
    for topic in ("a/b", "a/b/c", "a/b/d", "a/e"):
        tree.record(topic, b"1", 0.0)
    tree.leave_out(("a", "b"), "too much")
    assert topics(tree) == ["a/e"]
    tree.record("a/b/c", b"1", 0.0)
    tree.record("a/b/new/topic", b"1", 0.0)
    tree.record("a/f", b"1", 0.0)
    assert topics(tree) == ["a/e", "a/f"]
    node = tree.find(("a", "b"))
    assert node is not None
    assert node.left_out == "too much"
    check(tree)


def test_a_branch_can_be_left_out_in_part() -> None:
    tree = Tree(10)
    for topic in ("a", "a/b", "a/c/d", "a/e"):
        tree.record(topic, b"1", 0.0)
    tree.leave_out(("a",), "too much", frozenset({"c", OWN}))
    for topic in ("a", "a/b", "a/c/d", "a/c/new", "a/e"):
        tree.record(topic, b"1", 0.0)
    assert topics(tree) == ["a", "a/c/d", "a/c/new"]
    check(tree)


def birth(*metrics: Metric) -> bytes:
    return encode_payload(Payload(1, metrics, 0))


TEMPERATURE = Metric("oven/temp", 1, datatype=DataType.DOUBLE, value=21.5, properties={"engUnit": "°C"})


def test_sparkplug_metrics_are_children_by_name() -> None:
    tree = Tree(20)
    running = Metric("running", 2, datatype=DataType.BOOLEAN, value=True)
    tree.record("spBv1.0/plant/DBIRTH/node/oven", birth(TEMPERATURE, running), 0.0)
    data = Payload(2, (Metric(alias=1, value=22.0), Metric(alias=9, value=1)), 1)
    tree.record("spBv1.0/plant/DDATA/node/oven", encode_payload(data), 1.0)
    settled(tree)
    node = tree.find(("spBv1.0", "plant", "DDATA", "node", "oven", METRIC + "oven/temp"))
    assert node is not None
    assert node.leaf is not None
    assert (node.leaf.reading.text, node.leaf.reading.unit) == ("22.0", "°C")
    assert node.topic() == "spBv1.0/plant/DDATA/node/oven oven/temp"
    assert "spBv1.0/plant/DDATA/node/oven alias 9" in topics(tree)
    check(tree)
    tree.record("spBv1.0/plant/DDEATH/node/oven", encode_payload(Payload(3, (), 2)), 2.0)
    settled(tree)
    assert node.leaf.is_stale(2.0)
    tree.record("spBv1.0/plant/DDATA/node/oven", encode_payload(data), 3.0)
    settled(tree)
    assert not node.leaf.is_stale(3.0)


def test_a_metric_came_when_its_message_came_however_late_it_is_read() -> None:
    tree = Tree(20)
    for number in range(10):
        data = Payload(2, (Metric("temp", 1, datatype=DataType.DOUBLE, value=22.0),), number)
        tree.record("spBv1.0/plant/DDATA/node/oven", encode_payload(data), float(number))
    settled(tree)
    message = tree.find(("spBv1.0", "plant", "DDATA", "node", "oven"))
    assert message is not None
    metric = message.children[METRIC + "temp"]
    assert message.leaf is not None
    assert metric.leaf is not None
    assert (metric.leaf.seen, metric.leaf.messages) == (9.0, 10)
    assert metric.leaf.rate(9.0) == message.leaf.rate(9.0)


def test_a_node_that_dies_takes_its_devices_with_it() -> None:
    tree = Tree(20)
    for topic in ("NBIRTH/node", "DBIRTH/node/oven", "DBIRTH/other/oven"):
        tree.record(f"spBv1.0/plant/{topic}", birth(TEMPERATURE), 0.0)
    tree.record("spBv1.0/plant/NDEATH/node", encode_payload(Payload(3, ())), 2.0)
    settled(tree)
    stale = {node.topic() for node in tree.root.leaves() if node.leaf is not None and node.leaf.is_stale(2.0)}
    assert stale == {
        f"spBv1.0/plant/{one}"
        for one in ("NBIRTH/node", "NBIRTH/node oven/temp", "DBIRTH/node/oven", "DBIRTH/node/oven oven/temp")
    }


def test_metrics_count_as_topics() -> None:
    tree = Tree(5)
    metrics = [Metric(f"m{i}", i, datatype=DataType.DOUBLE, value=1.0) for i in range(100)]
    tree.record("spBv1.0/plant/NBIRTH/node", birth(*metrics), 0.0)
    settled(tree)
    assert tree.is_full
    check(tree)


def test_a_sparkplug_message_that_is_none_is_said_by_size() -> None:
    tree = Tree(5)
    tree.record("spBv1.0/plant/NBIRTH/node", b"\xff\xff\xff", 0.0)
    (node,) = settled(tree).root.leaves()
    assert node.leaf is not None
    assert (node.leaf.reading.text, node.leaf.reading.note) == ("3 B", "undecodable")


def test_units_come_from_the_message_then_from_the_map() -> None:
    tree = Tree(5, lambda topic, metric: f"{topic}?{metric}")
    tree.record("a", b"1", 0.0)
    tree.record("spBv1.0/p/NBIRTH/n", birth(Metric("m", datatype=DataType.DOUBLE, value=1.0)), 0.0)
    settled(tree)
    units = {node.topic(): node.leaf.unit for node in tree.root.leaves() if node.leaf is not None}
    assert units["a"] == "a?None"
    assert units["spBv1.0/p/NBIRTH/n m"] == "spBv1.0/p/NBIRTH/n?m"


def test_a_copy_does_not_move() -> None:
    tree = Tree(5)
    tree.record("a/b", b"1", 0.0)
    twin = settled(tree).copy()
    tree.record("a/c", b"2", 1.0)
    tree.record("a/b", b"", 1.0)
    assert topics(twin) == ["a/b"]
    check(twin)


SEGMENTS = st.sampled_from(["", "a", "b", "ü", "spBv1.0", "c c"])
TOPICS = st.lists(SEGMENTS, min_size=1, max_size=6).map("/".join) | st.sampled_from(
    ["spBv1.0/g/NBIRTH/n", "spBv1.0/g/NDATA/n", "spBv1.0/g/DDATA/n/d", "spBv1.0/g/DDEATH/n/d", "spBv1.0/g/NDEATH/n"]
)
PAYLOADS = st.sampled_from([b"", b"1", b'{"value": 2}', b"\x1b[2J", birth(TEMPERATURE), bytes(70_000)]) | st.binary(
    max_size=20
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(TOPICS, PAYLOADS, st.booleans(), st.integers(0, 3)), max_size=60),
    st.integers(1, 8),
    st.lists(SEGMENTS, max_size=2),
)
def test_whatever_comes_it_stays_within_its_bounds(
    said: list[tuple[str, bytes, bool, int]], max_topics: int, left_out: list[str]
) -> None:
    tree = Tree(max_topics)
    for number, (topic, payload, retain, reads) in enumerate(said):
        tree.record(topic, payload, float(number), retain=retain)
        tree.settle(reads)
        if number == 30:
            tree.leave_out(tuple(left_out), "why", frozenset({"a"}))
    check(tree)
    settled(tree)
    check(tree)
    assert tree.waiting_bytes == 0
