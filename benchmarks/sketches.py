"""Quantile sketches on recorded data: their error, the bytes of a message, and which units are found.

    python -m benchmarks.sketches --data DIR

DIR holds public data sets as distributed: `ai4i2020` (UCI 601), `cmapss` (NASA), `skab`, `steel_plates` and
`nab_machine`, each left out where it is missing. A feature's range is what its values span and a tenth more at either
side. Sites are the sets' own: grades of steel, engine subsets, valves.
"""

from __future__ import annotations

import argparse
import csv
import io
import lzma
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aggregator.similarity import similarity
from aggregator.statistics import reference
from benchmarks.support import row
from edge.unit_check import unit_finding
from uns_topics.contract import Contract, EventSample, Feature, Metric, NoLabel
from uns_topics.reference import LEVELS, MIN_SITES
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.sketch import Sketch, grid_of, quantiles, suppress
from uns_topics.standardisation import Moments, scale

Rows = npt.NDArray[np.float32]
_CMAPSS = {
    "T24": 6, "T30": 7, "T50": 8, "P15": 10, "P30": 11, "Nf": 12, "Nc": 13, "epr": 14, "Ps30": 15, "phi": 16,
    "NRf": 17, "NRc": 18, "BPR": 19, "farB": 20, "htBleed": 21, "W31": 24, "W32": 25,
}  # fmt: skip
"""Columns that vary, counted from 0."""
_UNITS = {
    "Air temperature [K]": "K", "Process temperature [K]": "K", "Torque [Nm]": "N*m", "Tool wear [min]": "min",
    "T24": "degR", "T30": "degR", "T50": "degR", "P15": "psi", "P30": "psi", "Ps30": "psi",
    "Temperature": "degC", "Thermocouple": "degC", "Pressure": "bar", "Voltage": "V", "Current": "A",
}  # fmt: skip
_WRONG = {"K": (1, -273.15), "degC": (1.8, 32), "degR": (5 / 9, 0), "psi": (6.89476, 0), "N*m": (0.737562, 0)}
"""What arrives instead: degC for K, degF for degC, K for degR, kPa for psi, lbf*ft for N*m; else a thousandfold."""
_QUALITY_LEVELS = (0.01, *LEVELS, 0.99)


def read_ai4i(folder: Path) -> Iterator[tuple[str, list[str], Rows]]:
    lines = list(
        csv.DictReader(io.StringIO(lzma.decompress((folder / "ai4i2020.csv.xz").read_bytes()).decode("utf-8-sig")))
    )
    names = [
        "Air temperature [K]",
        "Process temperature [K]",
        "Rotational speed [rpm]",
        "Torque [Nm]",
        "Tool wear [min]",
    ]
    for grade in "LMH":
        chosen = [[float(line[name]) for name in names] for line in lines if line["Type"] == grade]
        yield grade, names, np.array(chosen, np.float32)


def read_cmapss(folder: Path) -> Iterator[tuple[str, list[str], Rows]]:
    for subset in ("FD001", "FD002", "FD003", "FD004"):
        whole = np.loadtxt(
            io.BytesIO(lzma.decompress((folder / f"train_{subset}.txt.xz").read_bytes())), dtype=np.float32
        )
        yield subset, list(_CMAPSS), whole[:, list(_CMAPSS.values())]


