"""One federation's way down as a pure core: mirrored JSON, models only while they are wanted, nothing fetched twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from broker_bridge.bridge.custody import Mirrored
from broker_bridge.bridge.downward import (
    LINGER_S,
    Downward,
    Drop,
    Effect,
    Keep,
    Mirror,
    PlanCame,
    Rechunk,
    WantsChanged,
)
from broker_bridge.downloads import STALLED_S, Subscribe, Unsubscribe
from tests.broker_bridge.bridge.examples import FEDERATION, PLAN, sealed, topic
from tests.contracts.examples import BODIES, TABLE, TEMPLATE, VECTOR, VERSION
from uns_topics.controls import join_full
from uns_topics.model import Value
from uns_topics.presence import Want
from uns_topics.rounds import VersionManifest
from uns_topics.tensors import Role, vector_bytes, vector_sha256
from uns_topics.topics import Kind
from uns_topics.transfers import KIB, TransferManifest, chunk_of, make_manifest


def content_of(number: int) -> bytes:
    return vector_bytes(VECTOR + number)


def version(number: int, *, chunk_bytes: int = 15 * KIB, delta: bytes | None = None) -> VersionManifest:
    return VERSION.model_copy(
        update={
            "version": number,
            "sha256": vector_sha256(VECTOR + number),
            "full": make_manifest(content_of(number), "model", chunk_bytes, version=number),
            "delta": make_manifest(delta, "delta", 15 * KIB, version=number) if delta is not None else None,
        }
    )


@dataclass
class World:
    core: Downward = field(default_factory=lambda: Downward(FEDERATION, None, []))
    log: list[Effect] = field(default_factory=list)
    subscribed: set[str] = field(default_factory=set)
    at_plant: dict[str, bytes] = field(default_factory=dict)

    def do(self, effects: list[Effect]) -> list[Effect]:
        self.log += effects
        for effect in effects:
            match effect:
                case Subscribe(topics):
                    self.subscribed |= set(topics)
                case Unsubscribe(topics):
                    self.subscribed -= set(topics)
                case Mirror(place, payload):
                    self.at_plant[str(place)] = payload
                case Keep(manifest, _):
                    self.core.on_kept(manifest)
        return effects

    def say(self, kind: Kind, body: Value | None, now: float = 0.0) -> list[Effect]:
        payload = sealed(body, "aggregator") if body is not None else b""
        return self.do(self.core.on_json(topic(kind), payload, body, now))

    def deliver(self, content: bytes, manifest: TransferManifest, now: float = 0.0) -> list[Effect]:
        done: list[Effect] = []
        for index in range(len(manifest.chunks)):
            done += self.do(self.core.on_chunk(chunk_of(content, manifest, index), now))
        return done

    def of(self, kind: type) -> list[Effect]:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def fetched(self, number: int, now: float = 0.0) -> None:
        self.deliver(content_of(number), version(number).full, now)


def test_json_is_mirrored_as_it_came() -> None:
    world = World()
    for kind in (Kind.AGGREGATOR_STATUS, Kind.ROUND, Kind.HISTORY):
        world.say(kind, BODIES[kind])
        assert world.at_plant[str(topic(kind))] == sealed(BODIES[kind], "aggregator")
    world.say(Kind.ROUND, None)
    assert world.at_plant[str(topic(Kind.ROUND))] == b""


def test_a_plan_brings_its_skeleton_and_a_judge() -> None:
    world = World()
    effects = world.say(Kind.PLAN, PLAN)
    assert PlanCame(PLAN, sealed(PLAN, "aggregator")) in effects
    assert world.subscribed == {"fl/v1/solder-defect/down/skeleton/0"}
    effects = world.deliver(TEMPLATE.skeleton, PLAN.template.skeleton)
    assert Keep(PLAN.template.skeleton, TEMPLATE.skeleton) in effects
    assert world.subscribed == set()
    assert PlanCame(PLAN, sealed(PLAN, "aggregator")) in world.say(Kind.PLAN, PLAN)  # a repetition fetches nothing
    assert world.subscribed == set()


def test_a_full_model_comes_only_when_it_is_wanted() -> None:
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2))
    assert world.subscribed == set()
    world.do(world.core.on_wants("berlin", [Want.CURRENT], 1.0))
    assert world.subscribed == {"fl/v1/solder-defect/down/model/2/0"}
    world.fetched(2)
    assert world.of(Keep) == [Keep(version(2).full, content_of(2))]
    world.do(world.core.on_wants("lyon", [Want.CURRENT], 2.0))  # it is there already
    assert world.subscribed == set()
    assert len(world.of(Subscribe)) == 1


def test_a_delta_comes_without_being_wanted() -> None:
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2, delta=b"the step"))
    assert world.subscribed == {"fl/v1/solder-defect/down/delta/2/0"}
    world.deliver(b"the step", make_manifest(b"the step", "delta", 15 * KIB, version=2))
    assert isinstance(world.of(Keep)[0], Keep)
    world.do(world.core.on_wants("porto", [Want.CURRENT], 2.0))  # a late joiner
    assert world.subscribed == {"fl/v1/solder-defect/down/model/2/0"}


def test_a_want_that_goes_away_stops_no_fetch() -> None:
    """A participant whose broker flaps says for a moment that it wants nothing."""
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2))
    world.do(world.core.on_wants("berlin", [Want.CURRENT], 0.0))
    world.do(world.core.on_wants("berlin", [], 1.0))
    assert world.subscribed == {"fl/v1/solder-defect/down/model/2/0"}


def test_a_promoted_candidate_is_not_fetched_again_in_whichever_order_it_is_said() -> None:
    for clear_first in (True, False):
        world = World()
        world.say(Kind.MODEL_CURRENT, version(2))
        world.say(Kind.MODEL_CANDIDATE, version(3))
        world.do(world.core.on_wants("berlin", [Want.CURRENT, Want.CANDIDATE], 0.0))
        world.fetched(2)
        world.fetched(3)
        steps = [(Kind.MODEL_CANDIDATE, None), (Kind.MODEL_CURRENT, version(3))]
        for kind, body in steps if clear_first else reversed(steps):
            world.say(kind, body, 10.0)
        assert world.subscribed == set()
        assert world.of(Drop) == []
        assert world.core.deadline == 10.0 + LINGER_S
        world.do(world.core.on_time(10.0 + LINGER_S))
        assert world.of(Drop) == [Drop(version(2).full)]
        assert len(world.of(Keep)) == 2
        assert world.core.deadline is None


def test_a_refused_candidate_is_cleared_after_a_while() -> None:
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2))
    world.say(Kind.MODEL_CANDIDATE, version(3))
    world.do(world.core.on_wants("berlin", [Want.CANDIDATE], 0.0))
    world.fetched(3)
    world.say(Kind.MODEL_CANDIDATE, None, 5.0)
    assert world.of(Drop) == []
    world.do(world.core.on_time(5.0 + LINGER_S))
    assert world.of(Drop) == [Drop(version(3).full)]


def test_a_reconnect_asks_only_for_what_is_missing() -> None:
    world = World()
    long = version(2, chunk_bytes=10)
    world.say(Kind.MODEL_CURRENT, long)
    world.do(world.core.on_wants("berlin", [Want.CURRENT], 0.0))
    world.do(world.core.on_chunk(chunk_of(content_of(2), long.full, 1), 1.0))
    world.log.clear()
    world.do(world.core.on_connected(2.0))
    assert world.log == [Subscribe(tuple(f"fl/v1/solder-defect/down/model/2/{i}" for i in (0, 2)))]


def test_what_stalls_is_said_upwards_and_taken_back() -> None:
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2))
    world.do(world.core.on_wants("berlin", [Want.CURRENT], 0.0))
    effects = world.do(world.core.on_time(STALLED_S))
    assert WantsChanged() in effects
    assert world.core.wants == (Want.CURRENT,)
    world.log.clear()
    world.fetched(2, STALLED_S + 1)
    assert WantsChanged() in world.log
    assert world.core.wants == ()


def test_a_restart_fetches_nothing_that_the_disk_has() -> None:
    core = Downward(FEDERATION, PLAN, [Mirrored(PLAN.template.skeleton, b"s"), Mirrored(version(2).full, b"m")])
    world = World(core=core)
    world.do(core.on_connected(0.0))
    world.say(Kind.PLAN, PLAN)
    world.say(Kind.MODEL_CURRENT, version(2))
    world.do(core.on_wants("berlin", [Want.CURRENT], 0.0))
    assert world.subscribed == set()
    assert world.of(Drop) == []


def test_a_restart_goes_on_clearing() -> None:
    core = Downward(FEDERATION, PLAN, [Mirrored(version(1).full, None)])
    assert core.start() == [Drop(version(1).full)]
    assert core.start() == []


def test_other_chunks_of_a_held_model_need_not_come_again() -> None:
    world = World()
    world.say(Kind.MODEL_CURRENT, version(2))
    world.do(world.core.on_wants("berlin", [Want.CURRENT], 0.0))
    world.fetched(2)
    smaller = version(2, chunk_bytes=10)
    assert Rechunk(version(2).full, smaller.full) in world.say(Kind.MODEL_CURRENT, smaller)
    assert world.subscribed == set()


def test_two_versions_of_the_very_same_bytes_are_both_put_up() -> None:
    world = World()
    twin = version(2).model_copy(
        update={"version": 3, "full": make_manifest(content_of(2), "model", 15 * KIB, version=3)}
    )
    world.say(Kind.MODEL_CURRENT, version(2))
    world.say(Kind.MODEL_CANDIDATE, twin)
    world.do(world.core.on_wants("berlin", [Want.CURRENT, Want.CANDIDATE], 0.0))
    world.fetched(2)
    assert {keep.manifest.version for keep in world.of(Keep)} == {2, 3}  # type: ignore[attr-defined]


def test_what_was_cleared_while_we_were_away_is_cleared_below() -> None:
    world = World()
    for kind in (Kind.PLAN, Kind.ROUND, Kind.MODEL_CANDIDATE):
        world.say(kind, BODIES[kind])
    noted = [topic(Kind.PLAN), topic(Kind.ROUND), topic(Kind.MODEL_CANDIDATE)]
    world.do(world.core.on_connected(10.0))
    assert world.core.reconcile(noted, 15.0) == []  # a broker that lost everything has cleared nothing
    world.say(Kind.PLAN, PLAN, 16.0)
    world.do(world.core.reconcile(noted, 20.0))
    assert world.at_plant[str(topic(Kind.ROUND))] == b""
    assert world.at_plant[str(topic(Kind.MODEL_CANDIDATE))] == b""
    assert world.at_plant[str(topic(Kind.PLAN))] != b""


def test_a_model_of_another_size_than_the_plan_s_tensors_is_not_fetched() -> None:
    """With a control variate a version takes more bytes, in that plan alone."""
    control = np.ones(TABLE.elements(Role.WEIGHT), np.float32)
    larger = make_manifest(join_full(VECTOR + 2, control), "model", 15 * KIB, version=2)
    with_control = version(2).model_copy(update={"full": larger, "control": vector_sha256(control)})
    for has_control, body, fits in (
        (False, version(2), True),
        (False, with_control, False),
        (True, version(2), False),
        (True, with_control, True),
    ):
        world = World()
        world.say(Kind.PLAN, PLAN.model_copy(update={"control": has_control}))
        world.say(Kind.MODEL_CURRENT, body)
        world.do(world.core.on_wants("berlin", (Want.CURRENT,), 0.0))
        assert any("/down/model/2/" in topic for topic in world.subscribed) == fits
