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
