"""A plant unlike the others, with the real trainer: it runs a model of its own and says what that brings."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.effects import LabelSet, SampleReady
from edge.models import ModelStore
from edge.store import SampleStore
from edge.trainer_client import TrainerProcess
from edge.training.export import make_model
from edge.updates import TrainedUpdate
from edge.variants import Served
from edge.workshop import Workshop
from tests.aio import run
from tests.edge.training.cases import make_contract
from tests.edge.versions import template_manifest, version_manifest
from uns_topics.plan import Plan, Strategy, Tolerances, Training
from uns_topics.presence import Variant
from uns_topics.rounds import ClientConfig, RoundAnnouncement, VersionManifest
from uns_topics.template import Lineage, Network, Template
from uns_topics.tensors import Role, Vector, vector_bytes

CONTRACT = make_contract()
TRAINING = Training(steps=60, learning_rate=0.02)
LINE, START_S = "acme/berlin/smt/line1", 1_700_000_000.0


def history(boards: int, seed: int = 0) -> list[SampleReady | LabelSet]:
    """Boards of which the hot ones are bad."""
    rng = np.random.default_rng(seed)
    events: list[SampleReady | LabelSet] = []
    for index in range(boards):
        time_s = START_S + 30 * index
        values = np.array([rng.uniform(200, 260), rng.uniform(0, 200), rng.uniform(950, 1050)], np.float32)
        is_bad = float(values[0] + rng.normal(0, 5) > 245)
        events.append(SampleReady(LINE, f"B{index}", time_s, time_s, "", "", 0, values, time_s + 60))
        events.append(LabelSet(LINE, f"B{index}", is_bad, "aoi", 0, time_s + 5, 60))
    return events


def manifest_of(template: Template, version: int, vector: Vector) -> VersionManifest:
    lineage = Lineage(origin="round", parent=version - 1, round_number=version)
    return version_manifest(template, vector, version, 1, lineage)


def plan_of(template: Template) -> Plan:
    return Plan(
        generation=1,
        contract=template.contract,
        contract_hash=template.contract.meaning_sha256,
        template=template_manifest(template),
        strategy=Strategy(),
        training=TRAINING,
        encodings=("f32",),
        tolerances=Tolerances(),
    )


def round_of(manifest: VersionManifest) -> RoundAnnouncement:
    return RoundAnnouncement(
        round_number=manifest.version,
        attempt=1,
        epoch=1,
        state="open",
        base=manifest.version,
        base_sha256=manifest.sha256,
        generation=1,
        cohort=("berlin",),
        client=ClientConfig(training=TRAINING, encoding="f32"),
        seed=manifest.version,
        seconds_left=60,
    )


@asynccontextmanager
async def workshop(folder: Path, template: Template, variants: tuple[Variant, ...]) -> AsyncIterator[Workshop]:
    thread = ThreadPoolExecutor(1)
    store = SampleStore(folder / "samples.sqlite")
    store.use(template.contract)
    if not store.counts().samples:
        is_labelled = template.contract.label.kind != "none"
        events = history(900)
        store.add(events if is_labelled else [replace(e, matures_s=None) for e in events if isinstance(e, SampleReady)])
    trainer = TrainerProcess([sys.executable, "-m", "edge.training.worker"])
    made = Workshop("berlin", store, thread, ModelStore(folder / "models"), trainer, folder, variants=variants)
    try:
        if not made.follow(plan_of(template)):
            assert await made.check_template(plan_of(template), template.skeleton) is None
        yield made
    finally:
        await made.close()
        thread.shutdown()
        store.close()


async def current(made: Workshop, template: Template, number: int, vector: Vector) -> tuple[VersionManifest, Served]:
    """A version becomes current. Returns: its manifest, and what runs until it was reviewed."""
    manifest = manifest_of(template, number, vector)
    assert await made.verify(manifest, vector_bytes(vector)) is None
    await made.keep(manifest, {number: manifest})
    entered = await made.enter(manifest)
    assert entered is not None
    return manifest, entered


def test_a_plant_unlike_the_others_runs_its_own_model_and_goes_on_with_it_after_a_restart(tmp_path: Path) -> None:
    template, vector = make_model(CONTRACT, Network(kind="mlp", hidden=(16,)), seed=1)
    everyone = tuple(Variant)

    async def main() -> None:
        async with workshop(tmp_path, template, everyone) as made:
            first, runs = await current(made, template, 1, vector)
            assert runs.variant is Variant.GLOBAL
            await made.mark_served(first)
            assert isinstance(await made.train(round_of(first)), TrainedUpdate)
            # The others' updates took the global model nowhere: it is as it was made.
            found = await made.review(first, final=True)
            evaluation, serves = found.evaluation, found.serves
            assert evaluation is not None
            assert serves is not None
            assert serves.variant in (Variant.PERSONALISED, Variant.LOCAL)
            assert evaluation.serves is serves.variant
            for part in (evaluation.select, evaluation.report):
                assert part is not None
                assert {"current", "personalised", "local_only"} <= set(part.models)
                gained = part.served_minus_current
                assert gained is not None
                assert gained.low is not None
                assert gained.low > 0
        async with workshop(tmp_path, template, everyone) as made:
            restored = made.restore()
            assert restored is not None
            again = restored[1]
            assert (again.version, again.variant) == (1, serves.variant)
            assert vector_bytes(again.model.vector) == vector_bytes(serves.model.vector)
            assert await made.enter(first) is again
            unjudged = await made.review(first, final=False)  # no round and no candidate since the restart
            assert unjudged.evaluation is None
            assert unjudged.serves is not None
            assert unjudged.serves.is_same(again)
        async with workshop(tmp_path, template, (Variant.GLOBAL,)) as made:  # the site has changed its mind
            restored = made.restore()
            assert restored is not None
            assert (restored[1].version, restored[1].variant) == (1, Variant.LAST_GOOD)

    run(main(), timeout_s=60)


def test_what_is_tuned_for_this_plant_alone_leaves_the_global_version_s_own_tensors_as_they_are(tmp_path: Path) -> None:
    network = Network(kind="mlp", hidden=(16,), local=("network.layers.2.*",))
    template, vector = make_model(CONTRACT, network, seed=1)
    table = template.table

    async def main() -> None:
        async with workshop(tmp_path, template, tuple(Variant)) as made:
            first, _ = await current(made, template, 1, vector)
            assert isinstance(await made.train(round_of(first)), TrainedUpdate)
            own = table.gather(made.fitted(first).vector, Role.LOCAL)
            assert not np.array_equal(own, table.gather(vector, Role.LOCAL))
            await made.review(first, final=True)
            assert np.array_equal(table.gather(made.fitted(first).vector, Role.LOCAL), own)
            assert made._own is not None
            tuned = made._own._tuned
            assert tuned is not None
            assert not np.array_equal(table.gather(tuned, Role.LOCAL), own)
            await made.mark_served(first)
        async with workshop(tmp_path, template, (Variant.GLOBAL,)) as made:
            restored = made.restore()
            assert restored is not None
            assert np.array_equal(table.gather(restored[1].model.vector, Role.LOCAL), own)

    run(main(), timeout_s=60)


def test_a_site_that_allows_the_global_model_alone_runs_it_and_still_hears_of_the_others(tmp_path: Path) -> None:
    template, vector = make_model(CONTRACT, Network(kind="mlp", hidden=(16,)), seed=1)

    async def main() -> None:
        async with workshop(tmp_path, template, (Variant.GLOBAL,)) as made:
            first, _ = await current(made, template, 1, vector)
            assert isinstance(await made.train(round_of(first)), TrainedUpdate)
            found = await made.review(first, final=False)
            assert found.evaluation is not None
            assert found.evaluation.serves is Variant.GLOBAL
            assert "personalised" in found.evaluation.select.models
            assert found.evaluation.select.served_minus_current is None
            assert found.serves is not None
            assert found.serves.variant is Variant.GLOBAL

    run(main(), timeout_s=60)


def test_a_plant_without_labels_is_evaluated_by_its_reconstruction_error(tmp_path: Path) -> None:
    template, vector = make_model(make_contract("none"), Network(kind="autoencoder", hidden=(8, 2)), seed=1)

    async def main() -> None:
        async with workshop(tmp_path, template, tuple(Variant)) as made:
            first, _ = await current(made, template, 1, vector)
            assert isinstance(await made.train(round_of(first)), TrainedUpdate)
            compared = await made.compare(first, first)
            assert compared.select.n > 100
            assert compared.select.models["candidate"].loss.mean > 0
            found = await made.review(first, final=True)
            assert found.evaluation is not None
            assert found.evaluation.report is not None
            models = found.evaluation.report.models
            assert set(models) == {"current", "local_only", "personalised"}
            assert found.serves is not None
            assert found.serves.variant in (Variant.LOCAL, Variant.PERSONALISED)  # the current one was never trained

    run(main(), timeout_s=60)


def test_a_worse_version_is_not_run_where_the_one_before_is_surely_better(tmp_path: Path) -> None:
    template, vector = make_model(CONTRACT, Network(kind="mlp", hidden=(16,)), seed=1)

    async def main() -> None:
        async with workshop(tmp_path, template, (Variant.GLOBAL, Variant.LAST_GOOD)) as made:
            first, _ = await current(made, template, 1, vector)
            trained = await made.train(round_of(first))
            assert isinstance(trained, TrainedUpdate)
            await made.review(first, final=True)  # tunes a personal model, which is as good as this plant gets
            assert made._own is not None
            good = made._own._tuned
            assert good is not None
            versions = [(2, good), (3, -vector)]
            for number, values in versions:
                manifest, runs = await current(made, template, number, values)
                assert runs.version == number
                found = await made.review(manifest, final=False)
                assert found.serves is not None
                assert found.serves.version == 2
            assert found.serves.variant is Variant.LAST_GOOD
            assert found.evaluation is not None
            assert "last_good" in found.evaluation.select.models
        async with workshop(tmp_path, template, tuple(Variant)) as made:
            restored = made.restore()
            assert restored is not None
            assert (restored[1].version, restored[1].variant) == (2, Variant.LAST_GOOD)

    run(main(), timeout_s=60)
