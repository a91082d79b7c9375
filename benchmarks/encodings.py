"""Encodings: time per million parameters, and bytes of an update as really sent: whole MQTT packets, manifest and all.

The values are normally distributed, every tensor alike: what training gives is skewed more, and packs a little better.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.support import row
from uns_topics.encodings import ENCODINGS
from uns_topics.payloads import Writer
from uns_topics.tensors import Role, Tensor, TensorTable
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import DEFAULT_CHUNK_BYTES, chunk_of, encode_chunk, make_manifest
from uns_topics.update import UpdateHeader, decode_update, max_update_bytes, pack_groups, pack_update, unpack_groups

SIZES = (100_000, 1_000_000)
REPEATS = 7


def main() -> None:
    """Both sizes, every encoding."""
    for size in SIZES:
        weights = Tensor(name="w", shape=(size,), role=Role.WEIGHT, offset=0, file_offset=0)
        table = TensorTable(tensors=(weights,))
        delta = np.random.default_rng(1).normal(0, 0.01, size).astype(np.float32)
        plain = 0
        for name in ENCODINGS:
            content = _update(delta, table, name)
            most = max_update_bytes(table, (name,))
            encode = 1e9 / size * _seconds(partial(_update, delta, table, name))
            decode = 1e9 / size * _seconds(partial(_decode, content, most, table))
            sent = _sent_bytes(content)
            plain = plain or sent
            of = f"{size:,} parameters, {name}"
            row(f"{of}: encode / decode (ms per million)", f"{encode:.1f} / {decode:.1f}")
            row(f"{of}: bytes sent, times fewer than f32", f"{sent:,}, {plain / sent:.1f}")


def _decode(content: bytes, most: int, table: TensorTable) -> np.ndarray:
    return unpack_groups(decode_update(content, most), table)


def _update(delta: np.ndarray, table: TensorTable, name: str) -> bytes:
    groups, body = pack_groups(delta, table, name)
    header = UpdateHeader(
        federation="solder-defect", participant="berlin", round_number=1, attempt=1, base="a" * 64, generation=1,
        num_examples=1000, num_steps=100, metrics={"loss": 0.5}, groups=groups,
    )  # fmt: skip
    return pack_update(header, body)


def _sent_bytes(content: bytes) -> int:
    """All PUBLISH packets of the transfer at QoS 1 (MQTT 3.1.1, section 3.3)."""
    manifest = make_manifest(content, "update", DEFAULT_CHUNK_BYTES, base="a" * 64, round_number=1, attempt=1)
    names = {"participant": "berlin", "transfer": manifest.id}
    topic = FlTopic("solder-defect", Kind.UPDATE_MANIFEST, **names)
    total = _packet_bytes(topic, Writer("solder-defect", "berlin", "0a1b2c3d").seal(manifest))
    for index in range(len(manifest.chunks)):
        topic = FlTopic("solder-defect", Kind.UPDATE_CHUNK, **names, index=index)
        total += _packet_bytes(topic, encode_chunk(chunk_of(content, manifest, index)))
    return total


def _packet_bytes(topic: FlTopic, payload: bytes) -> int:
    remaining = 2 + len(str(topic).encode()) + 2 + len(payload)
    length = max(1, -(-remaining.bit_length() // 7))
    return 1 + length + remaining


def _seconds(work: Callable[[], object]) -> float:
    """Median of a few runs after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
