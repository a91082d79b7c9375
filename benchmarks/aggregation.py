"""Folding updates beside Flower, NVFlare, numpy, BLAS and memcpy; median and trimmed mean beside numpy and Flower.

GB/s: bytes of float32 deltas read per second, the best of a few runs. `ours 2.0x`: Headgate is twice as fast.
Whole path: from updates' stored bytes to the mean (unpack, check, decode, fold), in parameters per second; NVFlare's
helper holds its float32 tensors already.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from aggregator.fold import weighted_mean
from aggregator.kept import KeptRows
from aggregator.strategies import make_strategy
from aggregator.updates import ArrayUpdates, decoded
from benchmarks.support import row
from tests.support.flower_environment import ROOT, flower_python
from tests.support.nvflare_environment import nvflare_python
from uns_topics.plan import Strategy
from uns_topics.tensors import Role, Tensor, TensorTable, vector_bytes
from uns_topics.update import UpdateHeader, pack_groups, pack_update

SIZES = ((10, 10**6), (100, 10**6), (10, 10**7), (100, 10**7))
ENCODED = ("f32", "int8", "ternary")
ROBUST = ((20, 10**6), (100, 10**6))
TIMES = 3


def timed(work: Callable[[], object], times: int = TIMES) -> float:
    """Best seconds."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes taken at a time, the result included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def flower(what: str, count: int, size: int) -> dict[str, float] | None:
    """Flower's figures from a process of its own, so that its memory is counted alone."""
    python = flower_python()
    if python is None:
        return None
    program = str(Path(__file__).parent / "flower_aggregation.py")
    command = [str(python), program, what, str(count), str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def nvflare(count: int, size: int) -> dict[str, float] | None:
    """NVFlare's figures, from a process in its own environment."""
    python = nvflare_python()
    if python is None:
        return None
    program = str(Path(__file__).parent / "nvflare_aggregation.py")
    done = subprocess.run([str(python), program, str(count), str(size)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def saxpy() -> Callable[[np.ndarray, float, np.ndarray], None] | None:
    """y += a * x by the BLAS that numpy brings, on one thread; None where it brings none that we know."""
    for path in sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas64_*")):
        library = ctypes.CDLL(str(path))
        library.scipy_openblas_set_num_threads64_(1)
        function = library.scipy_cblas_saxpy64_
        function.argtypes = [ctypes.c_int64, ctypes.c_float, *[ctypes.c_void_p, ctypes.c_int64] * 2]
        function.restype = None

        def call(y: np.ndarray, a: float, x: np.ndarray, function: ctypes._CFuncPtr = function) -> None:
            function(x.size, a, x.ctypes.data, 1, y.ctypes.data, 1)

        return call
    return None


def line(name: str, seconds: float, gigabytes: float, ours: float, peak: float | None = None) -> None:
    """Speed, and how much faster or slower than ours."""
    memory = "" if peak is None else f", +{peak / 1e6:,.0f} MB"
    row(name, f"{gigabytes / seconds:.1f} GB/s, {seconds * 1e3:,.0f} ms{memory}, ours {seconds / ours:.1f}x")


def fold(count: int, size: int) -> None:
    """The weighted mean."""
    base = np.random.default_rng(0).standard_normal(size, np.float32)
    rows = [np.roll(base, 7919 * i) for i in range(count)]
    names, weights = [f"{i:03}" for i in range(count)], [10 + i for i in range(count)]
    terms = [(weight / sum(weights), values) for weight, values in zip(weights, rows, strict=True)]
    updates = ArrayUpdates(names, weights, rows)
    gigabytes = 4 * count * size / 1e9
    print(f"{count} updates of {size // 10**6}M parameters, {gigabytes:.2f} GB")

    def headgate() -> np.ndarray:
        return weighted_mean(updates)

    ours = timed(headgate)
    line("  Headgate", ours, gigabytes, ours, peak_bytes(headgate))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        kept = KeptRows(size, Path(folder), stack, memory_bytes=0)
        for index, values in enumerate(rows):
            kept.keep(index, "f32", memoryview(vector_bytes(values)))
        stored = ArrayUpdates(names, weights, kept, size=size)
        seconds, peak = timed(lambda: weighted_mean(stored)), peak_bytes(lambda: weighted_mean(stored))
        line("  Headgate, decoded updates in a file", seconds, gigabytes, ours, peak)

    total = np.zeros(size, np.float32)
    line("  copy of each update (memcpy)", timed(lambda: [np.copyto(total, r) for r in rows]), gigabytes, ours)
    if (axpy := saxpy()) is not None:
        line("  BLAS saxpy, one thread", timed(lambda: [axpy(total, s, r) for s, r in terms]), gigabytes, ours)

    def plain() -> np.ndarray:
        mean = np.zeros(size, np.float32)
        for share, values in terms:
            mean += np.float32(share) * values
        return mean

    line("  plain numpy, mean += share * delta", timed(plain), gigabytes, ours, peak_bytes(plain))
    for what, name in (("aggregate", "Flower, aggregate"), ("fedavg", "Flower, FedAvg.aggregate_train")):
        if (found := flower(what, count, size)) is not None:
            line(f"  {name}", found["seconds"], gigabytes, ours, found["peak_bytes"])


def whole_path(count: int, size: int) -> None:
    """From stored bytes to the mean, for each encoding, beside NVFlare on tensors that it holds."""
    table = TensorTable(tensors=(Tensor(name="w", shape=(size,), role=Role.WEIGHT, offset=0, file_offset=0),))
    base = np.random.default_rng(0).normal(0, 0.01, size).astype(np.float32)
    names, weights = [f"p-{i:03}" for i in range(count)], [10 + i for i in range(count)]
    parameters = count * size
    print(f"whole path of {count} updates of {size // 10**6}M parameters")
    theirs = nvflare(count, size)
    if theirs is not None:
        name = f"  NVFlare, WeightedAggregationHelper, {theirs['threads']} threads"
        row(name, f"{parameters / theirs['seconds'] / 1e9:.2f} G/s, {theirs['seconds'] * 1e3:,.0f} ms")
    for encoding in ENCODED:
        stored = [_stored(np.roll(base, 7919 * i), table, encoding, name) for i, name in enumerate(names)]

        def work(stored: list[bytes] = stored, encoding: str = encoding) -> np.ndarray:
            with (
                tempfile.TemporaryDirectory() as folder,
                decoded(names, weights, stored.__getitem__, table, (encoding,), Path(folder)) as (updates, _),
            ):
                return weighted_mean(updates)

        seconds = timed(work)
        peak = peak_bytes(work)
        beside = "" if theirs is None else f", {theirs['seconds'] / seconds:.2f}x NVFlare"
        text = f"{parameters / seconds / 1e9:.2f} G/s, {seconds * 1e3:,.0f} ms, +{peak / 1e6:,.0f} MB{beside}"
        row(f"  Headgate, {encoding}, from stored bytes", text)


def _stored(delta: np.ndarray, table: TensorTable, encoding: str, name: str) -> bytes:
    groups, body = pack_groups(delta, table, encoding)
    header = UpdateHeader(
        federation="solder-defect", participant=name, round_number=1, attempt=1, base="a" * 64, generation=1,
        num_examples=1000, num_steps=100, metrics={"loss": 0.5}, groups=groups,
    )  # fmt: skip
    return pack_update(header, body)


def robust(count: int, size: int) -> None:
    """Median and trimmed mean."""
    base = np.random.default_rng(0).standard_normal(size, np.float32)
    rows = np.array([np.roll(base, 7919 * i) for i in range(count)])
    updates = ArrayUpdates([f"{i:03}" for i in range(count)], [1] * count, rows)
    table = TensorTable(tensors=(Tensor(name="w", shape=(size,), role=Role.WEIGHT, offset=0, file_offset=0),))
    gigabytes = 4 * count * size / 1e9
    cut = count // 5  # as by default

    def trimmed() -> np.ndarray:
        mean: np.ndarray = np.partition(rows, (cut, count - cut - 1), axis=0)[cut : count - cut].mean(axis=0)
        return mean

    beside: dict[str, dict[str, Callable[[], object] | str]] = {
        "median": {
            "numpy.median": lambda: np.median(rows, axis=0),
            "Flower, aggregate_median": "aggregate_median",
            "Flower, FedMedian.aggregate_train": "median",
        },
        "trimmed-mean": {
            "numpy.partition and mean": trimmed,
            "Flower, FedTrimmedAvg.aggregate_train": "trimmed",
        },
    }
    for name, others in beside.items():
        apply = functools.partial(make_strategy(Strategy(name=name)).apply, {}, updates, table)
        print(f"{name} of {count} updates of {size // 10**6}M parameters")
        ours = timed(apply)
        line("  Headgate", ours, gigabytes, ours, peak_bytes(apply))
        for title, other in others.items():
            if not isinstance(other, str):
                line(f"  {title}", timed(other), gigabytes, ours, peak_bytes(other))
            elif (found := flower(other, count, size)) is not None:
                line(f"  {title}", found["seconds"], gigabytes, ours, found["peak_bytes"])


def main() -> None:
    """All sizes."""
    for name, python in (("Flower", flower_python()), ("NVFlare", nvflare_python())):
        if python is None:
            print(f"{name} is left out: scripts/setup-{name.lower()} sets it up", file=sys.stderr)
    for count, size in SIZES:
        fold(count, size)
    for count, size in SIZES:
        whole_path(count, size)
    for count, size in ROBUST:
        robust(count, size)


if __name__ == "__main__":
    main()
