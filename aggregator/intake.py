"""From messages to events. What can't be read is counted by its code and never ends anything."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from aggregator import gate
from aggregator.core import Core, persist
from aggregator.events import BridgeSeen, EvaluationReceived, StatisticsReceived, StatusSeen, UpdateReceived
from aggregator.fencing import Foreign
from aggregator.state import Scores
from aggregator.store import STATISTICS, Store
from broker_bridge.inbox import Answer, Inbox, Missing, Refused
from broker_bridge.session import Message
from uns_topics.contract import Contract
from uns_topics.envelope import Envelope, PayloadError
from uns_topics.model import Value
from uns_topics.payloads import read
from uns_topics.presence import AggregatorStatus, BridgeStatus, ParticipantStatus, Want
from uns_topics.reports import Evaluation, ModelScores, Statistics, Sums
from uns_topics.rounds import Receipt
from uns_topics.scope import statistics_problem
from uns_topics.topics import FlTopic, Kind, TopicError
from uns_topics.transfers import TransferManifest, decode_chunk

_LOG = logging.getLogger("headgate.aggregator")
REMEMBERED_RECEIPTS = 4096
LOG_EVERY_S = 60.0
MAX_JOBS = 10_000
"""Transfers and look-ups that wait for the thread; what comes on top is dropped, and its sender asks again."""
_LARGEST_SUM = 1e100
"""Its square still fits a float."""
_NO_ROWS = Sums(n=0, sum=0.0, sum_squares=0.0)


@dataclass(frozen=True)
class _LookUp:
    """Has this transfer been answered before? If not, and there is a refusal, it is refused now."""

    participant: str
    manifest: TransferManifest
    refusal: UpdateReceived | None


@dataclass(frozen=True)
class _Inspect:
    """Look at a whole update's bytes."""

    participant: str
    manifest: TransferManifest
    content: bytes


