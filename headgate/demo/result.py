"""The demo's result: one JSON object, and what is missing for a success."""

from __future__ import annotations

from typing import Any

from edge.outputs import instance_root
from headgate.demo.scenario import PlantScript, Scenario
from headgate.demo.watch import Participant, View
from uns_topics.presence import ParticipantState, Variant
from uns_topics.reports import Evaluation, ModelName, PartScores

BASELINES: tuple[tuple[str, ModelName], ...] = (
    ("constant", "constant"),
    ("linear", "linear"),
    ("local_only", "local_only"),
    ("federated", "current"),
)


def figures_of(known: Participant) -> Evaluation | None:
    """The figures to show: the final ones once they are there."""
    return known.final or known.figures


def result(view: View, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """What `headgate demo --once --json` prints."""
    current = view.current
    statuses = [known.status for known in view.participants.values() if known.status is not None]
    return {
        "rounds": len(view.rounds),
        "seconds": round(seconds, 1),
        "model": {
            "version": current.version if current is not None else None,
            "sha256": current.sha256 if current is not None else None,
            "bytes": current.full.bytes if current is not None else None,
        },
        "participants": [
            _participant(view.participants.get(plant.participant, Participant()), plant.participant, scenario)
            for plant in scenario.plants
        ],
        "inference": {"topics": len(view.inference_topics), "messages": view.inference_topics.total()},
        "raw_bytes_kept_local": sum(status.bytes_kept for status in statuses),
    }


def failed(view: View) -> list[str]:
    """What waiting can't mend: rounds that ended neither promoted nor refused."""
    numbers = sorted(number for number, summary in view.rounds.items() if summary.result == "failed")
    return [f"rounds that failed: {', '.join(map(str, numbers))}"] if numbers else []


def missing(view: View, scenario: Scenario, rounds: int) -> list[str]:
    """What a success still lacks and may come, one sentence each; empty where nothing does."""
    gaps = []
    if not view.resting or any(number not in view.rounds for number in range(1, rounds + 1)):
        gaps.append("not every round has ended")
    if view.current is None:
        return [*gaps, "no current version"]
    for plant in scenario.plants:
        known = view.participants.get(plant.participant, Participant())
        gaps += [f"{plant.participant} {gap}" for gap in _participant_gaps(known, view.current.version)]
        gaps += _inference_gaps(view, plant)
    return gaps


def _participant_gaps(known: Participant, version: int) -> list[str]:
    status = known.status
    if status is None or status.state is ParticipantState.OFFLINE:
        return ["is offline"]
    gaps = []
    if status.holds_version != version:
        gaps.append(f"doesn't hold version {version}")
    if status.reason is not None:
        return gaps  # it says why it doesn't serve, or has no figures
    is_refuge = status.serves is not None and status.serves.variant is Variant.LAST_GOOD
    if status.serves is None or (status.serves.version != version and not is_refuge):
        gaps.append(f"doesn't serve version {version} and names no reason")
    if known.final is None or known.final.current != version or known.final.report is None:
        gaps.append("hasn't published its final figures")
    return gaps


def _inference_gaps(view: View, plant: PlantScript) -> list[str]:
    gaps = []
    for path in plant.instances:
        root = instance_root(path, view.federation)
        leaves = (view.output, "quality", "model_version", "variant")
        if silent := [name for name in leaves if not view.inference_topics[f"{root}/{name}"]]:
            gaps.append(f"{path} carried no inference value on {', '.join(silent)}")
    return gaps


def _participant(known: Participant, name: str, scenario: Scenario) -> dict[str, Any]:
    status, figures = known.status, figures_of(known)
    scores = (figures.report or figures.select) if figures is not None else None
    record: dict[str, Any] = {
        "id": name,
        "instances": status.instances if status is not None else 0,
        "samples": status.samples if status is not None else 0,
        "holds_version": status.holds_version if status is not None else None,
        "serves": _serves(known),
        "metric": scenario.contract["metric"],
        "n_report": figures.report.n if figures is not None and figures.report is not None else 0,
        **_values(scores),
        "personalised": _metric(scores, "personalised"),
        "served_minus_federated": _served_minus_federated(scores),
        "bytes_up": status.bytes_up if status is not None else 0,
        "bytes_down": status.bytes_down if status is not None else 0,
    }
    if figures is not None and figures.report_capped is not None:
        record["capped"] = _values(figures.report_capped)
    return record


def _serves(known: Participant) -> dict[str, Any] | str | None:
    """Version and variant, or the reason code of a participant that serves none."""
    if known.status is None:
        return None
    if known.status.serves is not None:
        return known.status.serves.model_dump(mode="json")
    return known.status.reason.value if known.status.reason is not None else None


def _values(scores: PartScores | None) -> dict[str, float | None]:
    return {name: _metric(scores, model) for name, model in BASELINES}


def _metric(scores: PartScores | None, model: ModelName) -> float | None:
    known = scores.models.get(model) if scores is not None else None
    return known.metric.value if known is not None else None


def _served_minus_federated(scores: PartScores | None) -> float | None:
    """What a model of the plant's own brings where it runs; 0 where the federated one runs."""
    if scores is None:
        return None
    own = scores.served_minus_current
    return own.value if own is not None else 0.0
