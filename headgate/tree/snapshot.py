"""The tree as text and as JSON, for pipes and scripts. Pure; time is an argument."""

from __future__ import annotations

import json
from collections.abc import Iterator

from headgate.tree import text
from headgate.tree.cells import cells
from headgate.tree.model import Node, Tree
from headgate.tree.rows import Sort, measure, rows


def as_text(tree: Tree, now: float, width: int | None) -> Iterator[str]:
    """One line per topic: the topic in full, so that it can be searched for; values cut to the terminal.

    Args: width: of the terminal; None for a pipe, where nothing is cut.
    """
    measure(tree.root, now)
    found = [(row.node, cells(row.node, now, is_open=True)) for row in rows(tree.root, (), Sort.NAME, lambda _: True)]
    shown = [(text.printable(node.topic()), one) for node, one in found if node.leaf is not None]
    if not shown:
        return
    values = [" ".join(part for part in (one.value, one.unit, one.note) if part) for _, one in shown]
    for_topic = max(5, *(text.width_of(topic) for topic, _ in shown))
    for_value = max(5, *(text.width_of(value) for value in values))
    if width is not None:
        for_topic = min(for_topic, max(20, (width - 15) * 3 // 5))
        for_value = min(for_value, max(10, width - 15 - for_topic))
    titles = ("topic", "value", "rate", "age")
    cut = text.cut_middle if width is not None else text.cut
    for topic, value, rate, age in (titles, *((t, v, c.rate, c.age) for (t, c), v in zip(shown, values, strict=True))):
        yield "  ".join((
            text.column(cut(topic, for_topic), for_topic), text.column(value, for_value),
            text.column(rate, 6, right=True), text.column(age, 4, right=True),
        ))  # fmt: skip


def as_json(tree: Tree, now: float) -> Iterator[str]:
    """One JSON object per topic and line, exact and still harmless in a terminal."""
    for node in sorted(tree.root.leaves(), key=lambda node: node.path()):
        yield text.json_safe(json.dumps(_record(node, now), ensure_ascii=False))


def _record(node: Node, now: float) -> dict[str, object]:
    leaf = node.leaf
    assert leaf is not None
    reading = leaf.reading
    path = node.path()
    topic, metric = ("/".join(path[:-1]), node.name) if node.is_metric else ("/".join(path), None)
    return {
        "topic": topic,
        **({"metric": metric} if metric is not None else {}),
        "kind": reading.kind.value,
        "value": reading.text,
        "unit": reading.unit or leaf.unit,
        **({"note": reading.note} if reading.note else {}),
        "bytes": leaf.payload_bytes,
        "retain": leaf.is_retained,
        "messages": leaf.messages,
        "rate_hz": round(leaf.rate(now), 3),
        "age_s": round(now - leaf.seen, 3),
        "stale": leaf.is_stale(now),
    }