class Intake:
    """Reads everything that participants say.

    Args:
        answer: sends a receipt.
        on_aggregator: a status on `down/status`, and whether it came without the retain flag.
        on_wants: what a participant could not get.
        max_chunk_bytes: the largest body of a chunk.
    """

    def __init__(
        self,
        *,
        federation: str,
        contract: Contract,
        limits: gate.Limits,
        core: Core,
        store: Store,
        answer: Callable[[str, Receipt], None],
        on_aggregator: Callable[[Foreign, bool], None],
        on_wants: Callable[[tuple[Want, ...]], None],
        max_chunk_bytes: int,
    ) -> None:
        self._federation = federation
        self._contract = contract
        self._limits = limits
        self._core = core
        self._store = store
        self._answer = answer
        self._on_aggregator = on_aggregator
        self._on_wants = on_wants
        self._max_chunk_bytes = max_chunk_bytes
        self._inbox = Inbox(limits.max_bytes)
        self._jobs: asyncio.Queue[_LookUp | _Inspect] = asyncio.Queue(MAX_JOBS)
        self._in_hand: set[tuple[str, str]] = set()
        self._receipts: OrderedDict[tuple[str, str], Receipt] = OrderedDict()
        self._logged: dict[str, float] = {}
        self.counters: Counter[str] = Counter()
        """Messages that could not be used, by code."""
        self.chunk_bytes = 0
        """Bytes of updates' chunks that came, whatever became of them."""

    @property
    def inbox(self) -> Inbox:
        """The open transfers."""
        return self._inbox

    def on_message(self, message: Message) -> None:
        """One message; never raises for what it carries."""
        if not message.payload:
            return  # a clear
        if not self._core.has_room:
            self.count("busy", "more events than can be stored; their senders will say them again")
            return
        try:
            topic = FlTopic.parse(message.topic)
            if topic.federation != self._federation:
                raise PayloadError(f"federation {topic.federation}")
            if topic.kind is Kind.UPDATE_CHUNK:
                self._on_chunk(topic, message.payload)
                return
            envelope, body = read(topic, message.payload)
        except TopicError as error:
            self.count("topic", str(error))
        except PayloadError as error:
            self.count(type(error).__name__, f"{message.topic}: {error}")
        else:
            self._on_body(topic, envelope, body, message)

    def remember(self, participant: str, receipt: Receipt) -> None:
        """A transfer was answered for good."""
        self._in_hand.discard((participant, receipt.id))
        self._inbox.forget(participant, receipt.id)
        self._receipts[participant, receipt.id] = receipt
        if len(self._receipts) > REMEMBERED_RECEIPTS:
            self._receipts.popitem(last=False)

    def expire(self) -> None:
        """Drop transfers that idle."""
        self._inbox.expire(self._core.now())

    def count(self, code: str, detail: str) -> None:
        """Count something that can't be used, and say so once a minute."""
        self.counters[code] += 1
        now = self._core.now()
        if now - self._logged.get(code, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[code] = now
            _LOG.warning("ignored (%s, %d so far): %s", code, self.counters[code], detail[:300])

    async def run(self) -> None:
        """Do what takes a thread, one after the other, until cancelled."""
        while True:
            job = await self._jobs.get()
            if isinstance(job, _LookUp):
                await self._look_up(job)
            else:
                event = await asyncio.to_thread(
                    gate.inspect, job.content, job.participant, self._federation, job.manifest, self._limits
                )
                self._core.submit(event, {job.manifest.sha256: job.content})

    # Bodies -----------------------------------------------------------------------------------------------------------

    def _on_body(self, topic: FlTopic, envelope: Envelope, body: Value, message: Message) -> None:
        participant = topic.participant or ""
        match body:
            case AggregatorStatus():
                self._on_aggregator(Foreign(envelope.boot, body), not message.retain)
            case ParticipantStatus():
                self._core.submit(StatusSeen(participant=participant, boot=envelope.boot, status=body))
                if body.wants and not body.via:  # a bridge fetches what is wanted behind it, and says what it lacks
                    self._on_wants(body.wants)
            case BridgeStatus():
                online = body.state == "online"
                self._core.submit(
                    BridgeSeen(
                        participant=participant,
                        bridge=topic.bridge or "",
                        boot=envelope.boot,
                        birth=body.birth,
                        online=online,
                    )
                )
                if body.wants:
                    self._on_wants(body.wants)
            case Statistics():
                self._on_statistics(participant, body)
            case Evaluation():
                self._on_evaluation(participant, body)
            case TransferManifest():
                self._on_manifest(topic, participant, body)
            case _:
                pass  # data quality and last update are for people

    def _on_statistics(self, participant: str, body: Statistics) -> None:
        if (wrong := statistics_problem(body, self._contract)) is not None:
            self.count("statistics", f"{participant}: {wrong}")
            return
        event = StatisticsReceived(participant=participant, generation=body.generation, label_counts=body.label_counts)
        self._core.submit(event, {STATISTICS: body.model_dump_json().encode()})

    def _on_evaluation(self, participant: str, body: Evaluation) -> None:
        if body.candidate is None:
            return  # final figures, for people
        scores = scores_of(body)
        if (wrong := scores_problem(scores, self._limits.max_examples)) is not None:
            self.count("evaluation", f"{participant}: {wrong}")
            return
        self._core.submit(
            EvaluationReceived(
                participant=participant,
                generation=body.generation,
                candidate=body.candidate,
                current=body.current,
                scores=scores,
            )
        )

    # Transfers --------------------------------------------------------------------------------------------------------

    def _on_manifest(self, topic: FlTopic, participant: str, manifest: TransferManifest) -> None:
        if topic.transfer != manifest.id:
            self.count("manifest", f"{participant}: a manifest of another transfer than its topic's")
            return
        key = (participant, manifest.id)
        if (known := self._receipts.get(key)) is not None:
            self._answer(participant, known)
            return
        if key in self._in_hand:
            return  # whole, and about to be answered
        event = gate.announced(participant, self._federation, manifest)
        code = gate.verdict(event, self._core.state)
        if code is not None:
            self._in_hand.add(key)
            self._enqueue(_LookUp(participant, manifest, event), key)
            return
        for answer in self._inbox.on_manifest(participant, manifest, self._core.now()):
            self._on_answer(answer)
        if key not in self._in_hand:
            self._enqueue(_LookUp(participant, manifest, None), None)

    def _on_chunk(self, topic: FlTopic, payload: bytes) -> None:
        self.chunk_bytes += len(payload)
        chunk = decode_chunk(payload, self._max_chunk_bytes)
        if (chunk.id, chunk.index) != (topic.transfer, topic.index):
            raise PayloadError("a chunk of another transfer or index than its topic's")
        for answer in self._inbox.on_chunk(topic.participant or "", chunk, self._core.now()):
            self._on_answer(answer)

    def _on_answer(self, answer: Answer) -> None:
        key = (answer.participant, answer.manifest.id if not isinstance(answer, Missing) else answer.id)
        if isinstance(answer, Missing):
            self._answer(answer.participant, Receipt(id=answer.id, result="missing", chunks=answer.chunks))
        elif isinstance(answer, Refused):
            self._inbox.forget(*key)
            self._in_hand.add(key)
            refusal = gate.refused(answer.participant, self._federation, answer.manifest, answer.code, answer.detail)
            self._enqueue(_LookUp(answer.participant, answer.manifest, refusal), key)
        else:
            self._in_hand.add(key)
            self._enqueue(_Inspect(answer.participant, answer.manifest, answer.content), key)

    def _enqueue(self, job: _LookUp | _Inspect, key: tuple[str, str] | None) -> None:
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self.count("busy", "more transfers than can be looked at; their senders will ask again")
            if key is not None:
                self._in_hand.discard(key)

    async def _look_up(self, job: _LookUp) -> None:
        known = await persist(
            lambda: asyncio.to_thread(self._store.receipt, job.participant, job.manifest.id),
            lambda why: _LOG.warning("a receipt waits for the store: %s", why),
        )
        if known is not None:
            self.remember(job.participant, known)
            self._answer(job.participant, known)
        elif job.refusal is not None:
            await self._core.apply(job.refusal)
            # Where the state moved on meanwhile and nothing speaks against it any more, no receipt came of it.
            self._in_hand.discard((job.participant, job.manifest.id))


def scores_of(evaluation: Evaluation) -> Scores:
    """What promotion decides from: the `select` part's sums; no rows where a participant has none."""
    models = evaluation.select.models
    candidate, current = models.get("candidate"), models.get("current")
    return Scores(
        candidate=_loss(candidate) or _NO_ROWS,
        current=_loss(current),
        difference=evaluation.select.candidate_minus_current,
    )


def scores_problem(scores: Scores, max_rows: int) -> str | None:
    """Why these sums can't come from rows; None where they can."""
    given = [s for s in (scores.candidate, scores.current, scores.difference) if s is not None]
    for sums in given:
        if sums.n > max_rows:
            return f"{sums.n} rows, more than {max_rows}"
        if max(abs(sums.sum), sums.sum_squares) > _LARGEST_SUM:
            return f"sums beyond {_LARGEST_SUM:g}"
        if sums.sum * sums.sum > sums.n * sums.sum_squares * (1 + 1e-6) + 1e-9:
            return "sums of squares that are too small for their sums"
        if sums.n != scores.candidate.n:
            return "candidate, current and difference are of different rows"
    return None


def _loss(model: ModelScores | None) -> Sums | None:
    return None if model is None else model.loss
