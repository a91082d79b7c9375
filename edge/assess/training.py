"""How long one training step takes on this machine, by the edge's own trainer process. A shell."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edge.assess.report import Step
from edge.dataset import Dataset, Part
from edge.splits import NO_GROUP
from edge.trainer_client import TrainerError, TrainerProcess
from uns_topics.codes import Reason
from uns_topics.contract import ClassLabel, Contract
from uns_topics.plan import Training
from uns_topics.template import TemplateError, read_template

ROWS = 512
WARM_UP_STEPS, STEPS = 5, 40


async def time_step(trainer: TrainerProcess, skeleton: bytes, folder: Path, batch_size: int) -> Step:
    """Train on made-up rows within the contract's ranges and take the time. Args: folder: for the rows.

    Returns: `skipped` where training isn't installed, `failed` where it ends for another reason.
    """
    try:
        template = read_template(skeleton)
    except TemplateError as error:
        return Step(failed=f"the template can't be read: {error}")
    contract = template.contract
    path = folder / "assess.npz"
    _rows(contract).save(path)
    classes = len(contract.label.classes) if isinstance(contract.label, ClassLabel) else 0
    try:
        await trainer.template(skeleton)
        await trainer.dataset(path)
        base = await trainer.initial(1)
        for steps in (WARM_UP_STEPS, STEPS):
            settings = Training(steps=steps, batch_size=batch_size)
            started = time.perf_counter()
            await trainer.train(base, settings, class_weights=(1.0,) * classes, seed=1)
            seconds = time.perf_counter() - started
    except TrainerError as error:
        if error.reason is Reason.NO_TRAINER:
            return Step(skipped=str(error))
        return Step(failed=f"the trainer failed: {error}")
    network = f"{template.info.network.kind}, {template.table.size:,} parameters"
    return Step(round(seconds / STEPS * 1e3, 3), batch_size, network)


def _rows(contract: Contract) -> Dataset:
    """Rows drawn evenly over the contract's ranges."""
    rng = np.random.default_rng(1)
    low = np.array([f.minimum for f in contract.features])
    high = np.array([f.maximum for f in contract.features])
    rows = rng.uniform(low, high, (ROWS, len(low))).astype(np.float32)
    stops = np.arange(1, ROWS + 1)
    starts = np.maximum(0, stops - (contract.window_length or 1))
    label = contract.label
    if isinstance(label, ClassLabel):
        labels = (np.arange(ROWS) % len(label.classes)).astype(np.float32)
    elif label.kind == "none":
        labels = np.full(ROWS, np.nan, np.float32)
    else:
        labels = np.arange(ROWS, 0, -1).astype(np.float32)
    parts = np.full(ROWS, Part.TRAIN, np.uint8)
    parts[int(0.6 * ROWS) :] = Part.SELECT
    return Dataset(
        rows=rows,
        windows=np.stack([starts, stops], axis=1).astype(np.int64),
        labels=labels,
        contexts=np.zeros(ROWS, np.int64),
        parts=parts,
        times=np.arange(ROWS, dtype=np.float64),
        instances=np.zeros(ROWS, np.int64),
        groups=np.full(ROWS, NO_GROUP, np.int64),
        length=contract.window_length,
    )
