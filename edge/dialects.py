"""What plants say in their own words: a small decoder per message form, all with one result. Pure; nothing raises.

A payload becomes a timestamp, fields and one quality, or a refusal with its reason. Fields keep their JSON types; a
feature's number is taken from its field by `read_number`. Quality other than good is missing data, never a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_PAYLOAD_BYTES = 64 * 1024
"""A tag is never larger; a larger payload is refused before it is parsed."""
VALUE = "value"
"""The field that a scalar or a UMH message carries."""
MAX_NUMBER = 3.4028e38
"""Largest number that float32 holds, a little rounded down."""
MAX_TEXT = 256
"""Longest key, code, group or context in characters."""

_MAX_NUMBER_TEXT = 1e15  # whole numbers below it are exact in a float
MAX_TIME_S = 1e11  # the year 5138: beyond it somebody mixed up milliseconds and seconds
_GOOD_FROM, _GOOD_TO = 192, 255  # OPC classic: the top two of eight bits; Ignition and Sparkplug say 192, too
_SECONDS_PER_TICK = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Form(StrEnum):
    """How a source writes its messages."""

    UMH = "umh"
    """`{"timestamp_ms", "value"}`; classic: `{"timestamp_ms", ...}` with one or more tags by name."""
    VQT = "vqt"
    """One JSON object with value, quality and timestamp under configurable keys."""
    FLAT = "flat"
    """One JSON object with many tags."""
    SCALAR = "scalar"
    """A bare number, truth value or text."""
    SPARKPLUG = "sparkplug"
    """Metrics of a Sparkplug B edge node or device; read by `edge.sparkplug`, since no message stands alone."""


class TimestampFormat(StrEnum):
    """How a timestamp is written."""

    MS = "ms"
    S = "s"
    US = "us"
    NS = "ns"
    ISO8601 = "iso8601"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One payload. `time_s`: seconds since the epoch, None where it has no timestamp."""

    time_s: float | None
    fields: Mapping[str, Any]
    good: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a payload, or one of its fields, can't be used. `detail` never repeats the payload."""

    code: str
    detail: str


Decoder = Callable[[bytes], Decoded | Refusal]


def no_decoder(_: bytes) -> Refusal:
    """Of a form whose messages don't stand alone."""
    return Refusal("undecodable", "a Sparkplug source on a topic that is none of Sparkplug B")


def make_decoder(
    form: Form,
    *,
    fields: Collection[str] = (VALUE,),
    quality_key: str = "quality",
    timestamp_key: str = "timestamp",
    timestamp_format: TimestampFormat = TimestampFormat.MS,
) -> Decoder:
    """The decoder of one source.

    Args:
        fields: what its source reads. A name with dots that is no key itself is a path into nested objects.
        quality_key, timestamp_key, timestamp_format: of `vqt` and `flat`.
    """
    if form is Form.SPARKPLUG:
        return no_decoder
    if form is Form.SCALAR:
        return _decode_scalar
    if form is Form.UMH:
        return _umh_decoder(set(fields) <= {VALUE}, _paths(fields))
    return _object_decoder(quality_key, timestamp_key, timestamp_format, _paths([*fields, quality_key, timestamp_key]))


def read_number(value: Any, *, allow_bool: bool = False) -> float | Refusal | None:
    """A JSON value as a finite number that float32 can hold; None where it is null.

    Args: allow_bool: the quantity is a pure number, so that true and false count as 1 and 0.
    """
    kind = type(value)
    if kind is float:
        if -MAX_NUMBER < value < MAX_NUMBER:  # false for NaN, too
            return value  # type: ignore[no-any-return]
        return Refusal("not-finite", "not a finite number")
    if kind is int:
        if not -MAX_NUMBER < value < MAX_NUMBER:  # exact for integers of any size
            return Refusal("not-finite", "larger than any quantity")
        return float(value)
    if value is None:
        return None
    if kind is bool and allow_bool:
        return 1.0 if value else 0.0
    return Refusal("wrong-type", f"{_JSON_NAMES.get(kind, 'something else')} where a number was expected")


def read_text(value: Any) -> str | None:
    """A key, code or name as text: 7 and 7.0 are "7", true is "true".

    Returns: None for null, an empty or overlong text, one that is no Unicode, NaN, lists and objects.
    """
    kind = type(value)
    if kind is str:
        return value if 0 < len(value) <= MAX_TEXT and (value.isascii() or _is_unicode(value)) else None
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        if not -_MAX_NUMBER_TEXT < value < _MAX_NUMBER_TEXT:
            return None
        return str(int(value)) if value == int(value) else str(value)
    return None


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no file and no broker takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def is_good(quality: Any) -> bool:
    """Whether a quality means that the value counts: missing, 192-255, or a text such as GOOD.

    0 is bad, as in OPC classic; so is all else: 256 and up, 500, 512, "Uncertain".
    """
    if quality is None:
        return True
    if type(quality) is bool:
        return quality
    if type(quality) is str:
        text = quality.strip()
        if not text.isdecimal() or len(text) > 9:
            return text.lower() == "good" or text.lower().startswith("good_")
        quality = int(text)
    return type(quality) in (int, float) and _GOOD_FROM <= quality <= _GOOD_TO


