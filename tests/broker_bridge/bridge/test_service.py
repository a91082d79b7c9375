"""The bridge as a service between two brokers in memory: what passes, what waits, what comes back after faults."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.bridge.inspection import Why
from broker_bridge.bridge.ledger import FOLDER, Departure, Entry, LedgerError
from broker_bridge.bridge.ledger import read as read_ledger
from broker_bridge.bridge.pause import COMMAND_FILE
from broker_bridge.bridge.service import Bridge, Surroundings
from broker_bridge.memory import MemoryBroker
from broker_bridge.session import Message
from tests.aio import run
from tests.broker_bridge.bridge.examples import FEDERATION, PARTICIPANT, PLAN, manifest_of, policy, topic, update
from tests.broker_bridge.bridge.world import UPLINK, World
from tests.contracts.examples import BODIES
from uns_topics.codes import Code
from uns_topics.payloads import Writer, read
from uns_topics.presence import BridgeStatus, ParticipantState, Route, Want
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind

CONTENT = update()
MANIFEST = manifest_of(CONTENT, chunk_bytes=100)


def bridged(folder: Path, test: Callable[[World], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test in a world whose bridge is up and has the plan."""

    async def main() -> None:
        world = World(folder, **settings)
        async with world.watching(), world.running():
            await world.give_plan()
            await test(world)

    run(main())


def _nobody() -> Any:
    """A broker that isn't there."""
    away = MemoryBroker()
    away.reachable = False
    return away.connector()


def crossing(world: World) -> Any:
    assert world.bridge is not None
    return world.bridge.crossings[FEDERATION, PARTICIPANT]


def test_an_update_goes_up_and_its_answer_comes_down(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.arrived(MANIFEST) == CONTENT)
        assert world.receipts() == []
        assert len(crossing(world).queue) == 1  # held until it is answered
        await world.answer(MANIFEST)
        await world.until(lambda: world.receipts() == [Receipt(id=MANIFEST.id, result="accepted")])
        assert crossing(world).queue == ()
        (manifest,) = [m for m in world.up() if m.topic.endswith("/manifest")]
        place = topic(Kind.UPDATE_MANIFEST, transfer=MANIFEST.id)
        envelope, body = read(place, manifest.payload)
        assert (envelope.sender, body) == (PARTICIPANT, MANIFEST)  # in its participant's own name

    bridged(tmp_path, test)


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.STATISTICS, Kind.EVALUATION, Kind.DATA_QUALITY, Kind.LAST_UPDATE])
def test_reports_go_up_retained_once(tmp_path: Path, kind: Kind) -> None:
    async def test(world: World) -> None:
        body = BODIES[kind].model_copy(update={"via": ("gate",)} if kind is Kind.STATUS else {})
        await world.say_below(kind, body)
        place = topic(kind)
        await world.until(lambda: str(place) in world.uplink.retained)
        assert read(place, world.uplink.retained[str(place)].payload)[1] == body
        assert world.plant.retained[str(place)].payload == world.uplink.retained[str(place)].payload
        world.plant.route(Message(str(place), world.plant.retained[str(place)].payload), retain=True)  # redelivered
        await world.say_status()
        statuses = 2 if kind is Kind.STATUS else 1
        await world.until(lambda: sum(m.topic == str(topic(Kind.STATUS)) for m in world.up()) == statuses)
        assert sum(m.topic == str(place) for m in world.up()) == statuses

    bridged(tmp_path, test)


