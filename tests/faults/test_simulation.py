"""A whole federation under faults, many times: whatever happens, each update counts once and the model is the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.faults.broker import Weather
from tests.faults.simulate import STRATEGIES, Schedule, run_seed

FINE = Schedule(
    participants=("p0", "p1"),
    rounds=2,
    strategy=STRATEGIES[1],
    encoding="int8",
    downlink="int8",
    weather=Weather(),
    storm_s=120.0,
    mortality=(0.0, 0.0),
    kills=0,
    wipes=0,
    cuts=0,
    broker_deaths=0,
    full_disks=0,
    jumps=False,
)


@pytest.mark.timeout(300)
def test_some_seeds() -> None:
    """`make test` runs many beside the tests. What fails prints its seed: `--seeds N --log` runs it again."""
    command = [sys.executable, "-m", "tests.faults.simulate", "--seeds", "2000:2040", "--jobs", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_same_seed_runs_the_same_way() -> None:
    schedule = replace(FINE, weather=Weather(0.05, 0.2, 0.1, 30.0), kills=2, mortality=(0.01, 0.02))
    assert run_seed(3, schedule) == run_seed(3, schedule)


@pytest.mark.timeout(300)
def test_an_aggregator_that_dies_at_any_store_write_makes_the_same_model() -> None:
    """At each write in turn: before it, and with it on the disk."""
    clean = run_seed(1, FINE)
    assert clean.deaths == 0
    assert clean.accepted == 4
    for write in range(1, clean.writes + 1):
        outcome = run_seed(1, FINE, kill_at=write)
        assert outcome.deaths == 1, write
        assert outcome.sha256, write


def test_a_plant_whose_machine_is_replaced_within_a_round_counts_once() -> None:
    """It knows nothing of its first update, and trains a second one for the same round: another one in its bytes."""
    schedule = replace(FINE, participants=("p0", "p1", "p2", "p3"), wipes=12, storm_s=60.0)
    outcomes = [run_seed(seed, schedule) for seed in range(6)]
    assert max(outcome.duplicates for outcome in outcomes) > 0


def test_a_full_disk_is_waited_for() -> None:
    """The aggregator decides nothing while it can't write, and goes on when there is room again."""
    for seed in range(6):
        outcome = run_seed(seed, replace(FINE, full_disks=3))
        assert outcome.deaths == 0
        assert outcome.accepted == 4


def test_a_clock_that_is_set_back_by_a_day_stalls_nothing() -> None:
    schedule = replace(FINE, kills=3, jumps=True, rounds=3)
    for seed in range(8):
        outcome = run_seed(seed, schedule)
        assert outcome.virtual_s < 3600, seed
