"""The gate in front of every strategy: pure checks in a fixed order, each with a permanent reason code.

`inspect` looks at the bytes alone and may run in a thread; `verdict` sets its findings against the state. Whatever is
rejected leaves the model untouched.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgpack
import numpy as np

from aggregator.buffer import asking_of, counting
from aggregator.events import UpdateReceived
from aggregator.presence import is_allowed
from aggregator.state import Asking, Phase, Round, State
from uns_topics.codes import Code
from uns_topics.encodings import EncodingError
from uns_topics.envelope import PayloadError
from uns_topics.presence import ParticipantState
from uns_topics.sums import l2_norm
from uns_topics.tensors import Role, TensorTable
from uns_topics.transfers import TransferKind, TransferManifest
from uns_topics.update import UPDATE_VERSION, Update, decode_update, max_update_bytes, unpack_control, unpack_groups


@dataclass(frozen=True)
class Limits:
    """What a plan allows an update to be."""

    table: TensorTable
    encodings: tuple[str, ...]
    max_norm: float
    max_examples: int
    max_steps: int
    max_control_norm: float | None = None
    """Of the change of a control variate; None where the plan has none."""

    @property
    def max_bytes(self) -> int:
        """Upper bound of an update's bytes, known before anything is received."""
        return max_update_bytes(self.table, self.encodings, control=self.max_control_norm is not None)


def announced(participant: str, federation: str, manifest: TransferManifest) -> UpdateReceived:
    """What a manifest alone says: enough to refuse a transfer before its bytes are taken, never to accept it."""
    return UpdateReceived(
        participant=participant,
        transfer=manifest.id,
        sha256=manifest.sha256,
        payload_bytes=manifest.bytes,
        federation=federation,
        generation=None,
        round_number=manifest.round_number,
        attempt=manifest.attempt,
        base=manifest.base,
        content_checked=False,
        unreadable=None if manifest.kind == TransferKind.UPDATE and manifest.round_number else Code.SCHEMA,
    )


def refused(participant: str, federation: str, manifest: TransferManifest, code: Code, detail: str) -> UpdateReceived:
    """What is said of a transfer that never became whole: too large, or bytes that differ from the manifest."""
    return announced(participant, federation, manifest).model_copy(
        update={"content_checked": True, "content": code, "detail": detail[:500]}
    )


def inspect(
    raw: bytes, participant: str, federation: str, manifest: TransferManifest, limits: Limits
) -> UpdateReceived:
    """Decode and measure an update's content. Never raises for what a participant may send."""
    event = announced(participant, federation, manifest).model_copy(update={"content_checked": True})
    if event.unreadable is not None:
        return event
    if len(raw) > limits.max_bytes:
        detail = f"{len(raw)} bytes where the plan allows {limits.max_bytes}"
        return event.model_copy(update={"unreadable": Code.OVERSIZED, "detail": detail})
    try:
        update = decode_update(raw, limits.max_bytes)
    except PayloadError as error:
        return event.model_copy(update={"unreadable": _why_unreadable(raw), "detail": str(error)[:500]})
    header = update.header
    event = event.model_copy(
        update={
            "federation": header.federation,
            "generation": header.generation,
            "round_number": header.round_number,
            "attempt": header.attempt,
            "base": header.base,
            "num_examples": header.num_examples,
            "body_sha256": hashlib.sha256(update.body).hexdigest(),
        }
    )
    code, detail = _integrity(update, participant, manifest) or _content(update, limits) or (None, "")
    return event.model_copy(update={"content": code, "detail": detail[:500]})


def verdict(event: UpdateReceived, state: State) -> Code | None:
    """The first thing that speaks against an update, in the gate's order; None: accept."""
    if not is_allowed(state.rules, event.participant) or not _is_known(event, state):
        return Code.UNKNOWN_PARTICIPANT
    if event.unreadable is not None or event.round_number is None:
        return event.unreadable or Code.SCHEMA
    if event.federation != state.rules.federation:
        return Code.WRONG_FEDERATION
    if event.generation is not None and event.generation != state.rules.generation:
        return Code.GENERATION
    asked = _asked(event.round_number, state)
    if isinstance(asked, Code):
        return asked
    if event.attempt is None or event.attempt > asked.attempt:
        return Code.WRONG_ROUND
    if event.participant not in asked.asked:
        return Code.UNKNOWN_PARTICIPANT
    if event.base != asked.base.sha256:
        return Code.WRONG_BASE
    if event.content is not None:
        return event.content
    return _against_others(event, asked, state)


