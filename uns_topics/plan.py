"""The plan: contract, template, strategy, encodings and tolerances of one generation, signed by the aggregator."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from uns_topics.contract import Contract
from uns_topics.encodings import ENCODINGS
from uns_topics.model import FileValue, Sha256, Value
from uns_topics.template import Network
from uns_topics.tensors import TensorTable
from uns_topics.transfers import DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES, TransferManifest


class Training(FileValue):
    """Local training in a round: a fixed number of steps, whatever the amount of data."""

    steps: int = Field(default=100, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    learning_rate: float = Field(default=0.003, gt=0, le=10)
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd; adam has its own")
    proximal_mu: float = Field(default=0.0, ge=0, description="FedProx; 0 is FedAvg's local objective")


OptionInt = Annotated[int, Field(ge=-(2**53), le=2**53)]


class Strategy(FileValue):
    """How updates are combined: a name and its options, checked by the aggregator before the plan is made."""

    name: str = Field(default="fedavg", max_length=32)
    options: dict[str, float | OptionInt | str | bool] = Field(default_factory=dict, max_length=16)


class Tolerances(FileValue):
    """What a round waits for, and what the gate lets pass."""

    quorum: int = Field(default=2, ge=1, le=10_000, description="fewest accepted updates that may be aggregated")
    deadline_s: float = Field(default=120.0, gt=0, description="a round's collecting ends then, whoever is missing")
    grace_s: float = Field(default=10.0, ge=0, description="a cohort member offline this long is no longer waited for")
    attempts: int = Field(default=3, ge=1, le=10)
    bootstrap_s: float = Field(
        default=30.0, gt=0, description="once quorum's statistics are there, wait for the others"
    )
    evaluation_s: float = Field(default=30.0, gt=0)
    min_new_samples: int = Field(
        default=1, ge=0, le=2**31, description="newly matured samples before a participant is asked again"
    )
    min_interval_s: float = Field(default=0.0, ge=0, description="between the openings of two rounds")
    patience: int | None = Field(default=None, ge=1, le=2**31, description="rest after this many rounds without gain")
    rounds: int | None = Field(default=None, ge=1, le=2**31, description="rest after this many rounds; None: go on")
    max_cohort: int = Field(default=1000, ge=1, le=2**31)
    max_delta_norm: float = Field(default=1e4, gt=0, description="L2 norm of a delta beyond which it is rejected")
    max_examples: int = Field(
        default=10_000_000, ge=1, le=2**31, description="num_examples beyond which an update is rejected"
    )
    promotion_margin: float = Field(default=0.01, ge=0, description="relative rise of the pooled loss still promoted")
    site_limit: float = Field(default=0.5, gt=0, description="relative rise of one decided site's loss still promoted")
    on_no_evaluation: Literal["promote", "refuse"] = "promote"
    max_staleness: int = Field(
        default=0, ge=0, le=2**31, description="without a barrier: promoted versions that an update may lag behind"
    )


class TemplateManifest(Value):
    """The template in a plan: which network, which tensors, which skeleton to fetch."""

    sha256: Sha256
    network: Network
    table: TensorTable
    skeleton: TransferManifest


class Plan(Value):
    """`down/plan`, retained. A change of meaning is a new generation."""

    generation: int = Field(ge=1, le=2**31)
    contract: Contract
    contract_hash: Sha256
    template: TemplateManifest
    strategy: Strategy
    training: Training
    encodings: tuple[str, ...] = Field(min_length=1, max_length=16)
    control: bool = Field(default=False, description="versions and updates carry control variates")
    privacy: Literal["none"] = "none"
    tolerances: Tolerances
    chunk_bytes: int = Field(default=DEFAULT_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=2**30)
    heartbeat_s: float = Field(default=10.0, gt=0, le=3600)
    visibility: Literal["all", "none"] = "all"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.contract_hash != self.contract.meaning_sha256:
            raise ValueError("contract_hash is not the hash of the contract beside it")
        if self.template.sha256 != self.template.skeleton.sha256:
            raise ValueError("template.sha256 is not the hash of its skeleton")
        if (self.template.skeleton.kind, self.template.skeleton.version) != ("skeleton", None):
            raise ValueError("template.skeleton is a transfer of something else")
        if unknown := [name for name in self.encodings if name not in ENCODINGS]:
            raise ValueError(f"unknown encodings {', '.join(unknown)}; known: {', '.join(ENCODINGS)}")
        return self
