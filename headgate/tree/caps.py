"""How much of a broker may be read, and what to leave out where it says more. Pure; time is an argument.

MQTT has no filter that says "all but this". So where a cap is hit, the subscription is taken apart along the branches
that were seen: the heaviest are split into their own branches, and what is heaviest then is left out, until the rest
fits. What was left out is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headgate.tree.leaf import Leaf
from headgate.tree.model import OWN, Node, Tree
from headgate.tree.text import rate, size
from uns_topics.filters import matches

BURST_S = 5.0
"""A cap on a rate lets this many seconds of it through at once: retained messages come all together."""
MAX_FILTERS = 64
"""Of a narrowed subscription."""
TARGET = 0.8
"""A narrowed subscription is to take this much of each cap."""
_WORTH_SPLITTING = 0.1


@dataclass(frozen=True)
class Limits:
    """Caps. Attributes: topics: leaves of the tree; messages, payload_bytes: a second, on average."""

    topics: int = 5_000
    messages: float = 2_000.0
    payload_bytes: float = 2 * 1024 * 1024


class Meter:
    """Two token buckets. A message that empties one is over the cap; it has arrived all the same."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.reset(now)

    def reset(self, now: float) -> None:
        """Start again with full buckets."""
        self._at = now
        self._messages = self._limits.messages * BURST_S
        self._bytes = self._limits.payload_bytes * BURST_S

    def take(self, payload_bytes: int, now: float) -> bool:
        """Count one message; whether it is within the caps."""
        limits, passed = self._limits, max(0.0, now - self._at)
        self._at = now
        self._messages = min(self._messages + passed * limits.messages, limits.messages * BURST_S) - 1
        self._bytes = min(self._bytes + passed * limits.payload_bytes, limits.payload_bytes * BURST_S) - payload_bytes
        return self._messages >= 0 and self._bytes >= 0


@dataclass(frozen=True)
class Load:
    """What a branch asks for."""

    topics: int = 0
    messages: float = 0.0
    payload_bytes: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.topics + other.topics, self.messages + other.messages, self.payload_bytes + other.payload_bytes
        )

    def share(self, limits: Limits) -> float:
        """The largest part of a cap that it takes."""
        return max(
            self.topics / limits.topics,
            self.messages / limits.messages,
            self.payload_bytes / limits.payload_bytes,
        )

    def __str__(self) -> str:
        topics = f"{self.topics:,} topic{'' if self.topics == 1 else 's'}"
        told = (topics, rate(self.messages), f"{size(self.payload_bytes)}/s")
        return ", ".join(one for one in told if one)


@dataclass(frozen=True)
class LeftOut:
    """A branch that is not subscribed to any more, but for its children of these keys (`OWN`: its own topic)."""

    path: tuple[str, ...]
    load: Load
    kept: frozenset[str] = frozenset()

    @property
    def branch(self) -> str:
        """Its name, as a filter."""
        return f"{'part of ' if self.kept else ''}{'/'.join((*self.path, '#'))}"

    def __str__(self) -> str:
        return f"{self.branch} ({self.load})"


@dataclass(frozen=True)
class Narrowing:
    """Filters to subscribe to instead, and what they leave out."""

    filters: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Part:
    """A branch, or (`is_own`) only the topic that a branch with children is itself."""

    node: Node
    load: Load
    is_own: bool = False

    @property
    def key(self) -> str:
        return OWN if self.is_own else self.node.key


