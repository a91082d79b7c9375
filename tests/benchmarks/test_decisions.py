"""The decision benchmark reads the AI4I records as distributed, and compares ways on the report part alone."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from benchmarks.decisions import AI4I, ai4i
from edge.dataset import Part

HEADER = "UDI,Product ID,Type," + ",".join(column for _, column, _, _ in AI4I) + ",Machine failure,TWF,HDF,PWF,OSF,RNF"


@pytest.mark.parametrize("inner", ["", "ai4i2020"])
def test_grades_are_sites_in_the_order_of_the_file_and_no_leak_is_a_feature(tmp_path: Path, inner: str) -> None:
    rows = [
        f"{n},{grade}{n},{grade},298.1,308.6,{1500 + n},42.8,{n},{int(n % 10 == 0)},0,0,0,0,0"
        for n, grade in ((n, "LLM"[n % 3] if n < 90 else "H") for n in range(1, 121))
    ]
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    with lzma.open(folder / "ai4i2020.csv.xz", "wt", encoding="utf-8-sig") as file:
        file.write("\n".join([HEADER, *rows]))
    contract, sites = ai4i(tmp_path)
    assert contract.feature_names == tuple(name for name, *_ in AI4I)
    assert {name: len(data) for name, data in sites.items()} == {"grade L": 59, "grade M": 30, "grade H": 31}
    high = sites["grade H"]
    assert high.rows[:, 2].tolist() == [1500.0 + n for n in range(90, 121)]
    assert np.flatnonzero(high.labels).tolist() == [0, 10, 20, 30]
    assert high.times[high.of(Part.TRAIN)].max() < high.times[high.of(Part.REPORT)].min()
