"""Accuracy against bytes, on a few short engines: every row comes out, and no engine is cut between test beds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compression import ENCODINGS, YARDSTICK, main
from benchmarks.compression_cases import deal
from edge.dataset import Dataset, Part
from headgate.plants.cmapss import SUBSETS

ROOT = Path(__file__).parent.parent.parent
VALUES = (
    "-0.0007 -0.0004 100.0 518.67 641.82 1589.70 1400.60 14.62 21.61 554.36 2388.06 9046.19 1.30 47.47 521.66 "
    "2388.02 8138.62 8.4195 0.03 392 2388 100.00 39.06 23.4190"
)


def write(folder: Path) -> None:
    """Each subset with ten engines that ran until failure and four that were cut short, 33 cycles each."""
    for name in SUBSETS:
        for part, engines in (("train", 10), ("test", 4)):
            lines = [f"{engine} {cycle} {VALUES}\n" for engine in range(1, engines + 1) for cycle in range(1, 34)]
            (folder / f"{part}_{name}.txt").write_text("".join(lines))
        (folder / f"RUL_{name}.txt").write_text("7\n" * 4)


def test_turbofan_prints_a_row_for_each_encoding(tmp_path: Path) -> None:
    write(tmp_path)
    given = f"--scenario turbofan --data {tmp_path} --plants 8 --rounds 1 --steps 2 --seeds 1 --hidden 4"
    command = [sys.executable, "-m", "benchmarks.compression", *given.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=50)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[3:]]
    assert [row[0] for row in rows] == [f"| {name}" for name in (*ENCODINGS, YARDSTICK)]
    assert all(0 < float(row[5]) < 125 for row in rows)
    sizes = {row[0].removeprefix("| "): int(row[1].replace(",", "")) for row in rows}
    assert sizes["topk-sign"] < sizes["ternary"] < sizes["int8"] < sizes["f32"] == sizes[YARDSTICK]


def test_turbofan_needs_the_same_number_of_beds_for_each_subset(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="4 subsets alike"):
        main(f"--scenario turbofan --data {tmp_path} --plants 9".split())


def test_deal_gives_each_bed_whole_engines_of_each_part() -> None:
    parts = np.repeat([Part.TRAIN] * 7 + [Part.SELECT] * 3 + [Part.REPORT] * 4, 5).astype(np.uint8)
    parts[-2] = Part.GAP  # a window of a test engine that isn't its last
    numbers = np.arange(len(parts))
    dataset = Dataset(
        rows=np.zeros((len(parts), 2), np.float32),
        windows=np.stack([numbers, numbers + 1], axis=1),
        labels=numbers.astype(np.float32),
        contexts=numbers,
        parts=parts,
        times=numbers.astype(np.float64),
        instances=np.zeros(len(parts), np.int64),
        groups=np.repeat(np.arange(14), 5),
    )
    beds = deal(dataset, 3, np.random.default_rng(0))
    assert sorted(np.concatenate([bed.labels for bed in beds])) == list(numbers)
    engines = [set(bed.groups.tolist()) for bed in beds]
    assert sum(len(one) for one in engines) == len(set.union(*engines)) == 14
    assert all(len(bed.of(part)) for bed in beds for part in (Part.TRAIN, Part.SELECT, Part.REPORT))
    assert all((bed.windows[:, 0] == bed.labels).all() for bed in beds)
