"""The demo's result: one JSON object, and what is missing for a success."""

from __future__ import annotations

from typing import Any

from headgate.demo.display import figures_of
from headgate.demo.scenario import Scenario
from headgate.demo.watch import Participant, View
from uns_topics.reports import ModelName, PartScores

BASELINES: tuple[tuple[str, ModelName], ...] = (
    ("constant", "constant"),
    ("linear", "linear"),
    ("local_only", "local_only"),
    ("federated", "current"),
)


def result(view: View, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """What `headgate demo --once --json` prints."""
    current = view.current
    statuses = [known.status for known in view.participants.values() if known.status is not None]
    return {
        "rounds": len(view.history.rounds) if view.history is not None else 0,
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


def missing(view: View, scenario: Scenario) -> list[str]:
    """Why this is no success yet, one sentence each; empty where it is."""
    gaps = []
    if view.history is None or not view.resting:
        gaps.append("not every round has ended")
    elif failed := [s.round_number for s in view.history.rounds if s.result == "failed"]:
        gaps.append(f"rounds that failed: {', '.join(map(str, failed))}")
    if view.current is None:
        return [*gaps, "no current version"]
    for plant in scenario.plants:
        known = view.participants.get(plant.participant, Participant())
        status = known.status
        if status is None or status.holds_version != view.current.version:
            gaps.append(f"{plant.participant} doesn't hold version {view.current.version}")
        elif (status.serves is None or status.serves.version != view.current.version) and status.reason is None:
            gaps.append(f"{plant.participant} doesn't serve version {view.current.version} and names no reason")
        if known.final is None:
            gaps.append(f"{plant.participant} hasn't published its final figures")
        gaps += [f"{path}: no inference value" for path in plant.instances if path not in view.inference]
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
        "n_report": scores.n if scores is not None else 0,
        **_values(scores),
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
    models = scores.models if scores is not None else {}
    return {name: models[model].metric.value if model in models else None for name, model in BASELINES}
