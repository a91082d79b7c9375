"""The service on the in-memory broker, against participants that follow a script."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregator.config import AggregatorConfig
from aggregator.service import ExitCode, Surroundings, run_aggregator
from broker_bridge.memory import MemoryBroker, OverLimit
from broker_bridge.session import Connector, OnMessage, Session, Will
from tests.aio import Inbox, run
from tests.support.scripted_participant import ScriptedParticipant
from tests.support.tiny_template import fake_golden, tiny_model, tiny_template
from uns_topics.codes import Code
from uns_topics.payloads import Writer, read
from uns_topics.plan import Tolerances
from uns_topics.presence import AggregatorStatus, BridgeStatus, ParticipantState, ParticipantStatus, Want
from uns_topics.reference import Reference
from uns_topics.rounds import History
from uns_topics.steps import take_step
from uns_topics.tensors import vector_bytes, vector_from_bytes, vector_sha256
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import decode_chunk


def sync(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test."""

    @functools.wraps(test)
    def bounded(*args: Any, **fixtures: Any) -> None:
        run(test(*args, **fixtures))

    return bounded


def make_config(folder: Path, **changes: Any) -> AggregatorConfig:
    """Float32 both ways: what is sent is what is folded."""
    model = folder / "model.onnx"
    if not model.exists():
        model.write_bytes(tiny_model())
    fields: dict[str, Any] = {
        "federation": "tiny",
        "model": model,
        "data_dir": folder / "data",
        "tolerances": Tolerances(rounds=2),
        "encodings": ("f32",),
        "downlink": None,
    }
    return AggregatorConfig(**{**fields, **changes})


def surroundings(connector: Connector) -> Surroundings:
    """Short waits, and outputs without onnxruntime."""
    return Surroundings(connector, fake_golden, sleep=lambda _: asyncio.sleep(0), settle_s=0.02)


@asynccontextmanager
async def running(broker: MemoryBroker, config: AggregatorConfig, **options: Any) -> AsyncIterator[asyncio.Task[int]]:
    """An aggregator that is stopped at the end."""
    stop = asyncio.Event()
    around = surroundings(options.pop("connector", broker.connector()))
    service = asyncio.create_task(run_aggregator(config, stop=stop, around=around, **options))
    try:
        yield service
    finally:
        stop.set()
        if not service.cancelled():
            await service


def payload(broker: MemoryBroker, kind: Kind) -> Any:
    message = broker.retained.get(str(FlTopic("tiny", kind)))
    return None if message is None else read(FlTopic("tiny", kind), message.payload)[1]


def history(broker: MemoryBroker) -> History:
    found = payload(broker, Kind.HISTORY)
    assert isinstance(found, History)
    return found


def is_final(participant: ScriptedParticipant) -> bool:
    """The last round is over: history says so behind the final manifest."""
    if participant.history is None or not participant.history.resting:
        return False
    assert participant.current is not None
    assert participant.current.final
    return True


