"""The sites of a federation as lines and tables: who is there, with how much data, and who is like whom. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from aggregator.similarity import Pair, Similarity
from aggregator.statistics import FeatureOverview
from headgate.demo.watch import Participant
from uns_topics.contract import ClassLabel, Contract
from uns_topics.presence import PERIODS_UNTIL_ABSENT, ParticipantState

MEANING = (
    "distance: how far a value has to move on average to go from one site to the other, as a share of the contract's "
    "range; over the features the root of the mean square. 0: the same values; 1: opposite ends. Unknown: too few rows "
    "were told."
)
MATRIX_SITES = 9
"""More sites don't fit side by side into 80 columns."""
SHOWN_PAIRS = 15
UNKNOWN = "?"
GAP = 2
"""Columns between two columns."""


@dataclass(frozen=True, slots=True)
class Site:
    """One participant.

    Attributes:
        state: as its status says; `silent` where its heartbeat has been missing for too long; None before any.
        rows: of the training part that its statistics tell of; None where there are none.
        labels: of those, by class.
        last_seen_s: seconds since it was last heard; None where that isn't known.
        quality: verdict of its data-quality gate; None where it said none. findings: what it is about.
    """

    participant: str
    state: str | None
    reason: str | None
    rows: int | None
    labels: dict[str, int]
    last_seen_s: float | None
    quality: str | None
    findings: tuple[str, ...]


def sites_of(
    participants: Mapping[str, Participant],
    contract: Contract | None,
    last_seen_s: Mapping[str, float],
    heartbeat_s: float | None,
) -> tuple[Site, ...]:
    """What is known of each, by name. Args: last_seen_s: seconds since each was heard, where that is known."""
    classes = contract.label.classes if contract is not None and isinstance(contract.label, ClassLabel) else ()
    found = []
    for name in sorted({*participants, *last_seen_s}):
        known, seen = participants.get(name, Participant()), last_seen_s.get(name)
        status, told, quality = known.status, known.statistics, known.quality
        state = status.state.value if status is not None else None
        is_late = seen is not None and heartbeat_s is not None and seen > PERIODS_UNTIL_ABSENT * heartbeat_s
        if is_late and state != ParticipantState.OFFLINE:
            state = "silent"
        counts = told.label_counts if told is not None else ()
        found.append(
            Site(
                participant=name,
                state=state,
                reason=status.reason.value if status is not None and status.reason is not None else None,
                rows=told.rows if told is not None else None,
                labels=dict(zip(classes, counts, strict=True)) if len(classes) == len(counts) else {},
                last_seen_s=seen,
                quality=quality.verdict if quality is not None else None,
                findings=tuple(
                    f"{one.check.value} {one.feature}" if one.feature else one.check.value for one in quality.findings
                )
                if quality is not None
                else (),
            )
        )
    return tuple(found)


def sites_table(sites: tuple[Site, ...], width: int) -> Table:
    """One line per site; what the data quality is about gives way where the terminal is narrow."""
    classes = next((tuple(site.labels) for site in sites if site.labels), ("labels",))
    head = ("site", "state", "rows", _shorten("/".join(classes)), "last seen")
    lines = [_line(site) for site in sites]
    taken = sum(max(len(line[i]) for line in (head, *lines)) + GAP for i in range(len(head)))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in head:
        table.add_column(name, justify="left" if name in ("site", "state") else "right", no_wrap=True)
    table.add_column("data quality", overflow="ellipsis", no_wrap=True, max_width=max(8, width - taken))
    for site, line in zip(sites, lines, strict=True):
        table.add_row(*line, Text(": ".join(filter(None, [site.quality or UNKNOWN, ", ".join(site.findings)]))))
    return table


def _line(site: Site) -> tuple[str, str, str, str, str]:
    labels = "/".join(f"{count:,}" for count in site.labels.values())
    return (
        _shorten(site.participant),
        site.state or UNKNOWN,
        f"{site.rows:,}" if site.rows is not None else UNKNOWN,
        _shorten(labels) or ("-" if site.rows is not None else UNKNOWN),
        _ago(site.last_seen_s),
    )


