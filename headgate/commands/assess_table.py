"""An assessment in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edge.assess.report import Assessment, FeatureLine, TopicLine

FILE_WIDTH = 140
"""Columns where the output is no terminal."""
WIDE = 110
"""From so many columns on names and topics stand in their row; in a narrower terminal they have a line of their own."""
_BARS = "▁▂▃▄▅▆▇█"


def show(found: Assessment) -> None:
    """Print it."""
    console = Console(width=None if Console().is_terminal else FILE_WIDTH)
    console.print(_head(found), highlight=False)
    console.print()
    wide = console.width >= WIDE
    features, topics = _features(found.features, wide=wide), _topics(found.topics, wide=wide)
    if wide:
        console.print(features)
        console.print()
        console.print(topics)
    else:
        _interleave(console, features, [Text.assemble(_name_of(one), "  ", _topic_of(one)) for one in found.features])
        console.print()
        _interleave(console, topics, [Text(one.topic) for one in found.topics])
    console.print()
    for line in _summary(found):
        console.print(line, highlight=False, markup=False)
    for note in found.notes:
        console.print(Text(f"note: {note}", style="dim"))
    console.print()
    for finding in found.findings:
        text = Text.assemble((f"{finding.check.value}  ", "bold red"), (finding.where, "bold"), f"\n    {finding.text}")
        console.print(text)
    if found.is_ready:
        console.print(Text("ready: nothing was found", style="bold green"))
    else:
        console.print(
            Text(f"not ready: {len(found.findings)} finding{'' if len(found.findings) == 1 else 's'}", style="bold red")
        )


def _interleave(console: Console, table: Table, names: list[Text]) -> None:
    """A table whose rows don't wrap, with a line above each."""
    with console.capture() as captured:
        console.print(table)
    head, *rows = (Text.from_ansi(line) for line in captured.get().splitlines())
    console.print(head)
    for name, row in zip(names, rows, strict=True):
        console.print(name)
        console.print(row)


def _name_of(line: FeatureLine) -> str:
    return f"{line.feature}{' (optional)' if line.optional else ''}"


def _topic_of(line: FeatureLine) -> Text:
    nothing = "not mapped" if line.map_unit is None else "not heard"
    return Text(line.topic or nothing, style="" if line.topic else "dim" if line.optional else "red")


def _head(found: Assessment) -> Text:
    many = "" if len(found.instances) == 1 else "s"
    what = f"{found.messages:,} messages in {found.seconds:,.0f} s by {len(found.instances)} instance{many}"
    ended = f"; ended early: {found.ended}" if found.ended else ""
    return Text.assemble((f"{found.participant} in {found.federation}", "bold"), f"   {what}{ended}")


def _features(lines: tuple[FeatureLine, ...], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if wide:
        table.add_column("feature", no_wrap=True)
        table.add_column("topic", overflow="fold")
    for name in ("map", "values", "missing", "5 %", "median", "95 %", "range"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        numbers = (
            [f"{q:.4g}" for q in (line.quantiles[0], line.quantiles[2], line.quantiles[4])] if line.quantiles else []
        )
        names = (Text(_name_of(line)), _topic_of(line)) if wide else ()
        table.add_row(
            *names,
            f"{'' if wide else '    '}{line.map_unit or ''}",
            f"{line.values:,}" if line.topic else "",
            f"{line.missing:,}" if line.topic else "",
            *(numbers or ["", "", ""]),
            f"{line.minimum:g} to {line.maximum:g} {line.unit}",
        )
    return table


def _topics(lines: tuple[TopicLine, ...], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if wide:
        table.add_column("topic", overflow="fold")
    table.add_column("form" if wide else "    form", no_wrap=True)
    for name in ("per min", "every", "longest gap", "lag", "repeated"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("over time", no_wrap=True)
    for line in lines:
        table.add_row(
            *([Text(line.topic)] if wide else []),
            line.form if wide else f"    {line.form}",
            f"{line.per_minute:g}",
            _seconds(line.interval_s),
            _seconds(line.longest_gap_s),
            _seconds(line.lag_s),
            f"{line.repeated:,}" if line.repeated else "",
            *([_bars(line.strip)] if wide else []),
        )
    return table


def _summary(found: Assessment) -> list[str]:
    lines = [f"samples   {found.samples:,}, {found.matched:,} with a label of {found.labels:,} that came"]
    if found.per_day is not None:
        by = " by the contract's rule alone" if found.in_theory else ""
        soon = found.days_to_first_training
        first = f"; the first training in about {_days(soon)}" if soon is not None else ""
        lines.append(f"a day     {found.per_day:,.0f} samples{by}{first}")
    step, trip = found.step, found.round_trip
    if step.milliseconds is not None:
        lines.append(f"training  {step.milliseconds:g} ms a step of {step.batch_size} samples ({step.network})")
    else:
        lines.append(f"training  not measured: {step.skipped or step.failed}")
    if trip.median_ms is not None:
        ways = f"{trip.median_ms:g} ms there and back, at worst {trip.worst_ms:g}, {trip.connect_ms:g} to connect"
        lines.append(f"way       {ways}")
    elif trip.failed is not None:
        lines.append("way       see the findings")
    return lines


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"


def _days(days: float) -> str:
    if days >= 2:
        return f"{days:.1f} days"
    return f"{24 * days:.1f} hours" if 24 * days >= 2 else f"{24 * 60 * days:.0f} minutes"


def _bars(strip: tuple[int, ...]) -> str:
    """Messages over time in half as many characters as slices."""
    pairs = [a + b for a, b in zip(strip[::2], strip[1::2], strict=True)]
    most = max(pairs, default=0)
    return "".join(_BARS[(len(_BARS) - 1) * one // most] if one else " " for one in pairs) if most else ""
