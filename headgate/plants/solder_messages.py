"""How solder lines say things: which topic carries what, under which names, in which unit and JSON form.

These declarations are all that the message texts are made from, and all that a signal map needs to read them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from headgate.plants.solder_process import Joint

__all__ = ["BoardTopic", "Form", "Reading", "TagTopic", "Verdicts", "board_payload", "tag_payload", "verdict_payload"]


class Form(StrEnum):
    """JSON forms of slow tags."""

    UMH = "umh"
    """`{"timestamp_ms": ..., "value": ...}`, United Manufacturing Hub's time series"""
    VQT = "vqt"
    """value, quality and timestamp under names of the plant's choice"""
    FLAT = "flat"
    """many tags in one message"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number in a message.

    Attributes: feature: name in the contract; unit: the plant's, as pint reads it; field: JSON key (`flat` only).
    """

    feature: str
    unit: str
    field: str = "value"


@dataclass(frozen=True, slots=True)
class TagTopic:
    """A topic of slow tags.

    Attributes:
        topic: with `{line}` for the line's segment.
        readings: one, except in form `flat`.
        every_boards: published at each n-th print; on_change: and when the squeegee settings change.
        retain: the broker keeps the last one.
        value_key, quality_key, timestamp_key: names in forms `vqt` and `flat`.
        iso8601: timestamps are ISO 8601 texts instead of milliseconds.
        good, bad: how this plant writes a quality.
    """

    topic: str
    form: Form
    readings: tuple[Reading, ...]
    every_boards: int = 1
    on_change: bool = False
    retain: bool = False
    value_key: str = "value"
    quality_key: str = "quality"
    timestamp_key: str = "timestamp_ms"
    iso8601: bool = False
    good: str | int = "GOOD"
    bad: str | int = "BAD"


@dataclass(frozen=True, slots=True)
class BoardTopic:
    """Flat JSON per board from the solder paste inspection, keyed by the board's serial."""

    topic: str
    readings: tuple[Reading, ...]
    serial_key: str = "serial"
    timestamp_key: str = "timestamp_ms"
    iso8601: bool = False


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Flat JSON per board from the optical inspection behind the oven, keyed by the board's serial.

    Attributes:
        words: what this plant calls each joint; several words are synonyms in use side by side.
        delay_s: shortest and longest time from paste inspection to verdict, seconds.
    """

    topic: str
    words: Mapping[Joint, tuple[str, ...]]
    delay_s: tuple[float, float]
    verdict_key: str = "verdict"
    serial_key: str = "serial"
    timestamp_key: str = "timestamp_ms"
    iso8601: bool = False


_UNITS: dict[str, tuple[float, float, int]] = {
    "Pa.s": (1.0, 0.0, 1),
    "cP": (1000.0, 0.0, 0),
    "degC": (1.0, 0.0, 2),
    "degF": (1.8, 32.0, 1),
    "N": (1.0, 0.0, 1),
    "kgf": (1.0 / 9.80665, 0.0, 2),
    "mm/s": (1.0, 0.0, 1),
    "%": (1.0, 0.0, 1),
    "": (1.0, 0.0, 0),
    "um": (1.0, 0.0, 1),
    "mm": (0.001, 0.0, 4),
}
"""From the process's own unit (Pa.s, degC, N, mm/s, %, um) to the plant's: factor, offset, decimals that it shows."""


def tag_payload(topic: TagTopic, time_s: float, values: Mapping[str, float], *, failed: str | None) -> bytes:
    """The message of one tag topic.

    Args:
        values: by feature name, in the process's units.
        failed: feature whose sensor gave nothing usable this time: null, or (`vqt`) 0 with bad quality.
    """
    stamp = _stamp(time_s, iso8601=topic.iso8601)
    if topic.form is Form.FLAT:
        return _json({topic.timestamp_key: stamp} | _fields(topic.readings, values, failed))
    (reading,) = topic.readings
    value = _number(reading, values)
    if topic.form is Form.UMH:
        return _json({"timestamp_ms": stamp, "value": None if failed == reading.feature else value})
    good = failed != reading.feature
    return _json(
        {
            topic.value_key: value if good else 0.0,
            topic.quality_key: topic.good if good else topic.bad,
            topic.timestamp_key: stamp,
        }
    )


def board_payload(
    topic: BoardTopic, time_s: float, serial: str, values: Mapping[str, float], *, failed: str | None
) -> bytes:
    """The paste inspection of one board; `failed` as in `tag_payload`."""
    head = {topic.timestamp_key: _stamp(time_s, iso8601=topic.iso8601), topic.serial_key: serial}
    return _json(head | _fields(topic.readings, values, failed))


def verdict_payload(topic: Verdicts, time_s: float, serial: str, word: str) -> bytes:
    """The verdict on one board."""
    stamp = _stamp(time_s, iso8601=topic.iso8601)
    return _json({topic.timestamp_key: stamp, topic.serial_key: serial, topic.verdict_key: word})


def _fields(
    readings: tuple[Reading, ...], values: Mapping[str, float], failed: str | None
) -> dict[str, float | int | str | None]:
    return {r.field: None if r.feature == failed else _number(r, values) for r in readings}


def _number(reading: Reading, values: Mapping[str, float]) -> float | int:
    factor, offset, decimals = _UNITS[reading.unit]
    value = values[reading.feature] * factor + offset
    return round(value, decimals) if decimals else round(value)


def _stamp(time_s: float, *, iso8601: bool) -> int | str:
    if iso8601:
        return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return round(time_s * 1000)


def _json(content: Mapping[str, float | int | str | None]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
