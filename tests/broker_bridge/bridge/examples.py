"""What tests of the bridge share: the plan of the golden examples, and messages of its participant."""

from __future__ import annotations

from typing import Any

import numpy as np

from broker_bridge.bridge.policy import ExportPolicy
from tests.contracts.examples import BODIES, DELTA, TABLE, VECTOR
from uns_topics.envelope import Envelope, seal
from uns_topics.model import Value
from uns_topics.plan import Plan
from uns_topics.tensors import vector_sha256
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import KIB, TransferManifest, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups

FEDERATION, PARTICIPANT = "solder-defect", "berlin"
KINDS = ("update", "status", "presence", "statistics", "evaluation", "data-quality", "last-update")
PLAN = BODIES[Kind.PLAN]
assert isinstance(PLAN, Plan)
ENVELOPE = Envelope(FEDERATION, PARTICIPANT, "0a1b2c3d", 7)


def policy(*kinds: str, **more: Any) -> ExportPolicy:
    """All kinds, or these."""
    allow = [{"federation": FEDERATION, "kinds": list(kinds or KINDS)}]
    return ExportPolicy.model_validate({"allow": allow, **more})


def header(**changes: Any) -> dict[str, Any]:
    """An update's header; not validated, so that a test can write what no edge of ours would."""
    groups, _ = pack_groups(DELTA, TABLE, "f32")
    made = UpdateHeader(
        federation=FEDERATION,
        participant=PARTICIPANT,
        round_number=1,
        attempt=1,
        base=vector_sha256(VECTOR),
        generation=1,
        num_examples=720,
        num_steps=100,
        metrics={"loss": 0.5},
        groups=groups,
    )
    return {**made.model_dump(mode="python"), **changes}


def update(*, delta: np.ndarray = DELTA, encoding: str = "f32", round_number: int = 1, **changes: Any) -> bytes:
    """An honest update, or one with a changed header."""
    groups, body = pack_groups(delta, TABLE, encoding)
    fields = header(round_number=round_number, groups=groups, **changes)
    return encode_update(UpdateHeader.model_validate(fields), body)


def manifest_of(content: bytes, *, round_number: int = 1, chunk_bytes: int = 15 * KIB) -> TransferManifest:
    """As an edge would make it."""
    return make_manifest(
        content, "update", chunk_bytes, base=vector_sha256(VECTOR), round_number=round_number, attempt=1
    )


def topic(kind: Kind, **fields: Any) -> FlTopic:
    """A topic of the participant."""
    participant = PARTICIPANT if "{participant}" in kind.path else None
    return FlTopic(FEDERATION, kind, participant, **fields)


def sealed(body: Value, sender: str = PARTICIPANT) -> bytes:
    """A message as its sender says it."""
    return seal(Envelope(FEDERATION, sender, ENVELOPE.boot, ENVELOPE.sequence), body)
