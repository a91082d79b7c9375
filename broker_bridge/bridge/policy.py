"""The export policy: what a plant lets out, in a file that the plant owns. Pure: the day is passed in.

Nothing leaves without a line that allows it. No message from upstream changes any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from broker_bridge.settings import FilePath
from uns_topics.filters import validate_topic
from uns_topics.model import FileValue, Slug
from uns_topics.topics import ROOT, Kind

Export = Literal["update", "status", "presence", "statistics", "evaluation", "data-quality", "last-update"]
"""What can leave, in the words of a policy file."""

EXPORTS: dict[Kind, Export] = {
    Kind.UPDATE_MANIFEST: "update",
    Kind.UPDATE_CHUNK: "update",
    Kind.STATUS: "status",
    Kind.VIA: "presence",
    Kind.STATISTICS: "statistics",
    Kind.EVALUATION: "evaluation",
    Kind.DATA_QUALITY: "data-quality",
    Kind.LAST_UPDATE: "last-update",
}
"""The kinds of topics that a bridge knows how to let out; there are no others."""


class Allow(FileValue):
    """One line of a policy."""

    federation: Slug
    participants: tuple[Slug, ...] | None = Field(
        default=None, min_length=1, description="left out: all of this bridge"
    )
    kinds: tuple[Export, ...] = Field(min_length=1, description=", ".join(get_args(Export)))

    @model_validator(mode="after")
    def _presence(self) -> Self:
        if "status" in self.kinds and "presence" not in self.kinds:
            raise ValueError(
                "'status' without 'presence': the aggregator would take the participant as away for ever, because it "
                "hears nothing of the bridge on the way"
            )
        return self


class DailyBudget(FileValue):
    """The most that leaves in one day (UTC), all participants together; left out: no limit."""

    bytes_per_day: int | None = Field(default=None, ge=0)
    messages_per_day: int | None = Field(default=None, ge=0)


class PauseSwitches(FileValue):
    """Switches of the plant that stop everything on its way out; any one of them is enough."""

    file: FilePath | None = Field(default=None, description="paused while this file exists")
    topic: str | None = Field(
        default=None, description="paused while this topic of the plant's broker holds true, 1 or on"
    )

    @field_validator("topic")
    @classmethod
    def _of_the_plant(cls, topic: str | None) -> str | None:
        if topic is not None:
            validate_topic(topic)
            if topic.startswith(f"{ROOT}/"):
                raise ValueError(
                    f"pause.topic {topic!r} is in the tree that upstream writes to; use one of the plant's own"
                )
        return topic


class ExportPolicy(FileValue):
    """The file: `headgate bridge` reads it once, at start."""

    export_policy: Literal[1] = 1
    allow: tuple[Allow, ...] = Field(default=(), description="nothing leaves without a line that allows it")
    budget: DailyBudget = DailyBudget()
    pause: PauseSwitches = PauseSwitches()

    def line(self, federation: str, participant: str, export: Export) -> str | None:
        """The first line that allows this, as it stands in the record: `allow[0]`; None where none does."""
        for index, rule in enumerate(self.allow):
            if (
                rule.federation == federation
                and (rule.participants is None or participant in rule.participants)
                and export in rule.kinds
            ):
                return f"allow[{index}]"
        return None


@dataclass
class Budget:
    """What may still leave today.

    Args: day: of what was spent, as `YYYY-MM-DD` (UTC); a message of a later day starts anew.
    """

    limits: DailyBudget
    day: str = ""
    bytes: int = 0
    messages: int = 0

    def spend(self, day: str, payload_bytes: int, messages: int = 1) -> bool:
        """Take from today's budget, all or nothing; False where it doesn't last."""
        if not self.lasts(day, payload_bytes, messages):
            return False
        self.bytes += payload_bytes
        self.messages += messages
        return True

    def refund(self, payload_bytes: int, messages: int = 1) -> None:
        """It didn't leave after all."""
        self.bytes = max(0, self.bytes - payload_bytes)
        self.messages = max(0, self.messages - messages)

    def lasts(self, day: str, payload_bytes: int, messages: int = 1) -> bool:
        """Whether this much may still leave on this day."""
        if day > self.day:  # a clock that is set back starts no new day
            self.day, self.bytes, self.messages = day, 0, 0
        most_bytes, most_messages = self.limits.bytes_per_day, self.limits.messages_per_day
        return (most_bytes is None or self.bytes + payload_bytes <= most_bytes) and (
            most_messages is None or self.messages + messages <= most_messages
        )
