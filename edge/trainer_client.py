"""The edge's side of the trainer: a process that is started when it is needed and again after it died.

Training in a process of its own keeps ingest and inference running whatever happens to it: an out-of-memory kill is an
event here, not the end of the edge.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.config import TrainerConfig
from edge.trainer_protocol import (
    EXIT_NOT_INSTALLED,
    HEAD_BYTES,
    TAKES_CORRECTION,
    FrameError,
    decode_body,
    encode_frame,
    frame_length,
)
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.tensors import Vector, vector_bytes

log = logging.getLogger("headgate.edge")

CLOSE_S = 2.0
DEATH_S = 0.5
"""How long a process whose pipe ended may take to say how it ended."""


class TrainerError(Exception):
    """A request that came to nothing; `reason` is what the participant's status says."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Trained:
    """The outcome of one round's training.

    Attributes:
        delta: local - global, shape (table.size,).
        local: the plant's own tensors as training left them, shape (elements of role local,); None: as they were.
    """

    delta: Vector
    num_steps: int
    num_examples: int
    loss: float
    local: Vector | None = None


@dataclass(frozen=True)
class TrainedLocally:
    """The best local-only parameters so far, by the select part."""

    vector: Vector
    num_steps: int
    select_loss: float


class TrainerProcess:
    """One trainer. Requests go one at a time; the caller sees to that."""

    def __init__(self, command: list[str], *, timeout_s: float = 600.0, factories: tuple[str, ...] = ()) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._factories = factories
        self._process: asyncio.subprocess.Process | None = None
        self._takes: tuple[object, ...] | None = None
        self.starts = 0
        """Processes so far: one that was started again knows nothing of what the one before was told."""

    @property
    def is_running(self) -> bool:
        """Whether the process that answered last is still there."""
        return self._process is not None and self._process.returncode is None

    async def hello(self) -> str:
        """Start it where it isn't running; its version. Raises: TrainerError."""
        answer = await self._ask({"op": "hello"})
        takes = answer.get("takes")
        self._takes = tuple(takes) if isinstance(takes, list) else ()
        return str(answer.get("version", ""))

    async def require_correction(self) -> None:
        """Raises: TrainerError: it doesn't say in its `hello` that it corrects steps."""
        if self._takes is None:
            await self.hello()
        if TAKES_CORRECTION not in (self._takes or ()):
            detail = "the plan's strategy corrects each step, and this trainer doesn't say that it takes a correction"
            raise TrainerError(Reason.TRAINER_WITHOUT_CORRECTION, detail)

    async def template(self, skeleton: bytes) -> None:
        """Name the template to train. Raises: TrainerError."""
        await self._ask({"op": "template", "skeleton": skeleton, "factories": list(self._factories)})

    async def dataset(self, path: Path) -> None:
        """Name the samples to train on. Raises: TrainerError."""
        await self._ask({"op": "dataset", "path": str(path)})

    async def initial(self, seed: int) -> Vector:
        """Fresh parameters. Raises: TrainerError."""
        return _vector((await self._ask({"op": "initial", "seed": seed}))["vector"])

    async def train(
        self,
        base: Vector,
        settings: Training,
        *,
        class_weights: tuple[float, ...],
        seed: int,
        correction: Vector | None = None,
    ) -> Trained:
        """Train from a global version.

        Args: correction: shape (elements of role weight,), added to each step's gradient.
        Raises: TrainerError, also where it diverged, or doesn't take a correction.
        """
        order = _order("train", base, settings, class_weights, seed)
        if correction is not None:
            await self.require_correction()
            order["correction"] = vector_bytes(correction)
        answer = await self._ask(order)
        return Trained(
            delta=_vector(answer["delta"]),
            num_steps=int(answer["num_steps"]),
            num_examples=int(answer["num_examples"]),
            loss=float(answer["loss"]),
            local=_vector(answer["local"]) if "local" in answer else None,
        )

    async def train_local(
        self, base: Vector, settings: Training, *, class_weights: tuple[float, ...], seed: int
    ) -> TrainedLocally:
        """Train the local-only model on; `base` is where it starts the first time. Raises: TrainerError."""
        answer = await self._ask(_order("train_local", base, settings, class_weights, seed))
        return TrainedLocally(_vector(answer["vector"]), int(answer["num_steps"]), float(answer["select_loss"]))

    async def close(self) -> None:
        """End the process: its pipe closes, and after two seconds it is killed."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await process.wait()
        except TimeoutError:
            await _kill(process)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                process.stdin.write(encode_frame(request))
                await process.stdin.drain()
                head = await process.stdout.readexactly(HEAD_BYTES)
                answer = decode_body(await process.stdout.readexactly(frame_length(head)))
        except TimeoutError:
            await _kill(process)
            detail = f"no answer to {request['op']} within {self._timeout_s:g} s; the trainer was killed"
            raise TrainerError(Reason.TRAINER_FAILED, detail) from None
        except asyncio.CancelledError:
            await _kill(process)  # whoever asks next must not read the answer to this
            raise
        except (OSError, asyncio.IncompleteReadError, FrameError) as error:
            raise await _death(process, error) from None
        if "error" in answer:
            raise TrainerError(_reason(answer["error"]), str(answer.get("detail", "")))
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    limit=2**24,
                )
            except OSError as error:
                raise TrainerError(Reason.NO_TRAINER, f"{self._command[0]} can't be started: {error}") from None
            self.starts += 1
        return self._process


def make_trainer(config: TrainerConfig) -> TrainerProcess | None:
    """The trainer of a configuration; None where training is off or torch is not installed."""
    if not config.enabled:
        return None
    command = config.command
    if command is None and importlib.util.find_spec("torch") is None:
        log.warning("torch is not installed: this edge only runs inference (pip install 'headgate[train]')")
        return None
    command = command or (sys.executable, "-m", "edge.training.worker")
    return TrainerProcess(list(command), timeout_s=config.timeout_s, factories=config.factories)


def _order(op: str, base: Vector, settings: Training, class_weights: tuple[float, ...], seed: int) -> dict[str, Any]:
    return {
        "op": op,
        "base": vector_bytes(base),
        "settings": settings.model_dump(mode="json"),
        "class_weights": list(class_weights),
        "seed": seed,
    }


def _vector(raw: bytes) -> Vector:
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _reason(code: object) -> Reason:
    try:
        return Reason(str(code))
    except ValueError:
        return Reason.TRAINER_FAILED


async def _death(process: asyncio.subprocess.Process, cause: Exception) -> TrainerError:
    """Why it ended; one that only closed its pipe, or talks nonsense, is ended here."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DEATH_S):
            await process.wait()
    ended_itself = process.returncode is not None
    await _kill(process)
    code = process.returncode
    if code == EXIT_NOT_INSTALLED:
        return TrainerError(Reason.NO_TRAINER, "torch is not installed: pip install 'headgate[train]'")
    if code == -signal.SIGKILL and ended_itself:
        detail = "the trainer was killed by signal 9, most likely for want of memory"
        return TrainerError(Reason.TRAINER_OUT_OF_MEMORY, detail)
    return TrainerError(Reason.TRAINER_FAILED, f"the trainer ended with code {code} ({type(cause).__name__})")


async def _kill(process: asyncio.subprocess.Process) -> None:
    """It keeps nothing that a gentler end would save."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
