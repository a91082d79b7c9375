"""Which lines of the tree are to be seen, in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from headgate.tree.model import Node
from headgate.tree.text import printable
from uns_topics.filters import matches


class Sort(StrEnum):
    """Order of a branch's children: by name, busiest first, latest first."""

    NAME = "name"
    RATE = "rate"
    AGE = "age"

    def following(self) -> Sort:
        """The next one, round and round."""
        every = list(Sort)
        return every[(every.index(self) + 1) % len(every)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line. Attributes: node: the last of a chain of levels that hold nothing else; label: the whole chain."""

    node: Node
    depth: int
    label: str
    is_open: bool

    @property
    def is_branch(self) -> bool:
        return bool(self.node.children)


def filter_test(text: str) -> Callable[[str], bool] | None:
    """Whether a topic is wanted: MQTT's wildcards where there are some, else a part of it. None wants all."""
    text = text.strip()
    if not text:
        return None
    if any(segment in ("+", "#") for segment in text.split("/")):
        return lambda topic: matches(text, topic.partition(" ")[0]) or matches(text, topic)
    lowered = text.casefold()
    return lambda topic: lowered in topic.casefold()


def measure(root: Node, now: float) -> None:
    """Set every branch's rate and time of its last message."""
    for node in reversed(list(root.walk())):
        leaf = node.leaf
        node.rate = leaf.rate(now) if leaf is not None and not node.is_metric else 0.0
        node.newest = leaf.seen if leaf is not None else 0.0
        for child in node.children.values():
            node.rate += child.rate
            node.newest = max(node.newest, child.newest)


def rows(root: Node, toggled: Collection[Node], sort: Sort, wanted: Callable[[str], bool] | None) -> list[Row]:
    """The lines from top to bottom.

    Args: toggled: branches that aren't as they are at first: open, and closed where only metrics are below them;
        wanted: what a filter lets through. Branches with something in them are then open.
    """
    found = None if wanted is None else _with_parents(root, wanted)
    lines: list[Row] = []
    waiting = [(child, 0) for child in reversed(_ordered(root, sort))]
    while waiting:
        node, depth = waiting.pop()
        if found is not None and node not in found:
            continue
        label = printable(node.name)
        while (only := _only_child(node)) is not None:
            node = only
            label += f"/{printable(node.name)}"
        is_open = bool(node.children) and (opens_first(node) != (node in toggled) or found is not None)
        lines.append(Row(node, depth, label, is_open))
        if is_open:
            waiting.extend((child, depth + 1) for child in reversed(_ordered(node, sort)))
    return lines


def opens_first(node: Node) -> bool:
    """A message's metrics are closed at first: a birth may have hundreds."""
    return not next(iter(node.children.values())).is_metric if node.children else True


def _only_child(node: Node) -> Node | None:
    """The child of a level that holds nothing else: it stands on the same line."""
    if len(node.children) != 1 or node.leaf is not None or node.left_out:
        return None
    (child,) = node.children.values()
    return None if child.is_metric else child


def _ordered(node: Node, sort: Sort) -> list[Node]:
    children = list(node.children.values())
    if sort is Sort.RATE:
        children.sort(key=lambda child: (-child.rate, child.name))
    elif sort is Sort.AGE:
        children.sort(key=lambda child: (-child.newest, child.name))
    else:
        children.sort(key=lambda child: (child.name.casefold(), child.name))
    return children


def _with_parents(root: Node, wanted: Callable[[str], bool]) -> set[Node]:
    """Leaves that are wanted, and every branch above one."""
    found: set[Node] = set()
    for node in root.leaves():
        if wanted(node.topic()):
            above: Node | None = node
            while above is not None and above not in found:
                found.add(above)
                above = above.parent
    return found
