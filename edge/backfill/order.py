"""Readings of all files in the order of event time, whatever the order in the files, without holding a file in memory.

A first pass looks at the timestamps alone. Files that are in order are merged as they are read; one that isn't (exports
that list tag after tag) is sorted by way of a temporary folder: runs of some megabytes, merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import msgpack

from edge.backfill.readings import Export, Reading
from edge.backfill.tables import TableError
from edge.backfill.tag_map import Target

RUN_READINGS = 200_000
"""Readings of one sorted run: what a file out of order holds in memory at a time."""
MAX_RUNS = 4096
MAX_OPEN = 128
"""Files that are merged at a time: a process may often open no more than a thousand."""
_TELL_EVERY = 65_536

Tell = Callable[[float], None]
"""Is told the share that is done."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the timestamps of a file say. `first_s` and `last_s` are the earliest and the latest."""

    rows: int
    first_s: float
    last_s: float
    in_order: bool


def survey(export: Export, tell: Tell) -> Survey:
    """Read the timestamps of a file. Raises: TableError: not one that can be read."""
    rows, first, last, before, in_order = 0, float("inf"), float("-inf"), float("-inf"), True
    for moment in export.moments():
        rows += 1
        if moment < before:
            in_order = False
        before = moment
        first, last = min(first, moment), max(last, moment)
        if rows % _TELL_EVERY == 0:
            tell(export.table.done)
    if rows == 0:
        raise TableError(f"{export.table.path}: none of its timestamps can be read")
    return Survey(rows, first, last, in_order)


def in_order(exports: Sequence[Export], surveys: Sequence[Survey], folder: Path, tell: Tell) -> Iterator[Reading]:
    """All readings by event time; at one moment in the order of the files.

    Args: folder: for files out of order. tell: hears how far the sorting of one is.

    Raises: TableError; OSError: the folder is full.
    """
    streams = [
        export.readings() if known.in_order else _sorted(export, folder / str(number), tell)
        for number, (export, known) in enumerate(zip(exports, surveys, strict=True))
    ]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=itemgetter(0))


def _sorted(export: Export, folder: Path, tell: Tell) -> Iterator[Reading]:
    spill = _Spill(folder)
    folder.mkdir(parents=True)
    runs: list[Path] = []
    merged: list[Path] = []
    readings = export.readings()
    while run := sorted(islice(readings, RUN_READINGS), key=itemgetter(0)):
        if len(merged) * MAX_OPEN + len(runs) >= MAX_RUNS:
            raise TableError(f"{export.table.path}: too many readings out of order; export it sorted by time")
        tell(export.table.done)
        runs.append(spill.write(run))
        if len(runs) == MAX_OPEN:
            merged.append(spill.write(spill.merge(runs)))
            for path in runs:
                path.unlink()
            runs.clear()
    yield from spill.merge([*merged, *runs])


class _Spill:
    """Files of readings in order, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._targets: list[Target] = []
        self._places: dict[Target, int] = {}

    def write(self, run: Iterable[Reading]) -> Path:
        path = self._folder / str(self._count)
        self._count += 1
        packer = msgpack.Packer()
        with path.open("wb") as file:
            for moment, target, value, good in run:
                if target not in self._places:
                    self._places[target] = len(self._targets)
                    self._targets.append(target)
                file.write(packer.pack((moment, self._places[target], value, good)))
        return path

    def merge(self, paths: Sequence[Path]) -> Iterator[Reading]:
        """At one moment in the order of the files."""
        return heapq.merge(*(self._read(path) for path in paths), key=itemgetter(0))

    def _read(self, path: Path) -> Iterator[Reading]:
        with path.open("rb") as file:
            for moment, place, value, good in msgpack.Unpacker(file, read_size=65_536):
                yield Reading(moment, self._targets[place], value, good)
