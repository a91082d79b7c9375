"""The fl side of an edge on the in-memory broker, with a workshop that fails, hangs and comes back at will."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import BrokerRefused, Message
from edge.federation import Federation
from edge.participation import Counts, Participation
from edge.review import Review
from edge.updates import TrainedUpdate
from edge.variants import Served
from tests.aio import Inbox, run
from tests.contracts.examples import BODIES
from tests.edge.versions import CONTRACT, manifest_of, model_of, plan_of, round_of
from uns_topics.codes import Code, Reason
from uns_topics.contract import Contract
from uns_topics.model import Value
from uns_topics.payloads import Writer, read
from uns_topics.plan import Plan, Tolerances
from uns_topics.presence import AggregatorStatus, ParticipantStatus, Route, Serves, Variant
from uns_topics.reference import Reference
from uns_topics.reports import LastUpdate
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest


class Bench:
    """A workshop whose every answer a test may change."""

    def __init__(self) -> None:
        self.fail: dict[str, Exception] = {}
        self.trained: list[int] = []
        self.locally: list[int] = []
        self.size = 0
        self.updates = self
        self.left: TrainedUpdate | None = None
        self.before: tuple[int, str] | None = None
        self.settled: list[tuple[int, str | None, Code | None]] = []
        self.choice: Served | None = None
        self.trainer: Reason | None = None

    def follow(self, plan: Plan) -> bool:
        return True

    def _maybe(self, name: str) -> None:
        if name in self.fail:
            raise self.fail.pop(name)

    async def train(self, announcement: Any) -> TrainedUpdate:
        self._maybe("train")
        self.trained.append(announcement.round_number)
        content = b"update of round %d" % announcement.round_number
        number, base = announcement.round_number, announcement.base_sha256
        return TrainedUpdate(content + bytes(self.size), number, announcement.attempt, base, 10, 5, 0.1)

    async def answered(self) -> tuple[int, str] | None:
        return self.before

    async def unanswered(self) -> TrainedUpdate | None:
        return self.left

    async def settle(self, update: TrainedUpdate, result: str | None, code: Code | None) -> None:
        self.settled.append((update.round_number, result, code))

    async def train_local(self, announcement: Any) -> None:
        self.locally.append(announcement.round_number)
        self._maybe("train_local")

    async def trainer_reason(self) -> Reason | None:
        return self.trainer

    async def accepted(self, announcement: Any) -> None:
        self._maybe("accepted")

    async def statistics(self, generation: int) -> None:
        self._maybe("statistics")

    async def compare(self, candidate: Any, current: Any) -> None:
        self._maybe("compare")

    decisions = SimpleNamespace(held=None)

    def is_succession(self, manifest: Any) -> bool:
        return False

    async def why_not_yet(self, manifest: Any) -> None:
        return None

    async def enter(self, manifest: Any) -> Any:
        return Served(model_of(1), manifest.version, Variant.GLOBAL)

    async def review(self, manifest: Any, *, final: bool) -> Review:
        self._maybe("review")
        return Review(None, self.choice)

    async def mark_served(self, manifest: Any) -> None:
        self._maybe("mark_served")


class World:
    """One participant, and a test that speaks for the aggregator."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.bench = Bench()
        self.core = Participation("berlin", "tiny", approved=CONTRACT.meaning_sha256, covers=lambda _: None)
        self.core.restored = manifest_of(1)  # nothing has to be fetched
        self.core.on_swapped(1, Variant.LAST_GOOD)
        self.seen = Inbox()
        self.served: list[int] = []
        self.references: asyncio.Queue[Reference | None] = asyncio.Queue()
        self.tolerances = Tolerances()
        self.boots = {"00000001": Writer("tiny", "aggregator", "00000001")}
        self.federation = Federation(
            self.broker.connector(),
            "tiny",
            self.core,
            self.bench,  # type: ignore[arg-type]
            participant="berlin",
            boot="0000000b",
            chunk_bytes=None,
            serve=lambda served: self.served.append(served.version),
            on_reference=self.references.put_nowait,
            on_plan=lambda _: None,
            traffic=dict,
            rng=random.Random(1),
        )

    def says(self, kind: Kind, body: Value, boot: str = "00000001") -> None:
        participant = "berlin" if kind in (Kind.RECEIPT, Kind.ROUTE) else None
        writer = self.boots.setdefault(boot, Writer("tiny", "aggregator", boot))
        topic = str(FlTopic("tiny", kind, participant))
        self.broker.route(Message(topic, writer.seal(body)), retain=kind.retained)

    def manifests(self) -> list[str]:
        """Transfer ids in the order in which their manifests came."""
        return [t.split("/")[6] for t in self.seen.topics if t.endswith("/manifest")]

    async def until(self, condition: Callable[[], object]) -> None:
        await self.seen.until(lambda _: bool(condition()))

    def last_update(self) -> LastUpdate | None:
        topic = FlTopic("tiny", Kind.LAST_UPDATE, "berlin")
        found = [m for m in self.seen.messages if m.topic == str(topic)]
        body = read(topic, found[-1].payload)[1] if found else None
        assert body is None or isinstance(body, LastUpdate)
        return body


