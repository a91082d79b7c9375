"""Readings out of a table: which columns hold what, long or wide, and each cell's value and quality. Pure but for rows.

*Long*: a row is one reading: time, tag, value, perhaps a quality. *Wide*: a row is one moment: time, a column per tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from itertools import islice
from typing import Any, NamedTuple

from edge.backfill.moments import MomentError, ReadMoment, moment_reader, zone_of
from edge.backfill.tables import Table, TableError
from edge.backfill.tag_map import Resolver, TagMap, Target
from edge.dialects import is_good, read_scalar

MAX_LISTED = 1000
"""Tags that nothing reads and that are counted by name."""

TRIED_ROWS = 20
"""Rows in which a timestamp must be found that can be read."""

_TIMES = (
    *("timestamp", "time", "datetime", "date_time", "ts", "t_stamp", "_time", "date", "timestamp_ms", "event_time"),
    *("source_timestamp", "sourcetimestamp", "time_stamp", "t"),
)
_TAGS = ("tag", "topic", "tagname", "tag_name", "tagpath", "tag_path", "point", "name", "path", "item", "signal")
_VALUES = ("value", "val", "_value", "payload", "v")
_QUALITIES = ("quality", "quality_code", "qualitycode", "opcquality", "status", "isgood", "q")
_NOTHING = frozenset({"", "nan", "null", "none", "n/a", "na", "nil"})


class Reading(NamedTuple):
    """One value of one tag. `value` is None where it is missing: null, empty or not good."""

    time_s: float
    target: Target
    value: Any
    good: bool


@dataclass(frozen=True, slots=True)
class _WideColumn:
    place: int
    target: Target
    quality: int | None


@dataclass
class Export:
    """One file as the signal map reads it.

    Attributes:
        rows: read so far by the newest iterator. bad: rows that could not be used, by reason.
        unread: readings of tags that the map reads nothing of, by tag; a wide column counts once.
    """

    table: Table
    read_moment: ReadMoment
    time: int
    long: tuple[int, int, int | None] | None
    wide: tuple[_WideColumn, ...]
    resolver: Resolver
    rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def moments(self) -> Iterator[float]:
        """The timestamps alone, as they come."""
        read = self.read_moment
        for (cell,) in self.table.rows([self.time]):
            moment = read(cell)
            if moment is not None:
                yield moment

    def readings(self) -> Iterator[Reading]:
        """All readings that the signal map takes, as they come. Raises: TableError."""
        self.rows = 0
        self.bad = Counter()
        self.unread.clear()
        yield from self._long(*self.long) if self.long is not None else self._wide()
        self.bad["undecodable"] += self.table.bad_rows

    def _long(self, tag: int, value: int, quality: int | None) -> Iterator[Reading]:
        read, target_of, unread = self.read_moment, self.resolver.target, self.unread
        columns = [self.time, tag, value] + ([quality] if quality is not None else [])
        for row in self.table.rows(columns):
            self.rows += 1
            if row[1] is None or row[1] == "":
                self.bad["undecodable"] += 1  # a line of another shape: no tag has an empty name
                continue
            name = row[1] if isinstance(row[1], str) else str(row[1])
            target = target_of(name)
            if target is None:
                if name in unread or len(unread) < MAX_LISTED:
                    unread[name] += 1
                continue
            moment = read(row[0])
            if moment is None:
                self.bad["bad-timestamp"] += 1
                continue
            good = quality is None or _is_good(row[3])
            yield Reading(moment, target, _value(row[2], target) if good else None, good)

    def _wide(self) -> Iterator[Reading]:
        read, header = self.read_moment, self.table.header
        columns = [self.time]
        columns += [place for one in self.wide for place in (one.place, one.quality) if place is not None]
        columns = list(dict.fromkeys(columns))
        at = {column: place for place, column in enumerate(columns)}
        cells = [(at[one.place], one.target, at[one.quality] if one.quality is not None else None) for one in self.wide]
        taken = set(columns)
        self.unread.update(name for place, name in enumerate(header[:MAX_LISTED]) if place not in taken and name)
        for row in self.table.rows(columns):
            self.rows += 1
            moment = read(row[0])
            if moment is None:
                self.bad["bad-timestamp"] += 1
                continue
            for place, target, quality in cells:
                cell = row[place]
                if cell is None or cell == "" or cell != cell:
                    continue  # nothing was recorded at this moment; a NaN is what data frames say for that
                good = quality is None or _is_good(row[quality])
                yield Reading(moment, target, _value(cell, target) if good else None, good)


def open_export(table: Table, tag_map: TagMap, resolver: Resolver, zone: str | None) -> Export:
    """Find out what a table's columns hold.

    Args: zone: of timestamps that name none; it counts before the tag map's.

    Raises: TableError: no column of times, a column that the tag map names is missing, no tag of the signal map, or
        timestamps that can't be understood.
    """
    try:
        time = _time_column(table, tag_map)
        long = _long_columns(table, tag_map)
        wide = _wide_columns(table, time, resolver) if long is None else ()
        if long is None and not wide:
            listed = ", ".join(repr(name) for name in table.header[:8])
            raise TableError(
                f"{table.path}: no column is a tag that the signal map reads ({listed}); name them in a tag map (--map)"
            )
        zone = zone or tag_map.time.zone
        read = _moment_reader(table, time, tag_map.time.format, zone_of(zone) if zone is not None else None)
    except MomentError as error:
        raise TableError(f"{table.path}: {error}") from None
    return Export(table, read, time, long, wide, resolver)


def _moment_reader(table: Table, time: int, form: str | None, zone: tzinfo | None) -> ReadMoment:
    """By the first timestamp that can be read; some exports have a line of units below their header."""
    cells = (cell for (cell,) in table.rows([time]) if cell not in (None, ""))
    refusal: MomentError | None = None
    for cell in islice(cells, TRIED_ROWS):
        try:
            return moment_reader(cell, form, zone)
        except MomentError as error:
            refusal = refusal or error
    if refusal is None:
        raise TableError(f"{table.path}: it has no rows with a timestamp")
    raise refusal


def _time_column(table: Table, tag_map: TagMap) -> int:
    if tag_map.time.column is not None:
        return _column(table, tag_map.time.column)
    found = _first(table.header, _TIMES)
    if found is None:
        listed = ", ".join(repr(name) for name in table.header[:8])
        raise TableError(f"{table.path}: no column looks like the time ({listed}); name it in a tag map (--map)")
    return found


def _long_columns(table: Table, tag_map: TagMap) -> tuple[int, int, int | None] | None:
    said = tag_map.long
    if said is not None:
        quality = _column(table, said.quality) if said.quality is not None else None
        return _column(table, said.tag), _column(table, said.value), quality
    tag, value = _first(table.header, _TAGS), _first(table.header, _VALUES)
    if tag is None or value is None:
        return None
    return tag, value, _first(table.header, _QUALITIES)


def _wide_columns(table: Table, time: int, resolver: Resolver) -> tuple[_WideColumn, ...]:
    found = []
    for place, name in enumerate(table.header):
        target = resolver.target(name) if place != time else None
        if target is not None:
            quality = resolver.quality_column(name)
            found.append(_WideColumn(place, target, _column(table, quality) if quality is not None else None))
    return tuple(found)


def _column(table: Table, name: str) -> int:
    if name not in table.header:
        raise TableError(f"{table.path}: it has no column {name!r}, which the tag map names")
    return table.header.index(name)


def _first(header: Sequence[str], names: Sequence[str]) -> int | None:
    at: Mapping[str, int] = {name.lower(): place for place, name in reversed(list(enumerate(header)))}
    return next((at[name] for name in names if name in at), None)


def _is_good(cell: Any) -> bool:
    """An empty quality says nothing, and a text such as TRUE is a truth value."""
    if isinstance(cell, str):
        text = cell.strip().lower()
        if text in ("", "true", "false"):
            return text != "false"
    return is_good(cell)


def _value(cell: Any, target: Target) -> Any:
    if not target.is_number:
        return cell if cell != "" else None
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in _NOTHING:
            return None
        if (
            text.count(",") == 1 and "." not in text and not text.startswith("{")
        ):  # 21,5 where decimal commas are written
            text = text.replace(",", ".")
        return read_scalar(text)
    return None if cell != cell else cell
