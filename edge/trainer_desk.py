"""One trainer that several ask in turn, one thing at a time; told of template and samples only where they changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path

from edge.dataset import Dataset
from edge.trainer_client import TrainerError, TrainerProcess
from uns_topics.codes import Reason
from uns_topics.template import Template


class TrainerDesk:
    """Args: executor: what files are written on; folder: for the dataset file that the trainer reads."""

    def __init__(self, trainer: TrainerProcess, executor: Executor, folder: Path) -> None:
        self._trainer = trainer
        self._executor = executor
        self._path = folder / "training-set.npz"
        self._lock = asyncio.Lock()
        self._knows: tuple[str, Dataset] | None = None

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
                self._knows = None
                raise

    async def close(self) -> None:
        """End the process."""
        await self._trainer.close()

    async def _tell(self, template: Template, dataset: Dataset) -> None:
        known = self._knows
        if known is not None and known[0] == template.sha256 and known[1] is dataset and self._trainer.is_running:
            return
        self._knows = None
        await asyncio.get_running_loop().run_in_executor(self._executor, dataset.save, self._path)
        await self._trainer.template(template.skeleton)
        await self._trainer.dataset(self._path)
        self._knows = (template.sha256, dataset)
