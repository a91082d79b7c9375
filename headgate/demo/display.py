"""The demo on the terminal: rounds, participants, figures, inference."""

from __future__ import annotations

import time

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headgate.demo.scenario import Scenario
from headgate.demo.watch import Participant, View
from uns_topics.reports import Evaluation, Figure

FIGURE_NAMES = {"average_precision": "average precision", "roc_auc": "ROC AUC", "rmse": "RMSE"}


def render(view: View, scenario: Scenario, note: str) -> RenderableType:
    """Everything that is known now."""
    return Group(
        _headline(view, scenario),
        _participants(view, scenario),
        _figures(view, scenario),
        _inference(view, scenario),
        Text(note, style="dim"),
    )


def _headline(view: View, scenario: Scenario) -> Text:
    text = Text()
    text.append(f"{scenario.title}  ", style="bold")
    text.append(f"{time.monotonic() - view.started:5.1f} s   ")
    done = len(view.history.rounds) if view.history is not None else 0
    total = view.plan.tolerances.rounds if view.plan is not None else None
    text.append(f"rounds done {done}{f' of {total}' if total else ''}   ")
    text.append(f"version {view.current.version if view.current is not None else '-'}   ")
    text.append(_phase(view), style="cyan")
    return text


def _phase(view: View) -> str:
    if view.plan is None:
        return "preparing the base model"
    if view.resting:
        return "all rounds done; serving inference"
    if view.candidate is not None:
        return f"evaluating candidate {view.candidate.version}"
    if view.round is not None:
        return f"round {view.round.round_number}: collecting updates (attempt {view.round.attempt})"
    if view.current is None:
        return "gathering statistics for version 1"
    return "waiting for the next round"


def _participants(view: View, scenario: Scenario) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("participant", "state", "samples", "holds", "serves", "delivered", "up", "down", "reason"):
        table.add_column(name, justify="right" if name in ("samples", "up", "down") else "left")
    for plant in scenario.plants:
        known = view.participants.get(plant.participant, Participant())
        status = known.status
        if status is None:
            table.add_row(plant.participant, "starting", *[""] * 7)
            continue
        serves = f"v{status.serves.version} {status.serves.variant.value}" if status.serves is not None else "-"
        table.add_row(
            plant.participant,
            status.state.value,
            f"{status.samples:,}",
            f"v{status.holds_version}" if status.holds_version is not None else "-",
            serves,
            _delivered(known),
            _kib(status.bytes_up),
            _kib(status.bytes_down),
            status.reason.value if status.reason is not None else "",
        )
    return table


def _delivered(known: Participant) -> str:
    update = known.last_update
    if update is None:
        return "-"
    return f"round {update.round_number} {update.result}{f' ({update.code.value})' if update.code else ''}"


def _kib(count: int) -> str:
    return f"{count / 1024:,.0f} KiB"


def figures_of(known: Participant) -> Evaluation | None:
    """The figures to show: the final ones once they are there."""
    return known.final or known.figures


def _figures(view: View, scenario: Scenario) -> Table:
    metric = str(scenario.contract["metric"])
    better = "lower is better" if metric == "rmse" else "higher is better"
    part = "select split" if _is_select(view) else "report split"
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"{FIGURE_NAMES[metric]} ({better}), {part}", title_justify="left"
    )
    for name in ("participant", "n", "constant", "linear", "local only", "federated", "federated - local (95 %)", ""):
        table.add_column(name, justify="left" if name in ("participant", "") else "right")
    for plant in scenario.plants:
        figures = figures_of(view.participants.get(plant.participant, Participant()))
        if figures is None:
            continue
        scores = figures.report or figures.select
        shown = [
            _value(scores.models[name].metric) if name in scores.models else "-"
            for name in ("constant", "linear", "local_only", "current")
        ]
        difference = scores.current_minus_local
        table.add_row(plant.participant, str(scores.n), *shown, _interval(difference), verdict(difference, metric))
    return table


def _is_select(view: View) -> bool:
    shown = [figures_of(known) for known in view.participants.values()]
    return any(figures is not None and figures.report is None for figures in shown)


def _value(figure: Figure) -> str:
    return "undecided" if figure.value is None else f"{figure.value:.3f}"


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def verdict(difference: Figure | None, metric: str) -> str:
    """What the paired difference federated - local says, in words."""
    if difference is None or difference.low is None or difference.high is None or difference.undecided:
        return "undecided: too few positives" if metric != "rmse" else "undecided"
    sign = -1 if metric == "rmse" else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return "federation helps"
    if high < 0:
        return "local only is better here"
    return "no clear difference"


def _inference(view: View, scenario: Scenario) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="last inference", title_justify="left")
    for name in ("instance", view.output, "quality", "age"):
        table.add_column(name, justify="left" if name == "instance" else "right")
    now = time.monotonic()
    for plant in scenario.plants:
        for instance in plant.instances:
            leaf = view.inference.get(instance)
            if leaf is None:
                table.add_row(instance, "-", "", "")
            else:
                table.add_row(instance, leaf.value, leaf.quality, f"{now - leaf.seen:.1f} s")
    return table
