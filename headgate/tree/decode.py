"""What a payload is and how it reads in one line. Pure; nothing that a broker sends makes it raise.

Text is looked at first, since what plants say is text nearly always. Binary kinds are told by their first bytes and by
whether all of a payload parses as what it seems to be.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack

from edge.dialects import is_good
from headgate.tree.fl import fl_reading
from headgate.tree.reading import Kind, Reading
from headgate.tree.text import size
from uns_topics.protobuf import is_message
from uns_topics.topics import ROOT

MAX_TEXT = 200
"""Characters kept of a value."""
MAX_DECODED_BYTES = 64 * 1024
"""A larger payload is told by its first bytes and its topic."""
MAX_NAMED_KEYS = 4
"""Of a flat JSON object's keys, shown with their values; all are counted."""
VALUE_KEYS = ("value", "Value", "val", "v")
UNIT_KEYS = ("unit", "engUnit", "units", "Unit")
QUALITY_KEYS = ("quality", "Quality", "q")
_TIME_KEYS = frozenset({"timestamp_ms", "timestamp", "Timestamp", "time", "ts", "t"})
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"), (b"BM", "BMP"))
_CHUNK_KEYS = {"v", "id", "i", "n", "body"}
MAX_UNIT = 32
"""Characters kept of a unit, a key or another word beside a value."""


def describe(topic: str, payload: bytes, payload_bytes: int | None = None) -> Reading:
    """Read a payload by its topic and content; Sparkplug messages are not read here (they need their births).

    Args: payload: all of it, or its start; payload_bytes: the size of the whole where it is only the start.
    """
    total = len(payload) if payload_bytes is None else payload_bytes
    is_whole = total == len(payload) <= MAX_DECODED_BYTES
    if topic.startswith(f"{ROOT}/"):
        reading = fl_reading(topic, payload, total, is_whole=is_whole)
        if reading is not None:
            return reading
    if not is_whole:
        return _large(payload, total)
    text = _text(payload)
    return _binary(payload) if text is None else _read_text(text)


def value_reading(value: object, unit: str | None = None, note: str = "") -> Reading:
    """One value of JSON, or of a metric."""
    if isinstance(value, bool):
        return Reading(Kind.BOOL, "true" if value else "false", float(value), unit, note)
    if isinstance(value, int | float):
        return Reading(Kind.NUMBER, _digits(value), _finite(value), unit, note)
    if isinstance(value, str):
        return Reading(Kind.TEXT, value[:MAX_TEXT], None, unit, note)
    return Reading(Kind.JSON, _dumped(value), None, unit, note)


def _text(payload: bytes) -> str | None:
    """None for binary: no UTF-8, a NUL, or as many control characters as no text has."""
    if b"\0" in payload:
        return None
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    controls = sum(1 for c in text[:1000] if c < " " and c not in "\t\r\n\x1b")
    return None if controls * 10 > min(len(text), 1000) else text


def _read_text(text: str) -> Reading:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return Reading(Kind.TEXT, text.strip()[:MAX_TEXT])
    if isinstance(content, dict):
        return _read_object(content)
    if isinstance(content, float) and not isinstance(content, bool):
        return Reading(Kind.NUMBER, text.strip()[:MAX_TEXT], _finite(content))
    return value_reading(content)


def _read_object(content: dict[str, Any]) -> Reading:
    for key in VALUE_KEYS:
        if key in content:
            quality = next((content[name] for name in QUALITY_KEYS if name in content), None)
            unit = next((content[name] for name in UNIT_KEYS if isinstance(content.get(name), str)), None)
            return value_reading(content[key], (unit and unit[:MAX_UNIT]) or None, _quality_note(quality))
    keys = [key for key in content if key not in _TIME_KEYS]
    if len(keys) == 1 and len(content) == 2 and not isinstance(content[keys[0]], dict | list):  # UMH's classic form
        reading = value_reading(content[keys[0]])
        return Reading(reading.kind, reading.text, reading.number, None, keys[0][:MAX_UNIT])
    named = ", ".join(f"{key[:MAX_UNIT]} {_brief(content[key])}" for key in keys[:MAX_NAMED_KEYS])
    count = f"{len(content)} key{'' if len(content) == 1 else 's'}"
    return Reading(Kind.JSON, f"{count}: {named}"[:MAX_TEXT] if named else count)


def _quality_note(quality: object) -> str:
    return "" if is_good(quality) else f"quality {_brief(quality)}"


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, list):
        return "[…]" if value else "[]"
    return _digits(value) if type(value) in (int, float) else _dumped(value)[:MAX_UNIT]


def _dumped(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:MAX_TEXT]
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return "…"


def _digits(value: Any) -> str:
    try:
        return repr(value)[:MAX_TEXT]
    except ValueError:
        return "…"


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _large(payload: bytes, total: int) -> Reading:
    if image := _image(payload):
        return _sized(Kind.IMAGE, total, image)
    start = payload[:64].lstrip()
    return _sized(Kind.JSON if start[:1] in (b"{", b"[") else Kind.UNKNOWN, total)


def _binary(payload: bytes) -> Reading:
    total = len(payload)
    if image := _image(payload):
        return _sized(Kind.IMAGE, total, image)
    content = _msgpack(payload)
    if isinstance(content, dict):
        kind = Kind.CHUNK if set(content) == _CHUNK_KEYS else Kind.MSGPACK
        return _sized(kind, total)
    if isinstance(content, list):
        header = content[0] if len(content) == 3 else None
        is_update = isinstance(header, dict) and {"participant", "round_number", "num_examples"} <= set(header)
        return _sized(Kind.UPDATE if is_update else Kind.MSGPACK, total)
    return _sized(Kind.PROTOBUF if is_message(payload) else Kind.UNKNOWN, total)


def _sized(kind: Kind, total: int, what: str = "") -> Reading:
    return Reading(kind, f"{what} {size(total)}".strip())


def _image(payload: bytes) -> str | None:
    if payload[:4] == b"RIFF" and payload[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _IMAGES if payload.startswith(magic)), None)


def _msgpack(payload: bytes) -> Any:
    """What a payload is as a whole; None where it is no msgpack. A container only: any byte is some number."""
    if payload[:1] < b"\x80":
        return None
    try:
        content = msgpack.unpackb(payload, raw=True, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    if isinstance(content, dict):
        return {_name(key): value for key, value in content.items()}
    if isinstance(content, list) and len(content) == 3 and isinstance(content[0], dict):
        return [{_name(key): value for key, value in content[0].items()}, *content[1:]]
    return content if isinstance(content, list) else None


def _name(key: object) -> object:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key
