"""The whole path from stored bytes to the mean, on a small setting."""

from __future__ import annotations

import pytest

from benchmarks.aggregation import ENCODED, nvflare, whole_path
from tests.support.nvflare_environment import nvflare_python


def test_a_row_for_each_encoding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.aggregation.nvflare", lambda *_: {"seconds": 0.001, "threads": 2})
    whole_path(2, 10_000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(ENCODED)
    assert all("x NVFlare" in line for line in lines[2:])


@pytest.mark.skipif(nvflare_python() is None, reason="NVFlare isn't set up: scripts/setup-nvflare")
def test_nvflare_is_measured() -> None:
    found = nvflare(2, 10_000)
    assert found is not None
    assert found["seconds"] > 0
    assert found["threads"] == 2
