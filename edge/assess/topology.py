"""Which levels of a topic tree only tell one line from the next: they become captured segments. Pure.

Children of one node that have the same things beneath them are instances of one kind (`line1`, `line2`); those that
differ are parts of one thing (`printer`, `oven`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

ALIKE = 0.5
"""Two children are of one kind if they share this part of what is beneath both."""
_NUMBERED = re.compile(r"[\W_]*\d+$|[\W_]+[A-Za-z]$|(?<=[a-z])[A-Z]$")
"""What tells one of a kind from the next: `line1`, `cell-a`, `lineB`."""

Path = tuple[str, ...]


def generalise(topics: Mapping[Path, str]) -> dict[Path, Path]:
    """Patterns of topics: captured segments stand as `{name}`.

    Args: topics: segments, and what tells two leaves of one name apart (form and fields).
    """
    captures: dict[int, str] = {}
    found: dict[Path, Path] = {}
    _walk(sorted(topics), topics, 0, (), captures, found)
    return found


def _walk(
    group: Sequence[Path],
    topics: Mapping[Path, str],
    depth: int,
    pattern: Path,
    captures: dict[int, str],
    found: dict[Path, Path],
) -> None:
    """Args: group: topics whose first `depth` segments have that pattern."""
    for path in group:
        if len(path) == depth:
            found[path] = pattern
    children: dict[str, list[Path]] = {}
    for path in group:
        if len(path) > depth:
            children.setdefault(path[depth], []).append(path)
    if _are_one_kind(children, topics, depth):
        name = captures.setdefault(depth, _name(list(children), pattern, set(captures.values())))
        _walk([p for c in children.values() for p in c], topics, depth + 1, (*pattern, f"{{{name}}}"), captures, found)
        return
    for segment, below in children.items():
        _walk(below, topics, depth + 1, (*pattern, segment), captures, found)


def _are_one_kind(children: Mapping[str, Sequence[Path]], topics: Mapping[Path, str], depth: int) -> bool:
    if len(children) < 2 or "+" in children:
        return False
    beneath = [{(path[depth + 1 :], topics[path]) for path in paths} for paths in children.values()]
    shared, all_of_them = set.intersection(*beneath), set.union(*beneath)
    if not shared or len(shared) < ALIKE * len(all_of_them):
        return False
    stems = {_NUMBERED.sub("", segment).lower() for segment in children}
    is_deeper = any(rest for rest, _ in shared)
    if len(stems) == 1 and stems != {""}:
        return is_deeper or all(kind.startswith("flat") for _, kind in shared)
    return is_deeper and len(shared) >= 2


def _name(segments: Sequence[str], pattern: Path, taken: set[str]) -> str:
    """By what the segments have in common, else by the level above."""
    stems = {_NUMBERED.sub("", segment).lower() for segment in segments}
    common = re.sub(r"[^a-z]", "", stems.pop()) if len(stems) == 1 else ""
    above = re.sub(r"[^a-z]", "", pattern[-1].lower()).rstrip("s") if pattern else ""
    name = next((one for one in (common, above) if len(one) >= 3 and one not in taken), "unit")
    while name in taken:
        name += "_"
    return name


def instance_of(patterns: Sequence[Path]) -> Path:
    """The path of an instance: up to the last captured segment, or all that the topics share."""
    shared = [segments[0] for segments in takewhile(lambda s: len(set(s)) == 1, zip(*patterns, strict=False))]
    last = max((i for i, segment in enumerate(shared) if segment.startswith("{")), default=None)
    if last is not None:
        return tuple(shared[: last + 1])
    longest = min(len(pattern) for pattern in patterns)
    return tuple(shared[: max(2 if shared[:1] == [""] else 1, min(len(shared), longest - 1))])
