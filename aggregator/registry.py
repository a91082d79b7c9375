"""Versions: a vector on disk, a manifest, and the golden outputs that prove an edge's copy. No torch here.

Everything blocks on disk or onnxruntime and is called in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from aggregator.vectors import VectorFiles
from uns_topics.controls import join_full
from uns_topics.rounds import VersionManifest
from uns_topics.template import Lineage, Template
from uns_topics.tensors import Vector, vector_sha256
from uns_topics.transfers import TransferManifest, make_manifest

Golden = Callable[[Template, bytes], Sequence[float]]
"""Outputs of a model file for the template's eight golden inputs, by onnxruntime."""


class PrepareError(ValueError):
    """A version that can't be published: its model gives no finite outputs."""


@dataclass(frozen=True)
class Held:
    """A version in memory: manifest, the bytes of its full transfer, and the step to it where there is one."""

    manifest: VersionManifest
    content: bytes = field(repr=False)
    step: bytes | None = field(default=None, repr=False)


class Registry:
    """Makes manifests and files of versions of one template."""

    def __init__(self, template: Template, generation: int, vectors: VectorFiles, golden: Golden) -> None:
        self._template = template
        self._generation = generation
        self._vectors = vectors
        self._golden = golden

    @property
    def template(self) -> Template:
        """The generation's template."""
        return self._template

    def keep(self, version: int, vector: Vector) -> str:
        """Make a vector durable. Returns: its SHA-256."""
        return self._vectors.write(version, vector)

    def vector(self, version: int, sha256: str) -> Vector:
        """A version's vector. Raises: VectorError."""
        return self._vectors.read(version, sha256, self._template.table.size)

    def prune(self, kept: Collection[tuple[int, str]]) -> None:
        """Remove the vectors of versions older than all of these."""
        self._vectors.prune(kept)

    def prepare(
        self,
        version: int,
        vector: Vector,
        lineage: Lineage,
        epoch: int,
        chunk_bytes: int,
        step: bytes | None = None,
        control: Vector | None = None,
    ) -> VersionManifest:
        """The manifest of a version.

        Args:
            step: from the lineage's parent; left out of the manifest where it is no smaller than the whole.
            control: its control variate, where the plan has them.

        Raises: PrepareError: outputs that are not finite.
        """
        info = self._template.version_info(version, self._generation, lineage)
        golden = tuple(float(value) for value in self._golden(self._template, self._template.file(vector, info)))
        if not golden or not all(math.isfinite(value) for value in golden):
            raise PrepareError(f"version {version} gives outputs that are not finite")
        content = join_full(vector, control)
        return VersionManifest(
            version=version,
            sha256=vector_sha256(vector),
            generation=self._generation,
            epoch=epoch,
            lineage=lineage,
            full=make_manifest(content, "model", chunk_bytes, version=version),
            delta=_step_manifest(step, len(content), chunk_bytes, version),
            control=vector_sha256(control) if control is not None else None,
            golden=golden,
        )

    def hold(
        self, manifest: VersionManifest, chunk_bytes: int, step: bytes | None = None, control: Vector | None = None
    ) -> Held:
        """A version ready to be published in chunks of this size. Raises: VectorError."""
        content = join_full(self.vector(manifest.version, manifest.sha256), control)
        if manifest.full.chunk_bytes == chunk_bytes:
            return Held(manifest, content, step)
        full = make_manifest(content, "model", chunk_bytes, version=manifest.version)
        delta = _step_manifest(step, len(content), chunk_bytes, manifest.version)
        return Held(manifest.model_copy(update={"full": full, "delta": delta}), content, step)


def _step_manifest(step: bytes | None, most: int, chunk_bytes: int, version: int) -> TransferManifest | None:
    """None where the step is not below this many bytes: the whole version is the shorter way."""
    if step is None or len(step) >= most:
        return None
    return make_manifest(step, "delta", chunk_bytes, version=version)
