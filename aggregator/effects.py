"""What is to be done about an event: *records* go into the event's own transaction, *effects* are performed after it.

Effects are idempotent: after a crash the pending ones are performed again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from uns_topics.codes import Code
from uns_topics.model import Count, Identifier, Sha256, Slug, TransferId, Value, Version
from uns_topics.rounds import RoundSummary
from uns_topics.template import Lineage

# Records: written with the event --------------------------------------------------------------------------------------


class RecordUpdate(Value):
    """Keep an accepted update's bytes (attachment: its SHA-256)."""

    kind: Literal["record-update"] = "record-update"
    participant: Slug
    round_number: int = Field(description="the round that it was asked in")
    sha256: Sha256
    num_examples: Count
    counted_in: int = Field(description="the round whose step it goes into")
    staleness: Count = 0


class Recount(Value):
    """Where a late update counts, once its round opened."""

    participant: Slug
    round_number: int
    staleness: Count


NOWHERE = 0
"""Round number of what counts in none."""


class RecordLate(Value):
    """Late updates that count in the round that opens, or `NOWHERE` once their generation is over."""

    kind: Literal["record-late"] = "record-late"
    counted_in: int
    updates: tuple[Recount, ...]


class RecordReceipt(Value):
    """The first and only answer to this transfer."""

    kind: Literal["record-receipt"] = "record-receipt"
    participant: Slug
    transfer: TransferId
    round_number: int
    result: Literal["accepted", "rejected"]
    code: Code | None = None


class RecordStatistics(Value):
    """Keep a participant's statistics (attachment: `statistics`)."""

    kind: Literal["record-statistics"] = "record-statistics"
    participant: Slug
    generation: int


VersionStatus = Literal["made", "candidate", "current", "superseded", "refused", "failed"]


class RecordVersion(Value):
    """A version and its strategy state (attachment: `strategy-state`)."""

    kind: Literal["record-version"] = "record-version"
    version: Version
    sha256: Sha256
    generation: int
    lineage: Lineage
    status: VersionStatus


class RecordManifest(Value):
    """A version's manifest (attachment: `manifest`)."""

    kind: Literal["record-manifest"] = "record-manifest"
    version: Version


class RecordVersionStatus(Value):
    """A version was promoted, superseded or refused."""

    kind: Literal["record-version-status"] = "record-version-status"
    version: Version
    status: VersionStatus


class RecordRound(Value):
    """A round's end."""

    kind: Literal["record-round"] = "record-round"
    summary: RoundSummary


Record = (
    RecordUpdate
    | RecordLate
    | RecordReceipt
    | RecordStatistics
    | RecordVersion
    | RecordManifest
    | RecordVersionStatus
    | RecordRound
)

# Effects: performed after the transaction ----------------------------------------------------------------------------


class SendReceipt(Value):
    """Answer a transfer."""

    kind: Literal["send-receipt"] = "send-receipt"
    participant: Slug
    transfer: TransferId
    result: Literal["accepted", "rejected"]
    code: Code | None = None
    round_number: int = 0
    payload_bytes: Count = 0
    detail: str = ""
    late: bool = Field(default=False, description="accepted after its round closed")


class PublishStatus(Value):
    """Our own presence changed (resting)."""

    kind: Literal["publish-status"] = "publish-status"


class AnnounceRound(Value):
    """Publish the open round as it stands; answer with `RoundAnnounced`."""

    kind: Literal["announce-round"] = "announce-round"
    round_number: int
    attempt: int


class RefreshRound(Value):
    """Publish the round once more: seconds left, or that it is closed."""

    kind: Literal["refresh-round"] = "refresh-round"


class FillBootstrap(Value):
    """Make the version whose standardisation is filled from statistics; answer with `VersionMade`."""

    kind: Literal["fill-bootstrap"] = "fill-bootstrap"
    version: Version
    base: Version
    participants: tuple[Slug, ...]
    kept: tuple[Identifier, ...] = Field(default=(), description="features whose standardisation stays as it is")


class Aggregate(Value):
    """Fold the accepted updates onto the base; answer with `VersionMade`.

    `participants`: of each update; where rounds are asynchronous, one with a late update comes twice.
    """

    kind: Literal["aggregate"] = "aggregate"
    round_number: int
    version: Version
    base: Version
    participants: tuple[Slug, ...]


class PrepareVersion(Value):
    """Golden outputs and manifest of a version that is durable; answer with `VersionPrepared`."""

    kind: Literal["prepare-version"] = "prepare-version"
    version: Version


class PublishCandidate(Value):
    """Chunks first, then the manifest; answer with `VersionPublished`."""

    kind: Literal["publish-candidate"] = "publish-candidate"
    version: Version


class PublishCurrent(Value):
    """Chunks, then the manifest as current; clear the candidate and superseded chunks."""

    kind: Literal["publish-current"] = "publish-current"
    version: Version
    refused: Version | None = None
    final: bool = False
    candidate_loss: float | None = None
    current_loss: float | None = None
    reason: str = ""


class PublishReference(Value):
    """The features' pooled quantiles of this generation, or none yet."""

    kind: Literal["publish-reference"] = "publish-reference"


class PublishHistory(Value):
    """The last rounds, for people."""

    kind: Literal["publish-history"] = "publish-history"


Effect = (
    SendReceipt
    | PublishStatus
    | AnnounceRound
    | RefreshRound
    | FillBootstrap
    | Aggregate
    | PrepareVersion
    | PublishCandidate
    | PublishCurrent
    | PublishReference
    | PublishHistory
)
Output = Record | Effect
EFFECT: TypeAdapter[Effect] = TypeAdapter(Annotated[Effect, Field(discriminator="kind")])


def records(outputs: tuple[Output, ...]) -> tuple[Record, ...]:
    """The outputs that belong into the event's transaction."""
    return tuple(o for o in outputs if isinstance(o, Record))


def effects(outputs: tuple[Output, ...]) -> tuple[Effect, ...]:
    """The outputs that are performed after it."""
    return tuple(o for o in outputs if not isinstance(o, Record))
