"""Whatever order events come in: one accepted update per participant and round, and no number twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.effects import Aggregate, AnnounceRound, RecordRound, RecordUpdate, SendReceipt
from aggregator.events import LinkChanged
from aggregator.reducer import next_deadline
from aggregator.state import Phase
from tests.support.reducer_world import World, make_rules, sha
from uns_topics.codes import Code

NAMES = ("a", "b", "c", "d")
ACTIONS = st.one_of(
    st.tuples(st.just("status"), st.sampled_from(NAMES), st.integers(1, 3)),
    st.tuples(st.just("die"), st.sampled_from(NAMES), st.integers(1, 3)),
    st.tuples(st.just("send"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.tuples(st.just("bad"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("old"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("evaluate"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("time"), st.just(""), st.integers(1, 60)),
    st.tuples(st.just("link"), st.just(""), st.integers(0, 1)),
)


def act(world: World, kind: str, name: str, number: int) -> None:
    if kind == "status":
        world.status(name, birth=number)
    elif kind == "die":
        world.die(name, birth=number)
    elif kind == "time":
        world.advance(float(number))
    elif kind == "link":
        world.do(LinkChanged(up=bool(number)))
    elif kind == "evaluate" and world.state.candidate is not None:
        world.evaluate(name, float(number), 1.0)
    elif world.state.round is not None and kind == "send":
        world.do(world.update(name, text=str(number)))
    elif world.state.round is not None and kind == "bad":
        world.do(world.update(name, text="bad", content=Code.NORM))
    elif world.state.round is not None and kind == "old":
        world.do(world.update(name, text="old", base=sha("something else")))


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_numbers_and_acceptances_are_unique(actions: list[tuple[str, str, int]]) -> None:
    world = World(make_rules(deadline_s=40.0, evaluation_s=20.0))
    world.boot_up(*NAMES)
    for action in actions:
        act(world, *action)
        due = next_deadline(world.state)
        assert due is None or due > world.state.at
    opened = [e.round_number for e in world.of(AnnounceRound) if e.attempt == 1]
    assert opened == list(range(1, len(opened) + 1))
    kept = [(u.participant, u.round_number) for u in world.of(RecordUpdate)]
    assert len(set(kept)) == len(kept)
    versions = [e.version for e in world.of(Aggregate)]
    assert len(set(versions)) == len(versions)
    ended = [r.summary.round_number for r in world.of(RecordRound)]
    assert ended == sorted(set(ended))
    by_transfer: dict[tuple[str, str], set[tuple[str, object]]] = {}
    for receipt in world.of(SendReceipt):
        if receipt.result == "accepted":
            by_transfer.setdefault((receipt.participant, receipt.transfer), set()).add((receipt.result, receipt.code))
    assert all(len(answers) == 1 for answers in by_transfer.values())
    for work in world.of(Aggregate):
        assert len(work.participants) >= world.state.rules.tolerances.quorum
        assert list(work.participants) == sorted(work.participants)


@settings(max_examples=50, deadline=None)
@given(st.permutations(NAMES), st.lists(st.sampled_from(NAMES), max_size=6))
def test_the_model_does_not_depend_on_the_order_of_arrival(order: list[str], repeats: list[str]) -> None:
    def play(names: list[str]) -> str:
        world = World()
        world.boot_up(*NAMES)
        for name in names:
            if world.state.phase is Phase.COLLECTING:
                world.send(name)
        assert world.state.candidate is not None
        return str(world.state.candidate.sha256)

    mixed = [name for name in order for name in [name, *repeats[:1]]]
    rest = [name for name in order if name not in mixed]
    assert play([*mixed, *rest]) == play(sorted(NAMES))
