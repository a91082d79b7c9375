"""NASA C-MAPSS: recorded run-to-failure tests of turbofan engines, read as distributed, told as a test bed tells them.

A. Saxena and K. Goebel (2008), "Turbofan Engine Degradation Simulation Data Set", NASA Prognostics Data Repository,
NASA Ames Research Center; method in A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for
Aircraft Engine Run-to-Failure Simulation", PHM 2008. Simulator output with sensor noise, not plant data.

Four subsets FD001-FD004, each three text files without header: `train_FD001.txt` (engines until failure),
`test_FD001.txt` (engines cut short), `RUL_FD001.txt` (per test engine, the cycles that it had left). The columns of
the first two, separated by spaces:

======  ==============================================================================================
column  content
======  ==============================================================================================
1, 2    engine (1, 2, ...), cycle (1, 2, ... within each engine)
3-5     setting1: altitude, kft; setting2: Mach number; setting3: throttle resolver angle, degrees
6-9     T2, T24, T30, T50: temperature at fan inlet, LPC outlet, HPC outlet, LPT outlet, degR
10-12   P2, P15, P30: pressure at fan inlet, in bypass duct, at HPC outlet, psia
13, 14  Nf, Nc: fan and core speed, rpm
15      epr: engine pressure ratio P50/P2
16      Ps30: static pressure at HPC outlet, psia
17      phi: fuel flow over Ps30, pps/psi
18, 19  NRf, NRc: corrected fan and core speed, rpm
20      BPR: bypass ratio
21      farB: burner fuel-air ratio
22      htBleed: bleed enthalpy
23, 24  Nf_dmd, PCNfR_dmd: demanded fan speed, demanded corrected fan speed, rpm
25, 26  W31, W32: HPT and LPT coolant bleed, lbm/s
======  ==============================================================================================
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headgate.plants.emission import Emission

__all__ = [
    "CYCLE_S",
    "PUBLISHED",
    "SENSORS",
    "SETTINGS",
    "SUBSETS",
    "DataError",
    "DataMalformed",
    "DataMissing",
    "Engine",
    "Subset",
    "emissions",
    "read_subset",
]

SUBSETS = ("FD001", "FD002", "FD003", "FD004")
SETTINGS = ("setting1", "setting2", "setting3")
SENSORS = (
    *("T2", "T24", "T30", "T50", "P2", "P15", "P30", "Nf", "Nc", "epr", "Ps30"),
    *("phi", "NRf", "NRc", "BPR", "farB", "htBleed", "Nf_dmd", "PCNfR_dmd", "W31", "W32"),
)
CYCLE_S = 60.0
"""Event time of one cycle."""
ENGINE_GAP_S = 2 * 3600.0
"""Between the end of an engine and the first cycle of the next on the same bench."""
DEFAULT_START_S = 1_609_459_200.0
"""2021-01-01 00:00 UTC: some 200 days of engines end well before today."""

_COLUMNS = ("engine", "cycle", *SETTINGS, *SENSORS)
_ENDINGS = ("", ".xz", ".gz")
PUBLISHED = (
    'It is published by the NASA Prognostics Data Repository as "Turbofan Engine Degradation Simulation Data Set" '
    "(A. Saxena and K. Goebel, 2008)."
)


class DataError(Exception):
    """The recorded data can't be used: `DataMissing` or `DataMalformed`."""


class DataMissing(DataError):
    """Files are not where they were looked for. The text names them, the folder, and where they are published."""


class DataMalformed(DataError):
    """A file is there but isn't what it should be. The text names the file, the line and what is wrong."""


@dataclass(frozen=True)
class Engine:
    """One engine. `rows`: shape (cycles, 24), float64, columns `SETTINGS` then `SENSORS`; cycle 1 first."""

    number: int
    rows: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Subset:
    """One subset. `train` engines ran until failure; `test` engine i had `test_rul[i]` cycles left after its last row.

    `test_rul`: shape (test engines,), int64.
    """

    name: str
    train: tuple[Engine, ...]
    test: tuple[Engine, ...]
    test_rul: npt.NDArray[np.int64]


