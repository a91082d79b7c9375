"""A skeleton from the network: looked at, then run in a child process that may die."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge import model_check
from edge.model_check import check_in_child, check_skeleton, expected_inputs, random_vector
from tests.aio import run
from tests.support.tiny_template import tiny_contract, tiny_model, tiny_template
from uns_topics.contract import DeclaredContext
from uns_topics.template import Lineage, TemplateError, make_template
from uns_topics.tensors import TensorTable

TEMPLATE = tiny_template()


def changed(change: Callable[[onnx.GraphProto], None]) -> bytes:
    """A skeleton whose graph was changed by somebody who put the table right again."""
    vector = random_vector(TEMPLATE, np.random.default_rng(3))
    model = onnx.load_model_from_string(TEMPLATE.file(vector, TEMPLATE.version_info(0, 1, Lineage(origin="new"))))
    del model.metadata_props[:]
    change(model.graph)
    graph = model.SerializeToString()
    places = {t.name: graph.index(vector[t.offset : t.offset + t.size].tobytes()) for t in TEMPLATE.table.tensors}
    tensors = tuple(t.model_copy(update={"file_offset": places[t.name]}) for t in TEMPLATE.table.tensors)
    table = TensorTable(tensors=tensors)
    return make_template(graph, TEMPLATE.info.model_copy(update={"table": table})).skeleton


def hungry(graph: onnx.GraphProto) -> None:
    """Asks for 40 TB where the graph looks harmless."""
    shape = numpy_helper.from_array(np.array([10_000_000_000_000], np.int64), "shape")
    graph.initializer.append(shape)
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["ones"]))
    graph.node.insert(1, helper.make_node("ReduceMax", ["ones"], ["one"], keepdims=0))
    graph.node[-1].output[0] = "before"
    graph.node.append(helper.make_node("Add", ["before", "one"], [graph.output[0].name]))


def mismatched(graph: onnx.GraphProto) -> None:
    """Well-formed, but its shapes never fit."""
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "three"))
    graph.node[-1].output[0] = "before"
    graph.node.append(helper.make_node("Flatten", ["before"], ["flat"], axis=0))
    graph.node.append(helper.make_node("Add", ["flat", "three"], [graph.output[0].name]))


def twice(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "low"))


def test_an_honest_skeleton_is_accepted_by_the_child() -> None:
    assert run(check_in_child(TEMPLATE.skeleton)) is None
    assert run(check_in_child(changed(lambda _: None))) is None


@pytest.mark.parametrize(
    ("skeleton", "sentence"),
    [
        (lambda: b"", "no template metadata"),
        (lambda: b"\xff" * 20, "not an ONNX file"),
        (lambda: tiny_model(TEMPLATE), "whole model file"),
        (lambda: changed(twice), "same name"),
        (lambda: changed(hungry), "onnxruntime can't run it|memory"),
        (lambda: changed(mismatched), "onnxruntime can't run it|outputs"),
    ],
)
def test_whatever_is_wrong_comes_back_as_a_sentence(skeleton: Callable[[], bytes], sentence: str) -> None:
    problem = run(check_in_child(skeleton()))
    assert problem is not None
    assert re.search(sentence, problem), problem


def test_too_large_a_skeleton_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "MAX_SKELETON_BYTES", 100)
    with pytest.raises(TemplateError, match="at most 100"):
        check_skeleton(TEMPLATE.skeleton)


def test_a_child_that_takes_too_long_is_killed() -> None:
    problem = run(check_in_child(TEMPLATE.skeleton, timeout_s=0.05))
    assert problem == "checking it took longer than 0.05 s"


def test_a_child_that_dies_refuses_the_skeleton(monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec

    async def dying(_program: str, *_arguments: str, **how: int) -> asyncio.subprocess.Process:
        return await start(sys.executable, "-c", "import os, sys; sys.stdin.read(); os.abort()", **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", dying)
    problem = run(check_in_child(TEMPLATE.skeleton))
    assert problem is not None
    assert "signal 6" in problem


def test_the_child_has_little_memory_and_writes_no_file() -> None:
    program = (
        "import io, resource, sys; from edge import model_check;"
        "model_check.check_skeleton = lambda _: print(resource.getrlimit(resource.RLIMIT_AS)[0],"
        " resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0]);"
        "model_check.check_run = lambda _: bytearray(2**40);"
        "sys.exit(model_check.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], input=b"", capture_output=True, check=True)
    limits, _, answer = done.stdout.decode().partition("\n")
    assert limits.split() == [str(model_check.MEMORY_BYTES), str(model_check.CPU_S), "0"]
    assert "MiB" in json.loads(answer)["problem"]


def test_inputs_follow_from_the_contract() -> None:
    contract = tiny_contract()
    assert expected_inputs(contract) == ("features",)
    declared = contract.model_copy(update={"context": DeclaredContext(name="product", values=("A",))})
    assert expected_inputs(declared) == ("features", "context")
    with pytest.raises(TemplateError, match="inputs are features, not context, features"):
        check_skeleton(tiny_template(declared).skeleton)
