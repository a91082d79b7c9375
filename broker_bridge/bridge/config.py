"""The configuration of one bridge."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from broker_bridge.bridge.ledger import DEFAULT_CONTENTS_BYTES
from broker_bridge.config import BrokerConfig
from broker_bridge.health_config import HealthConfig
from broker_bridge.settings import FilePath
from uns_topics.model import FileValue, Slug
from uns_topics.transfers import MIN_CHUNK_BYTES

_OWN = ("username", "password_file", "client_certificate_file", "client_key_file")
"""What each participant brings for itself."""


class ParticipantConfig(FileValue):
    """One participant behind the bridge: one session with the next broker, with its own credentials and will."""

    federation: Slug
    participant: Slug
    username: str | None = Field(default=None, min_length=1, description="default: the participant's id")
    password_file: FilePath | None = None
    client_certificate_file: FilePath | None = None
    client_key_file: FilePath | None = None
    behind: tuple[Slug, ...] = Field(
        default=(), max_length=7, description="bridges between the plant and this one, whose presence is passed on"
    )


class QueueConfig(FileValue):
    """Whole transfers that wait for the next broker, on disk."""

    max_bytes: int = Field(default=1 << 30, ge=1 << 20, description="the oldest ones beyond it are dropped")
    max_age_s: float = Field(default=86_400.0, gt=0, description="older ones are dropped: their rounds are over")


class LedgerConfig(FileValue):
    """The record of what left, in `data_dir/ledger`."""

    keep_contents_bytes: int = Field(
        default=DEFAULT_CONTENTS_BYTES,
        ge=0,
        description="payloads kept for searching; the oldest beyond it are dropped",
    )
    keep_days: int | None = Field(
        default=None, ge=1, description="whole days older than this are removed; never if empty"
    )


class BridgeConfig(FileValue):
    """`headgate bridge --config bridge.yaml`: the way from a plant's broker to the next zone."""

    bridge: Slug = Field(description="this bridge's id; it stands in topics, and in the record of what left")
    data_dir: FilePath = Field(description="queue and record of what left; one process at a time")
    plant: BrokerConfig = Field(description="the broker on the plant's side")
    uplink: BrokerConfig = Field(description="the next broker; each participant brings its own credentials")
    participants: tuple[ParticipantConfig, ...] = Field(min_length=1, max_length=1000)
    policy: FilePath = Field(description="the plant's export policy")
    queue: QueueConfig = QueueConfig()
    ledger: LedgerConfig = LedgerConfig()
    health: HealthConfig = HealthConfig()
    chunk_bytes: int | None = Field(
        default=None, ge=MIN_CHUNK_BYTES, description="the next broker takes no larger chunks; else it is found out"
    )

    @model_validator(mode="after")
    def _participants(self) -> Self:
        given = [name for name in _OWN if getattr(self.uplink, name) is not None]
        if given:
            raise ValueError(
                f"uplink.{given[0]}: credentials stand at each participant, because each has its own session"
            )
        keys = [(p.federation, p.participant) for p in self.participants]
        twice = sorted({f"{p} in {f}" for f, p in keys if keys.count((f, p)) > 1})
        if twice:
            raise ValueError(f"participants named twice: {', '.join(twice)}")
        for participant in self.participants:
            self.uplink_of(participant)
        return self

    def uplink_of(self, participant: ParticipantConfig) -> BrokerConfig:
        """The next broker as this participant connects to it. Raises: ValueError: the credentials don't fit."""
        own: dict[str, Any] = {name: getattr(participant, name) for name in _OWN}
        has_password = participant.password_file is not None
        if participant.username is None and (has_password or participant.client_certificate_file is None):
            own["username"] = participant.participant
        return BrokerConfig.model_validate({**self.uplink.model_dump(exclude_unset=True), **own})
