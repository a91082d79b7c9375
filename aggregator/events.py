"""What can happen: each event is one declared value, stored before anything is done about it.

Tensors, statistics tables and manifests are not in events: they are attachments of the same transaction.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from aggregator.state import Rules, Scores, VersionRef
from uns_topics.codes import Code
from uns_topics.model import Boot, Count, Identifier, Sha256, Slug, TransferId, Value, Version
from uns_topics.presence import ParticipantStatus


class Inherited(Value):
    """What a generation's first version took over from one of an earlier generation."""

    version: VersionRef
    features: tuple[Identifier, ...] = Field(max_length=1000, description="whose standardisation it keeps")
    complete: bool = Field(description="it keeps all of it: no statistics are needed to standardise")


class GenerationStarted(Value):
    """A new plan: its first base is durable. An imported model keeps its standardisation."""

    kind: Literal["generation-started"] = "generation-started"
    rules: Rules
    base: VersionRef
    imported: bool
    inherited: Inherited | None = None


class Started(Value):
    """This process took over the store; presence is learnt anew."""

    kind: Literal["started"] = "started"
    rules: Rules


class EpochRaised(Value):
    """Another aggregator ran before us: participants must prefer what we say."""

    kind: Literal["epoch-raised"] = "epoch-raised"
    epoch: int = Field(ge=1)


class LinkChanged(Value):
    """Our own connection came up or went down."""

    kind: Literal["link-changed"] = "link-changed"
    up: bool


class Tick(Value):
    """A deadline passed."""

    kind: Literal["tick"] = "tick"


class StatusSeen(Value):
    """A participant's birth, heartbeat, death or will."""

    kind: Literal["status-seen"] = "status-seen"
    participant: Slug
    boot: Boot
    status: ParticipantStatus


class BridgeSeen(Value):
    """A bridge's birth, heartbeat, death or will."""

    kind: Literal["bridge-seen"] = "bridge-seen"
    participant: Slug
    bridge: Slug
    boot: Boot
    birth: int
    online: bool


class StatisticsReceived(Value):
    """A participant's statistics; the cells are the attachment."""

    kind: Literal["statistics-received"] = "statistics-received"
    participant: Slug
    generation: int
    label_counts: tuple[Count, ...]


class UpdateReceived(Value):
    """A whole update as the gate's content check left it; the bytes are the attachment.

    Without `content_checked` it is only a manifest: it can be refused early, but never accepted.
    """

    kind: Literal["update-received"] = "update-received"
    participant: Slug
    transfer: TransferId
    sha256: Sha256
    payload_bytes: Count
    federation: str = Field(max_length=64)
    generation: int | None
    round_number: int | None
    attempt: int | None
    base: Sha256 | None
    num_examples: Count = 0
    body_sha256: Sha256 | None = None
    content_checked: bool
    unreadable: Code | None = Field(default=None, description="why the header can't be read")
    content: Code | None = Field(default=None, description="what is wrong with the content behind the header")
    detail: str = Field(default="", max_length=500)


class EvaluationReceived(Value):
    """A participant scored the candidate."""

    kind: Literal["evaluation-received"] = "evaluation-received"
    participant: Slug
    generation: int
    candidate: Version | None
    current: Version | None
    scores: Scores


class RoundAnnounced(Value):
    """The announcement was acknowledged by the broker: the deadline counts from here."""

    kind: Literal["round-announced"] = "round-announced"
    round_number: int
    attempt: int


class VersionMade(Value):
    """A vector lies on disk; its strategy state is the attachment."""

    kind: Literal["version-made"] = "version-made"
    made: VersionRef


class VersionPrepared(Value):
    """A version's golden outputs and manifest are there; the manifest is the attachment."""

    kind: Literal["version-prepared"] = "version-prepared"
    version: Version


class VersionPublished(Value):
    """The broker acknowledged every chunk and the manifest of a candidate."""

    kind: Literal["version-published"] = "version-published"
    version: Version


class WorkFailed(Value):
    """Aggregating, filling or preparing a version raised: the round fails, the model stays."""

    kind: Literal["work-failed"] = "work-failed"
    version: Version
    detail: str = Field(max_length=500)


Event = Annotated[
    GenerationStarted
    | Started
    | EpochRaised
    | LinkChanged
    | Tick
    | StatusSeen
    | BridgeSeen
    | StatisticsReceived
    | UpdateReceived
    | EvaluationReceived
    | RoundAnnounced
    | VersionMade
    | VersionPrepared
    | VersionPublished
    | WorkFailed,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
