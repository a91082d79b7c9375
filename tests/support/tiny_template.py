"""A small template made by hand with onnx.helper, so that tests of both sides need no torch.

clip -> scale -> standardise -> fill missing -> Gemm -> Tanh -> Gemm -> calibrate -> Sigmoid, with every name that the
rest of Headgate looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uns_topics.contract import ClassLabel, Contract, EventSample, Feature, Metric, Quality
from uns_topics.template import (
    FEATURES_INPUT,
    Lineage,
    ModelFile,
    Network,
    Template,
    TemplateInfo,
    make_template,
    read_model_file,
)
from uns_topics.tensors import Role, Tensor, TensorTable, Vector

FEDERATION = "tiny"


def tiny_contract(federation: str = FEDERATION, features: int = 2, min_samples: int = 1) -> Contract:
    """Two classes, a few features between 0 and 10."""
    return Contract(
        federation=federation,
        features=tuple(Feature(name=f"x{i}", unit="", minimum=0.0, maximum=10.0) for i in range(features)),
        label=ClassLabel(name="verdict", classes=("good", "defect"), positive="defect"),
        sample=EventSample(key="board"),
        metric=Metric.AVERAGE_PRECISION,
        quality=Quality(min_samples=min_samples),
    )


def tiny_template(contract: Contract | None = None, hidden: int = 3, buffer: bool = False) -> Template:
    """The template; `buffer` adds a tensor of role buffer, named like a running variance."""
    contract = contract or tiny_contract()
    width = len(contract.features)
    shapes: list[tuple[str, tuple[int, ...], Role]] = [
        ("standardise.mean", (contract.slots, width), Role.FROZEN),
        ("standardise.deviation", (contract.slots, width), Role.FROZEN),
        ("network.0.weight", (hidden, width), Role.WEIGHT),
        ("network.0.bias", (hidden,), Role.WEIGHT),
        ("network.2.weight", (1, hidden), Role.WEIGHT),
        ("network.2.bias", (1,), Role.WEIGHT),
        ("calibration.scale", (1,), Role.LOCAL),
        ("calibration.bias", (1,), Role.LOCAL),
    ]
    if buffer:
        shapes.append(("network.norm.running_var", (1,), Role.BUFFER))
    graph, sentinels = _graph(contract, shapes)
    tensors, offset = [], 0
    for name, shape, role in shapes:
        raw = sentinels[name].tobytes()
        assert graph.count(raw) == 1
        tensors.append(Tensor(name=name, shape=shape, role=role, offset=offset, file_offset=graph.index(raw)))
        offset += sentinels[name].size
    info = TemplateInfo(
        network=Network(kind="mlp", hidden=(hidden,)),
        contract=contract,
        output=contract.output_name,
        table=TensorTable(tensors=tuple(tensors)),
    )
    return make_template(graph, info)


def tiny_vector(template: Template, seed: int = 0) -> Vector:
    """Version 0: small random weights, neutral calibration, standardisation as for a feature without statistics."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(0, 0.3, template.table.size).astype(np.float32)
    table = template.table
    table.view(vector, "standardise.mean")[:] = 0.5
    table.view(vector, "standardise.deviation")[:] = 0.25
    table.view(vector, "calibration.scale")[:] = 1.0
    table.view(vector, "calibration.bias")[:] = 0.0
    for tensor in table.tensors:
        if tensor.role is Role.BUFFER:
            table.view(vector, tensor.name)[:] = 1.0
    return vector


def tiny_model(template: Template | None = None, seed: int = 0) -> bytes:
    """The model file of version 0, as `headgate model new` would write it."""
    template = template or tiny_template()
    return template.file(tiny_vector(template, seed), template.version_info(0, 0, Lineage(origin="new")))


def tiny_model_file(template: Template | None = None, seed: int = 0) -> ModelFile:
    """The same, taken apart."""
    return read_model_file(tiny_model(template, seed))


def run(file: bytes, features: np.ndarray) -> np.ndarray:
    """Scores of a model file by onnxruntime, shape (n,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(None, {FEATURES_INPUT: features.astype(np.float32)})[0]
    return scores.reshape(-1)


def fake_golden(template: Template, file: bytes) -> Sequence[float]:
    """Stands in for onnxruntime where a test is not about outputs: depends on every parameter byte."""
    import hashlib

    return [b / 255 for b in hashlib.sha256(file).digest()[:8]]


def _graph(
    contract: Contract, shapes: Sequence[tuple[str, tuple[int, ...], Role]]
) -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(12345)
    sentinels = {name: rng.standard_normal(shape).astype(np.float32) for name, shape, _ in shapes}
    low = np.array([f.minimum for f in contract.features], np.float32)
    high = np.array([f.maximum for f in contract.features], np.float32)
    constants = {"low": low, "high": high, "range": high - low, "zero": np.zeros(1, np.float32)}
    node: Callable[..., onnx.NodeProto] = helper.make_node
    mean, deviation = "standardise.mean", "standardise.deviation"
    nodes = [
        node("IsNaN", [FEATURES_INPUT], ["missing"]),
        node("Max", [FEATURES_INPUT, "low"], ["above"]),
        node("Min", ["above", "high"], ["clipped"]),
        node("Sub", ["clipped", "low"], ["shifted"]),
        node("Div", ["shifted", "range"], ["scaled"]),
        node("Sub", ["scaled", mean], ["centred"]),
        node("Div", ["centred", deviation], ["standard"]),
        node("Where", ["missing", "zero", "standard"], ["filled"]),
        node("Gemm", ["filled", "network.0.weight", "network.0.bias"], ["hidden"], transB=1),
        node("Tanh", ["hidden"], ["active"]),
        node("Gemm", ["active", "network.2.weight", "network.2.bias"], ["logit"], transB=1),
    ]
    last = "logit"
    if "network.norm.running_var" in sentinels:
        nodes += [node("Sqrt", ["network.norm.running_var"], ["sd"]), node("Div", ["logit", "sd"], ["normed"])]
        last = "normed"
    nodes += [
        node("Mul", [last, "calibration.scale"], ["stretched"]),
        node("Add", ["stretched", "calibration.bias"], ["calibrated"]),
        node("Sigmoid", ["calibrated"], [contract.output_name]),
    ]
    width = len(contract.features)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(FEATURES_INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(contract.output_name, TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in {**sentinels, **constants}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(), sentinels
