"""The heavy work of an edge with the numpy trainer: races between versions, rounds and restarts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.models import ModelStore
from edge.review import Review
from edge.store import SampleStore
from edge.trainer_client import TrainerProcess
from edge.updates import TrainedUpdate
from edge.workshop import ModelGone, Workshop
from tests.aio import run
from tests.edge.versions import (
    CONTRACT,
    TEMPLATE,
    control_of,
    controlled,
    history,
    manifest_of,
    plan_of,
    round_of,
    sample,
    vector_of,
)
from uns_topics.codes import Code, Reason
from uns_topics.controls import join_full
from uns_topics.encodings import encoding
from uns_topics.rounds import RoundAnnouncement
from uns_topics.steps import make_step
from uns_topics.tensors import Role, vector_bytes, vector_sha256
from uns_topics.update import decode_update, unpack_control, unpack_groups

COMMAND = [sys.executable, "-m", "tests.support.numpy_trainer"]


@asynccontextmanager
async def workshop(
    folder: Path, command: list[str] | None = None, *, samples: int = 200
) -> AsyncIterator[tuple[Workshop, SampleStore]]:
    thread = ThreadPoolExecutor(1)
    store = SampleStore(folder / "samples.sqlite")
    store.use(CONTRACT)
    store.add(history(samples))
    made = Workshop("berlin", store, thread, ModelStore(folder / "models"), TrainerProcess(command or COMMAND), folder)
    try:
        made.follow(plan_of())
        assert await made.check_template(plan_of(), TEMPLATE.skeleton) is None
        yield made, store
    finally:
        await made.close()
        thread.shutdown()
        store.close()


async def take(made: Workshop, *versions: int, held: tuple[int, ...] = ()) -> None:
    for version in versions:
        assert await made.verify(manifest_of(version), vector_bytes(vector_of(version))) is None
        await made.keep(manifest_of(version), {v: manifest_of(v) for v in (*held, version)})


def test_a_round_from_snapshot_to_figures(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, store):
            statistics = await made.statistics(1)
            assert statistics is not None
            assert sum(statistics.label_counts) == statistics.rows > 50
            await take(made, 1)
            outcome = await made.train(round_of(1, 1))
            assert isinstance(outcome, TrainedUpdate)
            update = decode_update(outcome.content, 2**20)
            assert (update.header.round_number, update.header.num_examples) == (1, outcome.num_examples)
            assert np.isfinite(unpack_groups(update, TEMPLATE.table)).all()
            await made.train_local(round_of(1, 1))
            await take(made, 2, held=(1,))
            compared = await made.compare(manifest_of(2), manifest_of(1))
            assert compared.select.n > 0
            assert compared.select.candidate_minus_current is not None
            assert await made.enter(manifest_of(2)) is not None
            found = await made.review(manifest_of(2), final=True)
            figures = found.evaluation
            assert figures is not None
            assert figures.report is not None
            own = {"local_only", "personalised"}
            assert set(figures.report.models) == {"current", "constant", "linear", *own}
            assert found.serves is not None
            assert found.serves.variant is figures.serves
            before = store.counts().new
            await made.updates.accepted(outcome)
            assert store.counts().new < before

    run(main(), timeout_s=40)


def test_a_version_that_newer_ones_replaced_is_gone_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            await take(made, 1, 2, 3)
            with pytest.raises(ModelGone, match="version 1 is no longer here"):
                made.model(manifest_of(1))
            with pytest.raises(ModelGone):
                await made.compare(manifest_of(3), manifest_of(1))
            with pytest.raises(ModelGone):
                await made.train(round_of(1, 1))
            assert await made.review(manifest_of(1), final=False) == Review(None, None)

    run(main(), timeout_s=40)


def test_two_versions_checked_at_once_are_both_here(tmp_path: Path) -> None:
    """Current and candidate of a late joiner: neither may push the other out."""

    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            held = {}

            async def one(version: int) -> None:
                manifest = manifest_of(version)
                assert await made.verify(manifest, vector_bytes(vector_of(version))) is None
                held[version] = manifest
                await made.keep(manifest, held)

            await asyncio.gather(one(4), one(5))
            assert made.model(manifest_of(4)) is not made.model(manifest_of(5))
            models = ModelStore(tmp_path / "models")
            assert [models.load(v)[0].version for v in (4, 5)] == [4, 5]

    run(main(), timeout_s=40)


def test_models_in_use_survive_their_replacement(tmp_path: Path) -> None:
    """A comparison and figures that began with a version end with it, though newer ones come meanwhile."""

    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            await take(made, 1)
            await take(made, 2, held=(1,))
            await made.statistics(1)
            comparing = asyncio.create_task(made.compare(manifest_of(2), manifest_of(1)))
            figures = asyncio.create_task(made.review(manifest_of(2), final=True))
            await asyncio.sleep(0)
            await take(made, 3)
            assert (await comparing).candidate == 2
            found = (await figures).evaluation
            assert found is not None
            assert found.current == 2

    run(main(), timeout_s=40)


def test_content_that_is_not_the_version_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            for content in (b"", vector_bytes(vector_of(2)), vector_bytes(vector_of(1))[:-4]):
                assert await made.verify(manifest_of(1), content) is not None
            lying = manifest_of(1).model_copy(update={"golden": (0.5,)})
            assert "other outputs" in str(await made.verify(lying, vector_bytes(vector_of(1))))
            with pytest.raises(ModelGone):
                made.model(manifest_of(1))

    run(main(), timeout_s=40)


@pytest.mark.parametrize("skeleton", [b"", b"\xff" * 200, TEMPLATE.skeleton + b"\0", TEMPLATE.skeleton[:-3]])
def test_a_skeleton_that_is_not_the_plans_is_refused(tmp_path: Path, skeleton: bytes) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            assert await made.check_template(plan_of(), skeleton) is not None

    run(main(), timeout_s=40)


def test_a_restart_finds_what_served_and_not_the_candidate(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            await take(made, 1)
            await made.mark_served(manifest_of(1))
            await take(made, 2, held=(1,))
            await made.mark_served(manifest_of(2))
            await take(made, 3, held=(2,))  # a candidate
        async with workshop(tmp_path) as (made, _):
            found = made.restore()
            assert found is not None
            assert found[0].version == 2
        (tmp_path / "models" / "2.f32").write_bytes(b"rotten")
        async with workshop(tmp_path) as (made, _):
            found = made.restore()
            assert found is not None
            assert found[0].version == 1
        (tmp_path / "models" / "1.json").unlink()
        async with workshop(tmp_path) as (made, _):
            assert made.restore() is None

    run(main(), timeout_s=40)


def test_a_full_disk_keeps_no_model_and_serves_it_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr("edge.models.write_whole", full)
            await take(made, 1)
            await made.mark_served(manifest_of(1))
            assert made.model(manifest_of(1)).template.sha256 == TEMPLATE.sha256
        assert caplog.text.count("No space left on device") == 1  # what isn't on disk isn't marked as served either

    run(main(), timeout_s=40)


def test_a_trainer_that_ends_is_a_reason_and_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        library = tmp_path / "its-library"
        program = f"import os, sys; os.path.exists({str(library)!r}) or sys.exit(3);"
        program += "from tests.support.numpy_trainer import main; main()"
        async with workshop(tmp_path, [sys.executable, "-c", program]) as (made, _):
            await take(made, 1)
            assert await made.trainer_reason() is Reason.TRAINER_FAILED
            assert await made.train(round_of(1, 1)) is Reason.TRAINER_FAILED
            await made.train_local(round_of(1, 1))  # only says so
            library.touch()
            assert await made.trainer_reason() is None
            assert isinstance(await made.train(round_of(1, 1)), TrainedUpdate)

    run(main(), timeout_s=40)


def test_new_samples_are_counted_from_the_snapshot_and_not_from_the_receipt(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, store):
            await take(made, 1)
            outcome = await made.train(round_of(1, 1))
            assert isinstance(outcome, TrainedUpdate)
            matured = store.counts().matured
            more = [e for e in history(260) if int(e.key[1:]) >= 200]
            store.add(more)
            store.add([sample(300)])
            grown = store.counts().matured - matured
            assert grown > 0
            await take(made, 2, held=(1,))
            await made.compare(manifest_of(2), manifest_of(1))  # a later round's snapshot, while this update waits
            await made.updates.accepted(outcome)
            assert store.counts().new == grown

    run(main(), timeout_s=40)


def test_what_a_lossy_update_left_is_in_the_next_one_and_a_restart_keeps_it(tmp_path: Path) -> None:
    def lossy(number: int) -> RoundAnnouncement:
        asked = round_of(number, 1)
        return asked.model_copy(update={"client": asked.client.model_copy(update={"encoding": "ternary"})})

    def weights(update: TrainedUpdate) -> np.ndarray:
        delta = unpack_groups(decode_update(update.content, 2**20), TEMPLATE.table)
        return TEMPLATE.table.gather(delta, Role.WEIGHT)

    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            await take(made, 1)
            exact = await made.train(round_of(1, 1))
            assert isinstance(exact, TrainedUpdate)
            await made.updates.settle(exact, "accepted", None)
            first = await made.train(lossy(1))
            assert isinstance(first, TrainedUpdate)
            left = weights(exact) - weights(first)
            assert np.abs(left).max() > 0
            await made.updates.settle(first, "accepted", None)
        async with workshop(tmp_path) as (made, _):
            assert await made.updates.unanswered() is None
            await take(made, 1)
            second = await made.train(lossy(1))  # the same seed and rows: the same delta
            assert isinstance(second, TrainedUpdate)
            due = (weights(exact) + left).astype(np.float32)
            np.testing.assert_array_equal(weights(second), ternary_of(due))
        async with workshop(tmp_path) as (made, _):
            assert await made.updates.unanswered() == second

    run(main(), timeout_s=40)


def ternary_of(values: np.ndarray) -> np.ndarray:
    return encoding("ternary").decode(encoding("ternary").encode(values), values.size)


OWN_TENSORS = """
import numpy as np
from tests.support.numpy_trainer import NumpyTrainer, main
from uns_topics.tensors import Role, vector_bytes, vector_from_bytes

