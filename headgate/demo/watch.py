"""What the demo knows of its federation: everything is read from the broker, as any dashboard would. Pure state."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_bridge.session import Message
from uns_topics.envelope import PayloadError
from uns_topics.model import Value
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.presence import AggregatorStatus, ParticipantStatus
from uns_topics.reports import DataQuality, Evaluation, LastUpdate, Statistics
from uns_topics.rounds import History, RoundAnnouncement, RoundSummary, VersionManifest
from uns_topics.topics import ROOT, FlTopic, Kind, TopicError


@dataclass
class Participant:
    """What is known of one participant."""

    status: ParticipantStatus | None = None
    evaluation: Evaluation | None = None
    figures: Evaluation | None = None
    """The last evaluation that compares with the baselines."""
    final: Evaluation | None = None
    last_update: LastUpdate | None = None
    quality: DataQuality | None = None
    statistics: Statistics | None = None


@dataclass
class InferenceLeaf:
    """The last value of one instance's output, with what its siblings say."""

    value: str = ""
    seen: float = 0.0
    quality: str = ""
    version: str = ""


@dataclass
class View:
    """The federation as seen from the broker; `on_message` keeps it up to date.

    Args:
        output: name of the leaf that carries the value.
        started: when the demo began, in seconds of `clock`.
    """

    federation: str
    output: str
    started: float
    clock: Callable[[], float] = time.monotonic
    participants: dict[str, Participant] = field(default_factory=dict)
    aggregator: AggregatorStatus | None = None
    plan: Plan | None = None
    round: RoundAnnouncement | None = None
    current: VersionManifest | None = None
    candidate: VersionManifest | None = None
    history: History | None = None
    rounds: dict[int, RoundSummary] = field(default_factory=dict)
    """Every round that ended, by number; the history on the broker keeps the last ones only."""
    inference: dict[str, InferenceLeaf] = field(default_factory=dict)
    """By instance path."""
    inference_topics: Counter[str] = field(default_factory=Counter)
    milestones: dict[str, float] = field(default_factory=dict)
    """Seconds since the start of: the first plant value, the first inference value, each round's end."""
    unreadable: int = 0

    def on_message(self, message: Message) -> None:
        """Take in one message of the fl tree or of an inference topic."""
        if message.topic.startswith(ROOT + "/"):
            self._on_fl(message)
        elif "/_inference/" in message.topic:
            self._on_inference(message)
        elif message.payload:
            self._reached("first plant value")

    @property
    def resting(self) -> bool:
        """The plan's last round is done."""
        return self.history is not None and self.history.resting

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.clock() - self.started

    def delivered(self) -> list[str]:
        """Who has delivered to the open round."""
        if self.round is None:
            return []
        number = self.round.round_number
        return [
            name
            for name, known in sorted(self.participants.items())
            if known.last_update is not None and known.last_update.round_number == number
        ]

    def _reached(self, milestone: str) -> None:
        self.milestones.setdefault(milestone, self.seconds)

    def _on_fl(self, message: Message) -> None:
        try:
            topic = FlTopic.parse(message.topic)
            if topic.kind.form == "binary":
                return
            if not message.payload:
                if topic.kind is Kind.MODEL_CANDIDATE:
                    self.candidate = None
                return
            _, body = read(topic, message.payload)
        except (TopicError, PayloadError):
            self.unreadable += 1
            return
        if topic.participant is not None:
            self._on_participant(self.participants.setdefault(topic.participant, Participant()), body)
        else:
            self._on_aggregator(topic.kind, body)

    def _on_aggregator(self, kind: Kind, body: Value) -> None:
        match body:
            case AggregatorStatus():
                self.aggregator = body
            case Plan():
                self.plan = body
            case RoundAnnouncement():
                self.round = body if body.state == "open" else None
            case VersionManifest() if kind is Kind.MODEL_CURRENT:
                self.current = body
            case VersionManifest():
                self.candidate = body
            case History():
                self.history = body
                for summary in body.rounds:
                    self.rounds[summary.round_number] = summary
                    self._reached(f"round {summary.round_number}")

    def _on_participant(self, known: Participant, body: Value) -> None:
        match body:
            case ParticipantStatus():
                known.status = body
            case Evaluation():
                known.evaluation = body
                if "constant" in body.select.models:
                    known.figures = body
                if body.final:
                    known.final = body
            case LastUpdate():
                known.last_update = body
            case DataQuality():
                known.quality = body
            case Statistics():
                known.statistics = body

    def _on_inference(self, message: Message) -> None:
        instance, _, leaf = message.topic.partition("/_inference/")
        name = leaf.partition("/")[2]
        if not message.payload or name.startswith("_edge/"):
            return
        self.inference_topics[message.topic] += 1
        if name not in (self.output, "quality", "model_version"):
            return
        try:
            value = json.dumps(json.loads(message.payload)["value"])
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return
        known = self.inference.setdefault(instance, InferenceLeaf())
        if name == "quality":
            known.quality = value
        elif name == "model_version":
            known.version = value
        else:
            known.value, known.seen = value, self.clock()
            self._reached("first inference value")
