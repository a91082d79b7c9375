"""A trainer that takes every order and never delivers: `python -m tests.support.hanging_trainer`."""

from __future__ import annotations

import signal

from tests.support.numpy_trainer import Message, NumpyTrainer, main


class HangingTrainer(NumpyTrainer):
    """Stuck in its first training."""

    def train(self, request: Message) -> Message:
        signal.pause()
        return super().train(request)


if __name__ == "__main__":
    main(HangingTrainer())
