"""A transfer being put together: each chunk checked on arrival, nothing allocated before the manifest was accepted."""

from __future__ import annotations

import hashlib

from uns_topics.transfers import Chunk, TransferManifest


class IntegrityError(ValueError):
    """A chunk or the whole doesn't match the manifest's hash or size."""


class Assembly:
    """The chunks of one transfer so far. Pure: no clock, no I/O."""

    def __init__(self, manifest: TransferManifest) -> None:
        self.manifest = manifest
        self._chunks: dict[int, bytes] = {}

    def add(self, chunk: Chunk) -> bool:
        """Take a chunk; False where it was there already or belongs to another chunking of the same bytes.

        Raises: IntegrityError: its bytes are not what the manifest lists.
        """
        manifest = self.manifest
        if chunk.id != manifest.id or chunk.count != len(manifest.chunks) or chunk.index in self._chunks:
            return False
        if len(chunk.body) != manifest.chunk_size(chunk.index):
            raise IntegrityError(f"chunk {chunk.index} of transfer {chunk.id} has {len(chunk.body)} bytes")
        if hashlib.sha256(chunk.body).hexdigest() != manifest.chunks[chunk.index]:
            raise IntegrityError(f"chunk {chunk.index} of transfer {chunk.id} differs from the manifest's hash")
        self._chunks[chunk.index] = chunk.body
        return True

    def adopt(self, other: Assembly) -> None:
        """Take over what another chunking of the same bytes has already; each piece is checked as on arrival."""
        starts = sorted(other._chunks)
        size = other.manifest.chunk_bytes
        first = 0
        while first < len(starts):
            last = first
            while last + 1 < len(starts) and starts[last + 1] == starts[last] + 1:
                last += 1
            run = b"".join(other._chunks[i] for i in starts[first : last + 1])
            self._cut(run, starts[first] * size)
            first = last + 1

    def _cut(self, run: bytes, start: int) -> None:
        """Add every chunk that lies whole within a run of bytes that starts at `start`."""
        manifest = self.manifest
        for index in range(-(-start // manifest.chunk_bytes), len(manifest.chunks)):
            begin = index * manifest.chunk_bytes - start
            end = begin + manifest.chunk_size(index)
            if end > len(run):
                return
            body = run[begin:end]
            if hashlib.sha256(body).hexdigest() == manifest.chunks[index]:
                self._chunks[index] = body

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices that have not arrived."""
        return tuple(i for i in range(len(self.manifest.chunks)) if i not in self._chunks)

    @property
    def received(self) -> int:
        """Chunks that have arrived."""
        return len(self._chunks)

    @property
    def is_whole(self) -> bool:
        return len(self._chunks) == len(self.manifest.chunks)

    def content(self) -> bytes:
        """All bytes. Raises: IntegrityError: chunks are missing, or the whole differs from the manifest's hash."""
        if not self.is_whole:
            raise IntegrityError(f"transfer {self.manifest.id} misses {len(self.missing)} chunks")
        content = b"".join(self._chunks[i] for i in range(len(self.manifest.chunks)))
        if hashlib.sha256(content).hexdigest() != self.manifest.sha256:
            raise IntegrityError(f"transfer {self.manifest.id} differs from the manifest's hash")
        return content
