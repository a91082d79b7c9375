"""When a new generation's version may run in a plant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.effects import Effect, SampleReady
from edge.store import SampleStore
from edge.store_file import StoreError
from edge.succession import Look, is_trained, why_not_yet
from edge.workshop import Workshop
from tests.aio import run
from tests.edge.test_workshop import take, workshop
from tests.edge.versions import CONTRACT, history, manifest_of, plan_of, template_manifest, version_manifest
from tests.support.tiny_template import tiny_template, tiny_vector
from uns_topics.contract import Contract
from uns_topics.plan import Plan
from uns_topics.rounds import VersionManifest
from uns_topics.template import Lineage
from uns_topics.tensors import Vector, vector_bytes

NARROW = Contract.model_validate(CONTRACT.model_dump() | {"features": [CONTRACT.features[0].model_dump()]})
TEMPLATE = tiny_template(NARROW)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Look(9, 0.1, 0.5), "evaluated on 9 matured samples of 10"),
        (Look(10, 0.6, 0.5), "its loss on 10 samples is 0.6, and 0.5 for always the same answer"),
        (Look(10, float("nan"), 0.5), "its loss"),
        (Look(10, 0.5, 0.5), None),
        (Look(10, 9.9, None), None),
        (Look(0, float("inf"), None), "evaluated on 0"),
    ],
)
def test_a_version_has_to_be_of_use_on_the_plants_own_samples(seen: Look, why: str | None) -> None:
    found = why_not_yet(seen)
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


def test_a_generations_first_versions_are_trained_by_nobody() -> None:
    assert [origin for origin in ("new", "warm-start", "statistics", "round", "imported") if is_trained(
        Lineage(origin=origin)  # type: ignore[arg-type] # the literals
    )] == ["round", "imported"]  # fmt: skip


def narrow_plan() -> Plan:
    template = template_manifest(TEMPLATE)
    changed = {"contract": NARROW, "contract_hash": NARROW.meaning_sha256, "template": template}
    return plan_of(2).model_copy(update=changed)


def narrow_vector(good: bool) -> Vector:
    """Says of a high value that the board is bad; the other one says the opposite."""
    vector = np.zeros(TEMPLATE.table.size, np.float32)
    drawn = tiny_vector(TEMPLATE)
    for name in ("standardise.mean", "standardise.deviation", "calibration.scale", "calibration.bias"):
        TEMPLATE.table.view(vector, name)[...] = TEMPLATE.table.view(drawn, name)
    TEMPLATE.table.view(vector, "network.0.weight")[...] = 1.0
    TEMPLATE.table.view(vector, "network.2.weight")[...] = 2.0 if good else -2.0
    return vector


def narrow_manifest(number: int, vector: Vector, origin: str = "round") -> VersionManifest:
    lineage = Lineage.model_validate({"origin": origin, "parent": 1})
    return version_manifest(TEMPLATE, vector, number, 2, lineage)


def narrow_history(count: int) -> list[Effect]:
    return [
        replace(effect, values=effect.values[:1]) if isinstance(effect, SampleReady) else effect
        for effect in history(count, lambda index: 1.0 if index % 5 else 9.0)
    ]


async def between(made: Workshop) -> None:
    """Version 1 of generation 1 runs, and generation 2 is known."""
    await take(made, 1)
    assert await made.why_not_yet(manifest_of(1)) is None  # nothing else runs
    served = await made.enter(manifest_of(1))
    assert served is not None
    made.follow(narrow_plan())
    assert await made.check_template(narrow_plan(), TEMPLATE.skeleton) is None


async def offered(made: Workshop, number: int, vector: Vector, origin: str = "round") -> VersionManifest:
    manifest = narrow_manifest(number, vector, origin)
    assert await made.verify(manifest, vector_bytes(vector)) is None
    return manifest


def test_the_old_version_runs_on_until_the_new_one_did_well_here(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, store):
            await between(made)
            first = await offered(made, 2, narrow_vector(good=True), "warm-start")
            assert "no round" in str(await made.why_not_yet(first))
            bad, good = [await offered(made, n, narrow_vector(good=n == 4)) for n in (3, 4)]
            with pytest.raises(StoreError):  # samples are still of the contract before
                await made.why_not_yet(good)
            store.use(NARROW)
            assert "0 matured samples of 10" in str(await made.why_not_yet(good))
            store.add(narrow_history(200))
            assert "always the same answer" in str(await made.why_not_yet(bad))
            assert await made.why_not_yet(good) is None
            served = await made.enter(good)
            assert served is not None
            assert served.version == 4
            assert not made.is_succession(bad)  # within a template any version may run

    run(main(), timeout_s=40)


def test_a_review_while_the_old_one_runs_tells_and_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, store):
            await made.statistics(1)
            await between(made)
            bad = await offered(made, 3, narrow_vector(good=False))
            found = await made.review(bad, final=True)
            assert (found.evaluation, found.serves) == (None, None)  # no snapshot of the new contract
            store.use(NARROW)
            store.add(narrow_history(200))
            await made.statistics(2)
            found = await made.review(bad, final=False)
            assert found.serves is None
            assert found.evaluation is not None
            assert found.evaluation.serves is None
            assert found.evaluation.current == 3
            assert made.is_succession(bad)

    run(main(), timeout_s=40)


def test_a_plant_without_labels_follows_the_federation(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            made.can_evaluate = False
            await between(made)
            first = await offered(made, 2, narrow_vector(good=True), "statistics")
            assert await made.why_not_yet(first) is not None
            assert await made.why_not_yet(await offered(made, 3, narrow_vector(good=True))) is None

    run(main(), timeout_s=40)


def test_a_store_knows_whose_samples_it_holds(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        assert not store.is_of(CONTRACT)
        store.use(CONTRACT)
        assert store.is_of(CONTRACT)
        assert store.is_of(CONTRACT.model_copy(update={"title": "other words"}))
        assert not store.is_of(NARROW)
