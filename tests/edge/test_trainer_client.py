"""The trainer's pipe: frames, and a process that dies, hangs, talks nonsense or can't be started."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge.config import TrainerConfig
from edge.dataset import Dataset
from edge.trainer_client import CLOSE_S, TrainerError, TrainerProcess, make_trainer
from edge.trainer_protocol import FrameError, decode_body, encode_frame, frame_length, read_frame
from tests.aio import run
from tests.support.tiny_template import tiny_template, tiny_vector
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.tensors import Role, vector_bytes

NUMPY = [sys.executable, "-m", "tests.support.numpy_trainer"]
SETTINGS = Training(steps=20, batch_size=8)
FRAMES = "import os, sys, time, signal; from edge.trainer_protocol import encode_frame, read_frame;"
ANSWER_ONE = FRAMES + (
    "read_frame(sys.stdin.buffer); sys.stdout.buffer.write(encode_frame({'version': 'one'})); sys.stdout.flush();"
)


def samples(rows: int = 50) -> Dataset:
    """Events of the tiny contract."""
    rng = np.random.default_rng(0)
    return Dataset(
        rows=rng.uniform(0, 10, (rows, 2)).astype(np.float32),
        windows=np.stack([np.arange(rows), np.arange(rows) + 1], axis=1),
        labels=(np.arange(rows) % 5 == 0).astype(np.float32),
        contexts=np.zeros(rows, np.int64),
        parts=(np.arange(rows) // 30).astype(np.uint8),
        times=np.arange(rows, dtype=np.float64),
        instances=np.zeros(rows, np.int64),
        groups=np.full(rows, -1, np.int64),
    )


def failing(program: str, **settings: float) -> TrainerProcess:
    return TrainerProcess([sys.executable, "-c", program], **settings)


def test_frames_come_back_as_they_were() -> None:
    message = {"op": "train", "base": b"\0" * 1000, "seed": 2**53, "settings": {"steps": 3}}
    raw = encode_frame(message)
    assert frame_length(raw[:4]) == len(raw) - 4
    stream = io.BytesIO(raw + raw)
    assert [read_frame(stream), read_frame(stream), read_frame(stream)] == [message, message, None]


@pytest.mark.parametrize("raw", [b"\0\0", b"\0\0\0\5abc", b"\xff\xff\xff\xff", b"\0\0\0\1\x93", b"\0\0\0\1\x01"])
def test_what_is_no_frame_is_an_error(raw: bytes) -> None:
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(raw))


def test_a_body_that_is_no_map_is_an_error() -> None:
    with pytest.raises(FrameError, match="map"):
        decode_body(b"\xc0")


def test_a_whole_conversation(tmp_path: Path) -> None:
    template = tiny_template()
    base = tiny_vector(template)
    samples().save(tmp_path / "samples.npz")

    async def main() -> None:
        trainer = TrainerProcess(NUMPY)
        assert not trainer.is_running
        assert (await trainer.hello()).startswith("numpy ")
        assert trainer.is_running
        await trainer.template(template.skeleton)
        await trainer.dataset(tmp_path / "samples.npz")
        first = await trainer.train(base, SETTINGS, class_weights=(1.0, 4.0), seed=3)
        again = await trainer.train(base, SETTINGS, class_weights=(1.0, 4.0), seed=3)
        assert np.array_equal(first.delta, again.delta)
        assert (first.num_steps, first.num_examples) == (20, 30)
        assert np.any(template.table.gather(first.delta, Role.WEIGHT))
        assert not np.any(template.table.gather(first.delta, Role.FROZEN))
        local = await trainer.train_local(base, SETTINGS, class_weights=(), seed=3)
        local = await trainer.train_local(base, SETTINGS, class_weights=(), seed=4)
        assert local.num_steps == 40
        assert local.vector.shape == base.shape
        assert (await trainer.initial(1)).shape == base.shape
        with pytest.raises(TrainerError, match="bytes for a vector") as refused:
            await trainer.train(base[:-1], SETTINGS, class_weights=(), seed=3)
        assert refused.value.reason is Reason.TRAINER_FAILED
        assert (await trainer.hello()).startswith("numpy ")
        await trainer.close()
        assert not trainer.is_running

    run(main())


def test_a_killed_trainer_is_an_out_of_memory_event_and_the_next_call_starts_another() -> None:
    async def main() -> None:
        trainer = TrainerProcess(NUMPY)
        await trainer.hello()
        assert trainer._process is not None
        first = trainer._process.pid
        os.kill(first, signal.SIGSTOP)  # so that the kill comes while an answer is awaited
        waiting = asyncio.create_task(trainer.hello())
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TrainerError, match="memory") as killed:
            await waiting
        assert killed.value.reason is Reason.TRAINER_OUT_OF_MEMORY
        assert not trainer.is_running
        assert (await trainer.hello()).startswith("numpy ")
        assert trainer._process.pid != first
        await trainer.close()

    run(main())


@pytest.mark.parametrize(
    ("program", "reason", "sentence"),
    [
        ("import sys; sys.exit(3)", Reason.TRAINER_FAILED, "code 3"),
        (FRAMES + "read_frame(sys.stdin.buffer); os.kill(os.getpid(), 9)", Reason.TRAINER_OUT_OF_MEMORY, "memory"),
        ("import sys; sys.exit(69)", Reason.NO_TRAINER, r"headgate\[train\]"),
        ("print('hello, this is no frame')", Reason.TRAINER_FAILED, "FrameError|IncompleteRead"),
        (FRAMES + "sys.stdout.buffer.write(encode_frame([1]))", Reason.TRAINER_FAILED, "FrameError"),
    ],
)
def test_whatever_ends_a_trainer_has_a_reason(program: str, reason: Reason, sentence: str) -> None:
    async def main() -> None:
        trainer = failing(program)
        with pytest.raises(TrainerError, match=sentence) as error:
            await trainer.hello()
        assert error.value.reason is reason
        assert not trainer.is_running
        await trainer.close()

    run(main())


def test_a_program_that_does_not_exist_is_no_trainer() -> None:
    async def main() -> None:
        with pytest.raises(TrainerError, match="can't be started") as error:
            await TrainerProcess(["/nowhere/trainer"]).hello()
        assert error.value.reason is Reason.NO_TRAINER

    run(main())


def test_a_code_from_a_later_release_is_a_failure() -> None:
    async def main() -> None:
        answer = "read_frame(sys.stdin.buffer); sys.stdout.buffer.write(encode_frame({'error': 'new', 'detail': 'x'}))"
        trainer = failing(FRAMES + answer)
        with pytest.raises(TrainerError, match="x") as error:
            await trainer.hello()
        assert error.value.reason is Reason.TRAINER_FAILED
        await trainer.close()

    run(main())


def test_a_trainer_that_does_not_answer_in_time_is_killed() -> None:
    async def main() -> None:
        trainer = failing("import time; time.sleep(60)", timeout_s=0.2)
        with pytest.raises(TrainerError, match=r"within 0\.2 s") as error:
            await trainer.hello()
        assert error.value.reason is Reason.TRAINER_FAILED
        assert not trainer.is_running

    run(main())


def test_a_cancelled_request_takes_its_answer_with_it() -> None:
    """The next request must not read the answer to the one before."""

    async def main() -> None:
        trainer = failing(ANSWER_ONE + "time.sleep(60)")
        assert await trainer.hello() == "one"
        waiting = asyncio.create_task(trainer.hello())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not trainer.is_running
        assert await trainer.hello() == "one"
        await trainer.close()

    run(main())


def test_closing_ends_a_trainer_that_ignores_its_pipe_and_the_polite_signal() -> None:
    async def main() -> None:
        trainer = failing("import signal; signal.signal(15, signal.SIG_IGN);" + ANSWER_ONE + "time.sleep(60)")
        await trainer.hello()
        process = trainer._process
        assert process is not None
        started = time.monotonic()
        await trainer.close()
        assert process.returncode == -signal.SIGKILL
        assert time.monotonic() - started < CLOSE_S + 1
        await trainer.close()  # twice is fine

    run(main())


def test_the_numpy_trainer_ends_when_its_pipe_closes() -> None:
    async def main() -> None:
        trainer = TrainerProcess(NUMPY)
        await trainer.hello()
        process = trainer._process
        assert process is not None
        await trainer.close()
        assert process.returncode == 0

    run(main())


def test_a_site_s_own_modules_are_named_as_its_configuration_lists_them() -> None:
    template = tiny_template()
    program = FRAMES + "request = read_frame(sys.stdin.buffer);"
    program += "sys.stdout.buffer.write(encode_frame({'error': 'no', 'detail': ' '.join(request['factories'])}))"

    async def main() -> None:
        config = TrainerConfig(command=(sys.executable, "-c", program), factories=("site.nets:wide", "site.nets:deep"))
        trainer = make_trainer(config)
        assert trainer is not None
        with pytest.raises(TrainerError, match=r"^site\.nets:wide site\.nets:deep$"):
            await trainer.template(template.skeleton)
        await trainer.close()

    run(main())


def test_vectors_travel_as_they_are() -> None:
    template = tiny_template()
    vector = tiny_vector(template)
    echo = "request = read_frame(sys.stdin.buffer);"
    echo += "answer = {'delta': request['base'], 'num_steps': 1, 'num_examples': 1, 'loss': 0.5};"
    echo += "sys.stdout.buffer.write(encode_frame(answer))"

    async def main() -> None:
        trainer = failing(FRAMES + echo)
        trained = await trainer.train(vector, SETTINGS, class_weights=(), seed=0)
        assert vector_bytes(trained.delta) == vector_bytes(vector)
        assert trained.delta.flags.writeable
        await trainer.close()

    run(main())


def test_a_trainer_that_is_switched_off_is_none() -> None:
    assert make_trainer(TrainerConfig(enabled=False, command=("true",))) is None
