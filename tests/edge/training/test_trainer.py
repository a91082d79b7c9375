"""Local training: what a round sends back, what the local-only model keeps, and what goes wrong without a crash."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.baselines import constant_predictions
from edge.control import Controls
from edge.dataset import Part
from edge.evaluation import score
from edge.training.export import make_model
from edge.training.optimizers import Adam, Optimizer, Sgd
from edge.training.worker import Trainer
from tests.aio import run
from tests.edge.training.cases import ALLOWED, CASES, make_dataset
from tests.edge.training.conftest import Made
from uns_topics.golden import run_model
from uns_topics.plan import Training
from uns_topics.template import CONTEXT_INPUT, FEATURES_INPUT, Lineage
from uns_topics.tensors import Role, Vector, vector_bytes

Ask = dict[str, Any]


def trainer_for(made: Made, name: str, folder: Path, samples: int = 600) -> Trainer:
    template, _ = made(name)
    path = folder / "samples.npz"
    make_dataset(template.contract, samples).save(path)
    trainer = Trainer()
    request = {"op": "template", "skeleton": template.skeleton, "factories": list(ALLOWED)}
    assert trainer.answer(request) == {}
    assert trainer.answer({"op": "dataset", "path": str(path)}) == {}
    return trainer


def order(op: str, base: Vector, *, seed: int = 7, class_weights: tuple[float, ...] = (), **settings: Any) -> Ask:
    training = Training(**{"steps": 60, "batch_size": 32, "learning_rate": 0.01, **settings})
    return {
        "op": op,
        "base": vector_bytes(base),
        "settings": training.model_dump(mode="json"),
        "class_weights": list(class_weights),
        "seed": seed,
    }


def vector_of(raw: bytes) -> Vector:
    return np.frombuffer(raw, "<f4")


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "adam") for name in CASES), ("mlp", "sgd")])
def test_training_lowers_the_loss_and_moves_weights_alone(
    made: Made, name: str, optimizer: str, tmp_path: Path
) -> None:
    template, base = made(name)
    trainer = trainer_for(made, name, tmp_path)
    one = trainer.answer(order("train", base, steps=1, optimizer=optimizer))
    many = trainer.answer(order("train", base, steps=100, optimizer=optimizer))
    assert many["loss"] < 0.9 * one["loss"]
    assert (many["num_steps"], many["num_examples"]) == (100, 360)
    delta = vector_of(many["delta"])
    assert np.any(template.table.gather(delta, Role.WEIGHT))
    assert not np.any(template.table.gather(delta, Role.FROZEN))
    assert not np.any(template.table.gather(delta, Role.LOCAL))
    assert many["local"] == vector_bytes(template.table.gather(base, Role.LOCAL))
    assert bool(np.any(template.table.gather(delta, Role.BUFFER))) == (name == "factory")


def test_local_tensors_are_trained_and_stay(tmp_path: Path) -> None:
    contract, network = CASES["mlp"]
    template, base = make_model(contract, network.model_copy(update={"local": ("network.layers.5.*",)}), seed=1)
    path = tmp_path / "samples.npz"
    make_dataset(contract).save(path)
    trainer = Trainer()
    assert trainer.answer({"op": "template", "skeleton": template.skeleton, "factories": []}) == {}
    assert trainer.answer({"op": "dataset", "path": str(path)}) == {}
    answer = trainer.answer(order("train", base))
    table, before = template.table, template.table.gather(base, Role.LOCAL)
    own = vector_of(answer["local"])
    assert not np.any(table.gather(vector_of(answer["delta"]), Role.LOCAL))
    assert np.count_nonzero(own != before) >= table.named("network.layers.5.weight").size
    start = base.copy()
    table.scatter(start, Role.LOCAL, own)
    again = trainer.answer(order("train", start))
    assert not np.array_equal(vector_of(again["local"]), own)


def test_the_trained_model_beats_the_constant_on_rows_it_never_saw(made: Made, tmp_path: Path) -> None:
    template, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path, samples=2000)
    delta = vector_of(trainer.answer(order("train", base, steps=300))["delta"])
    dataset, contract = make_dataset(template.contract, 2000), template.contract
    index = dataset.of(Part.REPORT)
    file = template.file(base + delta, template.version_info(1, 1, Lineage(origin="round")))
    inputs = {FEATURES_INPUT: dataset.features(index), CONTEXT_INPUT: dataset.contexts[index]}
    predictions = {
        "current": run_model(file, inputs),
        "constant": constant_predictions(dataset, contract, index),
    }
    scores = score(predictions, dataset.labels[index], dataset.groups[index], contract, ())  # type: ignore[arg-type]
    assert scores.models["current"].loss.mean < 0.4 * scores.models["constant"].loss.mean
    assert scores.models["current"].metric.value > 0.9  # type: ignore[operator]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(made: Made, tmp_path: Path) -> None:
    _, base = made("mlp")  # with dropout, so that torch's own randomness counts too
    first, again, other = (
        trainer_for(made, "mlp", tmp_path).answer(order("train", base, seed=seed))["delta"] for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_initial_parameters_are_those_of_a_new_model(made: Made, tmp_path: Path) -> None:
    _, vector = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    assert trainer.answer({"op": "initial", "seed": 1})["vector"] == vector_bytes(vector)
    assert trainer.answer({"op": "initial", "seed": 2})["vector"] != vector_bytes(vector)


def test_momentum_makes_steps_longer_and_none_is_plain_sgd(made: Made, tmp_path: Path) -> None:
    _, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    first, plain, heavy = (
        np.linalg.norm(vector_of(trainer.answer(order("train", base, optimizer="sgd", **settings))["delta"]))
        for settings in ({"steps": 1}, {"momentum": 0.0}, {})
    )
    assert 0 < first <= 0.01 * 1.0001, "one step of a clipped gradient"
    assert plain <= 60 * 0.01 * 1.0001
    assert heavy > 1.5 * plain


def test_a_correction_is_added_to_each_gradient_behind_the_clipping(made: Made, tmp_path: Path) -> None:
    """One step moves by -lr * (g + correction), whatever the gradient's length, in the weights alone."""
    template, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    table = template.table
    shift = np.random.default_rng(1).normal(0, 5, table.elements(Role.WEIGHT)).astype(np.float32)
    request = order("train", base, steps=1, optimizer="sgd", momentum=0.0)
    plain, corrected = (
        table.gather(vector_of(trainer.answer({**request, **extra})["delta"]), Role.WEIGHT)
        for extra in ({}, {"correction": vector_bytes(shift)})
    )
    np.testing.assert_allclose(corrected, plain - 0.01 * shift, atol=2e-6)
    opposite = trainer.answer({**request, "correction": vector_bytes(-shift)})["delta"]
    for role in (Role.FROZEN, Role.LOCAL):
        assert not np.any(table.gather(vector_of(opposite), role))
    assert trainer.answer({**request, "correction": vector_bytes(shift[:-1])})["error"] == "trainer-failed"