def narrow(tree: Tree, filters: Sequence[str], limits: Limits, now: float) -> Narrowing:
    """Keep as much of what was seen as fits. Something goes each time, so that this comes to an end.

    Topics that had no room count by their messages: more may hide there than that, and then it is narrowed again.
    """
    loads = _loads(tree.root, now)
    kept = [_Part(tree.root, loads[tree.root])]
    gone: dict[tuple[str, ...], LeftOut] = {}
    while kept:
        total = sum((part.load for part in kept), Load())
        if gone and total.share(limits) <= TARGET:
            break
        # Of equal ones one out of the largest crowd: a branch of few topics doesn't suffer from one of thousands.
        heaviest = max(kept, key=lambda part: (part.load.share(limits), _crowd(part.node), part.node.path()))
        kept.remove(heaviest)
        node = heaviest.node
        parts = [] if heaviest.is_own else _parts(node, loads, now)
        is_small = node.parent is not None and heaviest.load.share(limits) < _WORTH_SPLITTING
        if not parts or (len(parts) > 1 and is_small):
            _leave_out(heaviest, gone)
            continue
        parts.sort(key=lambda part: (part.load.share(limits), part.key))
        room = MAX_FILTERS - len(kept)
        kept += parts[:room]
        if len(parts) > room or node.unlisted:
            lost = sum((part.load for part in parts[room:]), Load(node.unlisted))
            gone[node.path()] = LeftOut(node.path(), lost, frozenset(part.key for part in parts[:room]))
    wanted = (one for part in kept for given in filters for one in _within(part, given))
    return Narrowing(_without_covered(wanted), tuple(gone.values()))


def _leave_out(part: _Part, gone: dict[tuple[str, ...], LeftOut]) -> None:
    """Say that a part goes: with the others of its branch, where some of them have gone already."""
    path = part.node.path()
    branch = path if part.is_own else path[:-1]
    before = gone.get(branch)
    if before is not None and part.key in before.kept:
        gone[branch] = LeftOut(branch, before.load + part.load, before.kept - {part.key})
    else:
        gone[path] = LeftOut(path, part.load)


def _crowd(node: Node) -> int:
    parent = node.parent
    return 0 if parent is None else len(parent.children) + parent.unlisted


def _parts(node: Node, loads: Mapping[Node, Load], now: float) -> list[_Part]:
    """What a branch can be taken apart into; nothing for a topic without children."""
    children = [child for child in node.children.values() if not child.is_metric]
    parts = [_Part(child, loads[child]) for child in children if loads[child].topics]
    if parts and node.leaf is not None:
        parts.append(_Part(node, _own_load(node.leaf, now), is_own=True))
    return parts


def _own_load(leaf: Leaf, now: float) -> Load:
    return Load(1, leaf.load(now), leaf.byte_rate(now))


def _loads(root: Node, now: float) -> dict[Node, Load]:
    """The load of each branch, by one walk from below."""
    loads: dict[Node, Load] = {}
    for node in reversed(list(root.walk())):
        own = Load(node.unlisted)
        if node.leaf is not None:
            own += Load(1) if node.is_metric else _own_load(node.leaf, now)
        loads[node] = sum((loads[child] for child in node.children.values()), own)
    return loads


def _within(part: _Part, topic_filter: str) -> Iterator[str]:
    """The part of a filter that lies in a branch; none where they have nothing in common."""
    path = part.node.path()
    if part.is_own or not part.node.children or all(child.is_metric for child in part.node.children.values()):
        if matches(topic_filter, "/".join(path)):
            yield "/".join(path)
        return
    wanted = topic_filter.split("/")
    is_open = wanted[-1] == "#"
    fixed = wanted[:-1] if is_open else wanted
    if any(want not in ("+", key) for want, key in zip(fixed, path, strict=False)):
        return
    if path and path[0].startswith("$") and wanted[0] in ("+", "#"):
        return
    if is_open:
        yield "/".join((*path, *fixed[len(path) :], "#"))
    elif len(path) <= len(fixed):
        yield "/".join((*path, *fixed[len(path) :]))


def _without_covered(filters: Iterable[str]) -> tuple[str, ...]:
    """Each filter once, and none of which another says the whole: a broker may send a message once for each."""
    unique = list(dict.fromkeys(filters))
    return tuple(one for one in unique if not any(other != one and matches(other, one) for other in unique))
