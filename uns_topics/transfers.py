"""Transfers: one byte string on its way in chunks. Manifest (JSON) and chunk (msgpack) as values and bytes.

A transfer's id is the start of its SHA-256, so the same bytes are the same transfer wherever they are met.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

import msgpack
from pydantic import Field, model_validator

from uns_topics.envelope import PayloadError
from uns_topics.model import Sha256, TransferId, Value, Version

KIB = 1024
DEFAULT_CHUNK_BYTES = 256 * KIB
MIN_CHUNK_BYTES = 15 * KIB
MAX_CHUNKS = 650
"""What a manifest under 48 KiB can list: 64 hex digits and punctuation each, envelope and signature besides."""
WRAPPING_BYTES = KIB
"""Topic, packet header and msgpack map around a chunk's body take at most this."""
CHUNK_VERSION = 1


class TransferKind:
    """Names of what a transfer carries."""

    UPDATE: Literal["update"] = "update"
    MODEL: Literal["model"] = "model"
    SKELETON: Literal["skeleton"] = "skeleton"
    DELTA: Literal["delta"] = "delta"


class TransferManifest(Value):
    """What a transfer will be, before its first chunk: the only thing that has to be signed."""

    id: TransferId
    kind: Literal["update", "model", "skeleton", "delta"]
    bytes: int = Field(ge=1, le=2**40)
    chunk_bytes: int = Field(ge=1, le=2**30)
    sha256: Sha256
    chunks: tuple[Sha256, ...] = Field(min_length=1, max_length=MAX_CHUNKS)
    content_schema: int = Field(default=1, ge=1, le=1000)
    base: Sha256 | None = None
    round_number: int | None = Field(default=None, ge=1, le=2**31)
    attempt: int | None = Field(default=None, ge=1, le=2**31)
    version: Version | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.sha256.startswith(self.id):
            raise ValueError("id is not the start of sha256")
        if len(self.chunks) != -(-self.bytes // self.chunk_bytes):
            raise ValueError(f"{len(self.chunks)} chunks for {self.bytes} bytes in chunks of {self.chunk_bytes}")
        return self

    def chunk_size(self, index: int) -> int:
        """Bytes of the body of chunk `index`."""
        return min(self.chunk_bytes, self.bytes - index * self.chunk_bytes)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a transfer."""

    id: str
    index: int
    count: int
    body: bytes


class ModelTooLarge(ValueError):
    """More bytes than a manifest can list at the largest chunk that the broker takes."""


def transfer_id(content: bytes) -> str:
    """The id of a transfer of these bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def make_manifest(
    content: bytes,
    kind: Literal["update", "model", "skeleton", "delta"],
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    *,
    base: str | None = None,
    round_number: int | None = None,
    attempt: int | None = None,
    version: int | None = None,
) -> TransferManifest:
    """The manifest of a byte string; `chunk_bytes` is raised until the manifest can list every chunk."""
    needed = -(-len(content) // MAX_CHUNKS)
    size = max(chunk_bytes, needed)
    whole = hashlib.sha256(content).hexdigest()
    pieces = tuple(hashlib.sha256(content[start : start + size]).hexdigest() for start in range(0, len(content), size))
    return TransferManifest(
        id=whole[:16],
        kind=kind,
        bytes=len(content),
        chunk_bytes=size,
        sha256=whole,
        chunks=pieces,
        base=base,
        round_number=round_number,
        attempt=attempt,
        version=version,
    )


def chunk_of(content: bytes, manifest: TransferManifest, index: int) -> Chunk:
    """Chunk `index` of the content."""
    start = index * manifest.chunk_bytes
    body = content[start : start + manifest.chunk_bytes]
    return Chunk(manifest.id, index, len(manifest.chunks), body)


def encode_chunk(chunk: Chunk) -> bytes:
    """The msgpack map `{v, id, i, n, body}`."""
    packed: bytes = msgpack.packb(
        {"v": CHUNK_VERSION, "id": chunk.id, "i": chunk.index, "n": chunk.count, "body": chunk.body}, use_bin_type=True
    )
    return packed


def decode_chunk(payload: bytes, max_body_bytes: int) -> Chunk:
    """Read a chunk. Raises: PayloadError: too large, no chunk, unknown or missing fields, bytes left over."""
    if len(payload) > max_body_bytes + WRAPPING_BYTES:
        raise PayloadError(f"a chunk of {len(payload)} bytes where at most {max_body_bytes} are due")
    try:
        fields = msgpack.unpackb(
            payload,
            raw=False,
            max_bin_len=max_body_bytes,
            max_str_len=64,
            max_map_len=8,
            max_array_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise PayloadError(f"no msgpack chunk: {type(error).__name__}") from None
    if not isinstance(fields, dict) or set(fields) != {"v", "id", "i", "n", "body"}:
        raise PayloadError("a chunk is a map of v, id, i, n and body")
    if fields["v"] != CHUNK_VERSION:
        raise PayloadError(f"chunk version {fields['v']!r}; this side speaks {CHUNK_VERSION}")
    if not (
        isinstance(fields["id"], str)
        and type(fields["i"]) is int
        and type(fields["n"]) is int
        and isinstance(fields["body"], bytes)
        and 0 <= fields["i"] < fields["n"] <= MAX_CHUNKS
    ):
        raise PayloadError("a chunk's id, i, n or body is of the wrong type or out of range")
    return Chunk(fields["id"], fields["i"], fields["n"], fields["body"])
