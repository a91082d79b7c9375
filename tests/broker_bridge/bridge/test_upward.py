"""One participant's way up as a pure core: silence, questions, order, answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_bridge.bridge.custody import Held
from broker_bridge.bridge.inspection import Passed, Refusal, Why
from broker_bridge.bridge.upward import Answer, Effect, Judge, Rechunk, Settle, TurnedAway, Upward
from tests.broker_bridge.bridge.examples import ENVELOPE, PARTICIPANT, PLAN, manifest_of, sealed, topic, update
from uns_topics.codes import Code
from uns_topics.rounds import Receipt
from uns_topics.topics import Kind
from uns_topics.transfers import TransferManifest, chunk_of

CONTENT = update()
MANIFEST = manifest_of(CONTENT, chunk_bytes=100)


@dataclass
class World:
    """The core with a judge that lets everything pass unless told otherwise."""

    core: Upward = field(default_factory=lambda: Upward(PARTICIPANT, [], []))
    refuse: Refusal | None = None
    log: list[Effect] = field(default_factory=list)
    positions: int = 0

    def __post_init__(self) -> None:
        self.core.on_plan(PLAN)

    def do(self, effects: list[Effect]) -> list[Effect]:
        self.log += effects
        for effect in effects:
            if isinstance(effect, Judge):
                if self.refuse is not None:
                    self.do(self.core.on_refused(effect.manifest.id, self.refuse))
                else:
                    self.positions += 1
                    self.core.on_held(Held(self.positions, effect.envelope, effect.manifest, effect.line, 0.0))
        return effects

    def announce(self, manifest: TransferManifest = MANIFEST, now: float = 0.0) -> list[Effect]:
        place = topic(Kind.UPDATE_MANIFEST, transfer=manifest.id)
        return self.do(self.core.on_manifest(Passed(place, "allow[0]", ENVELOPE, manifest, sealed(manifest)), now))

    def chunks(self, *indices: int, manifest: TransferManifest = MANIFEST, content: bytes = CONTENT) -> list[Effect]:
        return [e for i in indices for e in self.do(self.core.on_chunk(chunk_of(content, manifest, i), 0.0))]

    def whole(self, number: int) -> TransferManifest:
        content = update(round_number=number)
        manifest = manifest_of(content, round_number=number, chunk_bytes=100)
        self.announce(manifest)
        self.chunks(*range(len(manifest.chunks)), manifest=manifest, content=content)
        return manifest


ALL = tuple(range(len(MANIFEST.chunks)))


def test_a_whole_transfer_is_judged_held_and_not_answered() -> None:
    world = World()
    assert world.announce() == []
    (judge,) = world.chunks(*ALL)
    assert judge == Judge(MANIFEST, ENVELOPE, "allow[0]", CONTENT)
    assert [held.manifest for held in world.core.queue] == [MANIFEST]
    assert world.announce() == []  # its sender asks: the answer is still to come
    assert world.chunks(*ALL) == []


def test_who_asks_hears_what_is_missing() -> None:
    world = World()
    world.announce()
    world.chunks(0)
    assert world.announce() == [Answer(Receipt(id=MANIFEST.id, result="missing", chunks=ALL[1:]))]


def test_the_answer_from_above_is_passed_on_once_and_given_again_to_who_asks() -> None:
    world = World()
    world.announce()
    world.chunks(*ALL)
    receipt = Receipt(id=MANIFEST.id, result="accepted")
    assert world.do(world.core.on_answered(receipt)) == [Settle(receipt)]
    assert world.core.queue == ()
    assert world.core.on_answered(receipt) == []
    assert world.announce() == [Answer(receipt)]


def test_what_is_refused_is_answered_and_not_judged_twice() -> None:
    world = World(refuse=Refusal(Why.CONTENT, "no update"))
    world.announce()
    world.chunks(*ALL)
    rejected = Receipt(id=MANIFEST.id, result="rejected", code=Code.POLICY)
    assert world.log[1:] == [TurnedAway(Refusal(Why.CONTENT, "no update")), Settle(rejected)]
    assert world.announce() == [Answer(rejected)]
    assert world.core.queue == ()


def test_a_chunk_that_differs_from_its_manifest_ends_the_transfer() -> None:
    world = World()
    world.announce()
    other = update(round_number=9)
    effects = world.chunks(0, content=other[:100] + CONTENT[100:])
    turned, settled = effects
    assert isinstance(turned, TurnedAway)
    assert turned.refusal.why is Why.INTEGRITY
    assert settled == Settle(Receipt(id=MANIFEST.id, result="rejected", code=Code.POLICY))


def test_without_a_plan_nothing_is_judged_and_nothing_is_lost() -> None:
    core = Upward(PARTICIPANT, [], [])
    place = topic(Kind.UPDATE_MANIFEST, transfer=MANIFEST.id)
    passed = Passed(place, "allow[0]", ENVELOPE, MANIFEST, b"")
    (turned,) = core.on_manifest(passed, 0.0)
    assert isinstance(turned, TurnedAway)
    assert turned.refusal.why is Why.NO_PLAN  # and no receipt: its sender keeps it
    core.on_plan(PLAN)
    assert core.on_manifest(passed, 5.0) == []
    for index in ALL:
        effects = core.on_chunk(chunk_of(CONTENT, MANIFEST, index), 5.0)
    assert isinstance(effects[0], Judge)


def test_order_is_kept_and_survives_a_restart() -> None:
    world = World()
    first, second = world.whole(1), world.whole(2)
    assert [held.manifest.id for held in world.core.queue] == [first.id, second.id]
    again = Upward(PARTICIPANT, world.core.queue, [])
    assert again.queue == world.core.queue


def test_a_receipt_that_was_kept_answers_after_a_restart() -> None:
    receipt = Receipt(id=MANIFEST.id, result="rejected", code=Code.LATE)
    world = World(core=Upward(PARTICIPANT, [], [receipt]))
    assert world.announce() == [Answer(receipt)]


def test_held_bytes_in_other_chunks_need_not_come_again() -> None:
    world = World()
    world.announce()
    world.chunks(*ALL)
    smaller = manifest_of(CONTENT, chunk_bytes=50)
    (held,) = world.core.queue
    assert world.announce(smaller) == [Rechunk(held, ENVELOPE, smaller)]


def test_other_chunks_don_t_forget_that_some_may_have_left() -> None:
    world = World()
    manifest = world.whole(1)
    world.core.on_begun(manifest.id)
    smaller = manifest_of(update(round_number=1), round_number=1, chunk_bytes=50)
    renewed = world.core.on_rechunked(ENVELOPE, smaller)
    assert renewed is not None
    assert (renewed.manifest, renewed.begun) == (smaller, True)
    assert world.core.queue == (renewed,)


def test_what_was_answered_is_neither_begun_nor_chunked_again() -> None:
    world = World()
    manifest = world.whole(1)
    world.do(world.core.on_answered(Receipt(id=manifest.id, result="accepted")))
    world.core.on_begun(manifest.id)
    assert world.core.on_rechunked(ENVELOPE, manifest) is None
    assert world.core.queue == ()


def test_chunks_that_are_too_large_for_the_uplink_aren_t_taken() -> None:
    world = World()
    world.core.limit = 99
    assert world.announce() == []
    assert world.chunks(*ALL) == []
    smaller = manifest_of(CONTENT, chunk_bytes=50)
    world.announce(smaller)
    world.chunks(*range(len(smaller.chunks)), manifest=smaller)
    assert len(world.core.queue) == 1


def test_what_is_dropped_is_answered() -> None:
    world = World()
    manifest = world.whole(1)
    effects = world.core.on_dropped(manifest.id, Why.EXPIRED, "it waited too long")
    assert effects[1] == Settle(Receipt(id=manifest.id, result="rejected", code=Code.LATE))
    assert world.core.queue == ()


def test_a_transfer_that_could_not_be_stored_is_asked_for_again() -> None:
    world = World()
    world.core.on_manifest(Passed(topic(Kind.UPDATE_MANIFEST, transfer=MANIFEST.id), "l", ENVELOPE, MANIFEST, b""), 0.0)
    for index in ALL:
        world.core.on_chunk(chunk_of(CONTENT, MANIFEST, index), 0.0)
    world.core.on_not_held(MANIFEST.id)
    assert world.announce() == []  # opened anew
    assert world.announce() == [Answer(Receipt(id=MANIFEST.id, result="missing", chunks=ALL))]
