"""A trainer that takes every order and never delivers: `python -m tests.support.hanging_trainer [train_local]`."""

from __future__ import annotations

import signal
import sys

from tests.support.numpy_trainer import Message, NumpyTrainer, main


class HangingTrainer(NumpyTrainer):
    """Stuck in its first training, or in its first local training."""

    def train(self, request: Message) -> Message:
        if "train_local" not in sys.argv:
            signal.pause()
        return super().train(request)

    def train_local(self, request: Message) -> Message:
        signal.pause()
        return super().train_local(request)


if __name__ == "__main__":
    main(HangingTrainer())