@asynccontextmanager
async def running(world: World | None = None) -> AsyncIterator[World]:
    """An edge that serves version 1 and could train."""
    world = world or World()
    async with (
        world.broker.connector().connect("watch", on_message=world.seen) as session,
        asyncio.TaskGroup() as tasks,  # a service that ends by itself ends the test
    ):
        await session.subscribe("fl/v1/#")
        tasks.create_task(world.federation.run())
        await world.seen.topic("fl/v1/tiny/up/berlin/status")
        world.says(Kind.AGGREGATOR_STATUS, AggregatorStatus(birth=1, state="online", epoch=1))
        world.says(Kind.PLAN, plan_of().model_copy(update={"tolerances": world.tolerances}))
        world.says(Kind.MODEL_CURRENT, manifest_of(1))
        world.federation.do(world.core.on_counts(Counts(samples=100, matured=100, new=100, trainable=60)))
        world.federation.do(world.core.on_trainer(None))
        await world.until(lambda: world.served)
        yield world
        await world.federation.close()


def test_what_a_review_chooses_runs_and_is_said_and_the_next_version_is_reviewed_in_turn() -> None:
    def said(world: World) -> Serves | None:
        found = [m for m in world.seen.messages if m.topic == "fl/v1/tiny/up/berlin/status"]
        body = read(FlTopic.parse(found[-1].topic), found[-1].payload)[1]
        assert isinstance(body, ParticipantStatus)
        return body.serves

    async def main() -> None:
        world = World()
        world.bench.choice = Served(model_of(1), 1, Variant.LOCAL)
        async with running(world):
            await world.until(lambda: said(world) == Serves(version=1, variant=Variant.LOCAL))
            assert world.served == [1, 1]  # the version itself, then what was chosen
            world.bench.choice = Served(model_of(2), 2, Variant.PERSONALISED)
            world.core.held[2] = manifest_of(2)
            world.says(Kind.MODEL_CURRENT, manifest_of(2))
            await world.until(lambda: said(world) == Serves(version=2, variant=Variant.PERSONALISED))

    run(main())


