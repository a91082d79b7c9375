"""One backfill from files to a summary: the shell around readings, ingest and store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edge.backfill.feed import Feed
from edge.backfill.order import Survey, in_order, survey
from edge.backfill.readings import Export, open_export
from edge.backfill.tables import Table
from edge.backfill.tag_map import Resolver, TagMap
from edge.binding import BoundMap
from edge.ingest import Ingest
from edge.quality import Judgement, Observed, QualityCounters
from edge.store import SampleStore
from uns_topics.contract import ClassLabel, Contract

Progress = Callable[[str, float], None]
"""Is told what is being done and its share that is done."""


@dataclass(frozen=True)
class Outcome:
    """What a backfill did.

    Attributes:
        rows, readings: of the files; unread: readings (wide files: columns) of tags that the map reads nothing of.
        made: samples that came of them, those that the store had before included. added: new in the store.
        labels: said; labelled: samples in the store that have one; classes: matured samples by class.
        matured, trainable: in the store now; needed: what a first training takes.
        problems: by code. first_s, last_s: event times of the files. sorted: files that were out of order.
        judgement: of the data-quality gate.
    """

    rows: int
    readings: int
    unread: Counter[str]
    made: int
    added: int
    labels: int
    labelled: int
    classes: dict[str, int]
    stored: int
    matured: int
    trainable: int
    needed: int
    problems: Counter[str]
    first_s: float
    last_s: float
    sorted: tuple[Path, ...]
    judgement: Judgement

    @property
    def why_no_training(self) -> str | None:
        """Why a first training isn't possible yet; None where it is."""
        if self.labels and not self.labelled:
            return f"none of the {self.labels:,} labels met a sample: other keys, or later than matures_after_s allows"
        if self.trainable < self.needed:
            return f"{self.trainable:,} matured samples to train on, and the contract wants {self.needed:,}"
        if self.judgement.verdict == "hold":
            return f"the data-quality gate holds: {self.judgement.reasons[0]}"
        if missing := [name for name, count in self.classes.items() if count == 0]:
            return f"no matured sample is {missing[0]!r}: a model can't learn what it never saw"
        return None


def backfill(
    tables: Sequence[Table],
    tag_map: TagMap,
    bound_map: BoundMap,
    contract: Contract,
    store: SampleStore,
    *,
    zone: str | None,
    now_s: float,
    folder: Path,
    progress: Progress,
) -> Outcome:
    """Fill a store from exports. What is in it already stays as it is, so that a second run adds nothing.

    Args: zone: of timestamps that name none. folder: has room for a file that must be sorted.

    Raises: TableError: a file that can't be used. sqlite3.Error, OSError: the disk is full.
    """
    resolver = Resolver(bound_map, tag_map)
    exports = [open_export(table, tag_map, resolver, zone) for table in tables]
    surveys = [survey(export, lambda share: progress("reading timestamps", share)) for export in exports]
    ingest, quality = Ingest(bound_map, contract), QualityCounters(contract)
    feed = Feed(ingest, store, quality, now_s)
    with TemporaryDirectory(prefix="backfill-", dir=folder) as name:
        readings = in_order(exports, surveys, Path(name), lambda share: progress("sorting by time", share))
        first_s, last_s = min(s.first_s for s in surveys), max(s.last_s for s in surveys)
        for _ in feed.run(readings):
            progress("filling the store", min(1.0, (feed.at_s - first_s) / max(last_s - first_s, 1.0)))
    return _outcome(exports, surveys, feed, ingest, quality, contract, store)


def _outcome(
    exports: Sequence[Export],
    surveys: Sequence[Survey],
    feed: Feed,
    ingest: Ingest,
    quality: QualityCounters,
    contract: Contract,
    store: SampleStore,
) -> Outcome:
    problems = ingest.counters + feed.fed.skipped
    unread: Counter[str] = Counter()
    for export in exports:
        problems += export.bad
        unread += export.unread
    counts = store.counts()
    classes = contract.label.classes if isinstance(contract.label, ClassLabel) else ()
    matured = store.matured_classes() if classes else {}
    return Outcome(
        rows=sum(export.rows for export in exports),
        readings=feed.fed.readings,
        unread=unread,
        made=feed.fed.samples,
        added=store.added,
        labels=feed.fed.labels,
        labelled=store.labelled(),
        classes={name: matured.get(place, 0) for place, name in enumerate(classes)},
        stored=counts.samples,
        matured=counts.matured,
        trainable=int(counts.matured * contract.split.train),
        needed=contract.quality.min_samples,
        problems=problems,
        first_s=min(known.first_s for known in surveys),
        last_s=max(known.last_s for known in surveys),
        sorted=tuple(export.table.path for export, known in zip(exports, surveys, strict=True) if not known.in_order),
        judgement=quality.judge(Observed(problems, ingest.messages)),
    )
