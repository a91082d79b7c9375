"""The trainer process: `python -m edge.training.worker`, spoken to over stdin and stdout.

It keeps one template, one dataset and the local-only model. It ends when its pipe closes, and with its parent.
"""

from __future__ import annotations

import copy
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge.dataset import Dataset, Part
from edge.trainer_protocol import EXIT_NOT_INSTALLED, TAKES_CORRECTION, encode_frame, read_frame

try:
    import torch
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.stderr.write("the trainer needs torch, which is not installed: pip install 'headgate[train]'\n")
    sys.exit(EXIT_NOT_INSTALLED)

from edge.training.loop import Diverged, Objective, make_optimizer, score, train
from edge.training.modules import PlantModel
from edge.training.networks import build_model
from edge.training.optimizers import Optimizer
from edge.training.proof import prove
from edge.training.vectors import read_vector, write_vector
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.template import Template, read_template
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes, vector_from_bytes

_PR_SET_PDEATHSIG = 1
Message = dict[str, Any]


@dataclass
class LocalOnly:
    """The second model: it goes on from call to call, and its best parameters by the select part are kept."""

    model: PlantModel
    optimizer: Optimizer
    best: Vector | None = None
    steps: int = 0


class Trainer:
    """Answers requests."""

    def __init__(self) -> None:
        self._template: Template | None = None
        self._model: PlantModel | None = None
        self._dataset: Dataset | None = None
        self._local: LocalOnly | None = None
        self._operations: dict[str, Callable[[Message], Message]] = {
            "hello": self._hello,
            "template": self._set_template,
            "dataset": self._set_dataset,
            "initial": self._initial,
            "train": self._train,
            "train_local": self._train_local,
        }

    def answer(self, request: Message) -> Message:
        """The answer to one request; whatever goes wrong is an answer too."""
        try:
            operation = self._operations[str(request.get("op"))]
            return operation(request)
        except Diverged as error:
            return {"error": Reason.TRAINING_DIVERGED.value, "detail": str(error)}
        except MemoryError:
            return {"error": Reason.TRAINER_OUT_OF_MEMORY.value, "detail": "no memory for this training"}
        except Exception as error:  # a site's own module may raise anything; the process lives on
            detail = f"{type(error).__name__}: {error}"
            code = Reason.TRAINER_OUT_OF_MEMORY if "can't allocate memory" in detail else Reason.TRAINER_FAILED
            return {"error": code.value, "detail": detail[:500]}

    def _hello(self, _request: Message) -> Message:
        return {"version": f"torch {torch.__version__}", "takes": [TAKES_CORRECTION]}

    def _set_template(self, request: Message) -> Message:
        template = read_template(request["skeleton"])
        if self._template is None or self._template.sha256 != template.sha256:
            info = template.info
            model = build_model(info.contract, info.network, frozenset(request.get("factories", ())))
            prove(template, model)  # another release may build another module under the same name
            self._template, self._model, self._local = template, model, None
        return {}

    def _set_dataset(self, request: Message) -> Message:
        self._dataset = Dataset.load(Path(request["path"]))
        return {}

    def _initial(self, request: Message) -> Message:
        template, _ = self._ready()
        torch.manual_seed(request["seed"])
        fresh = build_model(template.info.contract, template.info.network, {template.info.network.kind})
        return {"vector": vector_bytes(read_vector(fresh, template.table))}

    def _train(self, request: Message) -> Message:
        template, model = self._ready()
        dataset, settings, objective, rng = self._order(request)
        base = vector_from_bytes(request["base"], template.table.size)
        write_vector(model, template.table, base)
        given = request.get("correction")
        correction = _correction(given, template.table) if given is not None else None
        loss = train(model, make_optimizer(model, settings), dataset, objective, settings, rng, correction)
        trained = _finite(read_vector(model, template.table))
        delta = trained - base
        for role in (Role.FROZEN, Role.LOCAL):
            for run in template.table.slices(role):
                delta[run] = 0.0
        examples = len(dataset.of(Part.TRAIN))
        return {
            "delta": vector_bytes(delta),
            "local": vector_bytes(template.table.gather(trained, Role.LOCAL)),
            "num_steps": settings.steps,
            "num_examples": examples,
            "loss": loss,
        }

    def _train_local(self, request: Message) -> Message:
        template, model = self._ready()
        dataset, settings, objective, rng = self._order(request)
        if self._local is None:
            base = vector_from_bytes(request["base"], template.table.size)
            own = copy.deepcopy(model)
            write_vector(own, template.table, base)
            self._local = LocalOnly(own, make_optimizer(own, settings))
        local = self._local
        try:
            train(local.model, local.optimizer, dataset, objective, settings, rng)
            latest = _finite(read_vector(local.model, template.table))
        except Diverged:
            self._local = None  # the next call starts over
            raise
        local.steps += settings.steps
        loss = score(local.model, dataset, Part.SELECT, objective)
        if local.best is not None:  # the select part grows with the data: the kept best is scored on today's rows
            write_vector(model, template.table, local.best)
            best_loss = score(model, dataset, Part.SELECT, objective)
            if best_loss < loss:
                latest, loss = local.best, best_loss
        local.best = latest
        return {"vector": vector_bytes(latest), "num_steps": local.steps, "select_loss": loss}

    def _ready(self) -> tuple[Template, PlantModel]:
        if self._template is None or self._model is None:
            raise RuntimeError("no template was named")
        return self._template, self._model

    def _order(self, request: Message) -> tuple[Dataset, Training, Objective, np.random.Generator]:
        template, _ = self._ready()
        dataset = self._dataset
        if dataset is None or not len(dataset.of(Part.TRAIN)):
            raise RuntimeError("no samples to train on")
        torch.manual_seed(request["seed"])
        objective = Objective(template.contract, tuple(request["class_weights"]))
        settings = Training.model_validate(request["settings"])
        return dataset, settings, objective, np.random.default_rng(request["seed"])


def _correction(raw: bytes, table: TensorTable) -> dict[str, torch.Tensor]:
    whole = np.zeros(table.size, np.float32)
    table.scatter(whole, Role.WEIGHT, vector_from_bytes(raw, table.elements(Role.WEIGHT)))
    weights = (tensor for tensor in table.tensors if tensor.role is Role.WEIGHT)
    return {tensor.name: torch.from_numpy(table.view(whole, tensor.name)) for tensor in weights}


def _finite(vector: Vector) -> Vector:
    if not np.isfinite(vector).all():
        raise Diverged("the parameters became NaN or infinite")
    return vector


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the pipe closes."""
    trainer = Trainer()
    while (request := read_frame(requests)) is not None:
        answers.write(encode_frame(trainer.answer(request)))
        answers.flush()


def main() -> None:
    """Set the process up, then serve. What libraries print goes to stderr: stdout carries frames."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the edge, which closes the pipe
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    with suppress(BrokenPipeError):  # the edge is gone, and so is whoever would read a traceback
        serve(sys.stdin.buffer, answers)
        answers.close()
    os._exit(0)  # taking torch down in order costs most of a second


if __name__ == "__main__":
    main()
