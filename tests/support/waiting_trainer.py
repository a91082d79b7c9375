"""A trainer whose every training waits for a word: `python -m tests.support.waiting_trainer FIFO`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.numpy_trainer import Message, NumpyTrainer, main


class WaitingTrainer(NumpyTrainer):
    """Goes on once somebody opened the FIFO for writing and closed it again."""

    def __init__(self, fifo: Path) -> None:
        super().__init__()
        self._fifo = fifo

    def train(self, request: Message) -> Message:
        self._fifo.read_bytes()
        return super().train(request)


if __name__ == "__main__":
    main(WaitingTrainer(Path(sys.argv[1])))