@sync
async def test_two_rounds_end_to_end(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [
            await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b", "c")
        ]
        for participant in people:
            await participant.until(lambda p=participant: is_final(p))
        rounds = history(broker).rounds
        assert [(r.round_number, r.result, r.version) for r in rounds] == [(1, "promoted", 2), (2, "promoted", 3)]
        assert history(broker).resting
        await people[0].until(lambda: people[0].aggregator is not None and people[0].aggregator.state == "resting")
        assert all(r.candidate_loss < r.current_loss for r in rounds if r.candidate_loss is not None)
        current = people[0].current
        assert current is not None
        assert (current.lineage.parent, current.lineage.round_number, current.lineage.contributors) == (2, 2, 3)
        chunks = [t for t in broker.retained if "/down/model/" in t and t[-1].isdigit()]
        assert chunks == ["fl/v1/tiny/down/model/3/0"], "superseded chunks are cleared"


@sync
async def test_three_plants_quantiles_are_shown_and_again_after_a_restart(tmp_path: Path) -> None:
    config = make_config(tmp_path, tolerances=Tolerances(rounds=1, quorum=3))
    async with AsyncExitStack() as stack:
        broker = MemoryBroker()
        people = [
            await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b", "c")
        ]
        async with running(broker, config):
            for participant in people:
                await participant.until(lambda p=participant: is_final(p))
            shown = payload(broker, Kind.REFERENCE)
        assert isinstance(shown, Reference)
        assert shown.participants == ("a", "b", "c")
        assert {(one.sites, one.rows) for one in shown.features} == {(3, 300)}
        fresh = MemoryBroker()
        watch = await stack.enter_async_context(ScriptedParticipant(fresh.connector(), "a"))
        async with running(fresh, config):
            await watch.until(lambda: watch.history is not None)  # it goes out behind the reference
            assert payload(fresh, Kind.REFERENCE) == shown


@sync
async def test_two_plants_quantiles_are_not_shown(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b")]
        for participant in people:
            await participant.until(lambda p=participant: is_final(p))
        assert payload(broker, Kind.REFERENCE) is None


@sync
async def test_versions_go_down_as_steps_too(tmp_path: Path) -> None:
    broker = MemoryBroker()
    template = tiny_template(hidden=400)
    (tmp_path / "model.onnx").write_bytes(tiny_model(template))
    async with AsyncExitStack() as stack:
        config = make_config(tmp_path, downlink="ternary", encodings=("int8",))
        await stack.enter_async_context(running(broker, config))
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b")]
        for participant in people:
            await participant.until(lambda p=participant: is_final(p))
        current = people[0].current
        assert current is not None
        assert current.delta is not None
        assert (current.version, current.delta.version, current.delta.kind) == (3, 3, "delta")
        assert 10 * current.delta.bytes < current.full.bytes
        chunks = [t for t in broker.retained if "/down/delta/" in t]
        assert chunks == ["fl/v1/tiny/down/delta/3/0"], "superseded steps are cleared"
        content = decode_chunk(broker.retained[chunks[0]].payload, 2**20).body
        parent = next((tmp_path / "data" / "vectors").glob("2-*.f32")).read_bytes()
        vector, _ = take_step(vector_from_bytes(parent, template.table.size), content, template.table)
        assert vector_sha256(vector) == current.sha256
        whole = decode_chunk(broker.retained["fl/v1/tiny/down/model/3/0"].payload, 2**20).body
        assert vector_bytes(vector) == whole
        assert payload(broker, Kind.MODEL_CANDIDATE) is None
    assert payload(broker, Kind.AGGREGATOR_STATUS).state == "offline"


@sync
async def test_a_late_joiner_needs_nothing_but_what_is_retained(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with running(broker, make_config(tmp_path)):
        async with AsyncExitStack() as stack:
            people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), n)) for n in ("a", "b")]
            await people[0].until(lambda: is_final(people[0]))
        said = len(broker.record)
        async with ScriptedParticipant(broker.connector(), "late") as late:
            await late.until(lambda: late.current is not None and late.current.sha256 in late.held)
        again = {m.topic.removeprefix("fl/v1/tiny/down/") for m in broker.record[said:] if m.payload}
        assert not again & {"plan", "skeleton/0", "model/3/0"}


@sync
async def test_a_participant_that_dies_in_a_round_does_not_stop_it(tmp_path: Path) -> None:
    broker = MemoryBroker()
    config = make_config(tmp_path, tolerances=Tolerances(rounds=1, grace_s=0.0))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, config))
        a, b, c = [
            await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b", "c")
        ]
        for participant in (a, b, c):
            participant.trains = False
        await c.until(lambda: c.round is not None and c.round.cohort == ("a", "b", "c"))
        broker.reachable = False
        broker.drop(c.client_id)
        a.trains = b.trains = True
        for participant in (a, b):
            await participant.say_status()
            await participant.until(lambda p=participant: p.round is not None and p.round.base_sha256 in p.held)
            assert participant.round is not None
            await participant.send_update(participant.round)
        await a.until(lambda: is_final(a))
        outcomes = {p.participant: p.outcome for p in history(broker).rounds[0].participants}
        assert outcomes == {"a": "accepted", "b": "accepted", "c": "absent"}
        broker.reachable = True


@sync
async def test_a_broker_that_forgets_everything_heals(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), n)) for n in ("a", "b")]
        for participant in people:
            participant.trains = False
        await people[0].until(lambda: people[0].round is not None)
        before = {topic for topic in broker.retained if "/down/" in topic}
        broker.stop(forget=True)
        broker.start()
        for participant in people:
            participant.trains = True
            participant.rounds_seen.clear()
        for participant in people:
            await participant.until(lambda p=participant: is_final(p))
        assert [r.result for r in history(broker).rounds] == ["promoted", "promoted"]
        after = {topic for topic in broker.retained if "/down/" in topic}
        assert {t for t in before if "/model/" not in t} <= after
        assert people[0].rounds_seen[0] == (1, 1), "the open round is announced again, and no other"


