"""What the aggregator knows: one frozen value, written to the store with every event.

Times are seconds of the aggregator's own clock (wall time at process start, then monotonic), so that they keep their
meaning over a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field

from uns_topics.codes import Code
from uns_topics.model import Boot, Count, Identifier, Sha256, Slug, TransferId, Value, Version
from uns_topics.plan import Tolerances, Training
from uns_topics.presence import ParticipantStatus
from uns_topics.reports import Sums


class Phase(StrEnum):
    """Where the federation stands. A round passes through open ... evaluating; bootstrap comes once per generation."""

    BOOTSTRAP = "bootstrap"
    WAITING = "waiting"
    OPEN = "open"
    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    COMMITTED = "committed"
    PUBLISHING = "publishing"
    EVALUATING = "evaluating"
    RESTING = "resting"


class Evolving(Value):
    """A frozen value with a short way to say `the same, but`."""

    def but(self, **changes: Any) -> Self:
        """A copy with these fields changed; not validated again, its values come from validated ones."""
        return self.model_copy(update=changes)


class Rules(Value):
    """The part of the plan that rounds follow."""

    federation: Slug
    generation: int = Field(ge=1)
    contract_hash: Sha256
    tolerances: Tolerances
    training: Training
    encodings: tuple[str, ...] = Field(min_length=1)
    classes: int = Field(default=0, ge=0, description="0 where the contract has no class label")
    heartbeat_s: float = Field(gt=0)
    buffer: int | None = Field(
        default=None, ge=1, description="updates that end an asynchronous round; None: a barrier"
    )
    allowed: tuple[Slug, ...] | None = Field(default=None, description="participants let in; None: any")


class VersionRef(Value):
    """A version's number and identity."""

    version: Version
    sha256: Sha256


class Presence(Evolving):
    """One participant as its last status says."""

    boot: Boot
    status: ParticipantStatus
    seen: float
    offline_since: float | None = None


class Bridge(Evolving):
    """A bridge on a participant's way."""

    boot: Boot
    birth: int
    online: bool
    seen: float


class Answer(Value):
    """What a cohort member's update came to."""

    outcome: Literal["accepted", "rejected"]
    code: Code | None
    transfer: TransferId
    sha256: Sha256 | None
    body_sha256: Sha256 | None
    num_examples: Count
    payload_bytes: Count


class Late(Evolving):
    """An accepted update of an earlier round. Only in asynchronous rounds."""

    participant: Slug
    asked_in: int = Field(description="the round that it was asked in")
    staleness: Count = Field(description="versions promoted since its base")
    answer: Answer
    failed: bool = Field(default=False, description="was in a round whose work failed; a second time ends it")


class Asking(Evolving):
    """A round whose updates may still come: the open one and earlier ones. Only in asynchronous rounds."""

    number: int
    attempt: int
    base: VersionRef
    staleness: Count = Field(default=0, description="versions promoted since its base")
    asked: tuple[Slug, ...]
    accepted: Mapping[Slug, TransferId] = Field(default_factory=dict)


class Round(Evolving):
    """The open round. `asked` are all who were in the cohort of any attempt: their updates count.

    `late` are those of earlier rounds that count in this one, in order of arrival.
    """

    number: int
    attempt: int
    base: VersionRef
    cohort: tuple[Slug, ...]
    asked: tuple[Slug, ...]
    seed: int
    opened_at: float
    deadline: float | None = None
    answers: Mapping[Slug, Answer] = Field(default_factory=dict)
    late: tuple[Late, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Participants whose update to this round was accepted, in participant order."""
        return tuple(sorted(p for p, a in self.answers.items() if a.outcome == "accepted"))

    @property
    def contributions(self) -> tuple[str, ...]:
        """The participant of each update that counts, in participant order: one with a late update comes twice."""
        return tuple(sorted([*self.accepted, *(late.participant for late in self.late)]))


class Scores(Value):
    """One participant's evaluation on its `select` part: sums, so that they can be pooled."""

    candidate: Sums
    current: Sums | None = None
    difference: Sums | None = Field(default=None, description="candidate - current, row by row")


class Candidate(Evolving):
    """The version under way: a number when aggregation starts, an identity once it is durable."""

    version: Version
    sha256: Sha256 | None = None
    deadline: float | None = None
    expected: tuple[Slug, ...] = ()
    scores: Mapping[Slug, Scores] = Field(default_factory=dict)


class Bootstrap(Evolving):
    """Before a generation's first round: who sent statistics, and whether the buffers are being filled."""

    imported: bool = Field(description="the first version keeps its standardisation: none is filled")
    kept: tuple[Identifier, ...] = Field(default=(), description="features whose standardisation it inherited")
    label_counts: Mapping[Slug, tuple[Count, ...]] = Field(default_factory=dict)
    quorum_since: float | None = None
    filling: bool = False
    failed: bool = Field(default=False, description="filling failed: the next try waits for the whole time")
    version: Version | None = Field(default=None, description="the number that the filled version gets")
    made: VersionRef | None = None


class State(Evolving):
    """Everything that `step` decides from."""

    rules: Rules
    phase: Phase
    epoch: int = Field(ge=1)
    at: float = Field(description="time of the last step")
    current: VersionRef
    former: VersionRef | None = Field(
        default=None, description="of an earlier generation; plants run it until a round of this one made a version"
    )
    next_version: Version
    link_since: float | None = Field(default=None, description="our own connection is up since; None: it is down")
    class_weights: tuple[float, ...] = ()
    bootstrap: Bootstrap | None = None
    round: Round | None = None
    candidate: Candidate | None = None
    asking: tuple[Asking, ...] = Field(default=(), description="newest first; empty where rounds have a barrier")
    buffer: tuple[Late, ...] = Field(default=(), description="accepted after their round closed: the next one's")
    last_round: int = Field(default=0, description="number of the last round opened; never reused")
    rounds_done: int = Field(default=0, description="in this generation")
    without_gain: int = Field(default=0, description="evaluated rounds in a row that lowered no loss")
    last_opened: float | None = None
    quorum_since: float | None = None
    presence: Mapping[Slug, Presence] = Field(default_factory=dict)
    bridges: Mapping[str, Bridge] = Field(default_factory=dict, description="by participant/bridge")

    @property
    def open_round(self) -> Round | None:
        """The round that takes updates now."""
        return self.round if self.phase in (Phase.OPEN, Phase.COLLECTING) else None