def test_a_clear_goes_up(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        place = str(topic(Kind.STATISTICS))
        await world.say_below(Kind.STATISTICS, BODIES[Kind.STATISTICS])
        await world.until(lambda: place in world.uplink.retained)
        await world.say_below(Kind.STATISTICS, None)
        await world.until(lambda: place not in world.uplink.retained)

    bridged(tmp_path, test)


def test_what_was_cleared_while_the_bridge_was_away_is_cleared_above(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        place = str(topic(Kind.STATISTICS))
        async with world.watching():
            async with world.running():
                await world.give_plan()
                await world.say_below(Kind.STATISTICS, BODIES[Kind.STATISTICS])
                await world.until(lambda: place in world.uplink.retained)
            await world.say_below(Kind.STATISTICS, None)
            await world.say_status()
            async with world.running():
                await world.until(lambda: place not in world.uplink.retained)

    run(main())


def test_a_plant_s_broker_that_lost_everything_has_cleared_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        place = str(topic(Kind.STATISTICS))
        await world.say_below(Kind.STATISTICS, BODIES[Kind.STATISTICS])
        await world.until(lambda: place in world.uplink.retained)
        world.plant.stop(forget=True)
        await world.until(lambda: world.presence() == "offline")
        world.plant.start()
        await world.until(lambda: world.presence() == "online")
        crossing(world).reconcile()  # as some seconds after the connect
        await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])
        await world.until(lambda: str(topic(Kind.ROUND)) in world.plant.retained)
        assert place in world.uplink.retained

    bridged(tmp_path, test)


# A hostile edge -------------------------------------------------------------------------------------------------------

ROWS = b'{"board":"SN-4711","volume":150.25}'


@pytest.mark.parametrize(
    ("text", "payload", "retain", "why"),
    [
        ("up/berlin/rows", ROWS, True, Why.TOPIC),
        ("up/berlin/SN-4711/150.25", b"1", True, Why.TOPIC),
        ("up/berlin/update/0123456789abcdef/rows", ROWS, False, Why.TOPIC),
        ("up/berlin/via/sn-4711", ROWS, True, Why.PAYLOAD),
        ("up/berlin/status", ROWS, True, Why.PAYLOAD),
        ("up/berlin/join", ROWS, False, Why.KIND),
        (f"up/berlin/update/{MANIFEST.id}/0", ROWS, True, Why.PAYLOAD),
        (f"up/berlin/update/{MANIFEST.id}/0", ROWS, False, Why.PAYLOAD),
        ("up/berlin/update/0123456789abcdef/manifest", ROWS, False, Why.PAYLOAD),
    ],
)
def test_nothing_of_one_s_own_leaves(tmp_path: Path, text: str, payload: bytes, retain: bool, why: Why) -> None:
    async def test(world: World) -> None:
        assert world.below_session is not None
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        before = len(world.up())
        await world.below_session.publish(f"fl/v1/{FEDERATION}/{text}", payload, retain=retain)
        await world.until(lambda: crossing(world).refused[why])
        await world.send(CONTENT, MANIFEST)  # an honest one behind it: whatever passed is here by then
        await world.until(lambda: world.arrived(MANIFEST) or world.receipts())
        for message in world.up()[before:]:
            assert b"4711" not in message.payload
            assert "4711" not in message.topic
            assert f"update/{MANIFEST.id}/" in message.topic

    bridged(tmp_path, test)


