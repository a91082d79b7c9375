"""MQTT topic names, topic filters and the patterns of a plant's signal map (MQTT 3.1.1, section 4.7).

A *pattern* is a topic filter whose single-level wildcards may carry a name: `acme/berlin/smt/{line}/printer/+/temp`.
One of them may stand for several segments, `umh/v1/{path...}/_historian/temp`: MQTT has no such wildcard in the middle
of a filter, so that is one filter per depth.
Captured segments are the plant's own text and are handed on unchanged: spaces, dots and umlauts included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_TOPIC_BYTES = 65_535
"""Longest topic in UTF-8 bytes (MQTT 3.1.1, section 4.7.3)."""

MAX_DEPTH = 6
"""Most segments of a `{name...}`: the location of a UMH topic has up to six (enterprise to origin)."""

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


def validate_topic(text: str) -> str:
    """Return `text` if it may be published to. Raises: ValueError with a sentence that says what is wrong."""
    _validate_text(text, "topic")
    if "+" in text or "#" in text:
        raise ValueError(f"topic {text!r} contains a wildcard: '+' and '#' may stand in filters only")
    return text


def validate_filter(text: str) -> str:
    """Return `text` if it may be subscribed to. Raises: ValueError with a sentence that says what is wrong."""
    _validate_text(text, "topic filter")
    segments = text.split("/")
    for index, segment in enumerate(segments):
        if "#" in segment and (segment != "#" or index != len(segments) - 1):
            raise ValueError(f"topic filter {text!r}: '#' must be the whole last segment, as in 'site/line/#'")
        if "+" in segment and segment != "+":
            raise ValueError(f"topic filter {text!r}: '+' must be a whole segment, not a part of {segment!r}")
    return text


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether a valid filter covers a valid topic.

    `#` covers its parent too, and a wildcard in first place never covers a topic that starts with `$`.
    """
    if topic_filter == topic:
        return True
    wanted, segments = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        if len(segments) < len(wanted):
            return False
    elif len(segments) != len(wanted):
        return False
    return all(want in ("+", segment) for want, segment in zip(wanted, segments, strict=False))


class TopicPattern:
    """A topic filter with named segments, compiled once and matched against every message of a plant.

    Args:
        text: segments joined by `/`; `{name}` captures one segment, `{name...}` one to six, `+` skips one, a last `#`
            covers the rest.

    Raises:
        ValueError: a sentence that names the pattern and what is wrong with it.
    """

    __slots__ = ("_captures", "_count", "_deep_at", "_literals", "_open_ended", "deep", "filters", "names", "text")

    def __init__(self, text: str) -> None:
        segments = text.split("/")
        captures: list[tuple[str, int]] = []
        deep: list[int] = []
        for index, segment in enumerate(segments):
            capture = _CAPTURE.fullmatch(segment)
            if capture is not None:
                captures.append((capture[1], index))
                if capture[2]:
                    deep.append(index)
            elif "{" in segment or "}" in segment:
                raise ValueError(
                    f"topic pattern {text!r}: {segment!r} is no capture. A capture is a whole segment such as "
                    "'{line}', named by letters, digits and '_', or '{path...}' for several segments"
                )
        names = tuple(name for name, _ in captures)
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"topic pattern {text!r}: '{{{name}}}' stands in it more than once")
        if len(deep) > 1 or (deep and segments[-1] == "#"):
            raise ValueError(f"topic pattern {text!r}: only one part of it can be of any depth")
        positions = {index for _, index in captures}
        topic_filter = "/".join("+" if index in positions else segment for index, segment in enumerate(segments))
        try:
            validate_filter(topic_filter)
        except ValueError as error:
            raise ValueError(f"topic pattern {text!r}: {error}") from None
        self.text = text
        """The pattern as written."""
        self.filters: tuple[str, ...] = (topic_filter,)
        """What to subscribe to: one filter, or one per depth."""
        self.deep: str | None = None
        """The name of the capture that takes several segments, if there is one."""
        self._deep_at = deep[0] if deep else None
        self.names: tuple[str, ...] = names
        """Captured names in the order of their segments."""
        if self._deep_at is not None:
            plain = topic_filter.split("/")
            before, after = plain[: self._deep_at], plain[self._deep_at + 1 :]
            self.filters = tuple("/".join([*before, *["+"] * depth, *after]) for depth in range(1, MAX_DEPTH + 1))
            self.deep = next(name for name, index in captures if index == self._deep_at)
        self._captures = tuple(captures)
        self._open_ended = segments[-1] == "#"
        fixed = segments[:-1] if self._open_ended else segments
        self._count = len(fixed)
        self._literals = tuple(
            (index, segment) for index, segment in enumerate(fixed) if index not in positions and segment != "+"
        )

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the captured segments by name (empty without captures), or None where the topic isn't covered."""
        segments = topic.split("/")
        count = self._count
        at = self._deep_at
        if at is not None and count < len(segments) < count + MAX_DEPTH:
            depth = len(segments) - count + 1
            segments[at : at + depth] = ["/".join(segments[at : at + depth])]
        if len(segments) != count and (not self._open_ended or len(segments) < count):
            return None
        for index, literal in self._literals:
            if segments[index] != literal:
                return None
        if topic.startswith("$") and not self.text.startswith("$"):
            return None
        return {name: segments[index] for name, index in self._captures}

    def fill(self, captures: Mapping[str, str]) -> str:
        """The topic that has these segments. Raises: KeyError: a name is missing."""
        named = {index: captures[name] for name, index in self._captures}
        return "/".join(named.get(index, segment) for index, segment in enumerate(self.text.split("/")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicPattern) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"


def _validate_text(text: str, what: str) -> None:
    if not text:
        raise ValueError(f"a {what} can't be empty")
    if "\0" in text:
        raise ValueError(f"{what} {text!r} contains the character U+0000, which MQTT forbids")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {text!r} can't be written as UTF-8") from None
    if len(encoded) > MAX_TOPIC_BYTES:
        raise ValueError(f"{what} {text[:40]!r}... has {len(encoded)} bytes; MQTT allows {MAX_TOPIC_BYTES}")
