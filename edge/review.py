"""Looking at a current version beside everything else that could run here. Pure, apart from onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge.dataset import Part
from edge.metrics import Figure
from edge.models import Model
from edge.scoring import Snapshot
from edge.variants import NAMES, Served, Serving, choose
from uns_topics.contract import Metric, RunToFailureLabel
from uns_topics.presence import Variant
from uns_topics.reports import Evaluation, PartScores
from uns_topics.rounds import VersionManifest

log = logging.getLogger("headgate.edge")


@dataclass(frozen=True)
class Review:
    """What came of it.

    Attributes:
        evaluation: what is published; None before any training.
        serves: what is to run on the tags from now on; None where a newer version came meanwhile.
    """

    evaluation: Evaluation | None
    serves: Served | None


def contenders(
    current: Served, local_only: Model | None, personalised: Model | None, last_good: Served | None
) -> dict[Variant, Served]:
    """Everything that could run when a version is current."""
    found = {Variant.GLOBAL: current}
    for variant, model in ((Variant.LOCAL, local_only), (Variant.PERSONALISED, personalised)):
        if model is not None:
            found[variant] = Served(model, current.version, variant)
    if last_good is not None and last_good.version != current.version:
        found[Variant.LAST_GOOD] = last_good
    return found


def review(
    snapshot: Snapshot,
    manifest: VersionManifest,
    could: Mapping[Variant, Served],
    serving: Serving,
    weights: tuple[float, ...],
    *,
    final: bool,
    admit: Callable[[Served], Served],
) -> tuple[Evaluation, Served]:
    """Choose on the select part, and say what each is worth there and on the report part.

    Args:
        could: what could run; weights: of the classes, of the round.
        admit: makes what was chosen ready to run, or keeps what runs in its place.
    """
    contract = snapshot.contract
    current, running = could[Variant.GLOBAL], serving.incumbent
    if running is None or running.model.template.sha256 != current.model.template.sha256:
        running = current
    every = (running.model, *(served.model for served in could.values()))
    on_select = snapshot.predict(Part.SELECT, {id(model): model for model in every})
    others = {v: served for v, served in could.items() if v in serving.allowed and served.model is not running.model}
    gained = snapshot.gains(on_select[id(running.model)], {v: on_select[id(s.model)] for v, s in others.items()})
    choice = admit(_choose(running, others, gained))
    _tell(running, choice, gained, contract.metric)
    could = {**could, choice.variant: choice}  # what runs on may be an older one of its kind
    models = {NAMES[variant]: served.model for variant, served in could.items()}
    if id(choice.model) not in on_select:  # the last one runs on, since the swap is held
        on_select |= snapshot.predict(Part.SELECT, {id(choice.model): choice.model})
    with_report = final or contract.split.report == "each-version"

    def part(which: Part, *, capped: bool) -> PartScores:
        predictions = {**outputs[which], **snapshot.baselines(which)}
        return snapshot.score(which, predictions, weights, capped=capped, served=NAMES[choice.variant])

    outputs = {Part.SELECT: {name: on_select[id(model)] for name, model in models.items()}}
    if with_report:
        outputs[Part.REPORT] = snapshot.predict(Part.REPORT, models)
    runs = isinstance(contract.label, RunToFailureLabel)
    evaluation = Evaluation(
        generation=manifest.generation,
        candidate=None,
        current=manifest.version,
        metric=contract.metric,
        final=final,
        serves=choice.variant,
        select=part(Part.SELECT, capped=True),
        report=part(Part.REPORT, capped=False) if with_report else None,
        report_capped=part(Part.REPORT, capped=True) if with_report and runs else None,
    )
    return evaluation, choice


def _choose(running: Served, others: Mapping[Variant, Served], gained: Mapping[Variant, Figure]) -> Served:
    """What is to run. Args: gained: by the others over what runs, on the select part alone."""
    chosen = choose(running.variant, gained)
    return running if chosen is None else others[chosen]


def _tell(running: Served, choice: Served, gained: Mapping[Variant, Figure], metric: Metric) -> None:
    gain = gained.get(choice.variant)
    if gain is not None and choice.variant is not running.variant:
        log.info(
            "the %s model runs instead of the %s one: %s better by %.3g (%.3g to %.3g in all resamples of %d rows)",
            choice.variant.value, running.variant.value, metric.value, gain.value, gain.low, gain.high, gain.n,
        )  # fmt: skip
