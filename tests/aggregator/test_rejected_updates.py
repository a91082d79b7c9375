"""An update that the gate rejects leaves no trace: the version is the same to the bit as without it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.memory import MemoryBroker
from tests.aggregator.test_service import is_final, make_config, running
from tests.aio import run
from tests.support.scripted_participant import ScriptedParticipant
from uns_topics.codes import Code
from uns_topics.plan import Strategy, Tolerances

BAD: dict[str, tuple[float, dict[str, Any], Code]] = {
    "too long": (1e7, {}, Code.NORM),
    "no examples": (1.0, {"num_examples": 0}, Code.WEIGHT),
    "another base": (1.0, {"base": "0" * 64}, Code.WRONG_BASE),
    "another's name": (1.0, {"participant": "a"}, Code.INTEGRITY),
}


async def last_version(folder: Path, strategy: str, bad: tuple[float, dict[str, Any], Code] | None) -> str:
    """SHA-256 after one round of a and b, in which c is rejected, or gone."""
    broker = MemoryBroker()
    tolerances = Tolerances(rounds=1, grace_s=0.0, promotion_margin=10, site_limit=10)
    config = make_config(folder, strategy=Strategy(name=strategy), tolerances=tolerances)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, config))
        c_stack = await stack.enter_async_context(AsyncExitStack())
        a, b = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "ab"]
        c = await c_stack.enter_async_context(ScriptedParticipant(broker.connector(), "c"))
        for participant in (a, b, c):
            participant.trains = False
        a.can_train = b.can_train = False  # without grace a round opens with the first two: c is to be one of three
        for participant in (a, b, c):
            await participant.until(lambda p=participant: p.plan)
        await c.say_status()
        for participant in (a, b):
            participant.can_train = True
            await participant.say_status()
        for participant in (a, b, c):
            await participant.until(lambda p=participant: p.round is not None and p.round.base_sha256 in p.held)
        announcement = c.round
        assert announcement is not None
        assert announcement.cohort == ("a", "b", "c")
        if bad is not None:
            c.target = bad[0]
            await c.send_update(announcement, **bad[1])
            await c.until(lambda: [r.code for r in c.receipts] == [bad[2]])
        await c_stack.aclose()
        for participant in (a, b):
            await participant.send_update(announcement)
        await a.until(lambda: is_final(a))
        assert a.current is not None
        assert a.current.version == 2
        return a.current.sha256


@pytest.mark.parametrize("strategy", ["fedavg", "median", "fedadam", "centered-clipping"])
def test_the_version_is_the_same_to_the_bit_as_without_it(tmp_path: Path, strategy: str) -> None:
    for name in ("without", *BAD):
        (tmp_path / name).mkdir()

    async def main() -> None:
        without = await last_version(tmp_path / "without", strategy, None)
        for name, bad in BAD.items():
            assert await last_version(tmp_path / name, strategy, bad) == without, name

    run(main(), timeout_s=60)
