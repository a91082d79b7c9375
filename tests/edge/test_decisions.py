"""Swaps in a plant: what is fitted before them, which of them wait, and what a restart keeps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from edge.decisions import HELD_FILE, RELEASED_FILE, Decisions, NothingHeld, release
from edge.models import ModelStore
from edge.rules import AlarmRule, CostRule, Probation
from edge.store import SampleStore, StoredPrediction
from edge.variants import Served
from edge.workshop import Workshop
from tests.aio import run
from tests.edge.versions import CONTRACT, LINE, TEMPLATE, history, manifest_of, plan_of, vector_of, version_manifest
from uns_topics.presence import Variant
from uns_topics.rounds import VersionManifest
from uns_topics.tensors import Vector, vector_bytes

RULE = CostRule(rule="cost", miss=5, false_alarm=1)
COUNT = 1500


def bad(index: int) -> float:
    """Every fifth board is bad, and has a high value."""
    return 9.0 if index % 5 == 0 else float(index % 4)


def slanted(slope: float, offset: float = 0.0) -> Vector:
    """A version whose score rises (or falls) with the value."""
    vector = vector_of(0)
    table = TEMPLATE.table
    for tensor in table.tensors:
        if tensor.name.startswith("network"):
            table.view(vector, tensor.name)[...] = 0.0
    table.view(vector, "network.0.weight")[0, 0] = 0.3
    table.view(vector, "network.2.weight")[0, 0] = slope
    table.view(vector, "network.2.bias")[...] = offset
    return vector


def announced(number: int, vector: Vector) -> VersionManifest:
    return version_manifest(TEMPLATE, vector, number, 1, manifest_of(number).lineage)


class Site:
    def __init__(self, folder: Path, rule: AlarmRule | None, samples: int) -> None:
        self.folder = folder
        self.thread = ThreadPoolExecutor(1)
        self.store = SampleStore(folder / "samples.sqlite")
        self.store.use(CONTRACT)
        if samples:
            self.store.add(history(samples, bad))
        self.decisions = Decisions(rule, Probation(), 3.0, self.store, folder)
        models = ModelStore(folder / "models")
        self.shop = Workshop("berlin", self.store, self.thread, models, None, folder, decisions=self.decisions)

    async def enter(self, number: int, vector: Vector) -> Served:
        manifest = announced(number, vector)
        assert await self.shop.verify(manifest, vector_bytes(vector)) is None
        await self.shop.keep(manifest, {number: manifest})
        served = await self.shop.enter(manifest)
        assert served is not None
        if served.version == number:
            await self.shop.mark_served(manifest)
        return served


@asynccontextmanager
async def site(folder: Path, rule: AlarmRule | None = RULE, samples: int = COUNT) -> AsyncIterator[Site]:
    made = Site(folder, rule, samples)
    try:
        if not made.shop.follow(plan_of()):
            assert await made.shop.check_template(plan_of(), TEMPLATE.skeleton) is None
        yield made
    finally:
        await made.shop.close()
        made.thread.shutdown()
        made.store.close()


def test_calibration_lies_in_the_graph_that_runs_and_not_in_what_is_compared(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            served = await here.enter(1, slanted(1.0))
            decided = served.decision
            assert decided.problem is None
            assert decided.calibration.reason is None
            assert decided.trip is not None
            rows = np.array([[9.0, 4.5], [1.0, 0.5]], np.float32)
            plain, runs = served.model.run(rows, np.zeros(2, np.int64)), served.runs.run(rows, np.zeros(2, np.int64))
            assert runs.tolist() == pytest.approx(decided.calibration.apply(plain.astype(np.float64)), abs=1e-5)
            assert runs[0] > decided.trip.threshold > runs[1]
            assert vector_bytes(served.model.vector) == vector_bytes(slanted(1.0))

    run(main())


def test_a_swap_that_changes_the_alarms_is_held_until_a_person_or_a_later_version_lets_it_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            await here.enter(1, slanted(1.0))
            blind = slanted(0.0)  # the same score for all: with this rule it alarms on every board
            held = await here.enter(2, blind)
            assert (held.version, held.variant) == (1, Variant.LAST_GOOD)
            assert here.decisions.held is not None
            record = json.loads((tmp_path / HELD_FILE).read_text())
            assert (record["version"], record["variant"], record["runs"], record["rows"]) == (2, "global", 1, 1000)
            assert (record["before"], record["after"]) == (200, 1000)
            assert "swap-held: version 2 would raise 1000 alarms" in caplog.text
            reviewed = await here.shop.review(announced(2, blind), final=False)
            assert reviewed.serves is not None
            assert reviewed.serves.version == 1
            assert caplog.text.count("swap-held") == 1  # said once
            assert await here.shop.swaps.release() is None  # nobody has
            passed = await here.enter(3, slanted(1.1))
            assert (passed.version, passed.variant, here.decisions.held) == (3, Variant.GLOBAL, None)
            assert not (tmp_path / HELD_FILE).exists()
            await here.enter(4, blind)
            (tmp_path / RELEASED_FILE).write_text(json.dumps({"version": 2, "variant": "global"}))
            assert await here.shop.swaps.release() is None  # another one
            assert release(tmp_path)["version"] == 4
            released = await here.shop.swaps.release()
            assert released is not None
            assert (released.version, released.variant, here.decisions.held) == (4, Variant.GLOBAL, None)
            with pytest.raises(NothingHeld):
                release(tmp_path)

    run(main())


def test_a_held_swap_is_held_after_a_restart_too_and_what_decided_goes_on_deciding(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            before = await here.enter(1, slanted(1.0))
            await here.enter(2, slanted(0.0))
        async with site(tmp_path, samples=0) as here:
            restored = here.shop.restore()
            assert restored is not None
            assert restored[1].version == 1
            assert restored[1].decision == before.decision
            assert restored[1].calibrated is not None
            held = await here.enter(2, slanted(0.0))
            assert held.version == 1
            assert here.decisions.held is not None
        other = CostRule(rule="cost", miss=500, false_alarm=1)
        async with site(tmp_path, other, samples=0) as here:  # the site wants something else: that must be fitted first
            restored = here.shop.restore()
            assert restored is not None
            assert restored[1].decision.problem is not None
            again = await here.enter(1, slanted(1.0))
            assert again.decision.problem is None

    run(main())


def test_a_probation_ends_with_samples_that_the_model_ran_on_before_their_label(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, samples=0) as here:
            served = await here.enter(1, slanted(1.0))
            assert served.decision.problem == "evaluated on 0 matured samples of 50"
            here.store.add(history(100, bad))
            assert await here.shop.swaps.refit() is None  # it ran on none: only the select part counts, 19 of 98
            said = [StoredPrediction(LINE, f"B{n}", 1_700_000_000.0 + 30 * n, 1, 0.5) for n in range(40)]
            here.store.add([], said)
            ready = await here.shop.swaps.refit()
            assert ready is not None
            assert (ready.decision.problem, ready.decision.rows) == (None, 59)
            assert await here.shop.swaps.refit() is None  # once

    run(main())


def test_a_site_without_a_rule_holds_no_swap(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, None) as here:
            await here.enter(1, slanted(1.0))
            assert (await here.enter(2, slanted(0.0))).version == 2

    run(main())


def test_a_model_that_decides_gives_way_to_one_on_probation_only_once_that_may_decide(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, samples=0) as here:
            await here.enter(1, slanted(1.0))
            here.store.add(history(100, bad))
            said = [StoredPrediction(LINE, f"B{n}", 1_700_000_000.0 + 30 * n, 1, 0.5) for n in range(60)]
            here.store.add([], said)
            assert await here.shop.swaps.refit() is not None
            held = await here.enter(2, slanted(1.1))  # it ran on none of them
            assert (held.version, here.shop.swaps.is_undecided) == (1, True)
            assert here.decisions.held is not None
            assert await here.shop.swaps.refit() is None
            here.store.add(history(600, bad))
            ready = await here.shop.swaps.refit()
            assert ready is not None
            assert (ready.version, ready.variant, ready.decision.problem) == (2, Variant.GLOBAL, None)
            assert (here.decisions.held, here.shop.swaps.is_undecided) == (None, False)

    run(main())
