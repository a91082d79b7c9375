"""What would leave: the bridge's own judgement of what it hears on the plant's broker, while nothing is sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.inspection import Passed, Refusal, Way, Why, judge_json, judge_manifest, judge_update
from broker_bridge.bridge.policy import EXPORTS, ExportPolicy
from broker_bridge.inbox import Inbox, Refused, Whole
from broker_bridge.session import Message
from uns_topics.envelope import PayloadError
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.presence import Route
from uns_topics.topics import FlTopic, Kind, TopicError, everything_of, owner_of
from uns_topics.transfers import MIN_CHUNK_BYTES, TransferManifest, decode_chunk
from uns_topics.update import max_update_bytes

_DOWN = (Kind.PLAN, Kind.ROUTE)


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One line of the result: `verdict` is `leaves` or `stays`; `because` the policy's line, or a reason."""

    verdict: str
    federation: str
    participant: str
    kind: str
    because: str


@dataclass
class _Transfer:
    manifest: TransferManifest
    row: Row
    payload_bytes: int
    messages: int = 1


class DryRun:
    """Judges messages and counts; hand it everything that `filters` brings. Pure.

    Args: plans: by federation, as a bridge kept them; a plan on the plant's broker is learnt from.
    """

    def __init__(self, config: BridgeConfig, policy: ExportPolicy, plans: dict[str, Plan]) -> None:
        self._policy = policy
        self._bridge = config.bridge
        self._behind = {(p.federation, p.participant): frozenset(p.behind) for p in config.participants}
        self._routes: dict[tuple[str, str], frozenset[str]] = {}
        self._plans = dict(plans)
        self._inboxes: dict[tuple[str, str], Inbox] = {}
        self._transfers: dict[tuple[str, str, str], _Transfer] = {}
        self.messages: Counter[Row] = Counter()
        self.bytes: Counter[Row] = Counter()

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to on the plant's broker."""
        up = [everything_of(*key) for key in self._behind]
        plans = {str(FlTopic(federation, Kind.PLAN)) for federation, _ in self._behind}
        routes = [str(FlTopic(federation, Kind.ROUTE, participant)) for federation, participant in self._behind]
        return (*sorted(plans), *routes, *up)

    @property
    def without_plan(self) -> tuple[str, ...]:
        """Federations whose plan isn't known: their updates and reports can't be judged."""
        return tuple(sorted({federation for federation, _ in self._behind} - set(self._plans)))

    def on_message(self, message: Message, now: float) -> None:
        """One message of the plant's broker."""
        if not message.payload:
            return
        try:
            topic = FlTopic.parse(message.topic)
        except TopicError:
            owner = owner_of(message.topic)
            if owner in self._behind:
                self._count(self._stays(owner, "?", Why.TOPIC), len(message.payload))
            return
        if topic.kind in _DOWN:
            self._learn(topic, message.payload)
            return
        key = (topic.federation, topic.participant or "")
        if key not in self._behind:
            return
        if message.retain and not topic.kind.retained:
            self._count(self._stays(key, topic.kind.path, Why.TOPIC), len(message.payload))
        elif topic.kind is Kind.UPDATE_CHUNK:
            self._on_chunk(topic, message.payload, now)
        else:
            self._on_json(topic, message.payload, now)

    def _learn(self, topic: FlTopic, payload: bytes) -> None:
        try:
            body = read(topic, payload)[1]
        except PayloadError:
            return
        if isinstance(body, Plan):
            self._plans[topic.federation] = body
        elif isinstance(body, Route) and topic.participant is not None:
            self._routes[topic.federation, topic.participant] = frozenset(body.bridges)

    def _on_json(self, topic: FlTopic, payload: bytes, now: float) -> None:
        key = (topic.federation, topic.participant or "")
        plan = self._plans.get(topic.federation)
        way = Way(self._behind[key], self._routes.get(key, frozenset()) | {self._bridge})
        judged = judge_json(topic, payload, self._policy, plan, way)
        if isinstance(judged, Refusal):
            self._count(self._stays(key, _name(topic), judged.why), len(payload))
        elif isinstance(judged.body, TransferManifest):
            self._on_manifest(judged, plan, now)
        else:
            self._count(Row("leaves", *key, _name(topic), judged.line), len(judged.payload))

    def _on_manifest(self, passed: Passed, plan: Plan | None, now: float) -> None:
        topic, manifest = passed.topic, passed.body
        assert isinstance(manifest, TransferManifest)
        key = (topic.federation, topic.participant or "")
        size = len(passed.payload)
        if plan is None:
            self._count(self._stays(key, "update", Why.NO_PLAN), size)
            return
        if (refusal := judge_manifest(topic, manifest, plan)) is not None:
            self._count(self._stays(key, "update", refusal.why), size)
            return
        inbox = self._inboxes.setdefault(key, Inbox(0))
        inbox.max_bytes = max_update_bytes(plan.template.table, plan.encodings, control=plan.control)
        inbox.on_manifest(key[1], manifest, now)
        self._transfers[*key, manifest.id] = _Transfer(manifest, Row("leaves", *key, "update", passed.line), size)

    def _on_chunk(self, topic: FlTopic, payload: bytes, now: float) -> None:
        key = (topic.federation, topic.participant or "")
        plan, inbox = self._plans.get(topic.federation), self._inboxes.get(key)
        known = self._transfers.get((*key, topic.transfer or ""))
        if plan is None or inbox is None or known is None:
            return  # of a transfer that began before we listened, or that was refused
        known.payload_bytes += len(payload)
        known.messages += 1
        try:
            chunk = decode_chunk(payload, max(plan.chunk_bytes, MIN_CHUNK_BYTES) * 4)
        except PayloadError:
            self._end(known, Refusal(Why.PAYLOAD, ""))
            return
        for answer in inbox.on_chunk(key[1], chunk, now):
            if isinstance(answer, Refused):
                self._end(known, Refusal(Why.INTEGRITY, ""))
            elif isinstance(answer, Whole):
                self._end(known, judge_update(answer.content, key[1], answer.manifest, plan))

    def _end(self, transfer: _Transfer, refusal: Refusal | None) -> None:
        row = transfer.row
        self._transfers.pop((row.federation, row.participant, transfer.manifest.id), None)
        if refusal is not None:
            row = self._stays((row.federation, row.participant), "update", refusal.why)
        self._count(row, transfer.payload_bytes, transfer.messages)

    def _stays(self, key: tuple[str, str], kind: str, why: Why) -> Row:
        return Row("stays", *key, kind, why.value)

    def _count(self, row: Row, payload_bytes: int, messages: int = 1) -> None:
        self.messages[row] += messages
        self.bytes[row] += payload_bytes


def _name(topic: FlTopic) -> str:
    return EXPORTS.get(topic.kind) or topic.kind.path.removeprefix("up/{participant}/")