class Own(NumpyTrainer):
    def train(self, request):
        table = self.template.table
        own = table.gather(vector_from_bytes(request["base"], table.size), Role.LOCAL)
        return {**super().train(request), "local": vector_bytes(own + np.float32(0.25))}

main(Own())
"""


def test_tensors_that_stay_in_the_plant_go_on_from_round_to_round_and_over_a_restart(tmp_path: Path) -> None:
    rows, contexts = np.array([[5.0, 2.5]], np.float32), np.zeros(1, np.int64)
    table = TEMPLATE.table

    def own_of(made: Workshop, version: int) -> list[float]:
        return table.gather(made.fitted(manifest_of(version)).vector, Role.LOCAL).tolist()

    async def main() -> None:
        async with workshop(tmp_path, [sys.executable, "-c", OWN_TENSORS]) as (made, _):
            await take(made, 1)
            assert made.fitted(manifest_of(1)) is made.model(manifest_of(1))
            neutral = own_of(made, 1)
            outcome = await made.train(round_of(1, 1))
            assert isinstance(outcome, TrainedUpdate)
            update = unpack_groups(decode_update(outcome.content, 2**20), table)
            assert not np.any(table.gather(update, Role.LOCAL))
            assert own_of(made, 1) == [value + 0.25 for value in neutral]
            await take(made, 2, held=(1,))
            await made.train(round_of(2, 2))
            assert own_of(made, 2) == [value + 0.5 for value in neutral]
            fitted, plain = made.fitted(manifest_of(2)), made.model(manifest_of(2))
            assert fitted.run(rows, contexts)[0] != plain.run(rows, contexts)[0]
            assert vector_bytes(plain.vector) == vector_bytes(vector_of(2))
            await made.mark_served(manifest_of(2))
        async with workshop(tmp_path) as (made, _):
            found = made.restore()
            assert found is not None
            assert table.gather(found[1].model.vector, Role.LOCAL).tolist() == [value + 0.5 for value in neutral]
            assert vector_bytes(made.model(manifest_of(2)).vector) == vector_bytes(vector_of(2))

    run(main(), timeout_s=40)


def test_own_tensors_of_another_shape_are_no_update(tmp_path: Path) -> None:
    program = OWN_TENSORS.replace("own + np.float32(0.25)", "own[:1]")

    async def main() -> None:
        async with workshop(tmp_path, [sys.executable, "-c", program]) as (made, _):
            await take(made, 1)
            assert await made.train(round_of(1, 1)) is Reason.TRAINER_FAILED
            assert made.fitted(manifest_of(1)) is made.model(manifest_of(1))

    run(main(), timeout_s=40)


CONTROLLED = plan_of().model_copy(update={"control": True})


async def take_controlled(made: Workshop, version: int) -> None:
    content = join_full(vector_of(version), control_of(version))
    assert await made.verify(controlled(version), content) is None
    await made.keep(controlled(version), {version: controlled(version)})


def change_in(update: TrainedUpdate) -> np.ndarray:
    change = unpack_control(decode_update(update.content, 2**20))
    assert change is not None
    return change


def expected_change(update: TrainedUpdate, own: np.ndarray, version: int) -> np.ndarray:
    """-c - delta / (K * lr), with an uncompressed delta."""
    delta = unpack_groups(decode_update(update.content, 2**20), TEMPLATE.table, control=True)
    training = round_of(1, version).client.training
    moved = TEMPLATE.table.gather(delta, Role.WEIGHT) / (training.steps * training.learning_rate)
    after = own - control_of(version) - moved
    return after - own


def test_rounds_with_control_variates_and_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        own = np.zeros(TEMPLATE.table.elements(Role.WEIGHT), np.float32)
        for number in (1, 2, 3):
            async with workshop(tmp_path) as (made, _):
                made.follow(CONTROLLED)
                if number == 2:  # what served is found with its control
                    found = made.restore()
                    assert found is not None
                    assert found[1].model.control is not None
                else:
                    await take_controlled(made, max(1, number - 1))
                base = max(1, number - 1)
                outcome = await made.train(round_of(number, base))
                assert isinstance(outcome, TrainedUpdate)
                np.testing.assert_allclose(
                    change_in(outcome), expected_change(outcome, own, base), rtol=1e-4, atol=1e-4
                )
                await made.mark_served(controlled(base))
                if number == 1:
                    await made.updates.settle(outcome, "rejected", Code.LATE)
                    continue
                await made.updates.settle(outcome, "accepted", None)
                own = own + change_in(outcome)

    run(main(), timeout_s=40)


def test_the_change_is_of_what_was_trained_and_not_of_what_was_sent(tmp_path: Path) -> None:
    """A lossy encoding and its residual change the delta on the wire; the control variate stays exact."""

    async def main() -> None:
        changes = []
        for name in ("f32", "ternary"):
            asked = round_of(1, 1)
            asked = asked.model_copy(update={"client": asked.client.model_copy(update={"encoding": name})})
            (tmp_path / name).mkdir()
            async with workshop(tmp_path / name) as (made, _):
                made.follow(CONTROLLED)
                await take_controlled(made, 1)
                outcome = await made.train(asked)
                assert isinstance(outcome, TrainedUpdate)
                changes.append(change_in(outcome))
        np.testing.assert_array_equal(*changes)

    run(main(), timeout_s=40)


def test_a_receipt_that_comes_while_it_trains_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server then counts the earlier c_k already: what leaves is the change from that."""

    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            made.follow(CONTROLLED)
            await take_controlled(made, 1)
            first = await made.train(round_of(2, 1))  # which made version 2
            assert isinstance(first, TrainedUpdate)
            await take_controlled(made, 2)
            assert made._desk is not None
            trainer = made._desk._trainer
            train = trainer.train

            async def slow(*args: Any, **named: Any) -> Any:
                await made.updates.settle(first, "accepted", None)
                return await train(*args, **named)

            monkeypatch.setattr(trainer, "train", slow)
            second = await made.train(round_of(3, 2))
            assert isinstance(second, TrainedUpdate)
            own = change_in(first)
            after = expected_change(second, np.zeros_like(own), 2)
            np.testing.assert_allclose(own + change_in(second), after, rtol=1e-4, atol=1e-4)

    run(main(), timeout_s=40)


