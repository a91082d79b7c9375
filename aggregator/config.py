"""The aggregator's configuration file."""

from __future__ import annotations

from pydantic import Field

from broker_bridge.config import BrokerConfig
from broker_bridge.health_config import HealthConfig
from broker_bridge.settings import FilePath
from uns_topics.model import FileValue, Slug
from uns_topics.plan import Strategy, Tolerances, Training
from uns_topics.transfers import DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES


class AggregatorConfig(FileValue):
    """One federation's aggregator."""

    federation: Slug
    model: FilePath = Field(description="the model file that the federation starts from (`headgate model new`)")
    data_dir: FilePath = Field(description="store and vectors; one process at a time")
    database: str | None = Field(default=None, description="SQLAlchemy URL; by default SQLite in data_dir")
    broker: BrokerConfig = BrokerConfig()
    strategy: Strategy = Strategy()
    training: Training = Training()
    tolerances: Tolerances = Tolerances()
    encodings: tuple[str, ...] = Field(
        default=("int8",), min_length=1, max_length=16, description="of updates; the first one is what rounds ask for"
    )
    downlink: str | None = Field(
        default="int8",
        max_length=32,
        description="encoding of steps from version to version; null: participants fetch every version whole",
    )
    keep_rounds: int = Field(
        default=2, ge=2, le=10_000, description="whose updates are kept whole, for `headgate model replay`"
    )
    chunk_bytes: int = Field(default=DEFAULT_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=2**30)
    heartbeat_s: float = Field(default=10.0, gt=0, le=3600)
    health: HealthConfig = HealthConfig()
    participants: tuple[Slug, ...] | None = Field(default=None, description="who may take part; left out: anyone")