def test_what_lies_retained_where_nothing_is_retained_stays(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        async with world.watching():
            assert world.below_session is not None
            place = str(topic(Kind.UPDATE_CHUNK, transfer=MANIFEST.id, index=0))
            await world.below_session.publish(place, ROWS, retain=True)
            async with world.running():
                await world.until(lambda: crossing(world).refused[Why.TOPIC])
            assert not any(ROWS in m.payload for m in world.above)

    run(main())


def test_an_update_with_rows_in_it_is_answered_with_policy(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        hostile = CONTENT + ROWS
        manifest = manifest_of(hostile, chunk_bytes=100)
        await world.send(hostile, manifest)
        rejected = Receipt(id=manifest.id, result="rejected", code=Code.POLICY)
        await world.until(lambda: world.receipts() == [rejected])
        await world.send(hostile, manifest)  # once more
        await world.until(lambda: world.receipts() == [rejected, rejected])
        assert [m for m in world.up() if "/update/" in m.topic] == []
        assert crossing(world).refused[Why.CONTENT] == 1

    bridged(tmp_path, test)


def test_what_no_line_allows_is_answered_with_policy(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.say_status()
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.receipts() and any(m.topic.endswith("berlin/status") for m in world.up()))
        assert world.receipts()[0] == Receipt(id=MANIFEST.id, result="rejected", code=Code.POLICY)
        assert {m.topic for m in world.up()} == {str(topic(Kind.VIA, bridge="gate")), str(topic(Kind.STATUS))}

    bridged(tmp_path, test, policy=policy("status", "presence"))


def test_a_second_manifest_of_held_bytes_says_nothing_new(tmp_path: Path) -> None:
    """Only the chunking of a held update may change: the rest was set against its header."""

    async def test(world: World) -> None:
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: crossing(world).queue)
        before = len(world.up())
        other = manifest_of(CONTENT, chunk_bytes=50).model_copy(update={"base": "cafe" * 16, "round_number": 4711})
        await world.say_below(Kind.UPDATE_MANIFEST, other, transfer=other.id)
        await world.until(lambda: crossing(world).refused[Why.INTEGRITY])
        assert all(b"cafe" not in m.payload and b"4711" not in m.payload for m in world.up()[before:])

    bridged(tmp_path, test)


def test_the_bridge_s_own_presence_can_t_be_forged(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.until(lambda: world.presence() == "online")
        gate = Writer(FEDERATION, "gate", "0000000f")
        await world.say_below(Kind.VIA, BridgeStatus(birth=1, state="offline"), gate, bridge="gate")
        await world.until(lambda: crossing(world).refused[Why.UNDECLARED])
        await world.say_below(Kind.VIA, None, bridge="gate")
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        assert world.presence() == "online"

    bridged(tmp_path, test)


def test_another_participant_s_name_is_no_way_out(tmp_path: Path) -> None:
    """A bridge carries its own participants only, whoever writes to the plant's broker."""

    async def test(world: World) -> None:
        assert world.below_session is not None
        lyon = Writer(FEDERATION, "lyon", "0000000f")
        await world.below_session.publish(str(FlTopic(FEDERATION, Kind.STATUS, "lyon")), lyon.seal(BODIES[Kind.STATUS]))
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        assert not any("lyon" in m.topic for m in world.up())

    bridged(tmp_path, test)


# Store and forward ----------------------------------------------------------------------------------------------------


def test_updates_wait_on_disk_and_go_up_in_order(tmp_path: Path) -> None:
    contents = [update(round_number=n) for n in (1, 2, 3)]
    manifests = [manifest_of(c, round_number=n, chunk_bytes=100) for n, c in enumerate(contents, 1)]

    async def main() -> None:
        world = World(tmp_path)
        async with world.watching():
            async with world.running():
                await world.give_plan()
                world.uplink.reachable = False
                world.uplink.drop(f"{PARTICIPANT}_{FEDERATION}_gate")
                for content, manifest in zip(contents, manifests, strict=True):
                    await world.send(content, manifest)
                await world.until(lambda: len(crossing(world).queue) == 3)
            world.uplink.reachable = True
            async with world.running():  # another process, the same disk
                for content, manifest in zip(contents, manifests, strict=True):
                    await world.until(lambda m=manifest, c=content: world.arrived(m) == c)  # type: ignore[misc]
                    await world.answer(manifest)
                await world.until(lambda: crossing(world).queue == ())
            order = [m.topic.split("/")[6] for m in world.up() if m.topic.endswith("/manifest")]
            assert order == [m.id for m in manifests]
            assert [r.id for r in world.receipts()] == [m.id for m in manifests]

    run(main())


def test_a_receipt_that_its_participant_missed_is_given_again(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        async with world.watching():
            async with world.running():
                await world.give_plan()
                await world.send(CONTENT, MANIFEST)
                await world.until(lambda: world.arrived(MANIFEST))
                await world.answer(MANIFEST)
                await world.until(lambda: world.receipts())
            async with world.running():
                before = len([m for m in world.up() if "/update/" in m.topic])
                await world.say_below(Kind.UPDATE_MANIFEST, MANIFEST, transfer=MANIFEST.id)
                await world.until(lambda: len(world.receipts()) == 2)
                assert world.receipts()[0] == world.receipts()[1]
                assert len([m for m in world.up() if "/update/" in m.topic]) == before  # nothing leaves twice

    run(main())


def test_an_uplink_that_comes_back_is_asked_and_only_what_is_missing_goes_again(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.arrived(MANIFEST))
        world.uplink.drop(f"{PARTICIPANT}_{FEDERATION}_gate")
        await world.until(lambda: sum(m.topic.endswith("/manifest") for m in world.up()) == 2)
        await world.answer(MANIFEST, "missing", chunks=(1,))
        last = str(topic(Kind.UPDATE_CHUNK, transfer=MANIFEST.id, index=1))
        await world.until(lambda: sum(m.topic == last for m in world.up()) == 2)
        chunks = [m.topic for m in world.up() if "/update/" in m.topic and not m.topic.endswith("/manifest")]
        assert len(chunks) == len(MANIFEST.chunks) + 1
        assert world.receipts() == []  # the question was the bridge's own

    bridged(tmp_path, test)


def test_too_old_and_too_many_are_dropped_and_answered(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.uplink.reachable = False
        world.uplink.drop(f"{PARTICIPANT}_{FEDERATION}_gate")
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: crossing(world).queue)
        world.now += 3601
        crossing(world).heartbeat()
        await world.until(lambda: world.receipts())
        assert world.receipts() == [Receipt(id=MANIFEST.id, result="rejected", code=Code.LATE)]
        assert crossing(world).refused[Why.EXPIRED] == 1

    bridged(tmp_path, test, queue={"max_bytes": 1 << 20, "max_age_s": 3600})


def test_a_full_queue_gives_up_the_oldest(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.bridge is not None
        world.uplink.reachable = False
        world.uplink.drop(f"{PARTICIPANT}_{FEDERATION}_gate")
        contents = [update(round_number=n) for n in (1, 2, 3)]
        manifests = [manifest_of(c, round_number=n) for n, c in enumerate(contents, 1)]
        most = len(contents[0]) + len(contents[1])
        world.bridge._config = world.config.model_copy(
            update={"queue": world.config.queue.model_copy(update={"max_bytes": most})}
        )
        for content, manifest in zip(contents, manifests, strict=True):
            await world.send(content, manifest)
        await world.until(lambda: world.receipts())
        assert world.receipts() == [Receipt(id=manifests[0].id, result="rejected", code=Code.BUDGET)]
        await world.until(lambda: [h.manifest.id for h in crossing(world).queue] == [m.id for m in manifests[1:]])

    bridged(tmp_path, test)


def test_an_update_before_any_plan_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        async with world.watching(), world.running():
            await world.send(CONTENT, MANIFEST)
            await world.say_below(Kind.STATISTICS, BODIES[Kind.STATISTICS])
            await world.until(lambda: crossing(world).refused[Why.NO_PLAN] == 2)
            assert world.receipts() == []
            await world.give_plan()
            await world.until(lambda: str(topic(Kind.STATISTICS)) in world.uplink.retained)
            await world.say_below(Kind.UPDATE_MANIFEST, MANIFEST, transfer=MANIFEST.id)  # as its sender does after 5 s
            await world.send(CONTENT, MANIFEST)
            await world.until(lambda: world.arrived(MANIFEST) == CONTENT)

    run(main())


def test_the_plan_is_known_after_a_restart_without_an_uplink(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        async with world.watching():
            async with world.running():
                await world.give_plan()
            world.uplink.reachable = False
            async with world.running():
                await world.send(CONTENT, MANIFEST)
                await world.until(lambda: crossing(world).queue)

    run(main())


# The plant's switches and budget --------------------------------------------------------------------------------------


def test_paused_nothing_leaves_but_the_sign_of_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        assert world.presence() == "online"
        (world.config.data_dir / COMMAND_FILE).touch()
        await world.until(lambda: world.presence() == "offline")
        before = len(world.up())
        await world.send(CONTENT, MANIFEST)
        await world.say_status(state=ParticipantState.TRAINING)
        await world.until(lambda: crossing(world).queue)
        crossing(world).heartbeat()
        await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])  # upstream speaks: it changes nothing
        await world.until(lambda: str(topic(Kind.ROUND)) in world.plant.retained)  # and models still come down
        assert world.up()[before:] == []
        (world.config.data_dir / COMMAND_FILE).unlink()
        await world.until(lambda: world.arrived(MANIFEST) == CONTENT)
        assert world.presence() == "online"

    bridged(tmp_path, test)


def test_the_pause_topic_of_the_plant_s_broker(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.below_session is not None
        assert world.above_session is not None
        await world.below_session.publish("acme/berlin/pause", b"true", retain=True)
        await world.until(lambda: world.presence() == "offline")
        await world.above_session.publish("acme/berlin/pause", b"false", retain=True)  # from upstream
        await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])
        await world.until(lambda: str(topic(Kind.ROUND)) in world.plant.retained)
        assert world.bridge is not None
        assert world.bridge.pause.reason == "by its pause topic"
        await world.below_session.publish("acme/berlin/pause", b"false", retain=True)
        await world.until(lambda: world.presence() == "online")

    bridged(tmp_path, test, policy=policy(pause={"topic": "acme/berlin/pause"}))


def test_nothing_that_is_still_there_is_cleared(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        places = {str(topic(Kind.STATISTICS)), str(topic(Kind.STATUS))}
        async with world.watching():
            async with world.running():
                await world.give_plan()
                await world.say_status()
                await world.say_below(Kind.STATISTICS, BODIES[Kind.STATISTICS])
                await world.until(lambda: places <= set(world.uplink.retained))
            before = len(world.above)
            async with world.running():
                crossing(world).reconcile()
                await world.until(lambda: sum(m.topic in places for m in world.above[before:]) >= 2)
            assert places <= set(world.uplink.retained)
            assert not [m for m in world.above[before:] if m.topic in places and not m.payload]

    run(main())


def test_a_pause_of_a_moment_silences_nobody(tmp_path: Path) -> None:
    """Shorter than the bridge looks: what met it is tried again all the same."""

    async def test(world: World) -> None:
        assert world.bridge is not None
        reasons = iter(["by command"])
        world.bridge.egress._paused = lambda: next(reasons, None)
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))

    bridged(tmp_path, test)


def test_a_pause_topic_holds_until_it_was_heard(tmp_path: Path) -> None:
    """A restart while the plant's broker is away lets nothing out."""

    async def main() -> None:
        world = World(tmp_path, policy=policy(pause={"topic": "acme/berlin/pause"}))
        async with world.watching():
            async with world.running():
                await world.give_plan()
                assert world.below_session is not None
                await world.below_session.publish("acme/berlin/pause", b"true", retain=True)
                await world.until(lambda: world.presence() == "offline")
                await world.send(CONTENT, MANIFEST)
                await world.until(lambda: crossing(world).queue)
            stop = asyncio.Event()
            around = Surroundings(
                connect=lambda config: world.uplink.connector() if config.url == UPLINK else _nobody(),
                settle_s=0.05,
                look_s=0.02,
            )
            bridge = Bridge(world.config, world.policy, around)
            task = asyncio.create_task(bridge.run(stop))
            before = len(world.up())
            await world.until(lambda: all(c.uplink.is_up for c in bridge.crossings.values()))
            await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])
            await world.until(lambda: bridge.pause.reason)
            stop.set()
            await task
            bridge.close()
            assert not any("/update/" in m.topic for m in world.up()[before:])

    run(main())