def read_subset(folder: Path, name: str) -> Subset:
    """Read the three files of a subset; each may also be packed as `.xz` or `.gz`.

    Raises:
        ValueError: no such subset.
        DataMissing: a file isn't there.
        DataMalformed: a file can't be read, or a line isn't as described above.
    """
    if name not in SUBSETS:
        raise ValueError(f"no C-MAPSS subset {name!r}: choose {', '.join(SUBSETS)}")
    wanted = [f"{part}_{name}.txt" for part in ("train", "test", "RUL")]
    paths = [_find(folder, file) for file in wanted]
    if missing := [file for file, path in zip(wanted, paths, strict=True) if path is None]:
        are = "are" if len(missing) > 1 else "is"
        raise DataMissing(f"{', '.join(missing)} (or .xz, .gz) {are} not in {folder}. {PUBLISHED}")
    train, test, rul = (path for path in paths if path is not None)
    test_engines = _read_engines(test)
    return Subset(name, _read_engines(train), test_engines, _read_rul(rul, len(test_engines)))


def emissions(subset: Subset, instance: str, start_s: float = DEFAULT_START_S) -> Iterator[Emission]:
    """The tests of a subset as one bench ran them: engine after engine, first those run to failure, then the others.

    Args:
        instance: path of the bench, such as `acme/fd001/testbed/bench1`.
        start_s: event time of the first cycle, seconds since the epoch; a cycle takes `CYCLE_S`.

    Yields: per cycle `<instance>/engine` (flat JSON: timestamp_ms, unit, split, cycle, settings, sensors), and at an
        engine's end `<instance>/engine_end` with the cycles that it had left: none for those run to failure.
    """
    time_s = start_s
    for split, engines in (("train", subset.train), ("test", subset.test)):
        for place, engine in enumerate(engines):
            unit = f"{split}-{engine.number}"
            for cycle, row in enumerate(engine.rows.tolist(), start=1):
                content: dict[str, float | str] = {
                    "timestamp_ms": _ms(time_s),
                    "unit": unit,
                    "split": split,
                    "cycle": cycle,
                }
                content.update(zip(_COLUMNS[2:], row, strict=True))
                yield Emission(time_s, f"{instance}/engine", _json(content))
                time_s += CYCLE_S
            # Between the last cycle and the one that would have followed it.
            end_s = time_s - CYCLE_S / 2
            left = int(subset.test_rul[place]) if split == "test" else 0
            end: dict[str, float | str] = {"timestamp_ms": _ms(end_s), "unit": unit, "remaining_cycles": left}
            yield Emission(end_s, f"{instance}/engine_end", _json(end))
            time_s += ENGINE_GAP_S


def _find(folder: Path, file: str) -> Path | None:
    return next((path for ending in _ENDINGS if (path := folder / f"{file}{ending}").is_file()), None)


def _read_engines(path: Path) -> tuple[Engine, ...]:
    engines: list[Engine] = []
    rows: list[list[float]] = []

    def finish() -> None:
        if rows:
            engines.append(Engine(len(engines) + 1, np.array(rows)))
            rows.clear()

    for place, words in _lines(path):
        if len(words) != len(_COLUMNS):
            raise DataMalformed(f"{place}: {len(words)} columns instead of {len(_COLUMNS)}")
        numbers = [_number(place, name, word) for name, word in zip(_COLUMNS, words, strict=True)]
        if numbers[0] != len(engines) + 1:
            finish()
        if numbers[:2] != [len(engines) + 1, len(rows) + 1]:
            expected = f"engine {len(engines) + 1}, cycle {len(rows) + 1}"
            raise DataMalformed(f"{place}: engine {words[0]}, cycle {words[1]} where {expected} should follow")
        rows.append(numbers[2:])
    finish()
    if not engines:
        raise DataMalformed(f"{path}: empty")
    return tuple(engines)


def _read_rul(path: Path, engines: int) -> npt.NDArray[np.int64]:
    left = []
    for place, words in _lines(path):
        if len(words) != 1 or not words[0].isdecimal():
            raise DataMalformed(f"{place}: {' '.join(words)!r} is not one number of remaining cycles")
        left.append(int(words[0]))
    if len(left) != engines:
        raise DataMalformed(f"{path}: {len(left)} lines for the {engines} engines of the test file")
    return np.array(left, dtype=np.int64)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Non-empty lines as (place for an error text, words)."""
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if words := line.split():
            yield f"{path}, line {number}", words


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        elif path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("ascii")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataMalformed(f"{path} can't be read: {error}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataMalformed(f"{path}, line {line}: not a text file of numbers") from error


def _number(place: str, column: str, word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataMalformed(f"{place}: column {column} is {word!r}, which is not a number")
    return number


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _json(content: dict[str, float | str]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