def read_timestamp(value: Any, form: TimestampFormat) -> float | Refusal:
    """A timestamp as seconds since the epoch. A text without a time zone is refused: nobody can know what it means."""
    if form is TimestampFormat.ISO8601:
        if type(value) is not str or len(value) > 64:
            return Refusal("bad-timestamp", "the timestamp is no ISO 8601 text")
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                return Refusal("bad-timestamp", "the timestamp names no time zone")
            seconds = moment.timestamp()
        except (ValueError, OverflowError):
            return Refusal("bad-timestamp", "the timestamp is no ISO 8601 text")
    elif type(value) not in (int, float) or not -1e30 < value < 1e30:
        return Refusal("bad-timestamp", f"the timestamp is no number ({form.value})")
    else:
        seconds = value * _SECONDS_PER_TICK[form.value] if form is not TimestampFormat.MS else value / 1000
    if not 0 <= seconds < MAX_TIME_S:
        return Refusal("bad-timestamp", f"the timestamp is out of range when read as {form.value}")
    return seconds


_EPOCH_BELOW = (
    (1e11, TimestampFormat.S),
    (1e14, TimestampFormat.MS),
    (1e17, TimestampFormat.US),
    (1e20, TimestampFormat.NS),
)
"""Right for all dates from March 1973 on."""


def epoch_format(number: float) -> TimestampFormat | None:
    """How a number from the epoch is written, by its size; None for one that is too large in every way."""
    return next((form for limit, form in _EPOCH_BELOW if abs(number) < limit), None)


_ABSENT = object()
_JSON_NAMES: dict[type, str] = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
_PARSE = json.JSONDecoder().decode  # NaN and Infinity pass here as floats; read_number refuses them field by field


def _read_object(payload: bytes) -> dict[str, Any] | Refusal:
    if len(payload) > MAX_PAYLOAD_BYTES:
        return Refusal("oversized", f"{len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}")
    try:
        content = _PARSE(str(payload, "utf-8"))
    except UnicodeDecodeError:
        return Refusal("undecodable", "not UTF-8")
    except (ValueError, RecursionError):
        return Refusal("undecodable", "not JSON" if payload else "empty")
    if type(content) is not dict:
        return Refusal("undecodable", "not a JSON object")
    return content


_Paths = tuple[tuple[str, tuple[str, ...]], ...]


def _paths(fields: Iterable[str]) -> _Paths:
    """Names that may lead into nested objects."""
    return tuple((name, tuple(name.split("."))) for name in sorted(set(fields)) if "." in name)


def _reach(content: dict[str, Any], paths: _Paths) -> None:
    """Put what lies deeper under its whole name, beside the keys; a key that is spelt so wins."""
    for name, path in paths:
        if name in content:
            continue
        found: Any = content
        for key in path:
            found = found.get(key, _ABSENT) if type(found) is dict else _ABSENT
            if found is _ABSENT:
                break
        else:
            content[name] = found


def _umh_decoder(is_single: bool, paths: _Paths) -> Decoder:
    """Args: is_single: the source reads the value alone, so that a message without one is none of its own."""

    def decode(payload: bytes) -> Decoded | Refusal:
        content = _read_object(payload)
        if type(content) is Refusal:
            return content
        assert isinstance(content, dict)
        stamp = content.get("timestamp_ms", _ABSENT)
        if stamp is _ABSENT or (is_single and VALUE not in content):
            return Refusal("undecodable", "no timestamp_ms and value" if is_single else "no timestamp_ms")
        if paths:
            _reach(content, paths)
        if type(stamp) is int and 0 <= stamp < MAX_TIME_S * 1000:
            return Decoded(stamp / 1000, content)
        time_s = read_timestamp(stamp, TimestampFormat.MS)
        if isinstance(time_s, Refusal):
            return time_s
        return Decoded(time_s, content)

    return decode


def _object_decoder(quality_key: str, timestamp_key: str, form: TimestampFormat, paths: _Paths) -> Decoder:
    def decode(payload: bytes) -> Decoded | Refusal:
        content = _read_object(payload)
        if isinstance(content, Refusal):
            return content
        if paths:
            _reach(content, paths)
        stamp = content.get(timestamp_key)
        time_s = read_timestamp(stamp, form) if stamp is not None else None
        if isinstance(time_s, Refusal):
            return time_s
        return Decoded(time_s, content, is_good(content.get(quality_key)))

    return decode


def _decode_scalar(payload: bytes) -> Decoded | Refusal:
    if len(payload) > MAX_PAYLOAD_BYTES:
        return Refusal("oversized", f"{len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}")
    try:
        text = str(payload, "utf-8").strip()
    except UnicodeDecodeError:
        return Refusal("undecodable", "not UTF-8")
    if not text:
        return Refusal("undecodable", "empty")
    return Decoded(None, {VALUE: read_scalar(text)})


def read_scalar(text: str) -> Any:
    """Number, truth value or text; a JSON text loses its quotes."""
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if "_" not in text:  # Python reads 1_000 as a number, plants don't
            return int(text) if math.isfinite(number) and text.isascii() and text.isdigit() else number
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        try:
            inner = _PARSE(text)
        except (ValueError, RecursionError):
            return text
        return inner if isinstance(inner, str) else text
    return text