def _is_known(event: UpdateReceived, state: State) -> bool:
    """Whether it was heard of since the start, or is asked by a round that may be answered."""
    if event.participant in state.presence:
        return True
    current = state.open_round
    is_asked = current is not None and event.participant in current.asked
    return is_asked or any(event.participant in asking.asked for asking in state.asking)


def _asked(round_number: int, state: State) -> Round | Asking | Code:
    """The round that an update may answer to, or why there is none."""
    if round_number > state.last_round:
        return Code.WRONG_ROUND
    current = state.open_round
    if state.rules.buffer is None or state.phase is Phase.RESTING:
        return current if current is not None and round_number == current.number else Code.LATE
    return asking_of(state, round_number) or Code.STALE


def _against_others(event: UpdateReceived, asked: Round | Asking, state: State) -> Code | None:
    if isinstance(asked, Asking):
        own = asked.accepted.get(event.participant)
    else:
        answer = asked.answers.get(event.participant)
        own = answer.transfer if answer is not None and answer.outcome == "accepted" else None
    if own is not None and own != event.transfer:
        return Code.DUPLICATE
    others = {answer.body_sha256 for participant, answer in counting(state) if participant != event.participant}
    if event.body_sha256 is not None and event.body_sha256 in others:
        return Code.COPIED
    known = state.presence.get(event.participant)
    if known is not None and known.status.state is ParticipantState.HOLD:
        return Code.HOLD
    return None


def _why_unreadable(raw: bytes) -> Code:
    """Schema, another wire version, or no update at all."""
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=2**16, max_str_len=256, max_bin_len=64, max_ext_len=0)
    try:
        unpacker.feed(raw[1 : 2**15])
        fields = unpacker.unpack()
    except (ValueError, msgpack.UnpackException):
        return Code.UNDECODABLE
    if not isinstance(fields, dict):
        return Code.UNDECODABLE
    return Code.SCHEMA if fields.get("v") == UPDATE_VERSION else Code.VERSION


def _integrity(update: Update, participant: str, manifest: TransferManifest) -> tuple[Code, str] | None:
    """The manifest is what is signed, so the header must say the same."""
    header = update.header
    if header.participant != participant:
        return Code.INTEGRITY, f"the header speaks for {header.participant}"
    said = (manifest.round_number, manifest.attempt, manifest.base)
    if said != (header.round_number, header.attempt, header.base):
        return Code.INTEGRITY, "round, attempt or base of manifest and header differ"
    return None


def _content(update: Update, limits: Limits) -> tuple[Code, str] | None:
    header = update.header
    used = [g.encoding for g in header.groups if g.name == "delta"]
    if used[0] not in limits.encodings:
        return Code.ENCODING, f"{used[0]} is not among the plan's encodings {', '.join(limits.encodings)}"
    try:
        delta = unpack_groups(update, limits.table, control=limits.max_control_norm is not None)
    except EncodingError as error:
        return Code.ENCODING, str(error)
    except ValueError as error:
        return Code.SHAPE, str(error)
    control = unpack_control(update)
    if not (np.isfinite(delta).all() and (control is None or np.isfinite(control).all())):
        return Code.NOT_FINITE, "NaN or infinity among the tensors"
    norm = l2_norm(limits.table.gather(delta, Role.WEIGHT))
    if not norm <= limits.max_norm:
        return Code.NORM, f"L2 norm {norm:.6g} is above {limits.max_norm:.6g}"
    if norm == 0.0:
        return Code.ZERO, "every weight delta is zero"
    if control is not None and limits.max_control_norm is not None:
        length = l2_norm(control)
        if not length <= limits.max_control_norm:
            return Code.NORM, f"group control has L2 norm {length:.6g}, above {limits.max_control_norm:.6g}"
    if not 0 < header.num_examples <= limits.max_examples:
        return Code.WEIGHT, f"num_examples {header.num_examples} is not between 1 and {limits.max_examples}"
    if not 0 < header.num_steps <= limits.max_steps:  # FedNova divides by it and scales with its mean
        return Code.WEIGHT, f"num_steps {header.num_steps} is not between 1 and the plan's {limits.max_steps}"
    return None
