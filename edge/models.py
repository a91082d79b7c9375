"""The edge's model store: skeleton, the last versions on disk, and sessions that run them.

A version is a vector; the file that runs is built here from skeleton and vector, and must give the golden outputs that
the aggregator measured before it may serve.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from broker_bridge.durable import write_whole
from uns_topics.golden import agrees, golden_outputs_of, open_session
from uns_topics.presence import Variant
from uns_topics.rounds import VersionManifest
from uns_topics.template import CONTEXT_INPUT, FEATURES_INPUT, Lineage, Template, TemplateError, read_template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes, vector_sha256

BATCH_ROWS = 4096
"""Rows of one run when a whole part is scored: bounds the memory of a window batch."""


CALIBRATION_SCALE, CALIBRATION_BIAS = "calibration.scale", "calibration.bias"
"""Tensors of role local in every template."""
KEPT_SERVED = 2
_OWN = "own.json"
_SERVED = "served.txt"


class ModelRefused(Exception):
    """A version that must not serve: its bytes, its hash or its golden outputs are not what its manifest says."""


@dataclass(frozen=True)
class Model:
    """A version that can run. `run` takes raw values in the contract's units."""

    template: Template
    vector: Vector
    session: ort.InferenceSession
    lineage: Lineage
    control: Vector | None = None
    """c of this version, shape (elements of role weight,), where the plan has control variates."""

    def run(self, features: npt.NDArray[np.float32], contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Args: features: shape (n, F) or (n, L, F); contexts: shape (n,). Returns: shape (n,)."""
        inputs: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]] = {FEATURES_INPUT: features}
        if self.template.contract.context is not None and self.template.contract.context.kind == "declared":
            inputs[CONTEXT_INPUT] = contexts
        outputs: npt.NDArray[np.float32] = self.session.run(None, inputs)[0]
        return outputs.reshape(-1)


@dataclass(frozen=True)
class OwnModel:
    """A model of this plant's own as it lies on disk. Attributes: version: the global one that it stands in for."""

    variant: Variant
    version: int
    template_sha256: str
    vector: Vector


def open_version(template: Template, vector: Vector, manifest: VersionManifest, control: Vector | None = None) -> Model:
    """Build a version's file, prove it and open it. Raises: ModelRefused: golden outputs differ from the manifest's."""
    if vector_sha256(vector) != manifest.sha256:
        raise ModelRefused(f"version {manifest.version}: the vector is not the one that the manifest names")
    if (vector_sha256(control) if control is not None else None) != manifest.control:
        raise ModelRefused(f"version {manifest.version}: the control variate is not the one that the manifest names")
    raw = template.file(vector, template.version_info(manifest.version, manifest.generation, manifest.lineage))
    try:
        session = open_session(raw)
        outputs = golden_outputs_of(template, session)
    except Exception as error:  # onnxruntime raises many types; whatever it is, this version must not serve
        raise ModelRefused(f"onnxruntime can't run version {manifest.version}: {type(error).__name__}") from error
    if not agrees(outputs, manifest.golden):
        raise ModelRefused(f"version {manifest.version} gives other outputs here than at the aggregator")
    return Model(template, vector, session, manifest.lineage, control)


def open_own(template: Template, vector: Vector) -> Model:
    """Open a vector that was made in this plant (local-only)."""
    lineage = Lineage(origin="new")
    raw = template.file(vector, template.version_info(0, 0, lineage))
    return Model(template, vector, open_session(raw), lineage)


def with_local(model: Model, local: Vector) -> Model:
    """The same parameters with this plant's tensors of role local. Args: local: shape (elements of role local,)."""
    table = model.template.table
    if np.array_equal(table.gather(model.vector, Role.LOCAL), local):
        return model
    vector = model.vector.copy()
    table.scatter(vector, Role.LOCAL, local)
    return open_own(model.template, vector)


def with_calibration(model: Model, scale: float, bias: float) -> Model | None:
    """The same parameters with a calibration in the graph; None where the template has no place for one."""
    table, vector = model.template.table, model.vector.copy()
    try:
        table.view(vector, CALIBRATION_SCALE)[...] = scale
        table.view(vector, CALIBRATION_BIAS)[...] = bias
    except KeyError:
        return None
    return open_own(model.template, vector)


class ModelStore:
    """Skeletons and versions under one folder. File writes are a temporary name, fsync, rename."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def skeletons(self) -> frozenset[str]:
        """Hashes of the skeletons on disk."""
        return frozenset(p.stem.removeprefix("skeleton-") for p in self._folder.glob("skeleton-*.onnx"))

    def template(self, sha256: str) -> Template:
        """Read a skeleton. Raises: ModelRefused: missing, or not the bytes of that hash."""
        path = self._folder / f"skeleton-{sha256}.onnx"
        try:
            template = read_template(path.read_bytes())
        except (OSError, TemplateError) as error:
            raise ModelRefused(f"{path.name}: {error}") from error
        if template.sha256 != sha256:
            raise ModelRefused(f"{path.name} was changed on disk")
        return template

    def save_template(self, template: Template) -> None:
        """Keep a skeleton that was checked."""
        write_whole(self._folder / f"skeleton-{template.sha256}.onnx", template.skeleton)

    def save(
        self,
        manifest: VersionManifest,
        vector: Vector,
        template_sha256: str,
        keep: frozenset[int],
        control: Vector | None = None,
    ) -> None:
        """Keep a verified version; forget others than it, `keep` and what served last. Raises: OSError."""
        if control is not None:
            write_whole(self._folder / f"{manifest.version}.control", vector_bytes(control))
        write_whole(self._folder / f"{manifest.version}.f32", vector_bytes(vector))
        record = {"template": template_sha256, "manifest": manifest.model_dump(mode="json")}
        write_whole(self._folder / f"{manifest.version}.json", json.dumps(record).encode())
        kept = keep | {manifest.version, *self.served()}
        for path in self._folder.iterdir():  # also what a full disk left half written
            number = path.name.partition(".")[0]
            if number.isdecimal() and int(number) not in kept:
                path.unlink(missing_ok=True)

    def load(self, version: int) -> tuple[VersionManifest, Vector, str]:
        """Read a version and its template's hash. Raises: ModelRefused: missing, or not what its manifest says."""
        try:
            record = json.loads((self._folder / f"{version}.json").read_bytes())
            manifest = VersionManifest.model_validate_json(json.dumps(record["manifest"]))
            raw = (self._folder / f"{version}.f32").read_bytes()
            vector = vector_from_bytes(raw, len(raw) // 4)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelRefused(f"version {version} on disk: {error}") from error
        if vector_sha256(vector) != manifest.sha256:
            raise ModelRefused(f"version {version} on disk was changed")
        return manifest, vector, str(record["template"])

    def control(self, manifest: VersionManifest) -> Vector | None:
        """The control variate beside a version, where it has one. Raises: ModelRefused: missing, or cut off."""
        if manifest.control is None:
            return None
        try:
            raw = (self._folder / f"{manifest.version}.control").read_bytes()
            return vector_from_bytes(raw, len(raw) // 4)
        except (OSError, ValueError) as error:
            raise ModelRefused(f"the control variate of version {manifest.version} on disk: {error}") from error

    def mark_served(self, version: int) -> None:
        """This version serves from now on; the one before it stays as a second last good one. Raises: OSError.

        One that isn't on disk can't serve after a restart, so it takes nothing's place.
        """
        if not (self._folder / f"{version}.json").exists():
            return
        before = [known for known in self.served() if known != version]
        write_whole(self._folder / _SERVED, json.dumps([version, *before][:KEPT_SERVED]).encode())

    def save_own(self, own: OwnModel) -> None:
        """Keep a model of this plant's own that serves. Raises: OSError."""
        raw = vector_bytes(own.vector)
        write_whole(self._folder / "own.f32", raw)
        record = {
            "variant": own.variant.value,
            "version": own.version,
            "template": own.template_sha256,
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        write_whole(self._folder / _OWN, json.dumps(record).encode())

    def drop_own(self) -> None:
        """None of this plant's own serves any more. Raises: OSError."""
        (self._folder / _OWN).unlink(missing_ok=True)

    def own(self) -> OwnModel | None:
        """What `save_own` kept last. Raises: ModelRefused: it was changed on disk, or a power cut came between."""
        try:
            record = json.loads((self._folder / _OWN).read_bytes())
            raw = (self._folder / "own.f32").read_bytes()
            found = OwnModel(
                Variant(record["variant"]),
                int(record["version"]),
                str(record["template"]),
                vector_from_bytes(raw, len(raw) // 4),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelRefused(f"this plant's own model on disk: {error}") from error
        if record["sha256"] != hashlib.sha256(raw).hexdigest():
            raise ModelRefused("this plant's own model on disk is not the one that served")
        return found

    def served(self) -> list[int]:
        """Versions that served, the last one first. A candidate that never served is no last good version."""
        try:
            found = json.loads((self._folder / _SERVED).read_bytes())
        except (OSError, ValueError):
            return []
        return [version for version in found if isinstance(version, int)] if isinstance(found, list) else []
