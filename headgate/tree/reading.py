"""What the last message of a topic says: its kind, one line of text, its number and unit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a payload is. Binary kinds are shown by size and kind, never by content."""

    NUMBER = "number"
    BOOL = "bool"
    TEXT = "text"
    JSON = "json"
    HEADGATE = "headgate"
    CHUNK = "headgate chunk"
    UPDATE = "headgate update"
    SPARKPLUG = "sparkplug"
    PROTOBUF = "protobuf"
    MSGPACK = "msgpack"
    IMAGE = "image"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reading:
    """One message, read.

    Attributes:
        text: one line, as the sender wrote it and at most `decode.MAX_TEXT` characters; not yet safe for a terminal.
        number: of a number or a truth value, None where it isn't finite.
        note: what has to be said beside the value: a quality that isn't good.
        metrics: a Sparkplug message's metrics by name.
    """

    kind: Kind
    text: str
    number: float | None = None
    unit: str | None = None
    note: str = ""
    metrics: tuple[tuple[str, Reading], ...] = ()