def similarity_parts(found: Similarity, threshold: float) -> Iterator[Table | str]:
    """Matrix of distances where it fits, pairs from the most different on, groups, and what it all means."""
    names = sorted({name for pair in found.pairs for name in (pair.one, pair.other)})
    if not names:
        yield "fewer than two sites: nothing to compare"
        return
    if len(names) <= MATRIX_SITES:
        yield _matrix(names, found.pairs)
    yield _pairs(found.pairs)
    lines = [f"alike (nearer than {threshold:g}):"]
    lines += [f"  {', '.join(group)}" + ("" if len(group) > 1 else "  (like no other)") for group in found.groups]
    if found.unknown:
        lines.append(f"  unknown: {', '.join(found.unknown)}")
    yield "\n".join(lines)
    yield MEANING


def features_table(features: tuple[FeatureOverview, ...]) -> Table:
    """One line per feature over all sites."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("feature", "unit", "sites", "rows", "mean", "deviation", "min", "median", "max"):
        table.add_column(name, justify="left" if name in ("feature", "unit") else "right", no_wrap=True)
    for one in features:
        median = one.quantiles[2] if one.quantiles is not None else None
        figures = (one.mean, one.deviation, one.minimum, median, one.maximum)
        shown = [UNKNOWN if figure is None else f"{figure:.4g}" for figure in figures]
        table.add_row(_shorten(one.feature), _shorten(one.unit, 6), str(one.sites), f"{one.rows:,}", *shown)
    return table


def as_json(
    sites: tuple[Site, ...],
    federation: str,
    features: tuple[FeatureOverview, ...] | None,
    found: Similarity | None,
    threshold: float,
) -> dict[str, Any]:
    """The same for programs; what isn't known is null."""
    whole: dict[str, Any] = {"federation": federation, "sites": [asdict(site) for site in sites]}
    if features is not None:
        whole["features"] = [asdict(one) for one in features]
    if found is not None:
        whole["similarity"] = {
            "meaning": MEANING,
            "threshold": threshold,
            "pairs": [_pair_record(pair) for pair in found.pairs],
            "groups": [list(group) for group in found.groups],
            "unknown": list(found.unknown),
        }
    return whole


def _pair_record(pair: Pair) -> dict[str, Any]:
    most = {"feature": pair.most[0], "distance": pair.most[1]} if pair.most is not None else None
    return {
        "sites": [pair.one, pair.other],
        "distance": pair.distance,
        "features": pair.features,
        "most_different": most,
    }


def _matrix(names: list[str], pairs: tuple[Pair, ...]) -> Table:
    distances = {(pair.one, pair.other): pair.distance for pair in pairs}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("distance", no_wrap=True)
    for number in range(1, len(names) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, name in enumerate(names, start=1):
        row = [
            "-" if other == name else _number(distances.get((min(name, other), max(name, other)))) for other in names
        ]
        table.add_row(f"{number} {_shorten(name)}", *row)
    return table


def _pairs(pairs: tuple[Pair, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("pair", "distance", "most different in", "by"):
        table.add_column(name, justify="right" if name in ("distance", "by") else "left", no_wrap=True)
    known = sorted((p for p in pairs if p.distance is not None), key=lambda p: -(p.distance or 0.0))
    for pair in known[:SHOWN_PAIRS]:
        feature, apart = pair.most or (UNKNOWN, None)
        both = f"{_shorten(pair.one)} {_shorten(pair.other)}"
        table.add_row(both, _number(pair.distance), _shorten(feature, 20), _number(apart))
    if len(known) > SHOWN_PAIRS:
        table.caption = f"{len(known) - SHOWN_PAIRS} more pairs that are nearer; --json has all"
    return table


def _number(distance: float | None) -> str:
    return UNKNOWN if distance is None else f"{distance:.3f}"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _shorten(name: str, width: int = 18) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