def test_content_without_its_control_or_with_another_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with workshop(tmp_path) as (made, _):
            plain, whole = vector_bytes(vector_of(1)), join_full(vector_of(1), control_of(1))
            assert "bytes for a version" in str(await made.verify(controlled(1), whole))  # a plan without
            made.follow(CONTROLLED)
            assert "bytes for a version" in str(await made.verify(controlled(1), plain))
            assert "control variate" in str(await made.verify(manifest_of(1), whole))
            other = join_full(vector_of(1), control_of(2))
            assert "control variate" in str(await made.verify(controlled(1), other))
            assert await made.verify(controlled(1), whole) is None
            step = make_step(2, vector_of(1), vector_of(2), None, TEMPLATE.table, "f32", control_of(2))
            stepped = controlled(2).model_copy(update={"sha256": vector_sha256(step.vector)})
            assert await made.verify(stepped, step.content, controlled(1)) is None
            bare = make_step(2, vector_of(1), vector_of(2), None, TEMPLATE.table, "f32")
            assert "bytes of a control variate" in str(await made.verify(stepped, bare.content, controlled(1)))

    run(main(), timeout_s=40)


def test_a_trainer_that_takes_no_correction_is_a_reason_and_makes_no_update(tmp_path: Path) -> None:
    async def main() -> None:
        program = (
            "from tests.support import numpy_trainer as n; trainer = n.NumpyTrainer(); answer = trainer.answer;"
            "trainer.answer = lambda r: {k: v for k, v in answer(r).items() if k != 'takes'}; n.main(trainer)"
        )
        async with workshop(tmp_path, [sys.executable, "-c", program]) as (made, _):
            assert await made.trainer_reason() is None
            made.follow(CONTROLLED)
            await take_controlled(made, 1)
            assert await made.trainer_reason() is Reason.TRAINER_WITHOUT_CORRECTION
            assert await made.train(round_of(1, 1)) is Reason.TRAINER_WITHOUT_CORRECTION
            assert await made.updates.unanswered() is None

    run(main(), timeout_s=40)
