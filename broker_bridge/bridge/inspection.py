"""What may pass upwards: every byte of it is a declared field or a tensor element. Pure.

A message that passes is written anew from what was read, so nothing hides in white space, order or keys that stand
twice. Details for logs never repeat what somebody wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from broker_bridge.bridge.policy import EXPORTS, ExportPolicy
from broker_bridge.bridge.text import has_text
from uns_topics.codes import Code
from uns_topics.controls import max_control_norm
from uns_topics.encodings import EncodingError
from uns_topics.envelope import Envelope, PayloadError, seal, split_signature
from uns_topics.model import Value
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.presence import ParticipantStatus
from uns_topics.scope import needs_plan, report_problem
from uns_topics.sums import l2_norm
from uns_topics.tensors import Role
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferKind, TransferManifest
from uns_topics.update import Update, decode_update, is_canonical, max_update_bytes, unpack_control, unpack_groups

_FLOATS = frozenset({"f32", "f16"})
MAX_SUBNORMAL = 4
"""Of a thousand float32 elements: no step of a training is as small as 1e-38, and text in UTF-16 reads as that."""


class Why(StrEnum):
    """Why something didn't leave, for counters and `headgate bridge --dry-run`; permanent."""

    TOPIC = "topic"
    """No declared topic of a participant of this bridge, or retained where it must not be."""
    KIND = "kind"
    """A declared topic that no bridge lets out."""
    POLICY = "policy"
    """No line of the export policy allows it."""
    PAYLOAD = "payload"
    """Not the payload that its topic declares: unknown fields, free text, another participant's name."""
    UNDECLARED = "undeclared"
    """A name that the plan doesn't have, or sums that rows can't give."""
    SIGNATURE = "signature"
    """Signed, and nothing checks signatures yet."""
    NO_PLAN = "no-plan"
    """The plan isn't known yet; it waits."""
    OVERSIZED = "oversized"
    INTEGRITY = "integrity"
    """A chunk or the whole differs from its manifest."""
    CONTENT = "content"
    """Not an update of the plan's tensors, or bytes that nothing declares."""
    TEXT = "text"
    """Text where tensors should be."""
    NOT_FINITE = "not-finite"
    NORM = "norm"
    """A step larger than the plan allows: no training makes one, and packed or encrypted bytes do."""
    BUDGET = "budget"
    EXPIRED = "expired"
    """It waited longer than the queue keeps it."""
    OVERFLOW = "overflow"
    """The queue was full."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """It doesn't pass. `detail` is for people and repeats nothing of the content."""

    why: Why
    detail: str


@dataclass(frozen=True, slots=True)
class Way:
    """The bridges between a participant and its aggregator.

    Attributes:
        behind: nearer to the plant, as configured; they alone speak of their presence through this bridge.
        ahead: this one and those above, which speak for themselves.
    """

    behind: frozenset[str] = frozenset()
    ahead: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """What a status may name."""
        return self.behind | self.ahead


@dataclass(frozen=True, slots=True)
class Passed:
    """A JSON message that may leave, written anew."""

    topic: FlTopic
    line: str
    envelope: Envelope
    body: Value
    payload: bytes = field(repr=False)


def judge_json(topic: FlTopic, payload: bytes, policy: ExportPolicy, plan: Plan | None, way: Way) -> Passed | Refusal:
    """Judge a JSON message of a participant.

    Args: way: the bridges on the participant's way.
    """
    export = EXPORTS.get(topic.kind)
    if export is None or topic.kind is Kind.UPDATE_CHUNK:
        return Refusal(Why.KIND, f"no bridge lets out {topic.kind.path}")
    line = policy.line(topic.federation, topic.participant or "", export)
    if line is None:
        return Refusal(Why.POLICY, f"no line of the export policy allows {export}")
    if split_signature(payload)[1] is not None:
        return Refusal(Why.SIGNATURE, "it is signed, and this bridge has no key to check it with")
    try:
        envelope, body = read(topic, payload)
    except PayloadError as error:
        return Refusal(Why.PAYLOAD, str(error))
    if needs_plan(body) and plan is None:
        return Refusal(Why.NO_PLAN, "the federation's plan isn't known yet")
    if (problem := report_problem(body, plan)) is not None:
        return Refusal(Why.UNDECLARED, problem)
    strangers = set(body.via) - way.all if isinstance(body, ParticipantStatus) else {topic.bridge} - {None} - way.behind
    if strangers:
        return Refusal(Why.UNDECLARED, "a bridge that this one doesn't know there")
    return Passed(topic, line, envelope, body, seal(envelope, body))


