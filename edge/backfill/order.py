"""Readings of all files in the order of event time, whatever the order in the files, without holding a file in memory.

A first pass looks at the timestamps alone. Files that are in order are merged as they are read; one that isn't (exports
that list tag after tag) is sorted by way of a temporary folder: runs of some megabytes, merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
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
    targets: list[Target] = []
    places: dict[Target, int] = {}
    folder.mkdir(parents=True)
    runs: list[Path] = []
    readings = export.readings()
    while run := sorted(islice(readings, RUN_READINGS), key=itemgetter(0)):
        if len(runs) >= MAX_RUNS:
            raise TableError(f"{export.table.path}: too many readings out of order; export it sorted by time")
        tell(export.table.done)
        runs.append(folder / str(len(runs)))
        packer = msgpack.Packer()
        with runs[-1].open("wb") as file:
            for moment, target, value, good in run:
                if target not in places:
                    places[target] = len(targets)
                    targets.append(target)
                file.write(packer.pack((moment, places[target], value, good)))
    yield from heapq.merge(*(_read(path, targets) for path in runs), key=itemgetter(0))


def _read(path: Path, targets: Sequence[Target]) -> Iterator[Reading]:
    with path.open("rb") as file:
        for moment, place, value, good in msgpack.Unpacker(file, read_size=65_536):
            yield Reading(moment, targets[place], value, good)