@sync
async def test_a_killed_aggregator_goes_on_with_its_round_and_makes_the_same_version(tmp_path: Path) -> None:
    shas = []
    for kill in (False, True):
        folder = tmp_path / str(kill)
        folder.mkdir()
        broker = MemoryBroker()
        config = make_config(folder, tolerances=Tolerances(rounds=1))
        async with AsyncExitStack() as stack, AsyncExitStack() as first:
            service = await first.enter_async_context(running(broker, config))
            a, b = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "ab"]
            b.trains = False
            await a.until(lambda a=a: a.receipts)
            if kill:
                service.cancel()
                await asyncio.gather(service, return_exceptions=True)
                await first.enter_async_context(running(broker, config))
                await a.until(lambda a=a: len(a.aggregator_boots) == 2)
                (sent,) = a.sent.values()
                a.receipts.clear()
                await a.repeat_manifest(sent)
                await a.until(lambda a=a: a.receipts)
                assert a.receipts[0].result == "accepted", "the first receipt, from the store"
            await b.until(lambda b=b: b.round is not None and b.round.base_sha256 in b.held)
            assert b.round is not None
            assert (b.round.round_number, b.round.attempt) == (1, 1)
            await b.send_update(b.round)
            await a.until(lambda a=a: is_final(a))
            assert a.current is not None
            shas.append(a.current.sha256)
            assert len(a.sent) == 1
    assert shas[0] == shas[1]


@sync
async def test_rejections_are_answered_and_leave_the_round_alone(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path, tolerances=Tolerances(rounds=1))))
        a, b = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "ab"]
        a.trains = b.trains = False
        await a.until(lambda: a.round is not None and a.round.base_sha256 in a.held)
        assert a.round is not None
        expected = []
        for code, changes in {
            Code.WRONG_BASE: {"base": "0" * 64},
            Code.WRONG_ROUND: {"round_number": 7},
            Code.WEIGHT: {"num_examples": 0},
            Code.INTEGRITY: {"participant": "b"},
        }.items():
            await a.send_update(a.round, **changes)
            expected.append(code)
            await a.until(lambda: len(a.receipts) == len(expected))
            assert [r.code for r in a.receipts] == expected
        await a.send_update(a.round)
        await a.until(lambda: a.receipts[-1].result == "accepted")
        await a.send_update(a.round, num_examples=7)
        await a.until(lambda: a.receipts[-1].code is Code.DUPLICATE)
        b.trains = True
        await b.say_status()
        assert b.round is not None
        await b.send_update(b.round)
        await a.until(lambda: is_final(a))
        outcomes = history(broker).rounds[0].participants
        assert [(p.participant, p.outcome, p.num_examples) for p in outcomes] == [
            ("a", "accepted", 100),
            ("b", "accepted", 100),
        ]
        await a.send_update(a.round)  # the same bytes once more: known, though the round is long over
        await a.until(lambda: a.receipts[-1].result == "accepted")
        await a.send_update(a.round, num_examples=8)
        await a.until(lambda: a.receipts[-1].code is Code.LATE)


@sync
async def test_an_update_in_many_chunks_of_which_some_are_lost(tmp_path: Path) -> None:
    broker = MemoryBroker()
    (tmp_path / "model.onnx").write_bytes(tiny_model(tiny_template(hidden=5000)))
    config = make_config(tmp_path, tolerances=Tolerances(rounds=1), chunk_bytes=15 * 1024)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, config))
        a, b = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "ab"]
        a.trains = False
        await a.until(lambda: a.round is not None and a.round.base_sha256 in a.held)
        assert a.round is not None
        a.lose = 2
        outgoing = await a.send_update(a.round)
        assert len(outgoing.manifest.chunks) > 4
        await a.repeat_manifest(outgoing)
        await a.until(lambda: a.receipts)
        assert a.receipts[0].result == "missing"
        assert len(a.receipts[0].chunks) == 2
        await a.until(lambda: a.receipts[-1].result == "accepted")
        await b.until(lambda: is_final(b))