def judge_manifest(topic: FlTopic, manifest: TransferManifest, plan: Plan) -> Refusal | None:
    """What a manifest alone tells: enough to refuse a transfer before its bytes are taken."""
    most = max_update_bytes(plan.template.table, plan.encodings, control=plan.control)
    if manifest.bytes > most:
        return Refusal(Why.OVERSIZED, f"{manifest.bytes} bytes where the plan's tensors take {most} at most")
    if manifest.id != topic.transfer:
        return Refusal(Why.PAYLOAD, "the manifest of another transfer than its topic's")
    if manifest.kind != TransferKind.UPDATE or manifest.version is not None or manifest.content_schema != 1:
        return Refusal(Why.PAYLOAD, "not the manifest of an update")
    return None


def judge_update(raw: bytes, participant: str, manifest: TransferManifest, plan: Plan) -> Refusal | None:
    """Judge the bytes of a whole update against the plan's tensor table; None where they may leave."""
    try:
        update = decode_update(raw, max_update_bytes(plan.template.table, plan.encodings, control=plan.control))
    except PayloadError as error:
        return Refusal(Why.CONTENT, str(error))
    header = update.header
    said = (header.federation, header.participant, header.round_number, header.attempt, header.base)
    due = (plan.contract.federation, participant, manifest.round_number, manifest.attempt, manifest.base)
    if said != due:
        return Refusal(Why.CONTENT, "the header names another federation, participant, round, attempt or base")
    if header.generation != plan.generation:
        return Refusal(Why.CONTENT, f"of generation {header.generation}; the plan is of {plan.generation}")
    if not header.num_examples <= plan.tolerances.max_examples:
        return Refusal(Why.UNDECLARED, f"num_examples is above the plan's {plan.tolerances.max_examples}")
    if not is_canonical(raw, update):
        return Refusal(Why.CONTENT, "its bytes are not those that its fields are written as")
    return _judge_tensors(update, plan)


def _judge_tensors(update: Update, plan: Plan) -> Refusal | None:
    table = plan.template.table
    for group in update.header.groups:
        if group.encoding not in (plan.encodings if group.name == "delta" else ("f32",)):
            return Refusal(Why.CONTENT, f"an encoding of {group.name} that the plan doesn't have")
    try:
        delta = unpack_groups(update, table, control=plan.control)
    except (EncodingError, ValueError) as error:
        return Refusal(Why.CONTENT, str(error))
    control = unpack_control(update)
    if not (np.isfinite(delta).all() and (control is None or np.isfinite(control).all())):
        return Refusal(Why.NOT_FINITE, "NaN or infinity among the tensors")
    for group, body in update.parts():
        if group.encoding in _FLOATS and (has_text(body) or (group.encoding == "f32" and _is_tiny(body))):
            return Refusal(Why.TEXT, f"what should be tensors of {group.name} reads as text")
    norms = [(l2_norm(table.gather(delta, Role.WEIGHT)), plan.tolerances.max_delta_norm)]
    if control is not None:
        norms.append((l2_norm(control), max_control_norm(plan.training, plan.tolerances)))
    for norm, most in norms:
        if norm > most:
            return Refusal(Why.NORM, f"an L2 norm of {norm:.3g} where the plan allows {most:g}")
    return None


def _is_tiny(body: memoryview) -> bool:
    values = np.abs(np.frombuffer(body, "<f4"))
    tiny = np.count_nonzero((values > 0) & (values < np.finfo(np.float32).tiny))
    return bool(tiny > max(MAX_SUBNORMAL, MAX_SUBNORMAL * len(values) // 1000))


RECEIPT_CODES = {
    Why.NOT_FINITE: Code.NOT_FINITE,
    Why.NORM: Code.NORM,
    Why.BUDGET: Code.BUDGET,
    Why.OVERFLOW: Code.BUDGET,
    Why.EXPIRED: Code.LATE,
}
"""What the receipt says where it isn't `policy`: after these a participant keeps what it learnt for later, as after a
refused policy; after NaN it must not."""


def receipt_code(why: Why) -> Code:
    """The permanent reason code that answers a refused transfer."""
    return RECEIPT_CODES.get(why, Code.POLICY)
