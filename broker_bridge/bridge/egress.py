"""The one door out: every message that goes up passes here, and is on record before it is published.

Four things are checked in this order for each single message, whoever sends it: the plant's pause switches, a line of
the export policy, the day's budget, and that the record could be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from broker_bridge.bridge.ledger import Departure, LedgerError, Transfer
from broker_bridge.bridge.policy import EXPORTS, Budget, Export, ExportPolicy
from broker_bridge.session import PublishRefused, SessionLost
from broker_bridge.threads import on
from uns_topics.topics import FlTopic


class NothingLeaves(SessionLost):
    """Nothing leaves now: the plant has paused the bridge, or the record can't be written. It is tried again later."""


class NotAllowed(PublishRefused):
    """This message doesn't leave: no line of the policy allows it, or today's budget is spent."""


Record = Callable[[Sequence[Departure]], None]
"""`Ledger.record`: durable when it returns. Raises: LedgerError."""
Publish = Callable[[], Awaitable[None]]


class Egress:
    """The door, shared by all uplinks of a bridge.

    Args:
        record: writes what is about to leave.
        disk: the thread that it is called in.
        paused: why nothing may leave now, or None; asked for each message.
        today: the day as `YYYY-MM-DD` (UTC).
    """

    def __init__(
        self,
        policy: ExportPolicy,
        budget: Budget,
        record: Record,
        disk: Executor,
        paused: Callable[[], str | None],
        today: Callable[[], str],
    ) -> None:
        self._policy = policy
        self._record = record
        self._disk = disk
        self._paused = paused
        self._today = today
        self.budget = budget
        self.messages: Counter[tuple[str, str, Export]] = Counter()
        """Messages that left, by federation, participant and kind."""
        self.bytes: Counter[tuple[str, str, Export]] = Counter()
        """Payload bytes that left, alike."""
        self.problem: str | None = None
        """Why the record can't be written; None where it can."""
        self.held_back = False
        """Somebody was told that nothing leaves now: whoever sees that it may again lets them try again."""

    def remaining(self) -> tuple[int | None, int | None]:
        """Bytes and messages that may still leave today; None where there is no limit."""
        self.budget.lasts(self._today(), 0, 0)
        limits, spent = self.budget.limits, self.budget
        return (
            None if limits.bytes_per_day is None else max(0, limits.bytes_per_day - spent.bytes),
            None if limits.messages_per_day is None else max(0, limits.messages_per_day - spent.messages),
        )

    def left_by(self, federation: str, participant: str) -> tuple[dict[Export, int], dict[Export, int]]:
        """Messages and payload bytes of a participant that left, by kind."""
        chosen = [key for key in self.messages if key[:2] == (federation, participant)]
        return {key[2]: self.messages[key] for key in chosen}, {key[2]: self.bytes[key] for key in chosen}

    def lasts(self, payload_bytes: int, messages: int) -> bool:
        """Whether today's budget lasts for this much."""
        return self.budget.lasts(self._today(), payload_bytes, messages)

    async def leave(
        self,
        topic: FlTopic,
        payload: bytes,
        publish: Publish,
        *,
        transfer: Transfer | None = None,
        presence: bool = False,
    ) -> None:
        """Let one message out.

        Args: presence: the bridge's own sign that it is paused, which a pause doesn't stop.

        Raises: NothingLeaves, NotAllowed; what `publish` raises.
        """
        departure = self._check(topic, payload, transfer, presence)
        await self._write(departure)
        if not presence:
            self._check_pause()  # somebody may have switched while the disk was busy
        await publish()
        key = (topic.federation, topic.participant or "", EXPORTS[topic.kind])
        self.messages[key] += 1
        self.bytes[key] += len(payload)

    async def enter(self, topic: FlTopic, payload: bytes) -> None:
        """Record a will, which leaves with the connection; `spend` counts it once that stands.

        Raises: NotAllowed, NothingLeaves.
        """
        await self._write(self._departure(topic, payload, None))

    def spend(self, payload_bytes: int) -> None:
        """Take from the budget what left by itself."""
        self.budget.spend(self._today(), payload_bytes)

    async def _write(self, departure: Departure) -> None:
        """Put it on record, in the thread of the disk. Raises: NothingLeaves."""
        try:
            await on(self._disk, lambda: self._record([departure]))
        except LedgerError as error:
            self.problem = str(error)
            self.held_back = True
            self.budget.refund(len(departure.payload))
            raise NothingLeaves(str(error)) from None
        self.problem = None

    def _check(self, topic: FlTopic, payload: bytes, transfer: Transfer | None, presence: bool) -> Departure:
        if not presence:
            self._check_pause()
        departure = self._departure(topic, payload, transfer)
        if not self.budget.spend(self._today(), len(payload)):
            raise NotAllowed("today's budget is spent")
        return departure

    def _departure(self, topic: FlTopic, payload: bytes, transfer: Transfer | None) -> Departure:
        export = EXPORTS.get(topic.kind)
        line = self._policy.line(topic.federation, topic.participant or "", export) if export is not None else None
        if export is None or line is None:
            raise NotAllowed(f"no line of the export policy allows {topic.kind.path}")
        return Departure(topic.federation, topic.participant or "", str(topic), export, line, payload, transfer)

    def _check_pause(self) -> None:
        if (reason := self._paused()) is not None:
            self.held_back = True
            raise NothingLeaves(f"paused by the plant: {reason}")
