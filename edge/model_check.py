"""Whether a skeleton that came over the network may be run: looked at without running it, then run with limits.

The graph comes from the aggregator and onnxruntime is native code, so the first look and the first run happen in a
child process with little memory and little time; what the child says is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from uns_topics.contract import Contract
from uns_topics.golden import run_model
from uns_topics.template import (
    CONTEXT_INPUT,
    FEATURES_INPUT,
    Lineage,
    Template,
    TemplateError,
    golden_inputs,
    read_template,
)
from uns_topics.tensors import Role, Vector

if TYPE_CHECKING:
    import onnx

MAX_SKELETON_BYTES = 512 * 2**20
MAX_NODES = 200_000
MAX_OPSET = 23
MEMORY_BYTES = 4 * 2**30
"""Address space of the child beyond the skeleton's own copies: onnxruntime reserves far more than it uses."""
CPU_S = 30
CHECK_TIMEOUT_S = 60.0

# fmt: off
OPERATORS = frozenset((
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Clip",
    "Concat", "Constant", "ConstantOfShape", "Conv", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Expand",
    "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu",
    "Pad", "Pow", "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Selu", "Shape", "Sigmoid", "Sign", "Sin",
    "Size", "Slice", "Softmax", "Softplus", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
    "Tile", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
"""What a network may be made of: arithmetic and shapes. No control flow, no randomness, nothing that calls or reads."""


def check_skeleton(skeleton: bytes) -> Template:
    """Look at a skeleton without running it.

    Raises: TemplateError: too large; no skeleton; a parameter that is not where the table says; or a graph with
        external data, functions, control flow, foreign operators or other inputs and outputs than the contract's.
    """
    if len(skeleton) > MAX_SKELETON_BYTES:
        raise TemplateError(f"a skeleton of {len(skeleton)} bytes; at most {MAX_SKELETON_BYTES} are accepted")
    template = read_template(skeleton)
    import onnx

    rng = np.random.Generator(np.random.PCG64(int(template.sha256, 16)))
    vector = random_vector(template, rng)
    try:
        model = onnx.load_model_from_string(template.file(vector, template.version_info(0, 0, Lineage(origin="new"))))
    except Exception as error:  # protobuf raises its own types
        raise TemplateError("not an ONNX file") from error
    _check_model(model)
    _check_parameters(model, template, vector)
    _check_interface(model, template)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise TemplateError(f"not a valid ONNX graph: {_first_line(error)}") from None
    return template


def check_run(template: Template) -> None:
    """Run a looked-at skeleton with random parameters. Raises: TemplateError: it can't be run as the contract says."""
    inputs = golden_inputs(template.sha256, template.contract)
    rng = np.random.Generator(np.random.PCG64(int(template.sha256, 16)))
    file = template.file(random_vector(template, rng), template.version_info(0, 0, Lineage(origin="new")))
    try:
        outputs = run_model(file, inputs)
    except Exception as error:  # onnxruntime raises many types
        raise TemplateError(f"onnxruntime can't run it: {_first_line(error)}") from None
    rows = len(inputs[FEATURES_INPUT])
    if outputs.shape != (rows,):
        raise TemplateError(f"{outputs.size} outputs for {rows} samples")


async def check_in_child(skeleton: bytes, timeout_s: float = CHECK_TIMEOUT_S) -> str | None:
    """Look at a skeleton and run it, in a child process with limits. Returns: why it is refused, or None."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge.model_check", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            answer, _ = await child.communicate(skeleton)
    except TimeoutError:
        return f"checking it took longer than {timeout_s:g} s"
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    try:
        problem = json.loads(answer)["problem"]
    except (ValueError, KeyError):
        code = child.returncode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the process that checked it ended with {how}: too much memory or time, or a crash of onnxruntime"
    return None if problem is None else str(problem)


def random_vector(template: Template, rng: np.random.Generator) -> Vector:
    """Random parameters that any model can run with: ranges near the contract's, deviations and variances above 0."""
    low = np.array([f.minimum for f in template.contract.features])
    span = np.array([f.maximum for f in template.contract.features]) - low
    vector = np.empty(template.table.size, np.float32)
    for tensor in template.table.tensors:
        values = rng.random(tensor.shape)
        if tensor.name == "standardise.minimum":
            values = low + 0.2 * span * values
        elif tensor.name == "standardise.maximum":
            values = low + (1 - 0.2 * values) * span
        elif tensor.name == "standardise.deviation" or tensor.role in (Role.BUFFER, Role.LOCAL):
            values += 0.5
        elif tensor.role is Role.WEIGHT:
            fan_in = tensor.size / tensor.shape[0] if len(tensor.shape) > 1 else 3.0
            values = (2 * values - 1) * np.sqrt(3 / fan_in)  # unit variance kept from layer to layer
        template.table.view(vector, tensor.name)[...] = values
    return vector


def _check_model(model: onnx.ModelProto) -> None:
    if model.functions:
        raise TemplateError(f"it defines functions ({model.functions[0].name}); only a plain graph is accepted")
    if model.training_info or model.graph.sparse_initializer or model.graph.quantization_annotation:
        raise TemplateError("it holds more than a graph and dense parameters")
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx") or not 1 <= opset.version <= MAX_OPSET:
            raise TemplateError(f"operator set {opset.domain or 'ai.onnx'} {opset.version} is not accepted")
    if len(model.graph.node) > MAX_NODES:
        raise TemplateError(f"{len(model.graph.node)} operators; at most {MAX_NODES} are accepted")
    for node in model.graph.node:
        _check_node(node)
    for initializer in model.graph.initializer:
        _check_data(initializer, initializer.name)


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        raise TemplateError(f"operator {node.domain or 'ai.onnx'}.{node.op_type} is not accepted")
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise TemplateError(f"operator {node.op_type} carries a graph of its own")
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise TemplateError(f"operator {node.op_type} carries sparse constants")
        for tensor in (attribute.t, *attribute.tensors):
            _check_data(tensor, f"a constant of {node.op_type}")


def _check_data(tensor: onnx.TensorProto, name: str) -> None:
    if tensor.external_data or tensor.data_location:
        raise TemplateError(f"{name} lies outside the file")


def _check_parameters(model: onnx.ModelProto, template: Template, vector: Vector) -> None:
    """Each initializer of the table holds exactly what was written at its offset, and no name stands twice."""
    from onnx import numpy_helper

    names = [i.name for i in model.graph.initializer]
    if len(set(names)) != len(names):
        raise TemplateError("two initializers have the same name")
    found = {i.name: i for i in model.graph.initializer}
    for tensor in template.table.tensors:
        if tensor.name not in found:
            raise TemplateError(f"the graph has no parameter {tensor.name}")
        values = numpy_helper.to_array(found[tensor.name])
        written = template.table.view(vector, tensor.name)
        if values.dtype != np.float32 or values.shape != tensor.shape or not np.array_equal(values, written):
            raise TemplateError(f"parameter {tensor.name} doesn't lie where the table says")


def _check_interface(model: onnx.ModelProto, template: Template) -> None:
    wanted = set(expected_inputs(template.contract))
    inputs = {i.name for i in model.graph.input} - {i.name for i in model.graph.initializer}
    outputs = [o.name for o in model.graph.output]
    if inputs != wanted:
        raise TemplateError(f"its inputs are {', '.join(sorted(inputs))}, not {', '.join(sorted(wanted))}")
    if outputs != [template.contract.output_name] or template.info.output != template.contract.output_name:
        raise TemplateError(f"its outputs are {', '.join(outputs)}, not {template.contract.output_name} alone")


def expected_inputs(contract: Contract) -> tuple[str, ...]:
    """Names of the model's inputs under a contract."""
    declared = contract.context is not None and contract.context.kind == "declared"
    return (FEATURES_INPUT, CONTEXT_INPUT) if declared else (FEATURES_INPUT,)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def main() -> int:
    """The child: a skeleton on stdin, `{"problem": sentence or null}` on stdout."""
    skeleton = sys.stdin.buffer.read(MAX_SKELETON_BYTES + 1)
    memory = MEMORY_BYTES + 8 * len(skeleton)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    problem: str | None = None
    try:
        check_run(check_skeleton(skeleton))
    except TemplateError as error:
        problem = str(error)
    except MemoryError:
        problem = f"it needs more than {memory >> 20} MiB"
    sys.stdout.write(json.dumps({"problem": problem}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
