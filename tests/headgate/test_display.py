"""The demo's screen: the words of its verdicts, and that it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from headgate.demo.display import Space, phase, render
from headgate.demo.scenario import Scenario
from headgate.demo.verdicts import figure, interval, verdict
from headgate.demo.watch import View
from tests.headgate.views import (
    SCENARIO,
    Clock,
    announcement,
    difference,
    evaluation,
    history,
    infer,
    manifest,
    new_view,
    plan,
    say,
    status,
    success,
    update,
)
from uns_topics.reports import Figure
from uns_topics.topics import Kind


def screen(view: View, width: int = 80, height: int | None = 24, scenario: Scenario = SCENARIO) -> list[str]:
    console = Console(width=width, height=height or 100, record=True, file=None, color_system=None)
    with console.capture() as captured:
        console.print(render(view, scenario, Space(width, height), "Ctrl-C ends the demo."))
    return captured.get().splitlines()


@pytest.mark.parametrize(
    ("low", "high", "metric", "words"),
    [
        (0.01, 0.2, "average_precision", "federation helps"),
        (-0.2, -0.01, "average_precision", "local only is better"),
        (-0.1, 0.1, "average_precision", "no clear difference"),
        (0.0, 0.1, "average_precision", "no clear difference"),
        (-2.0, -1.0, "rmse", "federation helps"),
        (1.0, 2.0, "rmse", "local only is better"),
        (-1.0, 2.0, "rmse", "no clear difference"),
        (None, None, "average_precision", "undecided: too few positives"),
        (None, None, "rmse", "undecided: too few rows"),
    ],
)
def test_verdicts_follow_the_interval(low: float | None, high: float | None, metric: str, words: str) -> None:
    assert verdict(difference(low, high), metric) == words


def test_an_undecided_difference_has_no_winner_whatever_its_interval_says() -> None:
    assert verdict(difference(0.1, 0.2, undecided=True), "average_precision") == "undecided: too few positives"
    assert verdict(None, "average_precision") == ""


def test_figures_in_words() -> None:
    assert figure(Figure(value=None, n=3)) == "undecided"
    assert figure(Figure(value=0.12345, n=3)) == "0.123"
    assert figure(Figure(value=17.26, n=3)) == "17.3"
    assert interval(difference(-0.1, 0.3)) == "+0.10 (-0.10 to +0.30)"
    assert interval(None) == "-"


def test_everything_that_matters_is_on_80_by_24() -> None:
    view = success()
    say(view, Kind.EVALUATION, evaluation(gain=difference(None, None, undecided=True)), "lyon")
    assert isinstance(view.clock, Clock)
    view.clock.now += 3.0
    lines = screen(view)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    for words in (
        "all 2 rounds are done; version 3 serves",
        "round 2 accepted",
        "2 KiB",
        "4 KiB",
        "report split (higher is better)",
        "federation helps",
        "undecided: too few positives",
        "lyon: another paste",
        "acme/lyon/atelier CMS/ligne 1",
        "192 good",
    ):
        assert words in text, words
    inferred = next(line for line in lines if line.startswith("acme/lyon"))
    assert inferred.split()[-5:] == ["192", "good", "v3", "3", "s"]
    shown = next(line for line in lines if line.startswith("berlin") and "0.100" in line)
    assert shown.split()[:6] == ["berlin", "50", "0.100", "0.200", "0.300", "0.400"]


def test_a_wide_screen_shows_the_intervals() -> None:
    assert any("+0.12 (+0.05 to +0.20)" in line for line in screen(success(), 120, 40))
    assert not any("+0.12 (+0.05" in line for line in screen(success(), 80, 24))


@pytest.mark.parametrize("plants", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 24), (80, 30)])
def test_it_fits_whatever_the_number_of_plants(plants: int, width: int, height: int) -> None:
    one = SCENARIO.plants[1]
    named = tuple(
        replace(one, participant=f"plant-{i}", instances=(f"acme/plant {i}/smt/line1",)) for i in range(plants)
    )
    scenario = replace(SCENARIO, plants=named)
    view = success()
    for plant in named:
        say(view, Kind.STATUS, status(), plant.participant)
        say(view, Kind.LAST_UPDATE, update(2), plant.participant)
        say(view, Kind.EVALUATION, evaluation(), plant.participant)
        infer(view, plant.instances[0])
    lines = screen(view, width, height, scenario)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith("acme/plant")]
    assert rows
    hidden = plants - len(rows)
    assert any(f"inference ({hidden} more)" in line for line in lines) == (hidden > 0)


def test_the_phases_of_a_federation_in_words() -> None:
    view = new_view()
    assert phase(view) == "preparing the base model; the plants publish their history"
    say(view, Kind.PLAN, plan())
    assert phase(view) == "gathering statistics for version 1: 0 plants have sent theirs"
    say(view, Kind.MODEL_CURRENT, manifest(1, final=False))
    assert phase(view) == "version 1 serves; the next round opens soon"
    say(view, Kind.ROUND, announcement(1))
    say(view, Kind.LAST_UPDATE, update(1), "lyon")
    assert phase(view) == "round 1 of 2: training, 1 of 2 delivered"
    say(view, Kind.MODEL_CANDIDATE, manifest(2, 1))
    assert phase(view) == "round 1 of 2: plants evaluate candidate 2"
    say(view, Kind.HISTORY, history("promoted", "refused"))
    assert phase(view) == "all 2 rounds are done; version 1 serves"


def test_plants_that_have_not_spoken_are_starting() -> None:
    lines = screen(new_view())
    assert sum("starting" in line for line in lines) == 2
    assert not any("split" in line for line in lines)
