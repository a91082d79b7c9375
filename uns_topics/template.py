"""A template: skeleton ONNX and tensor table, fixed for a generation, its hash pinned in the plan.

A model file is three parts, back to back: the graph with its parameters, the template's metadata (tensor table, roles,
contract, kind of network), the version's metadata (federation, version, lineage). The skeleton is the first two with
every parameter zero. **The vector is the truth and the file is a function of it**: whoever holds skeleton and vector
builds the same bytes, so a foreign ONNX file is good only if it equals the bytes that we build ourselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from uns_topics.contract import Contract
from uns_topics.envelope import describe
from uns_topics.model import FileValue, Identifier, Sha256, Slug, Value, Version
from uns_topics.protobuf import ProtobufError, metadata_entries, metadata_message
from uns_topics.tensors import Tensor, TensorTable, Vector, vector_sha256

TEMPLATE_KEY = "headgate.template"
VERSION_KEY = "headgate.version"
GOLDEN_ROWS = 8

FEATURES_INPUT = "features"
CONTEXT_INPUT = "context"


class TemplateError(ValueError):
    """The bytes are not a model file or skeleton of ours, or don't fit the template."""


Width = Annotated[int, Field(ge=0, le=2**24)]


class Network(FileValue):
    """Which network stands between standardisation and calibration."""

    kind: str = Field(
        min_length=1, max_length=200, description="mlp, cnn1d, gru, autoencoder, or package.module:callable"
    )
    hidden: tuple[Width, ...] = Field(default=(64, 32), max_length=16, description="widths, from the input on")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    local: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=64, description="tensors that each plant keeps to itself, by name; * stands for anything"
    )


class TemplateInfo(Value):
    """What the template says of itself, carried in the skeleton's own metadata."""

    network: Network
    contract: Contract
    output: Identifier
    table: TensorTable


class Lineage(Value):
    """Where a version comes from."""

    origin: Literal["new", "statistics", "round", "imported", "warm-start"]
    parent: Version | None = None
    """Of `warm-start`: the last version of an earlier generation."""
    round_number: int | None = Field(default=None, ge=0, le=2**31)
    contributors: int = Field(default=0, ge=0, le=2**31)


class VersionInfo(Value):
    """The version's own metadata, the last part of a model file; the key order is this order."""

    federation: Slug
    generation: int = Field(ge=0, le=2**31)
    version: Version
    contract_sha256: Sha256
    features: tuple[tuple[str, str], ...]
    lineage: Lineage


@dataclass(frozen=True)
class Template:
    """A skeleton with its info; `sha256` is the hash that a plan pins."""

    skeleton: bytes
    info: TemplateInfo

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.skeleton).hexdigest()

    @property
    def contract(self) -> Contract:
        return self.info.contract

    @cached_property
    def graph_sha256(self) -> str:
        """Hash of the graph alone: templates whose contracts differ in words only have the same."""
        position, _ = _entries(self.skeleton)[TEMPLATE_KEY]
        return hashlib.sha256(self.skeleton[:position]).hexdigest()

    def means_the_same(self, other: Template) -> bool:
        """Whether vectors of the one are vectors of the other, and say the same of the same samples."""
        mine, theirs = self.info, other.info
        is_same_contract = mine.contract.meaning_sha256 == theirs.contract.meaning_sha256
        is_same_network = (mine.network, mine.table) == (theirs.network, theirs.table)
        return is_same_contract and is_same_network and self.graph_sha256 == other.graph_sha256

    @property
    def table(self) -> TensorTable:
        return self.info.table

    def version_info(self, version: int, generation: int, lineage: Lineage) -> VersionInfo:
        """The metadata of a version of this template."""
        return VersionInfo(
            federation=self.contract.federation,
            generation=generation,
            version=version,
            contract_sha256=self.contract.meaning_sha256,
            features=tuple((f.name, f.unit) for f in self.contract.features),
            lineage=lineage,
        )

    def file(self, vector: Vector, info: VersionInfo) -> bytes:
        """The ONNX file of a version: parameters at their offsets, then the version's metadata.

        Args: vector: shape (table.size,), float32.
        Raises: TemplateError: another number of elements.
        """
        if vector.shape != (self.table.size,):
            raise TemplateError(f"a vector of shape {vector.shape} for a template of {self.table.size} elements")
        out = bytearray(self.skeleton)
        for tensor in self.table.tensors:
            values = np.ascontiguousarray(vector[tensor.offset : tensor.offset + tensor.size], dtype="<f4")
            out[tensor.file_offset : tensor.file_offset + 4 * tensor.size] = values.tobytes()
        return bytes(out) + metadata_message({VERSION_KEY: info.model_dump_json()})


