"""Timestamps of exports. Pure.

The rule: a text that names its time zone counts as it stands; one that names none counts in the zone that the person
said, and without one the file is refused, because nobody can know what it means. Numbers count from the epoch, in UTC.
In the hour that a zone has twice, the first one is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.dialects import MAX_TIME_S, Refusal, TimestampFormat, epoch_format, read_timestamp

_EPOCH_FORMS = frozenset(TimestampFormat) - {TimestampFormat.ISO8601}

ReadMoment = Callable[[Any], float | None]
"""A cell to seconds since the epoch; None where it can't be read."""


class MomentError(ValueError):
    """The timestamps of a file can't be understood; the text says what to do."""


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises: MomentError."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise MomentError(f"{name!r} is no time zone: write UTC or a name such as Europe/Berlin") from None


def moment_reader(first: Any, form: str | None, zone: tzinfo | None) -> ReadMoment:
    """How the timestamps of a file are read.

    Args:
        first: its first timestamp. form: `s`, `ms`, `us`, `ns`, `iso8601` or a pattern such as `%d.%m.%Y %H:%M:%S`;
            None: found out from the first. zone: of texts that name none.

    Raises: MomentError: the first one can't be read.
    """
    if form is None and isinstance(first, datetime | date):
        form = "iso8601"
    if form is None:
        number = _number(first)
        form = "iso8601" if number is None else (epoch_format(number) or TimestampFormat.NS)
    read = _epoch_reader(TimestampFormat(form)) if form in _EPOCH_FORMS else _text_reader(form, zone)
    try:
        moment = read(first)
    except _NoZone:
        raise MomentError(
            f"timestamps such as {str(first)[:40]!r} name no time zone: say it with --zone UTC, --zone Europe/Berlin "
            "or `zone` in the tag map"
        ) from None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise MomentError(f"{str(first)[:40]!r} is no timestamp ({form}); name its format in the tag map")
    return _forgiving(read)


class _NoZone(ValueError):
    pass


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _epoch_reader(form: TimestampFormat) -> ReadMoment:
    def read(cell: Any) -> float | None:
        number = _number(cell)
        moment = read_timestamp(number, form) if number is not None else None
        return None if isinstance(moment, Refusal) else moment

    return read


def _text_reader(form: str, zone: tzinfo | None) -> ReadMoment:
    is_iso = form == "iso8601"

    def read(cell: Any) -> float | None:
        if isinstance(cell, datetime):
            moment = cell
        elif isinstance(cell, date):
            moment = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - its zone is said below
        elif isinstance(cell, str):
            text = cell.strip()
            moment = datetime.fromisoformat(text) if is_iso else datetime.strptime(text, form)  # noqa: DTZ007
        else:
            return None
        if moment.tzinfo is None:
            if zone is None:
                raise _NoZone
            moment = moment.replace(tzinfo=zone)
        seconds = moment.timestamp()
        return seconds if 0 <= seconds < MAX_TIME_S else None

    return read


def _forgiving(read: ReadMoment) -> ReadMoment:
    def forgiving(cell: Any) -> float | None:
        try:
            return read(cell)
        except (ValueError, OverflowError):
            return None

    return forgiving
