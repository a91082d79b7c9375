"""How alike sites' data are, from the sketches that they publish anyway. Pure.

The distance of two sites in one feature is Wasserstein-1 between their values, divided by the contract's range: how
far, on average, a value of one has to move to become one of the other, as a share of the range. Over features it is the
root of the mean square, so that one feature that is far off is not lost among twenty that agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from uns_topics.contract import Contract
from uns_topics.reports import Statistics
from uns_topics.sketch import Grid, grid_of

THRESHOLD = 0.05
"""Sites nearer than this, on average between their groups, are alike."""

Shares = npt.NDArray[np.float64]
"""Share of a site's rows per bin, shape (B,)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sites.

    Attributes:
        distance: 0 to 1; None where they have no feature in common that both tell of.
        features: how many they have in common.
        most: the feature in which they differ most, and its distance.
    """

    one: str
    other: str
    distance: float | None
    features: int
    most: tuple[str, float] | None


@dataclass(frozen=True, slots=True)
class Similarity:
    """All pairs of sites, and groups of those that are alike; a site of which nothing is known is in none."""

    pairs: tuple[Pair, ...]
    groups: tuple[tuple[str, ...], ...]
    unknown: tuple[str, ...]


def similarity(
    contract: Contract, statistics: Mapping[str, Statistics | None], threshold: float = THRESHOLD
) -> Similarity:
    """Compare every two sites. Args: statistics: by site; None, or cells without a sketch, is unknown, never equal."""
    grids = {feature.name: grid_of(feature) for feature in contract.features}
    shares = {site: _shares(told, grids) for site, told in sorted(statistics.items())}
    pairs = tuple(_pair(one, other, shares, grids) for one, other in combinations(shares, 2))
    unknown = tuple(site for site, known in shares.items() if not known)
    groups = _groups([site for site, known in shares.items() if known], pairs, threshold)
    return Similarity(pairs, groups, unknown)


def wasserstein(one: Shares, other: Shares, grid: Grid) -> float:
    """Wasserstein-1 between two sites' values as a share of the range: the area between their distributions."""
    apart = np.abs(np.cumsum(one - other))[:-1]
    return float((apart * np.diff(grid.values)).sum() / (grid.edges[-1] - grid.edges[0]))


def _shares(told: Statistics | None, grids: Mapping[str, Grid]) -> dict[str, Shares]:
    found: dict[str, Shares] = {}
    for cell in told.cells if told is not None else ():
        grid = grids.get(cell.feature)
        if cell.slot == 0 and cell.sketch is not None and cell.sketch.n and grid is not None and cell.sketch.fits(grid):
            found[cell.feature] = cell.sketch.counts(grid) / cell.sketch.n
    return found


def _pair(one: str, other: str, shares: Mapping[str, Mapping[str, Shares]], grids: Mapping[str, Grid]) -> Pair:
    common = [name for name in grids if name in shares[one] and name in shares[other]]
    if not common:
        return Pair(one, other, None, 0, None)
    apart = {name: wasserstein(shares[one][name], shares[other][name], grids[name]) for name in common}
    most = max(apart.items(), key=lambda item: item[1])
    return Pair(one, other, float(np.sqrt(np.mean(np.square(list(apart.values()))))), len(common), most)


def _groups(sites: Sequence[str], pairs: Sequence[Pair], threshold: float) -> tuple[tuple[str, ...], ...]:
    """Average linkage: the two nearest groups are joined until none are nearer than the threshold.

    A pair whose distance is unknown joins nothing, and groups with such a pair are not joined.
    """
    index = {site: i for i, site in enumerate(sites)}
    apart = np.full((len(sites), len(sites)), np.inf)
    for pair in pairs:
        if pair.distance is not None and pair.one in index and pair.other in index:
            i, j = index[pair.one], index[pair.other]
            apart[i, j] = apart[j, i] = pair.distance
    members = [[site] for site in sites]
    while len(members) > 1:
        nearest = np.unravel_index(int(np.argmin(apart)), apart.shape)
        i, j = int(min(nearest)), int(max(nearest))
        if apart[i, j] >= threshold:
            break
        weights = np.array([len(members[i]), len(members[j])]) / (len(members[i]) + len(members[j]))
        apart[i] = weights @ apart[[i, j]]
        apart[:, i] = apart[i]
        apart[i, i] = np.inf
        apart = np.delete(np.delete(apart, j, axis=0), j, axis=1)
        members[i] += members.pop(j)
    return tuple(sorted((tuple(sorted(group)) for group in members), key=lambda group: (-len(group), group)))