@dataclass(frozen=True)
class ModelFile:
    """A model file taken apart."""

    template: Template
    vector: Vector
    version: VersionInfo

    @property
    def sha256(self) -> str:
        """The vector's identity."""
        return vector_sha256(self.vector)


def make_template(graph: bytes, info: TemplateInfo) -> Template:
    """A template of an exported graph and its info; whatever parameters the graph holds become zero."""
    return Template(_zeroed(graph, info.table.tensors) + metadata_message({TEMPLATE_KEY: info.model_dump_json()}), info)


def read_template(skeleton: bytes) -> Template:
    """Read a skeleton. Raises: TemplateError: no skeleton, or parameters that are not zero."""
    entries = _entries(skeleton)
    if VERSION_KEY in entries:
        raise TemplateError("a whole model file where a skeleton was expected")
    info = _info(entries)
    if _zeroed(skeleton, info.table.tensors) != skeleton:
        raise TemplateError("the skeleton's parameters are not zero")
    return Template(skeleton, info)


def read_model_file(raw: bytes) -> ModelFile:
    """Take a model file apart, and prove that our own parts build exactly these bytes.

    Raises: TemplateError: not a file of ours, changed, or with parameters that are not finite.
    """
    entries = _entries(raw)
    if VERSION_KEY not in entries:
        raise TemplateError("no version metadata: not a model file that Headgate wrote")
    position, text = entries[VERSION_KEY]
    info = _info(entries)
    try:
        version = VersionInfo.model_validate_json(text)
    except ValidationError as error:
        raise TemplateError(f"version metadata: {describe(error)}") from None
    template = Template(_zeroed(raw[:position], info.table.tensors), info)
    vector = np.empty(info.table.size, np.float32)
    for tensor in info.table.tensors:
        values = np.frombuffer(raw, "<f4", tensor.size, tensor.file_offset)
        vector[tensor.offset : tensor.offset + tensor.size] = values
    if not np.isfinite(vector).all():
        raise TemplateError("the file's parameters hold NaN or infinity")
    if template.file(vector, version) != raw:
        raise TemplateError(
            "the file differs from what its own skeleton, parameters and metadata build: it was changed"
        )
    return ModelFile(template, vector, version)


def golden_inputs(template_sha256: str, contract: Contract) -> Mapping[str, np.ndarray]:
    """Eight inputs drawn from the template's hash within the contract's ranges, a tenth of the values missing.

    Returns: `features` of shape (8, F) or (8, L, F), float32; `context` of shape (8,), int64, where the contract
        declares one. Every side draws the same numbers: PCG64 seeded by the hash.
    """
    rng = np.random.Generator(np.random.PCG64(int(template_sha256, 16)))
    low = np.array([f.minimum for f in contract.features])
    high = np.array([f.maximum for f in contract.features])
    steps = (contract.window_length,) if contract.window_length else ()
    shape = (GOLDEN_ROWS, *steps, len(contract.features))
    values = low + (high - low) * rng.random(shape)
    values[rng.random(shape) < 0.1] = np.nan
    inputs: dict[str, np.ndarray] = {FEATURES_INPUT: values.astype(np.float32)}
    if contract.context is not None and contract.context.kind == "declared":
        inputs[CONTEXT_INPUT] = rng.integers(0, contract.slots, GOLDEN_ROWS, dtype=np.int64)
    return inputs


def _entries(raw: bytes) -> dict[str, tuple[int, str]]:
    """Our metadata entries: key -> (position, text). Raises: TemplateError: also where a key stands twice."""
    found: dict[str, tuple[int, str]] = {}
    try:
        for position, key, text in metadata_entries(raw):
            if key in found:
                raise TemplateError(f"metadata {key} stands twice")
            found[key] = (position, text)
    except ProtobufError as error:
        raise TemplateError(f"not an ONNX file: {error}") from None
    return found


def _info(entries: Mapping[str, tuple[int, str]]) -> TemplateInfo:
    if TEMPLATE_KEY not in entries:
        raise TemplateError("no template metadata: not a model that Headgate wrote (see `headgate model new`)")
    try:
        info = TemplateInfo.model_validate_json(entries[TEMPLATE_KEY][1])
    except ValidationError as error:
        raise TemplateError(f"template metadata: {describe(error)}") from None
    limit = entries[TEMPLATE_KEY][0]
    for tensor in info.table.tensors:
        if tensor.file_offset + 4 * tensor.size > limit:
            raise TemplateError(f"tensor {tensor.name} lies outside the graph")
    return info


def _zeroed(raw: bytes, tensors: tuple[Tensor, ...]) -> bytes:
    out = bytearray(raw)
    for tensor in tensors:
        out[tensor.file_offset : tensor.file_offset + 4 * tensor.size] = bytes(4 * tensor.size)
    return bytes(out)