def read_skab(folder: Path) -> Iterator[tuple[str, list[str], Rows]]:
    sites: dict[str, list[Rows]] = {}
    names: list[str] = []
    with tarfile.open(folder / "skab.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".csv") else None
            if file is None:
                continue
            lines = list(csv.reader(io.StringIO(file.read().decode()), delimiter=";"))
            names = lines[0][1:9]
            site = member.name.split("/")[-2]
            sites.setdefault(site, []).append(
                np.array([[float(v) for v in line[1:9]] for line in lines[1:]], np.float32)
            )
    for site, parts in sites.items():
        yield site, names, np.concatenate(parts)


def read_steel(folder: Path) -> Iterator[tuple[str, list[str], Rows]]:
    lines = list(csv.reader(io.StringIO(lzma.decompress(next(folder.glob("*.csv.xz")).read_bytes()).decode())))
    grade = lines[0].index("TypeOfSteel_A300")
    names = [name for i, name in enumerate(lines[0][:27]) if i not in (grade, grade + 1)]
    table = np.array([[float(v) for i, v in enumerate(line[:27]) if i not in (grade, grade + 1)] for line in lines[1:]])
    is_a300 = np.array([line[grade] == "1" for line in lines[1:]])
    for site, chosen in (("A300", is_a300), ("A400", ~is_a300)):
        yield site, names, table[chosen].astype(np.float32)


def read_nab(folder: Path) -> Iterator[tuple[str, list[str], Rows]]:
    for name in ("machine", "ambient"):
        raw = lzma.decompress((folder / f"{name}_temperature_system_failure.csv.xz").read_bytes()).decode()
        yield (
            name,
            ["value"],
            np.array([[float(line[1])] for line in list(csv.reader(io.StringIO(raw)))[1:]], np.float32),
        )


READERS = {
    "ai4i2020": read_ai4i, "cmapss": read_cmapss, "skab": read_skab, "steel_plates": read_steel, "nab_machine": read_nab
}  # fmt: skip


def contract_of(names: list[str], sites: Mapping[str, Rows]) -> Contract:
    """Ranges that hold everybody's values with room at either side."""
    whole = np.concatenate(list(sites.values())).astype(np.float64)
    low, high = np.nanmin(whole, axis=0), np.nanmax(whole, axis=0)
    room = np.maximum(high - low, 1e-6) / 10
    return Contract(
        federation="bench",
        features=tuple(
            Feature(
                name=f"f{i}", unit=_UNITS.get(n, ""), minimum=float(low[i] - room[i]), maximum=float(high[i] + room[i])
            )
            for i, n in enumerate(names)
        ),
        label=NoLabel(),
        sample=EventSample(key="row"),
        metric=Metric.RMSE,
    )


def told_by(rows: Rows, contract: Contract) -> Statistics:
    """What an edge publishes of these rows."""
    scaled = scale(rows, contract)
    return Statistics(
        generation=1,
        rows=len(rows),
        label_counts=(),
        cells=tuple(
            FeatureCell(
                slot=0,
                feature=feature.name,
                moments=Moments(
                    n=len(rows), sum=float(scaled[:, i].sum()), sum_squares=float((scaled[:, i] ** 2).sum())
                ),
                sketch=Sketch.of(grid_of(feature).count(rows[:, i])),
            )
            for i, feature in enumerate(contract.features)
        ),
    )


def errors(rows: Rows, contract: Contract) -> dict[str, list[float]]:
    """Errors of quantiles: the bare sketch's, as a share of the range and of the value; the told one's ranks."""
    found: dict[str, list[float]] = {"of range": [], "of value": [], "told, of range": [], "told, ranks": []}
    for i, feature in enumerate(contract.features):
        grid, values = grid_of(feature), np.sort(rows[:, i].astype(np.float64))
        exact = np.quantile(values, _QUALITY_LEVELS, method="lower")
        counts = grid.count(values)
        for told, counted in ((False, counts), (True, suppress(counts))):
            apart = np.abs(np.array(quantiles(counted, grid, _QUALITY_LEVELS)) - exact)
            found["told, of range" if told else "of range"] += (apart / (feature.maximum - feature.minimum)).tolist()
            if not told:
                found["of value"] += (apart / np.maximum(np.abs(exact), 1e-12))[np.abs(exact) > 1e-3].tolist()
        moved = np.cumsum(suppress(counts)) - np.cumsum(counts)
        found["told, ranks"].append(float(np.abs(moved).max()))
    return found


def units(sites: Mapping[str, Rows], contract: Contract, told: Mapping[str, Statistics]) -> tuple[int, int, int, int]:
    """Site features looked at, named although right, found once they come in another unit, and named rightly then.

    The reference is of the other sites alone: what an edge has once it took its own share out.
    """
    looked = accused = found = right = 0
    for site, rows in sites.items():
        others = [one for name, one in told.items() if name != site] * MIN_SITES  # two others are a reference too
        pooled = reference(1, contract, {f"site-{i}": one for i, one in enumerate(others)}, 10**9)
        for one in pooled.features if pooled is not None else ():
            column = contract.feature_names.index(one.feature)
            values = rows[:, column].astype(np.float64)
            if np.ptp(np.quantile(values, (0.01, 0.99))) < 1e-6 * max(1.0, abs(values[0])):
                continue  # a constant
            unit = contract.features[column].unit
            factor, shift = _WRONG.get(unit, (1000.0, 0.0))
            own = np.quantile(values, LEVELS)
            seen = unit_finding((own * factor + shift).tolist(), one.quantiles, unit)
            looked += 1
            accused += unit_finding(own.tolist(), one.quantiles, unit) is not None
            found += seen is not None
            right += seen is not None and abs(seen.scale * factor - 1) < 1e-3
    return looked, accused, found, right


def main(argv: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args(argv).data
    twenty_features()
    for name, reader in READERS.items():
        if not (data / name).is_dir():
            continue
        parts = list(reader(data / name))
        names, sites = parts[0][1], {site: rows for site, _, rows in parts}
        contract = contract_of(names, sites)
        sizes = ", ".join(f"{site} {len(rows):,}" for site, rows in sites.items())
        print(f"### {name}: {sizes} rows, {len(names)} features")
        worst: dict[str, list[float]] = {}
        for rows in sites.values():
            for key, values in errors(rows, contract).items():
                worst.setdefault(key, []).extend(values)
        row("quantile error, 95th percentile and largest, % of the range", _both(worst["of range"]))
        row("the same, % of the value", _both(worst["of value"]))
        row("as told (no bin under ten rows), % of the range", _both(worst["told, of range"]))
        row("ranks that a point is passed by, largest", f"{max(worst['told, ranks']):.0f}")
        started = time.perf_counter()
        told = {site: told_by(rows, contract) for site, rows in sites.items()}
        seconds = time.perf_counter() - started
        row("making the statistics, ms per 1000 rows", f"{seconds * 1e6 / sum(map(len, sites.values())):.1f}")
        for site, one in told.items():
            bare = one.model_copy(update={"cells": tuple(c.model_copy(update={"sketch": None}) for c in one.cells)})
            size = f"{len(one.model_dump_json()):,} ({len(bare.model_dump_json()):,})"
            row(f"bytes of {site}'s statistics (without sketches)", size)
        if len(sites) > 2:
            looked, accused, found, right = units(sites, contract, told)
            row("units: features by site, of these named although right", f"{looked} / {accused}")
            row("units: found when wrong, named rightly", f"{found} / {right}")
        apart = sorted(similarity(contract, told).pairs, key=lambda pair: pair.distance or 0.0)
        for pair in (apart[0], apart[-1]) if len(apart) > 1 else apart:
            assert pair.most is not None
            most = names[contract.feature_names.index(pair.most[0])]
            row(f"distance {pair.one} - {pair.other} (most in {most}: {pair.most[1]:.3f})", f"{pair.distance:.3f}")


def twenty_features() -> None:
    """A message of twenty features whose values fill their ranges: as long as it gets."""
    rng = np.random.default_rng(1)
    for rows in (500, 5_000, 50_000):
        values = rng.normal(rng.uniform(-50, 200, 20), rng.uniform(5, 40, 20), (rows, 20)).astype(np.float32)
        names = [f"feature {i}" for i in range(20)]
        one = told_by(values, contract_of(names, {"site": values}))
        row(f"bytes of the statistics of 20 features, {rows:,} rows", f"{len(one.model_dump_json()):,}")


def _both(values: list[float]) -> str:
    return f"{np.percentile(values, 95) * 100:.3f} {max(values) * 100:.3f}"


if __name__ == "__main__":
    main()