def test_a_trainer_that_cannot_follow_a_plan_is_said_before_a_round_waits_for_it() -> None:
    def said(world: World) -> tuple[Reason | None, bool]:
        found = [m for m in world.seen.messages if m.topic == "fl/v1/tiny/up/berlin/status"]
        body = read(FlTopic.parse(found[-1].topic), found[-1].payload)[1]
        assert isinstance(body, ParticipantStatus)
        return body.reason, body.can_train

    async def main() -> None:
        async with running() as world:
            world.bench.trainer = Reason.TRAINER_WITHOUT_CORRECTION
            world.says(Kind.PLAN, plan_of(generation=2).model_copy(update={"control": True}))
            await world.until(lambda: said(world) == (Reason.TRAINER_WITHOUT_CORRECTION, False))

    run(main())


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_a_newer_round_asks_for_the_answer_to_the_update_under_way_and_waits_for_it(max_staleness: int) -> None:
    """Were it taken for lost while it was accepted, what it carries would be sent once more with the next one."""

    async def main() -> None:
        world = World()
        world.tolerances = Tolerances(max_staleness=max_staleness)
        async with running(world):
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            for number in (2, 3, 3):  # the first was never answered; a round is said again at each heartbeat
                world.says(Kind.ROUND, round_of(number, 1))
            await world.until(lambda: world.seen.topics.count("fl/v1/tiny/down/round") == 4)
            await world.until(lambda: len(world.manifests()) == 3)
            assert len(set(world.manifests())) == 1
            assert world.bench.trained == [1]
            first = world.manifests()[0]
            world.says(Kind.RECEIPT, Receipt(id=first, result="accepted"))
            await world.until(lambda: len(set(world.manifests())) == 2)
            assert world.bench.trained == [1, 3]
            assert world.bench.settled == [(1, "accepted", None)]
            world.says(Kind.RECEIPT, Receipt(id=world.manifests()[-1], result="accepted"))
            await world.until(lambda: len(world.bench.settled) == 2)
            assert world.bench.locally == [1, 3]

    run(main())


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_an_update_of_before_the_restart_comes_first(max_staleness: int) -> None:
    async def main() -> None:
        world = World()
        world.tolerances = Tolerances(max_staleness=max_staleness)
        world.bench.left = TrainedUpdate(b"what was under way", 1, 1, "a" * 64, 10, 5, 0.1)
        async with running(world):
            world.says(Kind.ROUND, round_of(2, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            assert world.bench.trained == []
            world.says(Kind.RECEIPT, Receipt(id=world.manifests()[0], result="rejected", code=Code.STALE))
            await world.until(lambda: len(set(world.manifests())) == 2)
            assert world.bench.trained == [2]

    run(main())


def test_a_round_that_was_answered_before_the_restart_is_not_trained_for_again() -> None:
    async def main() -> None:
        world = World()
        announcement = round_of(1, 1)
        world.bench.before = (1, announcement.base_sha256)
        async with running(world):
            world.says(Kind.ROUND, announcement)
            await world.until(lambda: "fl/v1/tiny/down/round" in world.seen.topics)
            world.says(Kind.ROUND, round_of(2, 1))
            await world.until(lambda: world.manifests())
            assert world.bench.trained == [2]

    run(main())


def test_a_bridge_s_limit_lowers_the_chunks_of_an_update_under_way_and_of_the_next() -> None:
    async def main() -> None:
        async with running() as world:
            world.bench.size = 100_000
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            world.says(Kind.ROUTE, Route(bridges=("gate",), chunk_bytes=20_000))
            await world.until(lambda: any(t.endswith("/4") for t in world.seen.topics if "/update/" in t))
            world.says(Kind.RECEIPT, Receipt(id=world.manifests()[0], result="accepted"))
            await world.until(lambda: world.last_update())
            world.core.held[2] = manifest_of(2)
            world.says(Kind.ROUND, round_of(2, 2))
            await world.until(lambda: len(set(world.manifests())) == 2)
            manifests = [m for m in world.seen.messages if m.topic.endswith("/manifest")]
            last = read(FlTopic.parse(manifests[-1].topic), manifests[-1].payload)[1]
            assert isinstance(last, TransferManifest)
            assert last.chunk_bytes == 20_000

    run(main())


def test_an_aggregator_that_came_back_is_asked_at_once() -> None:
    async def main() -> None:
        async with running() as world:
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            world.says(Kind.AGGREGATOR_STATUS, AggregatorStatus(birth=1, state="online", epoch=1))  # a heartbeat
            world.says(Kind.AGGREGATOR_STATUS, AggregatorStatus(birth=1, state="online", epoch=1), boot="00000002")
            await world.until(lambda: len(world.manifests()) == 2)
            assert len(set(world.manifests())) == 1
            chunks = [t for t in world.seen.topics if "/update/" in t and t.endswith("/0")]
            assert len(chunks) == 1  # the manifest alone

    run(main())


@pytest.mark.parametrize("what", ["statistics", "review", "mark_served", "compare", "train_local", "accepted", "train"])
def test_whatever_fails_the_next_round_is_taken_part_in(what: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running() as world:
            world.bench.fail[what] = RuntimeError("something broke")
            world.core._statistics_of = None
            world.federation.do(world.core.on_counts(Counts(samples=101, matured=101, new=101, trainable=61)))
            world.core.held[2] = manifest_of(2)
            world.says(Kind.MODEL_CANDIDATE, manifest_of(2))
            world.says(Kind.ROUND, round_of(1, 1))
            if what != "train":
                await world.until(lambda: len(world.manifests()) == 1)
                world.says(Kind.RECEIPT, Receipt(id=world.manifests()[0], result="accepted"))
            world.says(Kind.MODEL_CURRENT, manifest_of(2))
            await world.until(lambda: 2 in world.served)
            world.says(Kind.ROUND, round_of(2, 2))
            before = 0 if what == "train" else 1
            await world.until(lambda: len(set(world.manifests())) > before)
            assert world.bench.fail == {}
            assert "something broke" in caplog.text
            assert world.core.trainer_reason is None

    run(main())


def test_refused_access_still_ends_it() -> None:
    async def main() -> None:
        world = World()
        world.broker.denied_filters = frozenset({"fl/v1/tiny/down/plan"})
        with pytest.raises(ExceptionGroup) as caught:
            await world.federation.run()
        assert caught.group_contains(BrokerRefused)

    run(main())


def test_a_plan_that_can_not_be_followed_is_counted() -> None:
    async def main() -> None:
        async with running() as world:
            world.says(Kind.AGGREGATOR_STATUS, AggregatorStatus(birth=1, state="online", epoch=1))
            features = CONTRACT.model_dump() | {"federation": "tiny", "features": CONTRACT.features[:1]}
            contract = Contract.model_validate(features)
            other = plan_of().model_copy(update={"contract": contract, "contract_hash": contract.meaning_sha256})
            world.says(Kind.PLAN, other)
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(world.manifests)
            assert world.federation.rejected["PayloadError"] == 1
            assert world.core.plan == plan_of()

    run(main())


def test_the_end_of_an_update_is_passed_on_with_its_code() -> None:
    async def main() -> None:
        async with running() as world:
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            world.says(Kind.RECEIPT, Receipt(id=world.manifests()[0], result="rejected", code=Code.LATE))
            await world.until(world.last_update)
            assert world.bench.settled == [(1, "rejected", Code.LATE)]

    run(main())


def test_an_update_that_no_chunk_size_gets_through_was_never_judged() -> None:
    async def main() -> None:
        async with running() as world:
            world.bench.size = 20_000
            world.says(Kind.ROUND, round_of(1, 1))
            await world.until(lambda: len(world.manifests()) == 1)
            asked = 1
            while world.last_update() is None:  # whenever it asks, every chunk is missing: 15 KiB is the smallest
                said = AggregatorStatus(birth=1, state="online", epoch=1)
                world.says(Kind.AGGREGATOR_STATUS, said, boot=f"{asked:08x}")
                await world.until(lambda: len(world.manifests()) > asked or world.last_update())  # noqa: B023 - at once
                asked = len(world.manifests())
                world.says(Kind.RECEIPT, Receipt(id=world.manifests()[0], result="missing", chunks=(0, 1)))
            assert world.bench.settled == [(1, None, Code.OVERSIZED)]

    run(main())


def test_an_update_of_before_the_restart_is_asked_after_without_its_bytes() -> None:
    async def main() -> None:
        world = World()
        left = TrainedUpdate(b"what was under way", 7, 2, "a" * 64, 10, 5, 0.1)
        world.bench.left = left
        async with running(world):
            await world.until(lambda: len(world.manifests()) == 1)
            manifest = next(m for m in world.seen.messages if m.topic.endswith("/manifest"))
            body = read(FlTopic.parse(manifest.topic), manifest.payload)[1]
            assert isinstance(body, TransferManifest)
            assert (body.id, body.round_number, body.attempt, body.base) == (left.transfer, 7, 2, "a" * 64)
            assert not [t for t in world.seen.topics if "/update/" in t and t.endswith("/0")]
            world.says(Kind.RECEIPT, Receipt(id=body.id, result="missing", chunks=(0,)))
            await world.until(lambda: [t for t in world.seen.topics if "/update/" in t and t.endswith("/0")])
            world.says(Kind.RECEIPT, Receipt(id=body.id, result="accepted"))
            await world.until(world.last_update)
            assert world.bench.settled == [(7, "accepted", None)]

    run(main())


def test_the_reference_is_handed_on_and_so_is_its_end() -> None:
    async def main() -> None:
        async with running() as world:
            reference = BODIES[Kind.REFERENCE]
            world.says(Kind.REFERENCE, reference)
            world.broker.route(Message(str(FlTopic("tiny", Kind.REFERENCE)), b""), retain=True)
            assert [await world.references.get(), await world.references.get()] == [reference, None]

    run(main())
