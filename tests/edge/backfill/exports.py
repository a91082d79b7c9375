"""Exports of a historian that tests write and fill a store with: the solder line's week, and how it is said live."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge.backfill.run import Outcome, backfill
from edge.backfill.tables import open_table
from edge.backfill.tag_map import TagMap
from edge.binding import bind
from edge.signal_map import SignalMap
from edge.store import SampleStore
from tests.edge.examples import solder_contract, solder_map
from uns_topics.contract import Contract

START_S = 1_700_000_000.0
NOW_S = START_S + 10**6
LINE = "Werk Süd/smt/1"


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def boards(count: int) -> list[tuple[float, str, Any]]:
    """Readings of so many boards, a minute apart: (time, tag, value); every fifth is a defect."""
    readings: list[tuple[float, str, Any]] = []
    for number in range(count):
        time_s = START_S + 60 * number
        readings += [
            (time_s, f"{LINE}/printer/viscosity", 200_000 + number),
            (time_s, f"{LINE}/air", 77.0),
            (time_s + 5, f"{LINE}/spi/serial", f"00{number}"),
            (time_s + 5, f"{LINE}/spi/h", 120 + number % 7),
            (time_s + 5, f"{LINE}/spi/panel", f"P{number // 2}"),
            (time_s + 30, f"{LINE}/aoi/serial", f"00{number}"),
            (time_s + 30, f"{LINE}/aoi/verdict", "BRIDGE" if number % 5 == 0 else "OK"),
        ]
    return sorted(readings, key=lambda reading: reading[0])


def fill(
    folder: Path,
    *files: Path,
    contract: Contract | None = None,
    signal_map: SignalMap | None = None,
    zone: str | None = None,
    max_samples: int = 10_000,
    **tag_map: Any,
) -> Outcome:
    """Backfill the store in `folder` from files."""
    contract, declared = contract or solder_contract(), TagMap.model_validate(tag_map)
    tables = [open_table(f, delimiter=declared.delimiter, encoding=declared.encoding) for f in files]
    with SampleStore(folder / "samples.sqlite", max_samples=max_samples) as store:
        store.use(contract)
        bound = bind(signal_map or solder_map(), contract)
        return backfill(
            tables, declared, bound, contract, store,
            zone=zone, now_s=NOW_S, folder=folder, progress=lambda what, share: None,
        )  # fmt: skip


def stored(folder: Path, contract: Contract | None = None) -> tuple[Any, ...]:
    """All that a training would see of a store."""
    with SampleStore(folder / "samples.sqlite") as store:
        data = store.dataset(contract or solder_contract())
        return (
            store.instances(),
            data.times.tolist(),
            [[None if v != v else v for v in row] for row in data.rows.tolist()],
            data.windows.tolist(),
            data.labels.tolist(),
            data.groups.tolist(),
            data.contexts.tolist(),
        )
