"""An assessment as one HTML page that needs nothing else: inline SVG, no script, light and dark. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from string import Template

from edge.assess.page_style import STYLE
from edge.assess.report import Assessment, FeatureLine, Finding, TopicLine
from edge.unit_check import PURE

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body><main>
<h1>$title</h1>
<p><span class="verdict $kind">$verdict</span><span class="soft">$subtitle</span></p>
<div class="cards">$cards</div>
$findings
<h2>Features</h2>
<div class="list">$features</div>
<p class="legend"><i style="background:var(--track)"></i>the contract's range
<i style="background:var(--own)"></i>this plant, 5 to 95 %, median marked$others</p>
<h2>Topics</h2>
<div class="list">$topics</div>
$notes
</main></body>
</html>
""")

_WIDTH, _MARGIN = 560.0, 8.0


def page(found: Assessment, now_s: float) -> str:
    """The page as text. Args: now_s: when it was made, seconds since the epoch."""
    title = f"{found.participant} in {found.federation}"
    count = len(found.findings)
    verdict = "ready" if found.is_ready else f"{count} finding{'s' if count != 1 else ''}"
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%d %B %Y, %H:%M UTC")
    early = f", ended early: {found.ended}" if found.ended else ""
    has_others = any(line.reference is not None for line in found.features)
    return _PAGE.substitute(
        style=STYLE,
        title=escape(title),
        kind="ready" if found.is_ready else "findings",
        verdict=verdict,
        subtitle=escape(f"Headgate assessment, {moment}{early}"),
        cards="".join(_cards(found)),
        findings=_findings(found.findings),
        features="".join(_feature(line) for line in found.features),
        others='<i style="background:var(--others)"></i>the other plants' if has_others else "",
        topics="".join(_topic(line) for line in found.topics) or '<div class="row soft">no topic was heard</div>',
        notes=_notes(found.notes),
    )


def _cards(found: Assessment) -> Iterator[str]:
    yield _card(f"{found.messages:,}", f"messages in {_duration(found.seconds)}")
    yield _card(f"{len(found.instances):,}", "instance" if len(found.instances) == 1 else "instances")
    yield _card(f"{found.samples:,}", f"samples, {found.matched:,} with a label")
    if found.per_day is not None:
        yield _card(f"{found.per_day:,.0f}", "samples a day" + (" by the contract's rule" if found.in_theory else ""))
    if found.days_to_first_training is not None:
        yield _card(_duration(found.days_to_first_training * 86_400), "to the first training")
    step, trip = found.step, found.round_trip
    if step.milliseconds is not None:
        yield _card(f"{step.milliseconds:g} ms", f"a training step of {step.batch_size} samples")
    else:
        yield _card("–", f"training step: {step.skipped or step.failed or 'not measured'}")
    if trip.median_ms is not None:
        yield _card(f"{trip.median_ms:g} ms", f"to the enterprise broker and back, at worst {trip.worst_ms:g}")


def _card(figure: str, text: str) -> str:
    return f'<div class="card"><b>{escape(figure)}</b><span>{escape(text)}</span></div>'


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = "".join(
        f'<div class="row finding"><span class="tag">{escape(f.check.value)}</span>'
        f'<span class="topic">{escape(f.where)}</span><p>{escape(f.text)}</p></div>'
        for f in findings
    )
    return f'<h2>Findings</h2><div class="list">{rows}</div>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return '<h2>Notes</h2><div class="list">' + "".join(f'<div class="row">{escape(n)}</div>' for n in notes) + "</div>"


def _feature(line: FeatureLine) -> str:
    name = f'<span class="name">{escape(line.feature)}</span>' + (
        ' <span class="soft">optional</span>' if line.optional else ""
    )
    if line.topic is None:
        nothing = "not mapped" if line.map_unit is None else "not heard"
        return f'<div class="row feature"><div>{name}</div><div class="soft">{nothing}</div></div>'
    unit = line.map_unit or PURE
    figures = [f"{line.values:,} values", f"{line.missing:,} missing" if line.missing else "", f"map says {unit}"]
    if line.out_of_range:
        figures.append(f"{line.out_of_range:.0%} out of range")
    left = (
        f'<div>{name}<div class="topic soft">{escape(line.topic)}</div>'
        f'<div class="figures">{escape(", ".join(one for one in figures if one))}</div></div>'
    )
    return f'<div class="row feature">{left}<div>{_range_plot(line)}</div></div>'


