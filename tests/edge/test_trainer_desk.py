"""One trainer for several who ask: what it is told, and when again."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edge.dataset import Dataset
from edge.trainer_client import TrainerProcess
from edge.trainer_desk import TrainerDesk
from tests.aio import run
from tests.edge.test_trainer_client import samples
from tests.support.tiny_template import tiny_template
from uns_topics.template import Template


class Overheard(TrainerProcess):
    """Says what it was asked."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.support.numpy_trainer"])
        self.asked: list[str] = []

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request["op"])
        return await super()._ask(request)

    async def die(self) -> None:
        """As by the kernel, for want of memory."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


async def use(desk: TrainerDesk, template: Template, dataset: Dataset) -> None:
    async with desk.using(template, dataset) as trainer:
        assert np.isfinite(await trainer.initial(1)).all()


def test_a_process_is_told_what_is_new_alone_and_the_next_process_all(tmp_path: Path) -> None:
    async def main() -> None:
        trainer, template, first, second = Overheard(), tiny_template(), samples(), samples(40)
        disk = ThreadPoolExecutor(1)
        desk = TrainerDesk(trainer, disk, tmp_path)
        for dataset in (first, first, second):
            await use(desk, template, dataset)
        assert trainer.asked == ["template", "dataset", "initial", "initial", "dataset", "initial"]
        trainer.asked.clear()
        await trainer.die()
        assert await desk.reason() is None  # a look starts the next one
        await use(desk, template, second)
        assert trainer.asked == ["hello", "template", "dataset", "initial"]
        await desk.close()
        disk.shutdown()

    run(main())