def test_a_plan_and_a_route_that_can_t_be_meant_end_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.above_session is not None
        place = topic(Kind.ROUTE)
        long = Route(bridges=tuple(f"b{i}" for i in range(8)))
        await world.above_session.publish(str(place), Writer(FEDERATION, "b0", "000000d0").seal(long), retain=True)
        text = world.aggregator.seal(PLAN).replace(b'"kind":"skeleton"', b'"kind":"update"')
        await world.above_session.publish(str(topic(Kind.PLAN)), text, retain=True)
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.arrived(MANIFEST))

    bridged(tmp_path, test)


def test_junk_behind_a_whole_transfer_is_no_reason_to_refuse_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.below_session is not None
        await world.send(CONTENT, MANIFEST)
        junk = str(topic(Kind.UPDATE_CHUNK, transfer=MANIFEST.id, index=0))
        await world.below_session.publish(junk, ROWS)
        await world.until(lambda: world.arrived(MANIFEST) == CONTENT)
        await world.answer(MANIFEST)
        await world.until(lambda: world.receipts())
        assert [r.result for r in world.receipts()] == ["accepted"]

    bridged(tmp_path, test)


def test_a_bridge_that_starts_paused_says_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        world.config.data_dir.mkdir()
        (world.config.data_dir / COMMAND_FILE).touch()
        async with world.watching():
            await world.say_status()
            async with world.running():
                await world.give_plan()
                await world.until(lambda: world.presence() == "offline")
                assert {m.topic for m in world.up()} == {str(topic(Kind.VIA, bridge="gate"))}

    run(main())