@sync
async def test_what_can_not_be_read_is_counted_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        async with broker.connector().connect("vandal", on_message=lambda _: None) as session:
            a = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "a"))
            await a.until(lambda: a.plan is not None)
            root = "fl/v1/tiny/up/mallory"
            for topic in ("status", "statistics", "evaluation", "update/0123456789abcdef/manifest"):
                for bad in (b"{}", b"\xff\xfe", b"[" * 5000, b'{"v":1,"federation":"tiny"}', b"null"):
                    await session.publish(f"{root}/{topic}", bad)
            await session.publish(f"{root}/update/0123456789abcdef/0", b"\x85")
            await session.publish(f"{root}/nothing/of/ours", b"x")
            await session.publish("fl/v1/tiny/down/status", b"{}")
        b = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "b"))
        await b.until(lambda: is_final(b))
    assert "ignored (PayloadError, 1 so far)" in caplog.text
    assert caplog.text.count("ignored (PayloadError") == 1


@sync
async def test_what_somebody_wants_is_published_again_once(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), n)) for n in ("a", "b")]
        a = people[0]
        watch = Inbox()
        session = await stack.enter_async_context(broker.connector().connect("watch", on_message=watch))
        await session.subscribe("fl/v1/tiny/down/#")
        await a.until(lambda: is_final(a))
        await watch.until(lambda all_of: any(m.topic.endswith("/model/2/0") and not m.payload for m in all_of))
        broker.retained.clear()
        said = len(broker.record)
        a.wants = (Want.CURRENT, Want.SKELETON)
        for participant in (a, a, people[1]):
            participant.wants = a.wants
            await participant.say_status()
        async with ScriptedParticipant(broker.connector(), "late") as late:
            late.wants = (Want.PLAN,)
            await late.until(lambda: late.plan is not None)
        again = [m.topic.removeprefix("fl/v1/tiny/down/") for m in broker.record[said:] if "/down/" in m.topic]
        assert sorted(t for t in again if t == "plan" or t[-1].isdigit()) == ["model/3/0", "plan", "skeleton/0"]
        assert "model/current" in again


@sync
async def test_behind_a_bridge_wants_are_the_bridges_to_answer(tmp_path: Path) -> None:
    """What an edge behind a bridge fetches, the bridge fetches; only what the bridge lacks is published again."""
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), n)) for n in ("a", "b")]
        watch = Inbox()
        session = await stack.enter_async_context(broker.connector().connect("watch", on_message=watch))
        await session.subscribe("fl/v1/tiny/down/#")
        await people[0].until(lambda: is_final(people[0]))
        # The last thing that the end of the last round says: behind it nothing is shown without being asked for.
        await people[0].until(lambda: people[0].aggregator is not None and people[0].aggregator.state == "resting")
        writer = Writer("tiny", "gate", "0000000b")
        status = ParticipantStatus(
            birth=9, state=ParticipantState.ONLINE, via=("gate",), wants=(Want.CURRENT, Want.SKELETON)
        )
        said = len(broker.record)
        await session.publish("fl/v1/tiny/up/c/status", Writer("tiny", "c", "0000000c").seal(status), retain=True)
        lacks = BridgeStatus(birth=1, state="online", wants=(Want.SKELETON,))
        await session.publish("fl/v1/tiny/up/c/via/gate", writer.seal(lacks), retain=True)
        await watch.until(lambda _: any(m.topic.endswith("/skeleton/0") for m in broker.record[said:]))
        again = [m.topic for m in broker.record[said:] if "/down/model/" in m.topic]
        assert again == []


# Other aggregators ----------------------------------------------------------------------------------------------------


@sync
async def test_a_second_aggregator_stops_while_the_first_lives(tmp_path: Path) -> None:
    broker = MemoryBroker()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    quick: dict[str, Any] = {"heartbeat_s": 0.05}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path / "one", **quick)))
        a = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "a"))
        await a.until(lambda: a.plan is not None)
        second = broker.connector()
        code = await run_aggregator(
            make_config(tmp_path / "two", **quick),
            stop=asyncio.Event(),
            around=surroundings(_renamed(second, "second")),
        )
        assert code == ExitCode.FENCED
        assert payload(broker, Kind.AGGREGATOR_STATUS).state == "online"


