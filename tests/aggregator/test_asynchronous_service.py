"""A late update through the whole aggregator: bytes in, the same version whatever came when, and its replay."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from aggregator.config import AggregatorConfig
from aggregator.replay import replay
from aggregator.store import Counted, Store, sqlite_url
from broker_bridge.memory import MemoryBroker
from tests.aggregator.test_service import history, is_final, make_config, running
from tests.aio import run
from tests.support.scripted_participant import ScriptedParticipant
from uns_topics.plan import Strategy, Tolerances
from uns_topics.rounds import RoundAnnouncement
from uns_topics.tensors import Role


def configured(folder: Path, downlink: str | None) -> AggregatorConfig:
    tolerances = Tolerances(rounds=2, min_new_samples=0, promotion_margin=10, site_limit=10, max_staleness=1)
    strategy = Strategy(name="fedbuff", options={"buffer": 2})
    return make_config(folder, strategy=strategy, tolerances=tolerances, downlink=downlink)


async def is_accepted(person: ScriptedParticipant, announcement: RoundAnnouncement) -> None:
    outgoing = await person.send_update(announcement)
    await person.until(lambda: any(r.id == outgoing.manifest.id and r.result == "accepted" for r in person.receipts))


async def play(folder: Path, late: str, downlink: str | None = None) -> str:
    """Two rounds; the late update of c comes at this time. Returns: the SHA-256 of the last version."""
    broker = MemoryBroker()
    config = configured(folder, downlink)
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "abc"]
        a, b, c = people
        for person in people:
            person.trains = person.evaluates = False
        async with running(broker, config):
            for person in people:
                await person.until(lambda p=person: p.round is not None and p.round.base_sha256 in p.held)
            first = a.round
            assert first is not None
            await is_accepted(b, first)
            await is_accepted(a, first)
            await c.until(lambda: c.candidate is not None and c.candidate.sha256 in c.held)
            if late == "while evaluating":
                await is_accepted(c, first)
        async with running(broker, config):  # another process
            for person in people:
                person.evaluates = True
                await person._act()
            for person in people:
                await person.until(lambda p=person: p.round is not None and p.round.round_number == 2)
            second = a.round
            assert second is not None
            await a.until(lambda: second.base_sha256 in a.held)
            if late == "in the next round":
                await is_accepted(c, first)
            await is_accepted(a, second)
            if late == "last":
                await is_accepted(c, first)
            await a.until(lambda: is_final(a))
        outcomes = history(broker).rounds[1].participants
        assert [(p.participant, p.outcome) for p in outcomes] == [
            ("a", "accepted"),
            ("b", "absent"),
            ("c", "accepted"),
        ]
        assert a.current is not None
        if downlink is None:
            check(a, c, first, second)
        return a.current.sha256


def check(a: ScriptedParticipant, c: ScriptedParticipant, first: RoundAnnouncement, second: RoundAnnouncement) -> None:
    """The last version is x + 1 / K * sum s(tau) * delta, the deltas being half of the way to their targets."""
    assert a.plan is not None
    assert a.current is not None
    table = a.plan.template.table
    v1, v2, v3 = (
        table.gather(a.held[sha256], Role.WEIGHT).astype(np.float64)
        for sha256 in (first.base_sha256, second.base_sha256, a.current.sha256)
    )
    fresh, late = 0.5 * (a.target - v2), 0.5 * (c.target - v1)
    np.testing.assert_allclose(v3, v2 + 0.5 * (fresh + late / math.sqrt(2)), rtol=1e-5)


@pytest.mark.parametrize("downlink", [None, "ternary"])
def test_a_late_update_makes_the_same_version_whenever_it_comes(tmp_path: Path, downlink: str | None) -> None:
    made = []
    for late in ("while evaluating", "in the next round", "last"):
        folder = tmp_path / late
        folder.mkdir()
        made.append(run_play(folder, late, downlink))
        again = replay(configured(folder, downlink), 3)
        assert again.agrees
        assert (again.parent, again.round_number, again.participants) == (2, 2, ("a", "c"))
        store = Store(sqlite_url(folder / "data"))
        assert store.counted(2) == (Counted("a", 2, 100, 0), Counted("c", 1, 100, 1))
        store.close()
    assert len(set(made)) == 1


def run_play(folder: Path, late: str, downlink: str | None) -> str:
    found: list[str] = []

    async def main() -> None:
        found.append(await play(folder, late, downlink))

    run(main())
    return found[0]