def test_a_budget_that_is_spent_stops_everything_until_tomorrow(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.bridge is not None
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.receipts())
        assert world.receipts() == [Receipt(id=MANIFEST.id, result="rejected", code=Code.BUDGET)]
        spent = world.bridge.egress.budget.bytes
        assert spent == sum(len(m.payload) for m in world.up()) + len(world.up()[0].payload) + 1  # and the will
        world.now += 86_400
        await world.say_status(state=ParticipantState.TRAINING)
        await world.until(lambda: b'"training"' in world.uplink.retained[str(topic(Kind.STATUS))].payload)

    bridged(tmp_path, test, policy=policy(budget={"bytes_per_day": 4000}))


# The record -----------------------------------------------------------------------------------------------------------


def test_every_message_out_is_on_record_and_so_is_the_will(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.say_status()
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: world.arrived(MANIFEST))
        await world.answer(MANIFEST)
        await world.until(lambda: world.receipts())
        entries = [e for e in read_ledger(world.config.data_dir / FOLDER) if isinstance(e, Entry)]
        out = [(m.topic, hashlib.sha256(m.payload).hexdigest(), len(m.payload)) for m in world.up()]
        recorded = [(e.topic, e.sha256, e.bytes) for e in entries]
        assert recorded[0][0] == str(topic(Kind.VIA, bridge="gate"))  # the will, which left with the connection
        assert Counter(recorded[1:]) == Counter(out)
        chunks = [e for e in entries if e.topic.rpartition("/")[2].isdecimal()]
        assert {e.content for e in chunks} == {MANIFEST.sha256}
        assert {e.policy for e in entries} == {"allow[0]"}

    bridged(tmp_path, test)


