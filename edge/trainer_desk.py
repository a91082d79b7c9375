"""One trainer that several ask in turn, one thing at a time; told of template and samples only where they changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker_bridge.threads import on
from edge.dataset import Dataset
from edge.trainer_client import TrainerError, TrainerProcess
from uns_topics.codes import Reason
from uns_topics.template import Template


@dataclass(frozen=True, slots=True)
class _Told:
    """What one process knows. Attributes: starts: which process."""

    starts: int
    template_sha256: str
    dataset: Dataset | None = None


class TrainerDesk:
    """Args: executor: what files are written on; folder: for the dataset file that the trainer reads."""

    def __init__(self, trainer: TrainerProcess, executor: Executor, folder: Path) -> None:
        self._trainer = trainer
        self._executor = executor
        self._path = folder / "training-set.npz"
        self._lock = asyncio.Lock()
        self._told: _Told | None = None

    async def reason(self, *, corrects: bool = False) -> tuple[Reason, str] | None:
        """Why training is not possible now, also in words; None where it is. Starts the trainer if it isn't there.

        Args: corrects: whether it has to correct each step.
        """
        try:
            async with self._lock:
                await self._trainer.hello()
                if corrects:
                    await self._trainer.require_correction()
        except TrainerError as error:
            return error.reason, str(error)
        return None

    @asynccontextmanager
    async def using(self, template: Template, dataset: Dataset) -> AsyncIterator[TrainerProcess]:
        """The trainer, told of template and samples. Raises: TrainerError; OSError: the samples can't be written."""
        async with self._lock:
            try:
                await self._tell(template, dataset)
                yield self._trainer
            except TrainerError:
                self._told = None
                raise

    async def close(self) -> None:
        """End the process."""
        await self._trainer.close()

    async def _tell(self, template: Template, dataset: Dataset) -> None:
        trainer, told, self._told = self._trainer, self._told, None
        if told is None or not trainer.is_running or told.starts != trainer.starts:
            told = None
        if told is None or told.template_sha256 != template.sha256:
            await trainer.template(template.skeleton)
            told = _Told(trainer.starts, template.sha256)
        if told.dataset is not dataset:
            await on(self._executor, lambda: dataset.save(self._path))
            await trainer.dataset(self._path)
        self._told = replace(told, dataset=dataset)
