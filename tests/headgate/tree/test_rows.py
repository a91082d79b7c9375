"""Lines, their order and what stands in their columns."""

from __future__ import annotations

import pytest

from headgate.tree.cells import cells
from headgate.tree.drawing import columns, header, line
from headgate.tree.model import Node, Tree
from headgate.tree.rows import Sort, filter_test, measure, rows
from headgate.tree.text import width_of
from uns_topics.sparkplug import DataType, Metric, Payload, encode_payload


def tree_of(*said: tuple[str, bytes, float]) -> Tree:
    tree = Tree(1_000)
    for topic, payload, at in said:
        tree.record(topic, payload, at)
        tree.settle(100)
    return tree


def shown(tree: Tree, sort: Sort = Sort.NAME, text: str = "", toggled: set[Node] | None = None) -> list[str]:
    measure(tree.root, 10.0)
    return [f"{'  ' * row.depth}{row.label}" for row in rows(tree.root, toggled or set(), sort, filter_test(text))]


def test_levels_that_hold_nothing_else_share_a_line() -> None:
    tree = tree_of(("acme/berlin/smt/t", b"1", 0), ("acme/berlin/smt/p", b"1", 0), ("acme/berlin/smt/x/y/z", b"1", 0))
    assert shown(tree) == ["acme/berlin/smt", "  p", "  t", "  x/y/z"]


def test_orders() -> None:
    said = [("a/Zeta", b"1", 0.0), ("a/beta", b"1", 3.0)]
    said += [("a/alpha", b"1", i / 10) for i in range(20)]
    tree = tree_of(*said)
    assert shown(tree, Sort.NAME) == ["a", "  alpha", "  beta", "  Zeta"]
    assert shown(tree, Sort.RATE)[1] == "  alpha"
    assert shown(tree, Sort.AGE) == ["a", "  beta", "  alpha", "  Zeta"]
    assert [Sort.NAME.following(), Sort.AGE.following()] == [Sort.RATE, Sort.NAME]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LYON", ["acme", "  lyon/temp"]),
        ("acme/+/temp", ["acme", "  berlin", "    temp", "  lyon/temp"]),
        ("acme/berlin/#", ["acme", "  berlin", "    press", "    temp"]),
        ("nowhere", []),
        (" ", ["acme", "  berlin", "    press", "    temp", "  lyon/temp", "other"]),
    ],
)
def test_filters(text: str, expected: list[str]) -> None:
    tree = tree_of(*((one, b"1", 0) for one in ("acme/berlin/temp", "acme/berlin/press", "acme/lyon/temp", "other")))
    assert shown(tree, text=text) == expected


def test_a_filter_opens_what_is_folded() -> None:
    tree = tree_of(("a/b", b"1", 0), ("a/c", b"1", 0))
    folded = set(tree.root.children.values())
    assert shown(tree, toggled=folded) == ["a"]
    assert shown(tree, text="b", toggled=folded) == ["a", "  b"]


def test_metrics_are_folded_at_first() -> None:
    metric = Metric("m", 1, datatype=DataType.DOUBLE, value=1.0)
    tree = tree_of(("spBv1.0/g/NBIRTH/n", encode_payload(Payload(1, (metric,), 0)), 0))
    assert shown(tree) == ["spBv1.0/g/NBIRTH/n"]
    (leaf, _) = tree.root.leaves()
    assert shown(tree, toggled={leaf}) == ["spBv1.0/g/NBIRTH/n", "  m"]


def drawn(tree: Tree, width: int, now: float) -> list[str]:
    measure(tree.root, now)
    found = rows(tree.root, set(), Sort.NAME, None)
    return [
        line(row, cells(row.node, now, is_open=row.is_open), columns(width), is_cursor=False).plain for row in found
    ]


NASTY = tree_of(
    ("plant/\x1b[2J\x1b]0;owned\a/温度", '{"value": 21.5, "unit": "°C\x1b[31m"}'.encode(), 0.0),
    ("plant/bidi\u202etopic", b'"\\u001b[31mred\\u202e \\ud800"', 0.0),
    ("plant/raw", b"\x1b]52;c;QQ==\x07 said", 0.0),
    ("plant/" + "x" * 300, b"z" * 5_000, 0.0),
    ("/".join("deep" for _ in range(60)), b"-1", 0.0),
    ("plant/binary", b"\x00\x1b[2J\xff", 0.0),
    ("plant/vqt", b'{"value": 1, "quality": "\\u001b[5m"}', 0.0),
    ("flat", b'{"\\u001b[1m": 1, "b": "\\u009b2J"}', 0.0),
    ("wide", ("漢字" * 60).encode(), 0.0),
)


@pytest.mark.parametrize("width", [10, 30, 44, 64, 80, 100, 130, 200])
def test_every_line_is_harmless_and_as_wide_as_the_terminal(width: int) -> None:
    lines = drawn(NASTY, width, 1.0)
    assert len(lines) > len(list(NASTY.root.leaves()))
    for one in lines:
        assert one.isprintable()
        assert width_of(one) == max(width, width_of(header(columns(width)).plain) + 1)
    if width >= 30:
        assert {width_of(one) for one in lines} == {width}


def test_columns_of_a_leaf() -> None:
    said = [("a/t", f'{{"value": {i}, "unit": "bar"}}'.encode(), float(i)) for i in range(8)]
    (leaf,) = drawn(tree_of(*said), 80, 8.0)
    assert leaf.split() == ["a/t", "7", "bar", "▁▂▃▄▅▆▇█", "1.0/s", "1s"]
    (stale,) = drawn(tree_of(*said), 80, 99.0)
    assert stale.split() == ["a/t", "7", "bar", "stale", "▁▂▃▄▅▆▇█", "1m"]


def test_kept_and_left_out() -> None:
    tree = Tree(10)
    tree.record("a/kept", b"1", 0.0, retain=True)
    tree.record("a/busy/x", b"1", 0.0)
    tree.leave_out(("a", "busy"), "900/s")
    tree.settle(10)
    _, busy, kept = drawn(tree, 80, 1.0)
    assert busy.split() == ["busy", "left", "out:", "900/s"]
    assert kept.split() == ["kept", "1", "kept"]