def test_what_can_t_be_recorded_doesn_t_leave(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.bridge is not None
        await world.until(lambda: world.presence() == "online")
        record, full = world.bridge.egress._record, True

        def fails(departures: Sequence[Departure]) -> None:
            if full:
                raise LedgerError("the disk is full")
            record(departures)

        world.bridge.egress._record = fails
        before = len(world.up())
        await world.say_status()
        await world.send(CONTENT, MANIFEST)
        await world.until(lambda: crossing(world).queue and world.bridge is not None and world.bridge.egress.problem)
        assert world.up()[before:] == []
        full = False
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        crossing(world)._delivery._upload.on_connected()  # as after five seconds without an answer
        await world.until(lambda: any(m.topic.endswith("/manifest") for m in world.up()))

    bridged(tmp_path, test)


def test_what_left_today_counts_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path, policy=policy(budget={"messages_per_day": 1000}))
        async with world.watching():
            async with world.running() as bridge:
                await world.give_plan()
                await world.say_status()
                await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
                assert bridge.egress.budget.messages >= 3
            entries = len(list(read_ledger(world.config.data_dir / FOLDER)))
            async with world.running() as bridge:
                assert bridge.egress.budget.messages >= entries

    run(main())


# Down -----------------------------------------------------------------------------------------------------------------


def test_a_model_comes_down_when_it_is_wanted_and_is_cleared_when_it_is_old(tmp_path: Path) -> None:
    from tests.broker_bridge.bridge.test_downward import content_of, version

    async def test(world: World) -> None:
        place = str(FlTopic(FEDERATION, Kind.MODEL_CHUNK, version=2, index=0))
        await world.put_above(content_of(2), version(2).full, Kind.MODEL_CHUNK)
        await world.say_above(Kind.MODEL_CURRENT, version(2))
        await world.until(lambda: str(topic(Kind.MODEL_CURRENT)) in world.plant.retained)
        assert place not in world.plant.retained
        await world.say_status(Want.CURRENT)
        await world.until(lambda: place in world.plant.retained)
        await world.put_above(content_of(3), version(3).full, Kind.MODEL_CHUNK)
        await world.say_above(Kind.MODEL_CURRENT, version(3))
        await world.until(lambda: place not in world.plant.retained)

    bridged(tmp_path, test)


