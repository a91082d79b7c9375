"""Which samples train, which select, which are reported on. Pure; one instance at a time, by event time.

A group (batch, panel, engine) never lies in two parts. Between two parts samples within `gap_s` of the earlier part's
end belong to none, so that no window and no late tag reaches over. Groups that run side by side over a boundary (a
fleet of engines) leave no gap to keep: they are told apart by their start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.dataset import Part
from uns_topics.contract import Split

Parts = npt.NDArray[np.uint8]

NO_GROUP = -1
UNSAID, SAID_TRAIN, SAID_SELECT, SAID_REPORT = 0, 1, 2, 3
"""What the data itself says of a sample's part; in a group its strongest word counts."""
SAID = {"": UNSAID, "train": SAID_TRAIN, "select": SAID_SELECT, "report": SAID_REPORT, "test": SAID_REPORT}


@dataclass(frozen=True)
class _Units:
    """Groups and single samples, ordered by start: what may be put into a part as a whole.

    Attributes: of: unit of each sample, shape (n,); start, end, rows, said: per unit.
    """

    of: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]


def split(
    times: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], said: npt.NDArray[np.uint8], rule: Split
) -> Parts:
    """The part of each sample of one instance.

    Args: times: shape (n,), seconds; groups: shape (n,), `NO_GROUP` where there is none; said: shape (n,), see `SAID`.
    Returns: shape (n,), values of `Part`.
    """
    if len(times) == 0:
        return np.zeros(0, np.uint8)
    units = _units(times, groups, said)
    if rule.by == "time":
        parts = _cut(units, np.ones(len(units.start), bool), (rule.train, rule.select), rule.gap_s)
    else:
        parts = _as_said(units, rule)
    found: Parts = parts[units.of]
    if rule.report_rows == "last-of-group":
        _keep_last(found, times, groups)
    return found


def _units(times: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], said: npt.NDArray[np.uint8]) -> _Units:
    single = groups == NO_GROUP
    names = np.where(single, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    _, of, rows = np.unique(names, return_inverse=True, return_counts=True)
    start = np.full(len(rows), np.inf)
    end = np.full(len(rows), -np.inf)
    word = np.zeros(len(rows), np.int64)
    np.minimum.at(start, of, times)
    np.maximum.at(end, of, times)
    np.maximum.at(word, of, said.astype(np.int64))
    order = np.lexsort((np.arange(len(rows)), end, start))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return _Units(place[of], start[order], end[order], rows[order], word[order])


def _as_said(units: _Units, rule: Split) -> Parts:
    parts = np.full(len(units.start), Part.TRAIN, np.uint8)
    parts[units.said == SAID_REPORT] = Part.REPORT
    chosen = units.said == SAID_SELECT
    parts[chosen] = Part.SELECT
    if not chosen.any():
        rest = units.said != SAID_REPORT
        share = rule.train / (rule.train + rule.select)
        parts[rest] = _cut(units, rest, (share,), rule.gap_s)[rest]
    return parts


def _cut(units: _Units, among: npt.NDArray[np.bool_], shares: tuple[float, ...], gap_s: float) -> Parts:
    """Cut the chosen units where their rows reach the cumulated shares."""
    parts = np.full(len(units.start), Part.TRAIN, np.uint8)
    rows = np.where(among, units.rows, 0)
    middle = (np.cumsum(rows) - rows / 2) / max(1, rows.sum())
    for part, share in zip((Part.SELECT, Part.REPORT), np.cumsum(shares), strict=False):
        parts[middle > share] = part
    if gap_s > 0:
        for later in range(len(shares), 0, -1):
            _keep_gap(parts, units, among, later, gap_s)
    return parts


def _keep_gap(parts: Parts, units: _Units, among: npt.NDArray[np.bool_], part: int, gap_s: float) -> None:
    """Take the units out of `part` that start within the gap after the end of what comes before it."""
    later = np.flatnonzero(among & (parts == part))
    earlier = np.flatnonzero(among & (parts < part))
    if len(later) == 0 or len(earlier) == 0:
        return
    end = units.end[earlier].max()
    if end > units.start[later[0]]:  # side by side: no time lies between the parts
        return
    parts[later[units.start[later] < end + gap_s]] = Part.GAP


def _keep_last(parts: Parts, times: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> None:
    """Of each reported group only the last sample is reported on."""
    reported = np.flatnonzero((parts == Part.REPORT) & (groups != NO_GROUP))
    ordered = reported[np.lexsort((reported, times[reported], groups[reported]))]
    is_last = np.ones(len(ordered), bool)
    is_last[:-1] = groups[ordered][1:] != groups[ordered][:-1]
    parts[ordered[~is_last]] = Part.GAP
