"""Reason codes. They are permanent: a retired code keeps its name and is never reused for something else."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a transfer was not accepted; stands in receipts, counters and logs."""

    UNKNOWN_PARTICIPANT = "unknown-participant"
    WRONG_FEDERATION = "wrong-federation"
    WRONG_ROUND = "wrong-round"
    LATE = "late"
    WRONG_BASE = "wrong-base"
    GENERATION = "generation"
    CONTRACT = "contract"
    SCHEMA = "schema"
    UNDECODABLE = "undecodable"
    OVERSIZED = "oversized"
    SHAPE = "shape"
    NOT_FINITE = "not-finite"
    NORM = "norm"
    ZERO = "zero"
    COPIED = "copied"
    WEIGHT = "weight"
    HOLD = "hold"
    DUPLICATE = "duplicate"
    POLICY = "policy"
    BUDGET = "budget"
    VERSION = "version"
    ENCODING = "encoding"
    INTEGRITY = "integrity"
    STALE = "stale"
    SIGNATURE = "signature"
    REPLAY = "replay"
    REVOKED = "revoked"


class Reason(StrEnum):
    """Why a participant doesn't take part, or serves what it serves; stands in `up/<participant>/status`."""

    NO_PLAN = "no-plan"
    CONTRACT_NOT_APPROVED = "contract-not-approved"
    CONTRACT_NOT_COVERED = "contract-not-covered"
    TEMPLATE_REFUSED = "template-refused"
    TOO_FEW_SAMPLES = "too-few-samples"
    DATA_QUALITY = "data-quality"
    NO_TRAINER = "no-trainer"
    TRAINER_FAILED = "trainer-failed"
    TRAINER_OUT_OF_MEMORY = "trainer-out-of-memory"
    TRAINING_DIVERGED = "training-diverged"
    NO_MODEL = "no-model"
    MODEL_REFUSED = "model-refused"
    FETCHING_MODEL = "fetching-model"
    PAUSED = "paused"
    STOPPING = "stopping"
