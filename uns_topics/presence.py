"""Presence: who is there, and what a participant can and wants to do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from uns_topics.codes import Reason
from uns_topics.envelope import WIRE_VERSION
from uns_topics.model import Count, Identifier, Sha256, Slug, Value, Version

WireVersion = Annotated[int, Field(ge=0, le=1000)]
SPOKEN = (WIRE_VERSION, WIRE_VERSION)
"""The range of wire versions that this side speaks."""
MAX_BRIDGES = 8
"""Between a participant and its aggregator."""
MAX_MISSING = 16
"""Features that a status names; a plant that lacks more of them has said enough."""
PERIODS_UNTIL_ABSENT = 3
"""A participant whose heartbeat is older than this many periods counts as absent."""


class AggregatorStatus(Value):
    """`down/status`, retained, repeated as heartbeat; the will is the same with state offline."""

    birth: int = Field(ge=1, le=2**31, description="number of this connection within this boot")
    state: Literal["online", "resting", "offline"]
    epoch: int = Field(ge=1, le=2**31, description="raised by a take-over; lower ones are ignored")
    speaks: tuple[WireVersion, WireVersion] = SPOKEN


class ParticipantState(StrEnum):
    """What a participant is doing."""

    ONLINE = "online"
    TRAINING = "training"
    HOLD = "hold"
    PAUSED = "paused"
    OFFLINE = "offline"


class Variant(StrEnum):
    """Which model an instance runs."""

    GLOBAL = "global"
    PERSONALISED = "personalised"
    LOCAL = "local"
    LAST_GOOD = "last-good"


class Serves(Value):
    """What the edge runs on its tags now."""

    version: Version
    variant: Variant


class Want(StrEnum):
    """What a participant could not get from the broker: the aggregator republishes it."""

    PLAN = "plan"
    SKELETON = "skeleton"
    CURRENT = "current"
    CANDIDATE = "candidate"


class ParticipantStatus(Value):
    """`up/<participant>/status`, retained, repeated as heartbeat; the will is the same with state offline."""

    birth: int = Field(ge=1, le=2**31, description="number of this connection within this boot")
    state: ParticipantState
    samples: Count = 0
    new_samples: Count = Field(default=0, description="matured since its last accepted update")
    instances: Count = 0
    holds_version: Version | None = Field(default=None, description="the newest version held, verified by its SHA-256")
    serves: Serves | None = None
    contract_hash: Sha256 | None = Field(default=None, description="of the contract that its site approved")
    generation: int | None = Field(default=None, ge=0, le=2**31)
    can_train: bool = False
    encodings: tuple[str, ...] = Field(default=(), max_length=16)
    wants: tuple[Want, ...] = Field(default=(), max_length=4)
    bytes_up: Count = Field(default=0, description="sent to the fl tree since this process started")
    bytes_down: Count = Field(default=0, description="received from the fl tree since this process started")
    bytes_kept: Count = Field(default=0, description="of the plant's own messages, read and kept in the plant")
    via: tuple[Slug, ...] = Field(default=(), max_length=MAX_BRIDGES, description="bridges on the way")
    reason: Reason | None = None
    missing: tuple[Identifier, ...] = Field(
        default=(), max_length=MAX_MISSING, description="with contract-not-covered: the plan's features that it lacks"
    )
    speaks: tuple[WireVersion, WireVersion] = SPOKEN


class BridgeStatus(Value):
    """`up/<participant>/via/<bridge>`, retained, repeated as heartbeat: presence of a bridge; also its will.

    Offline says that nothing of this participant passes: the bridge, the plant's broker or the plant's permission is
    away.
    """

    birth: int = Field(ge=1, le=2**31)
    state: Literal["online", "offline"]
    wants: tuple[Want, ...] = Field(default=(), max_length=4, description="what it could not get from the next broker")


class Route(Value):
    """`down/to/<participant>/via`, retained: the bridges between this broker and the aggregator, nearest first.

    Each bridge says it on its plant's side: itself, then what the next broker's copy says.
    """

    bridges: tuple[Slug, ...] = Field(min_length=1, max_length=MAX_BRIDGES)
    chunk_bytes: int | None = Field(
        default=None, ge=1, le=2**30, description="larger chunks don't pass on the way up; None: no limit is known"
    )
