"""What an edge shows to Prometheus. Pure: its state in, figures out; no topic, key or path is among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker_bridge.metrics import Sheet
from uns_topics.codes import DataProblem, Reason
from uns_topics.presence import ParticipantState, ParticipantStatus, Variant
from uns_topics.reports import LastUpdate

NONE = "none"
"""No reason, no variant, no code."""


@dataclass(frozen=True, slots=True)
class SparkplugFigures:
    """The edge as a Sparkplug node. Attributes: is_born: its births are said; not while it awaits its primary host."""

    is_up: bool
    is_born: bool


@dataclass(frozen=True, slots=True)
class PlantFigures:
    """The plant's side of an edge, counted since the process started.

    Attributes: waiting: effects of messages that wait to be stored; problems: by `DataProblem`.
    """

    is_up: bool = False
    messages: int = 0
    inferences: int = 0
    waiting: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)
    sparkplug: SparkplugFigures | None = None


@dataclass(frozen=True, slots=True)
class EdgeFigures:
    """An edge at one moment.

    Attributes:
        is_up: the session with the federation's broker. matured: samples whose label is final.
        trainer_reason: why training is not possible; None where it is.
        swap_held: the current version waits for a person. on_probation: what runs decides nothing yet.
        rejected: unusable messages of the fl tree by the class of their error. failed: effects by name.
    """

    federation: str
    participant: str
    is_up: bool
    status: ParticipantStatus
    matured: int
    trainer_reason: Reason | None
    swap_held: bool
    on_probation: bool
    rejected: Mapping[str, int]
    failed: Mapping[str, int]
    last_update: LastUpdate | None
    plant: PlantFigures


def edge_sheet(edge: EdgeFigures) -> Sheet:
    """The figures of one edge."""
    sheet = Sheet("edge", {"federation": edge.federation, "participant": edge.participant})
    status, plant = edge.status, edge.plant
    for session, is_up in (("fl", edge.is_up), ("plant", plant.is_up)):
        sheet.gauge("connected", "1 while there is a session with this broker", is_up, session=session)
    sheet.one_of("state", "What the participant is doing", "state", ParticipantState, status.state)
    if plant.sparkplug is not None:
        documentation = "1 while there is a session with this broker"
        sheet.gauge("connected", documentation, plant.sparkplug.is_up, session="spb")
        sheet.gauge("sparkplug_born", "1 while its Sparkplug births are said", plant.sparkplug.is_born)
    reasons = (NONE, *Reason)
    sheet.one_of("reason", "Why it doesn't take part in full", "reason", reasons, _name(status.reason))
    sheet.gauge("trainer_available", "1 while training is possible", edge.trainer_reason is None)
    _add_plant(sheet, edge)
    _add_federation(sheet, edge)
    _add_models(sheet, status)
    sheet.gauge("swap_held", "1 while a swap that changes the alarm rate waits for a person", edge.swap_held)
    sheet.gauge("on_probation", "1 while what runs was evaluated on too few labels to decide", edge.on_probation)
    if edge.last_update is not None:
        _add_last_update(sheet, edge.last_update)
    return sheet


def _name(code: str | None) -> str:
    return NONE if code is None else str(code)


def _add_plant(sheet: Sheet, edge: EdgeFigures) -> None:
    status, plant = edge.status, edge.plant
    sheet.gauge("instances", "Assets that have given a sample", status.instances)
    sheet.gauge("samples", "Samples in the store", status.samples)
    sheet.gauge("matured_samples", "Samples in the store whose label is final", edge.matured)
    sheet.gauge("new_samples", "Samples matured since the last accepted update", status.new_samples)
    sheet.gauge("waiting_effects", "What follows from messages and waits to be stored", plant.waiting)
    sheet.counter("plant_messages_total", "The plant's messages that a source of the signal map covers", plant.messages)
    sheet.counter("plant_kept_bytes_total", "Bytes of the plant's messages, read and kept here", status.bytes_kept)
    sheet.counter("inferences_total", "Samples that a model gave a number for", plant.inferences)
    for problem in DataProblem:
        count = plant.problems.get(problem, 0)
        sheet.counter("data_problems_total", "What was wrong with the plant's messages", count, code=problem)


def _add_federation(sheet: Sheet, edge: EdgeFigures) -> None:
    sheet.counter("fl_sent_bytes_total", "Bytes sent to the fl tree", edge.status.bytes_up)
    sheet.counter("fl_received_bytes_total", "Bytes received from the fl tree", edge.status.bytes_down)
    for reason, count in edge.rejected.items():
        documentation = "Messages of the fl tree that were not what their topic declares"
        sheet.counter("fl_rejected_messages_total", documentation, count, reason=reason)
    for effect, count in edge.failed.items():
        sheet.counter("failed_effects_total", "Things to do that came to nothing", count, effect=effect)


def _add_models(sheet: Sheet, status: ParticipantStatus) -> None:
    serves = status.serves
    sheet.gauge("held_version", "The newest global model held and verified", status.holds_version)
    sheet.gauge("served_version", "The global model that runs on the tags", serves.version if serves else None)
    variant = _name(serves.variant if serves else None)
    sheet.one_of("served_variant", "Which kind of model runs on the tags", "variant", (NONE, *Variant), variant)


def _add_last_update(sheet: Sheet, update: LastUpdate) -> None:
    sheet.gauge("last_update_result", "The answer to the last update", 1, result=update.result, code=_name(update.code))
    sheet.gauge("last_update_round", "The round of the last answered update", update.round_number)
    sheet.gauge("last_update_examples", "Samples that the last answered update learnt from", update.num_examples)
    sheet.gauge("last_update_size_bytes", "Size of the last answered update", update.payload_bytes)
    sheet.gauge("last_update_training_seconds", "How long its training took", update.train_seconds)
