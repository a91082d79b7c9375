"""The demo on the terminal: rounds, participants, figures, inference; cut to what the terminal holds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headgate.demo.result import BASELINES, figures_of
from headgate.demo.scenario import Scenario
from headgate.demo.verdicts import FIGURE_NAMES, better, figure, interval, verdict
from headgate.demo.watch import InferenceLeaf, Participant, View
from uns_topics.codes import Reason
from uns_topics.presence import ParticipantState, ParticipantStatus, Variant
from uns_topics.reports import Evaluation
from uns_topics.rounds import RoundSummary

WIDE = 104
"""Columns from which the intervals have room."""
STATES = {ParticipantState.ONLINE: "waiting"}
QUALITIES = {"192": "good", "203": "replayed", "256": "uncertain", "512": "bad", "516": "stale"}
STYLES = {
    "training": "cyan",
    "hold": "yellow",
    "offline": "red",
    "federation helps": "green",
    "local only is better": "yellow",
}


@dataclass(frozen=True)
class Space:
    """What there is room for. `height`: lines, None where there is no limit."""

    width: int
    height: int | None = None


@dataclass(frozen=True)
class _Block:
    """Renderables and the lines that they take."""

    parts: tuple[RenderableType, ...] = ()
    height: int = 0


def render(view: View, scenario: Scenario, space: Space, note: str = "") -> RenderableType:
    """Everything that is known now, in at most `space.height` lines."""
    head = (_headline(view, scenario), _round_line(view))
    foot = (_line(note, "dim"),) if note else ()
    participants, figures = _participants(view, scenario), _figures(view, scenario, space.width)
    remarks = _remarks(view, scenario)
    paths = [path for plant in scenario.plants for path in plant.instances]
    rows, gaps = len(paths), 3
    if space.height is not None:
        fixed = len(head) + len(foot) + participants.height + figures.height + 1  # the inference's own header
        spare = max(1, space.height - fixed)
        remarks = remarks[: max(0, spare - min(rows, 2))]
        rows = max(1, min(rows, spare - len(remarks)))
        gaps = spare - len(remarks) - rows
    lines: list[RenderableType] = [*head]
    for block in (participants, _Block((*figures.parts, *remarks)), _inference(view, paths, rows)):
        if block.parts and gaps > 0:
            lines.append(Text(""))
            gaps -= 1
        lines += block.parts
    return Group(*lines, *foot)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


# Rounds ---------------------------------------------------------------------------------------------------------------


def _headline(view: View, scenario: Scenario) -> Text:
    line = _line(scenario.title, "bold")
    line.append(f"   {view.seconds:.0f} s", style="not bold")
    return line


def _round_line(view: View) -> Text:
    line = _line(phase(view), "cyan")
    if view.rounds and view.round is None and view.candidate is None and not view.resting:
        line.append(f"   {outcome(view.rounds[max(view.rounds)])}", style="not bold default")
    return line


def phase(view: View) -> str:
    """What the federation is doing, in one line."""
    if view.plan is None:
        return "preparing the base model; the plants publish their history"
    total = view.plan.tolerances.rounds
    of = f" of {total}" if total else ""
    if view.round is not None and view.candidate is None and not view.resting:
        delivered, cohort = len(view.delivered()), len(view.round.cohort)
        again = f", attempt {view.round.attempt}" if view.round.attempt > 1 else ""
        return f"round {view.round.round_number}{of}{again}: training, {delivered} of {cohort} delivered"
    if view.candidate is not None and not view.resting:
        return f"round {view.candidate.lineage.round_number}{of}: plants evaluate candidate {view.candidate.version}"
    if view.resting:
        version = f"version {view.current.version}" if view.current is not None else "no version"
        return f"all {len(view.rounds)} rounds are done; {version} serves"
    if view.current is None or view.current.version == 0:
        told = sum(known.statistics is not None for known in view.participants.values())
        return f"gathering statistics for version 1: {told} plants have sent theirs"
    return f"version {view.current.version} serves; the next round opens soon"


def outcome(summary: RoundSummary) -> str:
    """How one round ended."""
    delivered = sum(p.outcome == "accepted" for p in summary.participants)
    version = f" as version {summary.version}" if summary.result == "promoted" else ""
    text = (
        f"round {summary.round_number} {summary.result}{version}, {delivered} of {len(summary.participants)} delivered"
    )
    if summary.candidate_loss is not None and summary.current_loss is not None:
        text += f", loss {summary.current_loss:.3f} -> {summary.candidate_loss:.3f}"
    return text


# Participants ---------------------------------------------------------------------------------------------------------


def _participants(view: View, scenario: Scenario) -> _Block:
    table = _table(("plant", "state", "samples", "last update", "serves", "up", "down"), right=(2, 5, 6))
    for plant in scenario.plants:
        known = view.participants.get(plant.participant, Participant())
        status = known.status
        if status is None:
            table.add_row(plant.participant, "starting", *[""] * 5)
            continue
        table.add_row(
            plant.participant,
            _state(status),
            f"{status.samples:,}",
            _update(known),
            _serves(status),
            _kib(status.bytes_up),
            _kib(status.bytes_down),
        )
    return _Block((table,), 1 + len(scenario.plants))


def _state(status: ParticipantStatus) -> Text:
    word = STATES.get(status.state, status.state.value)
    text = Text(word, style=STYLES.get(word, ""))
    if status.reason not in (None, Reason.NO_PLAN):  # nobody has one before the base model is made
        text.append(f" ({status.reason})")
    return text


def _update(known: Participant) -> str:
    update = known.last_update
    if update is None:
        return "-"
    return f"round {update.round_number} {update.code.value if update.code is not None else update.result}"


def _serves(status: ParticipantStatus) -> str:
    if status.serves is None:
        return "-"
    own = "" if status.serves.variant is Variant.GLOBAL else f" {status.serves.variant.value}"
    return f"v{status.serves.version}{own}"


def _kib(count: int) -> str:
    return f"{count / 1024:,.0f} KiB"


# Figures --------------------------------------------------------------------------------------------------------------


def _figures(view: View, scenario: Scenario, width: int) -> _Block:
    metric, is_wide = str(scenario.contract["metric"]), width >= WIDE
    names = [plant.participant for plant in scenario.plants]
    known = {name: figures_of(view.participants.get(name, Participant())) for name in names}
    there = {name: figures for name, figures in known.items() if figures is not None}
    if not there:
        return _Block()
    columns = ["plant", "n", "constant", "linear", "local only" if is_wide else "local", "federated", "verdict"]
    if is_wide:
        columns.insert(6, "difference (95 %)")
    table = _table(columns, right=range(1, 7 if is_wide else 6))
    for name, figures in there.items():
        table.add_row(name, *_figure_cells(figures, metric, is_wide))
    is_report = all(figures.report is not None for figures in there.values())
    part = "report" if is_report else "select"
    title = _line(f"{FIGURE_NAMES[metric]} on each plant's own {part} split ({better(metric)})", "italic")
    return _Block((title, table), 2 + len(there))


def _figure_cells(figures: Evaluation, metric: str, is_wide: bool) -> list[str | Text]:
    scores = figures.report or figures.select
    cells: list[str | Text] = [str(scores.n)]
    cells += [figure(scores.models[model].metric) if model in scores.models else "-" for _, model in BASELINES]
    cells += [interval(scores.current_minus_local)] if is_wide else []
    words = verdict(scores.current_minus_local, metric)
    return [*cells, Text(words, style=STYLES.get(words, ""))]


def _remarks(view: View, scenario: Scenario) -> tuple[RenderableType, ...]:
    """What to know about a plant beside its figures."""
    shown = [p for p in scenario.plants if p.remark and figures_of(view.participants.get(p.participant, Participant()))]
    return tuple(_line(f"{plant.participant}: {plant.remark}", "dim") for plant in shown)


# Inference ------------------------------------------------------------------------------------------------------------


def _inference(view: View, paths: Sequence[str], rows: int) -> _Block:
    """The first rows; the header says how many more there are."""
    more = f" ({len(paths) - rows} more)" if rows < len(paths) else ""
    table = _table((f"inference{more}", view.output, "quality", "version", "age"), right=(1, 4))
    now = view.clock()
    for path in paths[:rows]:
        leaf = view.inference.get(path, InferenceLeaf())
        if not leaf.value:
            table.add_row(Text(path), "-", "", "", "")
            continue
        quality = f"{leaf.quality} {QUALITIES.get(leaf.quality, '')}".strip()
        table.add_row(Text(path), _value(leaf.value), quality, f"v{leaf.version}", _age(now - leaf.seen))
    return _Block((table,), 1 + rows)


def _value(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.1f}"


def _age(seconds: float) -> str:
    """Whole seconds: what changes more often than it can be read only flickers."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# Tables ---------------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], right: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in right else "left", no_wrap=True, overflow="ellipsis")
    return table