def test_a_participant_s_control_variate_is_its_mean_gradient(made: Made, tmp_path: Path) -> None:
    """Option II over many steps: c - c_k cancels out of c_k^+, which is as long as a clipped gradient at most."""
    template, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    rng, size = np.random.default_rng(2), template.table.elements(Role.WEIGHT)
    controls = Controls(*(rng.normal(0, 0.01, size).astype(np.float32) for _ in range(2)))
    request = order("train", base, steps=40, optimizer="sgd", momentum=0.0)
    answer = trainer.answer({**request, "correction": vector_bytes(controls.correction)})
    delta = template.table.gather(vector_of(answer["delta"]), Role.WEIGHT)
    after = controls.own + controls.change(controls.own, delta, answer["num_steps"], 0.01)
    assert 0.0 < np.linalg.norm(after) <= 1.001


def test_the_proximal_term_keeps_the_update_short(made: Made, tmp_path: Path) -> None:
    _, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    free, held = (
        np.linalg.norm(vector_of(trainer.answer(order("train", base, optimizer="sgd", proximal_mu=mu))["delta"]))
        for mu in (0.0, 10.0)
    )
    assert held < 0.5 * free


def test_class_weights_raise_the_scores_of_the_rare_class(made: Made, tmp_path: Path) -> None:
    template, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    dataset = make_dataset(template.contract)
    inputs = {FEATURES_INPUT: dataset.features(np.arange(600)), CONTEXT_INPUT: dataset.contexts}
    info = template.version_info(1, 1, Lineage(origin="round"))
    means = []
    for weights in ((1.0, 1.0), (1.0, 20.0)):
        delta = vector_of(trainer.answer(order("train", base, steps=20, class_weights=weights))["delta"])
        means.append(float(run_model(template.file(base + delta, info), inputs).mean()))
    assert means[1] > means[0] + 0.1


