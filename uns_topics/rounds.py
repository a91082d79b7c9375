"""What the aggregator says in the life of a round: the announcement, versions, receipts and the history."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from uns_topics.codes import Code
from uns_topics.model import Count, Sha256, Slug, TransferId, Value, Version
from uns_topics.plan import Training
from uns_topics.template import Lineage
from uns_topics.transfers import MAX_CHUNKS, TransferManifest


class ClientConfig(Value):
    """What every participant of a round does alike."""

    training: Training
    encoding: str = Field(max_length=32)
    class_weights: tuple[float, ...] = Field(default=(), max_length=256)


class RoundAnnouncement(Value):
    """`down/round`, retained. `seconds_left` counts from when it was sent: in a retained copy it is an upper bound."""

    round_number: int = Field(ge=1, le=2**31)
    attempt: int = Field(ge=1, le=10)
    epoch: int = Field(ge=1, le=2**31)
    state: Literal["open", "closed"]
    base: Version
    base_sha256: Sha256
    generation: int = Field(ge=1, le=2**31)
    cohort: tuple[Slug, ...] = Field(max_length=10_000)
    client: ClientConfig
    seed: int = Field(ge=0, le=2**53)
    seconds_left: float = Field(ge=0)


class VersionManifest(Value):
    """`down/model/current` and `down/model/candidate`, retained."""

    version: Version
    sha256: Sha256
    generation: int = Field(ge=1, le=2**31)
    epoch: int = Field(ge=1, le=2**31)
    lineage: Lineage
    full: TransferManifest
    delta: TransferManifest | None = None
    control: Sha256 | None = Field(default=None, description="of the control variate that follows the vector in `full`")
    golden: tuple[float, ...] = Field(min_length=1, max_length=4096)
    final: bool = Field(default=False, description="the plan's last round is done: publish the final figures")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        whole = self.sha256 if self.control is None else self.full.sha256  # with a control it covers more
        if (self.full.kind, self.full.sha256, self.full.version) != ("model", whole, self.version):
            raise ValueError("full is a transfer of another version, or of something else")
        if self.delta is not None and (self.delta.kind, self.delta.version) != ("delta", self.version):
            raise ValueError("delta is a transfer of another version, or of something else")
        return self


ChunkIndex = Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]


class Receipt(Value):
    """`down/receipt/<participant>`: the durable answer to a transfer or request."""

    id: TransferId
    result: Literal["accepted", "rejected", "missing"]
    code: Code | None = None
    chunks: tuple[ChunkIndex, ...] = Field(default=(), max_length=MAX_CHUNKS, description="with `missing`: which ones")


class ParticipantOutcome(Value):
    """What became of one cohort member in a round."""

    participant: Slug
    outcome: Literal["accepted", "rejected", "absent"]
    code: Code | None = None
    num_examples: Count = 0
    payload_bytes: Count = 0


class RoundSummary(Value):
    """One round, for people and dashboards."""

    round_number: int = Field(ge=1, le=2**31)
    result: Literal["promoted", "refused", "failed"]
    version: Version | None
    attempt: int = Field(ge=1, le=2**31)
    seconds: float = Field(ge=0)
    participants: tuple[ParticipantOutcome, ...] = Field(max_length=10_000)
    candidate_loss: float | None = None
    current_loss: float | None = None


class History(Value):
    """`down/history`, retained: the last rounds, oldest first."""

    rounds: tuple[RoundSummary, ...] = Field(max_length=50)
    current: Version | None
    resting: bool = False
