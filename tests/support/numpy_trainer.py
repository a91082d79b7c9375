"""A trainer without torch that speaks the pipe protocol: `python -m tests.support.numpy_trainer`.

It learns nothing; it moves the weights by a small amount that depends on data, settings and seed alone, so that
services can be tested with updates that are deterministic, finite and different from plant to plant.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edge.dataset import Dataset, Part
from edge.trainer_protocol import TAKES_CORRECTION, encode_frame, read_frame
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.standardisation import DEVIATION_TENSOR, MEAN_TENSOR, scale
from uns_topics.template import Template, read_template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes

STEP = 1e-4
"""How far a weight moves in one step, at most."""
_PR_SET_PDEATHSIG = 1
Message = dict[str, Any]


class NumpyTrainer:
    """Answers requests as the torch trainer does."""

    def __init__(self) -> None:
        self.template: Template | None = None
        self.dataset: Dataset | None = None
        self.local: Vector | None = None
        self.local_steps = 0

    def answer(self, request: Message) -> Message:
        """The answer to one request."""
        operations = {
            "hello": lambda _: {"version": f"numpy {np.__version__}", "takes": [TAKES_CORRECTION]},
            "template": self.set_template,
            "dataset": self.set_dataset,
            "initial": self.initial,
            "train": self.train,
            "train_local": self.train_local,
        }
        try:
            return operations[request["op"]](request)
        except Exception as error:
            return {"error": Reason.TRAINER_FAILED.value, "detail": f"{type(error).__name__}: {error}"}

    def set_template(self, request: Message) -> Message:
        template = read_template(request["skeleton"])
        if self.template is None or template.sha256 != self.template.sha256:
            self.template, self.local, self.local_steps = template, None, 0
        return {}

    def set_dataset(self, request: Message) -> Message:
        self.dataset = Dataset.load(Path(request["path"]))
        return {}

    def initial(self, request: Message) -> Message:
        template, rng = self._template(), np.random.default_rng(request["seed"])
        features = template.contract.features
        known = {
            MEAN_TENSOR: 0.5,
            DEVIATION_TENSOR: 0.25,
            "standardise.minimum": [f.minimum for f in features],
            "standardise.maximum": [f.maximum for f in features],
            "calibration.bias": 0.0,
        }
        vector = np.ones(template.table.size, np.float32)
        for tensor in template.table.tensors:
            if tensor.role is Role.WEIGHT:
                template.table.view(vector, tensor.name)[...] = rng.normal(0.0, 0.1, tensor.shape)
            elif tensor.name in known:
                template.table.view(vector, tensor.name)[...] = known[tensor.name]
        return {"vector": vector_bytes(vector)}

    def train(self, request: Message) -> Message:
        template, settings = self._template(), Training.model_validate(request["settings"])
        delta, examples = self._delta(settings, request["seed"])
        vector_from_bytes(request["base"], template.table.size)  # the same check as the torch trainer's
        if (given := request.get("correction")) is not None:
            correction = vector_from_bytes(given, template.table.elements(Role.WEIGHT))
            moved = template.table.gather(delta, Role.WEIGHT) - settings.steps * settings.learning_rate * correction
            template.table.scatter(delta, Role.WEIGHT, moved.astype(np.float32))
        loss = 1.0 / (1.0 + examples)
        return {"delta": vector_bytes(delta), "num_steps": settings.steps, "num_examples": examples, "loss": loss}

    def train_local(self, request: Message) -> Message:
        template, settings = self._template(), Training.model_validate(request["settings"])
        if self.local is None:
            self.local = vector_from_bytes(request["base"], template.table.size)
        delta, _ = self._delta(settings, request["seed"])
        self.local = self.local + delta
        self.local_steps += settings.steps
        loss = 1.0 / self.local_steps
        return {"vector": vector_bytes(self.local), "num_steps": self.local_steps, "select_loss": loss}

    def _template(self) -> Template:
        if self.template is None:
            raise RuntimeError("no template was named")
        return self.template

    def _delta(self, settings: Training, seed: int) -> tuple[Vector, int]:
        """A small move of every weight in a direction that the training part's means choose; its number of rows."""
        template, dataset = self._template(), self.dataset
        index = dataset.of(Part.TRAIN) if dataset is not None else np.empty(0, np.int64)
        if dataset is None or not len(index):
            raise RuntimeError("no samples to train on")
        scaled = scale(dataset.features(index).reshape(-1, len(template.contract.features)), template.contract)
        present = ~np.isnan(scaled)
        mean = np.where(present, scaled, 0.0).sum(axis=0) / np.maximum(1, present.sum(axis=0))  # (F,) in [0, 1]
        rng = np.random.default_rng(seed)
        delta = np.zeros(template.table.size, np.float32)
        for tensor in template.table.tensors:
            if tensor.role in (Role.WEIGHT, Role.BUFFER):
                direction = np.tanh(rng.normal(0.0, 1.0, tensor.size) + np.resize(mean, tensor.size))
                move = STEP * settings.steps * direction.reshape(tensor.shape)
                template.table.view(delta, tensor.name)[...] = np.abs(move) if tensor.role is Role.BUFFER else move
        return delta, len(index)


def main(trainer: NumpyTrainer | None = None) -> None:
    """Answer until the pipe closes; stdout carries frames, so whatever else is printed goes to stderr."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    trainer = trainer or NumpyTrainer()
    with suppress(BrokenPipeError):  # the edge is gone
        while (request := read_frame(sys.stdin.buffer)) is not None:
            answers.write(encode_frame(trainer.answer(request)))
            answers.flush()


if __name__ == "__main__":
    main()
