"""The configuration of one edge service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from broker_bridge.config import BrokerConfig
from broker_bridge.health_config import HealthConfig
from broker_bridge.settings import FilePath
from edge.backlog import REPLAYED_AFTER_S
from edge.outputs import Outputs, Profile, common_home
from edge.rules import AlarmRule, Probation
from uns_topics.contract import Contract
from uns_topics.filters import validate_topic
from uns_topics.model import FileValue, Slug
from uns_topics.presence import Variant
from uns_topics.sparkplug_ids import SparkplugId
from uns_topics.transfers import MIN_CHUNK_BYTES


class SparkplugConfig(FileValue):
    """This edge as a Sparkplug B edge node, beside the leaves of its profile (`docs/sparkplug.md`)."""

    group: SparkplugId = Field(description="Sparkplug group")
    node: SparkplugId = Field(description="Sparkplug edge node; unique within the group")
    strict_alias: bool = Field(
        default=False, description="data by alias alone, without name and datatype; some readers then see null"
    )
    history: bool = Field(
        default=False, description="inference that is replayed or came too late is said too, marked as historical"
    )
    primary_host: SparkplugId | None = Field(
        default=None, description="say nothing until this host application's STATE is online"
    )
    device_timeout_s: float = Field(
        default=3600.0, gt=0, description="an instance without inference for so long is said to be dead (DDEATH)"
    )


class InferenceConfig(FileValue):
    """Where and how inference is published into the plant's tree."""

    home: str | None = Field(
        default=None, description="path of the edge's `alive` leaf; default: the instances' longest common path"
    )
    profile: Profile = Field(
        default=Profile.UMH, description="how a leaf says its value: timestamp and value, OPC's three, or bare"
    )
    out_root: Annotated[str, AfterValidator(validate_topic)] | None = Field(
        default=None, max_length=512, description="publish below this path instead of beside the plant's own tags"
    )
    max_batch: int = Field(default=64, ge=1, le=4096, description="samples of one inference run under load")
    alarm: AlarmRule | None = Field(
        default=None, description="when the site wants an alarm; without it there are no leaves `threshold` and `alarm`"
    )
    probation: Probation = Probation()
    max_rate_change: float | None = Field(
        default=3.0, gt=1, description="a swap that raises more or fewer alarms by this factor is held; null: never"
    )
    stale_after_s: float | None = Field(
        default=None, gt=0, description="age without samples at which an instance is stale; default: ten usual gaps"
    )
    replayed_after_s: float = Field(
        default=REPLAYED_AFTER_S, gt=0, description="a sample that comes later than usual by more is a replayed one"
    )
    sparkplug: SparkplugConfig | None = Field(default=None, description="also say it as a Sparkplug B edge node")
    variants: tuple[Variant, ...] = Field(
        default=tuple(Variant), description="models that may run here where they are surely better; global always may"
    )

    def home_of(self, instances: Sequence[str]) -> str:
        """Where the edge's own leaf stands. Args: instances: what is known of their paths."""
        home = self.home or common_home(instances)
        return home if self.out_root is None else f"{self.out_root}/{home}"

    def outputs(self, federation: str, contract: Contract) -> Outputs:
        """What is published for a contract's model, and how."""
        return Outputs(
            federation,
            contract.output_name,
            profile=self.profile,
            out_root=self.out_root,
            alarms=self.alarm is not None,
            unit=contract.output_unit,
        )


class TrainerConfig(FileValue):
    """The trainer is a process of its own."""

    enabled: bool = Field(default=True, description="false: this edge only receives models and runs inference")
    command: tuple[str, ...] | None = Field(default=None, description="another trainer with the same pipe protocol")
    timeout_s: float = Field(default=600.0, gt=0)
    factories: tuple[str, ...] = Field(default=(), description="own modules `package.module:callable` allowed here")


class EdgeConfig(FileValue):
    """`headgate edge --config edge.yaml`: one participant of one federation."""

    federation: Slug
    participant: Slug
    data_dir: FilePath = Field(description="samples, models and what must survive a restart; one folder per edge")
    broker: BrokerConfig = Field(description="where the fl tree is")
    plant_broker: BrokerConfig | None = Field(default=None, description="where the plant's tags are; default: the same")
    signal_map: FilePath = Field(description="how this plant's topics feed the contract")
    contract: FilePath | None = Field(
        default=None, description="the contract that this site approved; needed unless approve is any"
    )
    approve: Literal["contract", "any"] = Field(
        default="contract", description="any: take part under whatever contract the aggregator's plan brings"
    )
    inference: InferenceConfig = InferenceConfig()
    trainer: TrainerConfig = TrainerConfig()
    chunk_bytes: int | None = Field(default=None, ge=MIN_CHUNK_BYTES, description="lowers the plan's value going up")
    health: HealthConfig = HealthConfig()
    max_samples: int = Field(default=1_000_000, ge=100, description="the oldest samples beyond it are dropped")