@sync
async def test_a_takeover_raises_the_epoch_and_ends_the_other(tmp_path: Path) -> None:
    broker = MemoryBroker()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(broker, make_config(tmp_path / "one")))
        a = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "a"))
        await a.until(lambda: a.plan is not None and a.aggregator is not None)
        connector = _renamed(broker.connector(), "second")
        await stack.enter_async_context(
            running(broker, make_config(tmp_path / "two"), connector=connector, takeover=True)
        )
        assert await first == ExitCode.FENCED
        await a.until(lambda: a.aggregator is not None and a.aggregator.epoch == 2)
        assert payload(broker, Kind.AGGREGATOR_STATUS).state == "online"


@sync
async def test_a_stale_status_of_a_dead_aggregator_raises_the_epoch(tmp_path: Path) -> None:
    broker = MemoryBroker()
    status = AggregatorStatus(birth=1, state="online", epoch=4)
    async with broker.connector().connect("dead", on_message=lambda _: None) as session:
        sealed = Writer("tiny", "aggregator", "deadbeef").seal(status)
        await session.publish("fl/v1/tiny/down/status", sealed, retain=True)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path, heartbeat_s=0.05)))
        a = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "a"))
        await a.until(lambda: a.aggregator is not None and a.aggregator.epoch == 5)


@sync
async def test_after_a_clean_stop_it_starts_at_once_with_its_epoch(tmp_path: Path) -> None:
    broker = MemoryBroker()
    for _ in range(2):
        async with running(broker, make_config(tmp_path)), ScriptedParticipant(broker.connector(), "a") as a:
            await a.until(lambda a=a: a.aggregator is not None and a.aggregator.state == "online")
            assert a.aggregator is not None
            assert a.aggregator.epoch == 1


# Limits and refusals --------------------------------------------------------------------------------------------------


@sync
async def test_wrong_credentials_end_it(tmp_path: Path) -> None:
    broker = MemoryBroker(credentials={"aggregator": "right"})
    connector = broker.connector(username="aggregator", password="wrong")
    code = await run_aggregator(make_config(tmp_path), stop=asyncio.Event(), around=surroundings(connector))
    assert code == ExitCode.BROKER_REFUSED


@sync
async def test_two_processes_never_share_a_directory(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with running(broker, make_config(tmp_path)):
        async with ScriptedParticipant(broker.connector(), "a") as a:
            await a.until(lambda: a.plan is not None)
        code = await run_aggregator(
            make_config(tmp_path), stop=asyncio.Event(), around=surroundings(broker.connector())
        )
        assert code == ExitCode.CONFIGURATION


@pytest.mark.parametrize("over_limit", ["announce", "disconnect"])
def test_chunks_shrink_to_what_the_broker_takes(
    over_limit: OverLimit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broker = MemoryBroker(max_packet_bytes=60_000, over_limit=over_limit)
        (tmp_path / "model.onnx").write_bytes(tiny_model(tiny_template(hidden=20_000)))
        config = make_config(tmp_path, tolerances=Tolerances(rounds=1))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(broker, config))
            people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), n)) for n in ("a", "b")]
            for participant in people:
                await participant.until(lambda p=participant: is_final(p), timeout_s=25.0)
            assert people[0].plan is not None
            assert people[0].plan.chunk_bytes < 60_000

    run(main(), timeout_s=30.0)
    assert "chunks go from 262144 to" in caplog.text


@sync
async def test_a_broker_that_takes_too_little_is_an_error_for_people(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker(max_packet_bytes=10_000)
    code = await run_aggregator(make_config(tmp_path), stop=asyncio.Event(), around=surroundings(broker.connector()))
    assert code == ExitCode.CONFIGURATION
    assert "max_packet_size" in caplog.text


@sync
async def test_an_unusable_model_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    broker = MemoryBroker()
    code = await run_aggregator(make_config(tmp_path), stop=asyncio.Event(), around=surroundings(broker.connector()))
    assert code == ExitCode.CONFIGURATION
    assert "model.onnx" in caplog.text


class _Renamed:
    """A connector whose sessions have a client id of their own, as a second aggregator's would."""

    def __init__(self, inner: Connector, client_id: str) -> None:
        self._inner = inner
        self._client_id = client_id

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        return self._inner.connect(self._client_id, on_message=on_message, will=will)


def _renamed(inner: Connector, client_id: str) -> Connector:
    return _Renamed(inner, client_id)