def _range_plot(line: FeatureLine) -> str:
    """The contract's range as a track, this plant's 5 to 95 % as a bar with its median, the others' beneath."""
    if line.quantiles is None:
        return '<span class="soft">no usable value</span>'
    bands = [line.quantiles] + ([line.reference] if line.reference is not None else [])
    low = min([line.minimum, *(band[0] for band in bands)])
    high = max([line.maximum, *(band[-1] for band in bands)])
    scale = (_WIDTH - 2 * _MARGIN) / (high - low)

    def at(value: float) -> float:
        return _MARGIN + (value - low) * scale

    parts = [_rect(at(line.minimum), 10, at(line.maximum) - at(line.minimum), 20, "--track")]
    for place, band in enumerate(bands):
        colour = "--own" if place == 0 else "--others"
        y, height = (13, 14 if len(bands) == 1 else 8) if place == 0 else (22, 5)
        parts.append(_rect(at(band[0]), y, max(2.0, at(band[-1]) - at(band[0])), height, colour, 0.45))
        parts.append(_rect(at(band[2]) - 1.5, y - 2, 3, height + 4, colour))
    for value in (line.minimum, line.maximum):
        anchor = "start" if value == line.minimum and at(value) < _WIDTH / 2 else "end"
        parts.append(f'<text x="{at(value):.1f}" y="46" text-anchor="{anchor}">{value:g}</text>')
    median = line.quantiles[2]
    share = at(median) / _WIDTH  # a text that is centred near an edge would be cut
    x, anchor = (2.0, "start") if share < 0.2 else (_WIDTH - 2, "end") if share > 0.8 else (at(median), "middle")
    said = f"{median:.4g} {line.unit}".strip()
    parts.append(f'<text x="{x:.1f}" y="6" text-anchor="{anchor}" style="fill:var(--own)" dy="2">{escape(said)}</text>')
    label = escape(f"{line.feature}: median {said}, contract {line.minimum:g} to {line.maximum:g}")
    return f'<svg viewBox="0 -8 {_WIDTH:g} 58" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _topic(line: TopicLine) -> str:
    figures = [f"{line.per_minute:g} a minute"]
    if line.interval_s is not None:
        figures.append(f"every {_duration(line.interval_s)}")
    if line.longest_gap_s:
        figures.append(f"longest silence {_duration(line.longest_gap_s)}")
    if line.lag_s is not None:
        figures.append(f"lag {line.lag_s:.3g} s")
    if line.repeated:
        figures.append(f"{line.repeated:,} repeated")
    if line.retained:
        figures.append(f"{line.retained:,} retained")
    return (
        f'<div class="row stream"><div><span class="topic">{escape(line.topic)}</span> <span class="soft">{line.form}'
        f'</span><div class="figures">{escape(", ".join(figures))}</div></div>{_strip_plot(line)}</div>'
    )


def _strip_plot(line: TopicLine) -> str:
    """Messages over the listening time."""
    most = max(line.strip, default=0)
    if most == 0:
        return "<div></div>"
    width = 240 / len(line.strip)
    bars = "".join(
        _rect(place * width, 34 - 32 * count / most, max(0.8, width - 1), 32 * count / most, "--own", 0.75)
        for place, count in enumerate(line.strip)
        if count
    )
    label = escape(f"messages over time, at most {most} a slice")
    floor = _rect(0, 34, 240, 1, "--line")
    return f'<svg viewBox="0 0 240 36" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}{floor}</svg>'


def _rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" rx="1.5" '
        f'style="fill:var({colour});opacity:{opacity:g}"/>'
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
