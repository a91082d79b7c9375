"""docs/strategies.md names every strategy with every option, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aggregator.strategies import STRATEGIES

TEXT = (Path(__file__).parent.parent / "docs" / "strategies.md").read_text("utf-8")
ROWS = {found[1]: found[0] for found in re.finditer(r"^\| `([a-z-]+)` \|.*$", TEXT, re.MULTILINE)}
WEIGHTING = {"weighting", "max_share"}


def test_the_table_has_what_a_plan_may_name() -> None:
    assert sorted(ROWS) == sorted(STRATEGIES)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_option_is_named(name: str) -> None:
    options = set(STRATEGIES[name].options.model_fields)
    cell = ROWS[name].split("|")[3]
    named = {option for option in re.findall(r"`(\w+)`", cell) if option not in ("examples", "uniform")}
    assert options == named | (WEIGHTING if "and `" in cell else set())