def test_a_plant_s_broker_that_lost_everything_gets_it_back(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        skeleton = str(FlTopic(FEDERATION, Kind.SKELETON_CHUNK, index=0))
        world.plant.stop(forget=True)
        await world.until(lambda: world.presence() == "offline")
        world.plant.start()
        await world.until(lambda: {skeleton, str(topic(Kind.PLAN))} <= set(world.plant.retained))
        await world.until(lambda: world.presence() == "online")

    bridged(tmp_path, test)


def test_the_route_is_said_below(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.above_session is not None
        place = topic(Kind.ROUTE)
        await world.until(lambda: str(place) in world.plant.retained)
        assert read(place, world.plant.retained[str(place)].payload)[1] == Route(bridges=("gate",))
        above = Writer(FEDERATION, "dmz", "000000d0").seal(Route(bridges=("dmz",), chunk_bytes=40_000))
        await world.above_session.publish(str(place), above, retain=True)
        wanted = Route(bridges=("gate", "dmz"), chunk_bytes=40_000)
        await world.until(lambda: read(place, world.plant.retained[str(place)].payload)[1] == wanted)
        circle = Writer(FEDERATION, "dmz", "000000d0").seal(Route(bridges=("dmz", "gate")))
        await world.above_session.publish(str(place), circle, retain=True)
        await world.say_status()
        await world.until(lambda: any(m.topic.endswith("berlin/status") for m in world.up()))
        assert read(place, world.plant.retained[str(place)].payload)[1] == wanted

    bridged(tmp_path, test)


def test_a_limit_of_the_next_broker_reaches_the_edge_as_a_smaller_chunk_size(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        world.uplink.max_packet_bytes, world.uplink.over_limit = 20_000, "announce"
        async with world.watching(), world.running():
            place = topic(Kind.ROUTE)

            def limit() -> int | None:
                known = world.plant.retained.get(str(place))
                body = read(place, known.payload)[1] if known is not None else None
                return body.chunk_bytes if isinstance(body, Route) else None

            await world.until(lambda: limit() == 20_000 - 1024)

    run(main())


def test_when_the_leading_session_ends_another_one_reads_on(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.uplink.denied_filters = frozenset()
        client = f"{PARTICIPANT}_{FEDERATION}_gate"
        assert client in world.uplink.clients
        world.uplink.drop(client)
        await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])
        await world.until(lambda: str(topic(Kind.ROUND)) in world.plant.retained)

    bridged(tmp_path, test, participants=(PARTICIPANT, "berlin-2"))


def test_presence_follows_the_plant_s_broker_and_ends_with_a_will(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.until(lambda: world.presence() == "online")
        world.uplink.drop(f"{PARTICIPANT}_{FEDERATION}_gate")
        await world.until(lambda: world.presence() == "offline")
        await world.until(lambda: world.presence() == "online")

    bridged(tmp_path, test)


def test_nothing_from_above_but_the_listed_topics_reaches_the_plant(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.above_session is not None
        await world.above_session.publish("acme/berlin/setpoint", b"1", retain=True)
        await world.above_session.publish(f"fl/v1/{FEDERATION}/down/to/berlin/command", b"1", retain=True)
        await world.above_session.publish(f"fl/v1/{FEDERATION}/down/receipt/lyon", b"1")
        await world.above_session.publish(str(topic(Kind.HISTORY)), b'{"free": "text"}', retain=True)
        await world.say_above(Kind.ROUND, BODIES[Kind.ROUND])
        await world.until(lambda: str(topic(Kind.ROUND)) in world.plant.retained)
        said = {m.topic for m in world.below}
        assert "acme/berlin/setpoint" not in said
        assert str(topic(Kind.HISTORY)) not in said
        assert not any("command" in t or "receipt/lyon" in t for t in said)

    bridged(tmp_path, test)
