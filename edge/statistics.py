"""What a plant tells of its training part: moments by operating point, and a quantile sketch per feature. Pure.

The same rows and the same clipping stand behind both, and no cell of either holds fewer than ten rows.
"""

from __future__ import annotations

from pydantic import ValidationError

from edge.dataset import Part
from edge.scoring import Snapshot
from edge.store import SampleStore
from uns_topics.envelope import MAX_JSON_BYTES
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.sketch import MAX_FILLED, Counts, Sketch, grid_of
from uns_topics.standardisation import MIN_CELL

ENVELOPE_BYTES = 1024
"""What envelope, topic and packet need beside the statistics themselves."""
MORE_ROWS = 2
"""Within a generation statistics are renewed only once there are this many times the rows."""
_STEPS = (MAX_FILLED, 128, 64, 32, 16, 0)
_SAID = "statistics"


def statistics_of(snapshot: Snapshot, generation: int, max_bytes: int) -> Statistics:
    """Statistics that fit into a message: sketches become coarser, then small operating points are left out.

    Args: max_bytes: of a message that every broker on the way takes.
    """
    contract = snapshot.contract
    rows, _ = snapshot.training_rows()
    found = [
        FeatureCell(slot=slot, feature=name, moments=moments)
        for slot, features in snapshot.cells().items()
        for name, moments in features.items()
    ]
    found.sort(
        key=lambda cell: (cell.slot != 0, -cell.moments.n * bool(cell.slot))
    )  # what is left out first stands last
    counts = {f.name: grid_of(f).count(rows[:, i]) for i, f in enumerate(contract.features)}
    bare = Statistics(
        generation=generation,
        rows=len(snapshot.dataset.of(Part.TRAIN)),
        label_counts=snapshot.label_counts,
        cells=(),
    )
    most_bytes = min(max_bytes, MAX_JSON_BYTES) - ENVELOPE_BYTES
    for most in _STEPS:
        whole = bare.model_copy(update={"cells": _with_sketches(found, counts, most)})
        if len(whole.model_dump_json()) <= most_bytes:
            return whole
    while whole.cells and len(whole.model_dump_json()) > most_bytes:
        whole = bare.model_copy(update={"cells": whole.cells[: len(whole.cells) * 4 // 5]})
    return whole


def _with_sketches(found: list[FeatureCell], counts: dict[str, Counts], most: int) -> tuple[FeatureCell, ...]:
    """The same cells, those of all rows with a sketch of at most so many bins."""
    if not most:
        return tuple(found)
    return tuple(
        cell if cell.slot else cell.model_copy(update={"sketch": Sketch.of(counts[cell.feature], most)})
        for cell in found
    )


def say(store: SampleStore, template_sha256: str, fresh: Statistics) -> Statistics:
    """What to say: within a generation once more what was said, because two tables tell the rows between them.

    Args: store: keeps what was said. template_sha256: of the plan; another federation may count generations alike.
    """
    before = said(store, template_sha256, fresh.generation)
    if before is not None and not may_renew(before, fresh):
        return before
    store.put(_key(template_sha256), fresh.model_dump_json().encode())
    return fresh


def said(store: SampleStore, template_sha256: str, generation: int) -> Statistics | None:
    """What was said last, if it was in this generation."""
    kept = store.get(_key(template_sha256))
    try:
        before = Statistics.model_validate_json(kept) if kept is not None else None
    except ValidationError:  # of another release
        return None
    return before if before is not None and before.generation == generation else None


def _key(template_sha256: str) -> str:
    return f"{_SAID}-{template_sha256[:16]}"


def may_renew(before: Statistics, fresh: Statistics) -> bool:
    """Whether there is much more to say, and no cell of fewer than ten rows follows from the difference."""
    known = {(cell.slot, cell.feature): cell.moments.n for cell in before.cells}
    grown = [cell.moments.n - known.get((cell.slot, cell.feature), 0) for cell in fresh.cells]
    return fresh.rows >= MORE_ROWS * before.rows and all(more >= MIN_CELL for more in grown)