def test_the_local_only_model_goes_on_and_its_best_is_kept(made: Made, tmp_path: Path) -> None:
    template, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    answers = [trainer.answer(order("train_local", base, seed=seed)) for seed in range(4)]
    assert [a["num_steps"] for a in answers] == [60, 120, 180, 240]
    assert answers[3]["select_loss"] < answers[0]["select_loss"]
    # What is learnt from wrong labels spoils the model, and the best one stays.
    dataset = make_dataset(template.contract)
    wrong = np.where(dataset.parts == Part.TRAIN, 1 - dataset.labels, dataset.labels)
    replace(dataset, labels=wrong).save(tmp_path / "wrong.npz")
    trainer.answer({"op": "dataset", "path": str(tmp_path / "wrong.npz")})
    spoiled = trainer.answer(order("train_local", base, seed=9))
    assert spoiled == {"vector": answers[3]["vector"], "num_steps": 300, "select_loss": answers[3]["select_loss"]}
    # A round in between trains its own model and leaves the local-only one alone.
    trainer.answer(order("train", base, steps=5))
    assert trainer.answer(order("train_local", base, seed=9, steps=1))["num_steps"] == 301


def test_a_loss_that_explodes_is_an_answer_and_the_trainer_lives_on(made: Made, tmp_path: Path) -> None:
    _, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)
    huge = np.where(base == 0, base, np.float32(3e38))
    failed = trainer.answer(order("train", huge.astype(np.float32)))
    assert failed["error"] == "training-diverged"
    assert "step" in failed["detail"]
    assert "delta" in trainer.answer(order("train", base, steps=2))
    assert trainer.answer(order("train_local", huge.astype(np.float32)))["error"] == "training-diverged"
    assert trainer.answer(order("train_local", base, steps=2))["num_steps"] == 2


def test_requests_that_make_no_sense_get_a_sentence(made: Made, tmp_path: Path) -> None:
    template, base = made("mlp")
    fresh = Trainer()
    assert fresh.answer(order("train", base)) == {
        "error": "trainer-failed",
        "detail": "RuntimeError: no template was named",
    }
    assert fresh.answer({"op": "sing"})["error"] == "trainer-failed"
    assert fresh.answer({"op": "template", "skeleton": b"no model"})["error"] == "trainer-failed"
    fresh.answer({"op": "template", "skeleton": template.skeleton})
    assert "no samples" in fresh.answer(order("train", base))["detail"]
    assert fresh.answer({"op": "dataset", "path": str(tmp_path / "missing.npz")})["error"] == "trainer-failed"
    trainer = trainer_for(made, "mlp", tmp_path)
    assert "bytes for a vector" in trainer.answer(order("train", base[:-1]))["detail"]


def test_a_factory_that_this_site_does_not_list_is_not_imported(made: Made) -> None:
    template, _ = made("factory")
    answer = Trainer().answer({"op": "template", "skeleton": template.skeleton, "factories": []})
    assert answer["error"] == "trainer-failed"
    assert "trainer.factories" in answer["detail"]


