"""From a torch module to a template: exported once, its parameters found in the bytes, and proven.

The export runs without optimisation, which keeps every `state_dict` name; with it (or with the old exporter's folding)
BatchNorm is folded under the same name and shape, and a swapped parameter would be wrong with no error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import numpy as np
import onnx
import torch

from edge.training.modules import PlantModel
from edge.training.networks import build_model
from edge.training.proof import ProofError, prove
from edge.training.vectors import read_vector, role_of
from uns_topics.contract import Contract
from uns_topics.template import (
    CONTEXT_INPUT,
    FEATURES_INPUT,
    Network,
    Template,
    TemplateInfo,
    make_template,
)
from uns_topics.tensors import Role, Tensor, TensorTable, Vector

OPSET = 18


class ExportError(Exception):
    """The module can't be made into a template that behaves like it."""


def make_model(
    contract: Contract, network: Network, seed: int, factories: Collection[str] = ()
) -> tuple[Template, Vector]:
    """Export and prove a template; its initial parameters are drawn from the seed.

    Raises: NetworkError: the network doesn't fit the contract. ExportError: the export failed or doesn't behave.
    """
    torch.manual_seed(seed)
    module = build_model(contract, network, factories).eval()
    graph, tensors = _export(module, contract)
    parameters = frozenset(name for name, _ in module.named_parameters())
    roles = {name: role_of(name, parameters, network.local) for name in tensors}
    if problem := _local_problem(roles, network.local):
        raise ExportError(problem)
    table = TensorTable(tensors=_locate(graph, roles))
    info = TemplateInfo(network=network, contract=contract, output=contract.output_name, table=table)
    template = make_template(graph.SerializeToString(deterministic=True), info)
    try:
        prove(template, module)
    except ProofError as error:
        raise ExportError(f"not a usable template: {error}") from None
    return template, read_vector(module, table)


def _export(module: PlantModel, contract: Contract) -> tuple[onnx.ModelProto, list[str]]:
    """The graph, stripped of everything that isn't needed to run it, and the names of its float parameters."""
    steps = (contract.window_length,) if contract.window_length else ()
    features = torch.zeros(3, *steps, len(contract.features))
    rows = torch.export.Dim("rows")
    arguments: tuple[torch.Tensor | None, ...] = (features,)
    shapes: dict[str, dict[int, torch.export.Dim] | None] = {FEATURES_INPUT: {0: rows}}
    names = [FEATURES_INPUT]
    if module.takes_context:
        arguments += (torch.zeros(3, dtype=torch.int64),)
        shapes[CONTEXT_INPUT] = {0: rows}
        names.append(CONTEXT_INPUT)
    else:
        shapes[CONTEXT_INPUT] = None
        arguments += (None,)
    chatter = io.StringIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                optimize=False,
                input_names=names,
                output_names=[contract.output_name],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever the module does in many types
        raise ExportError(f"torch can't export this network: {type(error).__name__}: {error}") from error
    if program is None:
        raise ExportError("torch gave no program")
    graph = program.model_proto
    _strip(graph)
    known = {initializer.name for initializer in graph.graph.initializer}
    wanted = [name for name, value in module.state_dict().items() if value.dtype == torch.float32]
    if lost := [name for name in wanted if name not in known]:
        raise ExportError(f"the export lost the parameters {', '.join(lost)}")
    return graph, wanted


def _strip(model: onnx.ModelProto) -> None:
    """Drop traces, comments and value infos: they name files of the machine that exported, and are not needed."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_version = ""
    graph = model.graph
    for field in ("metadata_props", "doc_string", "value_info"):
        graph.ClearField(field)
    graph.name = "headgate"
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _local_problem(roles: Mapping[str, Role], local: Collection[str]) -> str | None:
    """Why these patterns make no federation; None where they do."""
    ours = [name for name, role in roles.items() if role is not Role.FROZEN and not name.startswith("calibration.")]
    for pattern in local:
        if not any(fnmatchcase(name, pattern) for name in ours):
            return f"local: no tensor is named {pattern}; there are {', '.join(ours)}"
    if Role.WEIGHT not in roles.values():
        return f"local: {', '.join(local)} leave nothing to learn together"
    return None


def _locate(model: onnx.ModelProto, roles: Mapping[str, Role]) -> tuple[Tensor, ...]:
    """Where each parameter's bytes lie, found by unique random sentinels; the vector follows `state_dict` order."""
    rng = np.random.default_rng(0)
    names = list(roles)
    by_name = {initializer.name: initializer for initializer in model.graph.initializer}
    sentinels: dict[str, bytes] = {}
    for name in names:
        initializer = by_name[name]
        size = int(np.prod(initializer.dims)) if initializer.dims else 1
        sentinels[name] = rng.standard_normal(size).astype("<f4").tobytes()
        initializer.ClearField("float_data")
        initializer.raw_data = sentinels[name]
    raw = model.SerializeToString(deterministic=True)
    tensors, offset = [], 0
    for name in names:
        at = raw.find(sentinels[name])
        if at < 0 or raw.find(sentinels[name], at + 1) >= 0:
            raise ExportError(f"the bytes of parameter {name} can't be told apart in the file")
        shape = tuple(by_name[name].dims)
        tensor = Tensor(name=name, shape=shape, role=roles[name], offset=offset, file_offset=at)
        tensors.append(tensor)
        offset += tensor.size
    return tuple(tensors)