def test_running_out_of_memory_has_its_own_code(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, base = made("mlp")
    trainer = trainer_for(made, "mlp", tmp_path)

    def no_memory(*_args: object, **_more: object) -> float:
        return float(torch.empty(2**60).sum())

    monkeypatch.setattr("edge.training.worker.train", no_memory)
    assert trainer.answer(order("train", base))["error"] == "trainer-out-of-memory"


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_optimizers_are_torch_s_own(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))) for _ in range(2))
    mine: Optimizer = Adam([ours], 0.01) if name == "adam" else Sgd([ours], 0.01)
    reference = (
        torch.optim.Adam([theirs], lr=0.01) if name == "adam" else torch.optim.SGD([theirs], lr=0.01, momentum=0.9)
    )
    target = torch.randn(5, 3)
    for _ in range(20):
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            torch.square(parameter - target).sum().backward()
            optimizer.step()
    assert not torch.equal(ours, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_real_process_trains_and_never_loads_the_compiler(made: Made, tmp_path: Path) -> None:
    """Its own stdout carries frames alone, and torch's compiler would cost each edge 1.5 s and 50 MB."""
    from edge.trainer_client import TrainerProcess

    template, base = made("mlp")
    path = tmp_path / "samples.npz"
    make_dataset(template.contract).save(path)
    program = (
        "import sys, runpy; print('stray words on stdout', file=sys.__stderr__);"
        "from edge.training import worker; before = worker.serve;"
        "def_serve = lambda r, a: (print('stray'), before(r, a), sys.exit('torch._dynamo' in sys.modules));"
        "worker.serve = def_serve; worker.main()"
    )

    async def main() -> tuple[float, int | None]:
        trainer = TrainerProcess([sys.executable, "-c", program])
        assert (await trainer.hello()).startswith("torch 2.")
        await trainer.template(template.skeleton)
        await trainer.dataset(path)
        training = Training(steps=60, batch_size=32, learning_rate=0.01)
        trained = await trainer.train(base, training, class_weights=(), seed=7)
        local = await trainer.train_local(base, training, class_weights=(), seed=7)
        assert local.num_steps == 60
        process = trainer._process
        assert process is not None
        await trainer.close()
        assert not trainer.is_running
        in_process = trainer_for(made, "mlp", tmp_path).answer(order("train", base))
        # One thread there, as many as the test has here: sums differ in their last digits.
        np.testing.assert_allclose(trained.delta, vector_of(in_process["delta"]), atol=1e-4)
        return trained.loss, process.returncode

    loss, code = run(main())
    assert loss < 0.6
    assert code == 0


def test_a_busy_trainer_dies_with_its_edge(made: Made, tmp_path: Path) -> None:
    """The edge is killed while the trainer computes and reads no pipe."""
    template, base = made("mlp")
    make_dataset(template.contract).save(tmp_path / "samples.npz")
    (tmp_path / "skeleton").write_bytes(template.skeleton)
    np.save(tmp_path / "base.npy", base)
    program = f"""
import asyncio, sys, numpy as np
from pathlib import Path
from edge.trainer_client import TrainerProcess
from uns_topics.plan import Training
async def main():
    folder = Path({str(tmp_path)!r})
    trainer = TrainerProcess([sys.executable, "-m", "edge.training.worker"])
    await trainer.template((folder / "skeleton").read_bytes())
    await trainer.dataset(folder / "samples.npz")
    training = Training(steps=1_000_000)
    task = asyncio.create_task(trainer.train(np.load(folder / "base.npy"), training, class_weights=(), seed=1))
    await asyncio.sleep(0)
    print(trainer._process.pid, flush=True)
    await task
asyncio.run(main())
"""
    edge = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert edge.stdout is not None
    with edge.stdout:
        trainer = os.pidfd_open(int(edge.stdout.readline()))
    try:
        edge.kill()
        edge.wait()
        ended, _, _ = select.select([trainer], [], [], 10)
        assert ended
    finally:
        os.close(trainer)
