"""Skeletons and version files: built the same everywhere, and refused when anything was changed."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.tiny_template import run, tiny_contract, tiny_model, tiny_template, tiny_vector
from uns_topics.contract import (
    ClassLabel,
    Contract,
    DeclaredContext,
    EventSample,
    Feature,
    Metric,
    Quality,
    WindowSample,
)
from uns_topics.golden import agrees, golden_outputs, run_model
from uns_topics.protobuf import metadata_message
from uns_topics.template import (
    TEMPLATE_KEY,
    VERSION_KEY,
    Lineage,
    Template,
    TemplateError,
    golden_inputs,
    make_template,
    read_model_file,
    read_template,
)
from uns_topics.tensors import vector_sha256

TEMPLATE = tiny_template()
VECTOR = tiny_vector(TEMPLATE)
INFO = TEMPLATE.version_info(3, 2, Lineage(origin="round", parent=2, round_number=7, contributors=4))
FILE = TEMPLATE.file(VECTOR, INFO)


def test_a_file_is_a_function_of_skeleton_vector_and_metadata() -> None:
    again = read_template(TEMPLATE.skeleton)
    assert again.sha256 == TEMPLATE.sha256
    assert again.info == TEMPLATE.info
    assert again.file(VECTOR, again.version_info(3, 2, INFO.lineage)) == FILE


def test_a_file_read_back_is_its_parts() -> None:
    read = read_model_file(FILE)
    assert read.template.skeleton == TEMPLATE.skeleton
    assert np.array_equal(read.vector, VECTOR)
    assert read.version == INFO
    assert read.sha256 == vector_sha256(VECTOR)


def test_onnx_finds_every_parameter_by_its_name() -> None:
    model = onnx.load_model_from_string(FILE)
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for tensor in TEMPLATE.table.tensors:
        assert np.array_equal(found[tensor.name], TEMPLATE.table.view(VECTOR, tensor.name))
    assert [p.key for p in model.metadata_props] == [TEMPLATE_KEY, VERSION_KEY]


def test_metadata_names_federation_version_features_and_lineage() -> None:
    model = onnx.load_model_from_string(FILE)
    text = {p.key: p.value for p in model.metadata_props}[VERSION_KEY]
    assert json.loads(text) == {
        "federation": "tiny",
        "generation": 2,
        "version": 3,
        "contract_sha256": TEMPLATE.contract.meaning_sha256,
        "features": [["x0", ""], ["x1", ""]],
        "lineage": {"origin": "round", "parent": 2, "round_number": 7, "contributors": 4},
    }


def test_a_template_forgets_the_parameters_that_its_graph_came_with() -> None:
    model = onnx.load_model_from_string(FILE)
    del model.metadata_props[:]
    filled = TEMPLATE.file(VECTOR, INFO)[: len(TEMPLATE.skeleton)]
    graph = filled[: filled.index(b"headgate.template") - 10]
    assert make_template(graph, TEMPLATE.info).skeleton[: len(graph)] == TEMPLATE.skeleton[: len(graph)]
    assert make_template(graph, TEMPLATE.info).skeleton != filled


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(TemplateError, match="shape"):
        TEMPLATE.file(VECTOR[:-1], INFO)


def flipped(position: int) -> bytes:
    return FILE[:position] + bytes([FILE[position] ^ 1]) + FILE[position + 1 :]


def appended_initializer() -> bytes:
    shadow = numpy_helper.from_array(np.float32([99.0]), "network.2.bias")
    return FILE + onnx.ModelProto(graph=onnx.GraphProto(initializer=[shadow])).SerializeToString()


def inserted_initializer() -> bytes:
    """The same attack in front of the version's metadata: the bytes read, but they are another template."""
    shadow = numpy_helper.from_array(np.float32([99.0]), "network.2.bias")
    extra = onnx.ModelProto(graph=onnx.GraphProto(initializer=[shadow])).SerializeToString()
    return FILE[: len(TEMPLATE.skeleton)] + extra + FILE[len(TEMPLATE.skeleton) :]


def not_finite() -> bytes:
    vector = VECTOR.copy()
    vector[0] = np.nan
    return TEMPLATE.file(vector, INFO)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (appended_initializer, "it was changed"),
        (lambda: FILE + b"\x08\x0a", "it was changed"),
        (lambda: FILE + metadata_message({"note": "x"}), "it was changed"),
        (lambda: FILE + metadata_message({VERSION_KEY: "{}"}), "stands twice"),
        (lambda: FILE[:-1], "not an ONNX file"),
        (lambda: TEMPLATE.skeleton, "no version metadata"),
        (lambda: b"", "no version metadata"),
        (lambda: b"no protobuf at all", "not an ONNX file"),
        (lambda: metadata_message({VERSION_KEY: "{}"}), "no template metadata"),
        (lambda: TEMPLATE.skeleton + metadata_message({VERSION_KEY: "{}"}), "version metadata: "),
        (lambda: TEMPLATE.skeleton + metadata_message({VERSION_KEY: "[]"}), "version metadata: "),
        (not_finite, "NaN or infinity"),
    ],
)
def test_a_file_that_was_changed_is_refused(change: Callable[[], bytes], sentence: str) -> None:
    with pytest.raises(TemplateError, match=sentence):
        read_model_file(change())


def test_an_initializer_put_in_the_middle_is_another_template() -> None:
    """onnxruntime would take it, so what counts is the template's hash, which the plan pins."""
    raw = inserted_initializer()
    rows = np.float32([[5, 5]])
    assert run(raw, rows) != run(FILE, rows)
    assert read_model_file(raw).template.sha256 != TEMPLATE.sha256


def test_every_changed_byte_of_the_file_is_noticed() -> None:
    """As another vector, another template, other metadata, or a refusal: never as the same version."""
    for position in range(0, len(FILE), 7):
        try:
            read = read_model_file(flipped(position))
        except TemplateError:
            continue
        same = (read.template.sha256, read.sha256, read.version) == (TEMPLATE.sha256, vector_sha256(VECTOR), INFO)
        assert not same, position


def test_a_skeleton_has_zeros_for_parameters_and_no_version() -> None:
    with pytest.raises(TemplateError, match="whole model file"):
        read_template(FILE)
    with pytest.raises(TemplateError, match="not zero"):
        read_template(FILE[: len(TEMPLATE.skeleton)])
    with pytest.raises(TemplateError, match="no template metadata"):
        read_template(TEMPLATE.skeleton[:0])


def test_a_table_that_reaches_over_the_graph_is_refused() -> None:
    tensors = list(TEMPLATE.table.tensors)
    tensors[-1] = tensors[-1].model_copy(update={"file_offset": len(TEMPLATE.skeleton) - 4})
    table = TEMPLATE.table.model_copy(update={"tensors": tuple(tensors)})
    lying = TEMPLATE.info.model_copy(update={"table": table}).model_dump_json()
    start = TEMPLATE.skeleton.index(TEMPLATE_KEY.encode()) - 10
    graph = TEMPLATE.skeleton[: TEMPLATE.skeleton.rindex(b"\x72", 0, start + 10)]
    with pytest.raises(TemplateError, match="outside the graph"):
        read_template(graph + metadata_message({TEMPLATE_KEY: lying}))


# Golden inputs and outputs --------------------------------------------------------------------------------------------


def windowed(federation: str = "tiny") -> Contract:
    return Contract(
        federation=federation,
        features=tuple(Feature(name=f"x{i}", unit="", minimum=100.0 * i, maximum=100.0 * i + 5) for i in range(20)),
        context=DeclaredContext(name="product", values=("A",), spare=2),
        label=ClassLabel(name="verdict", classes=("good", "bad"), positive="bad"),
        sample=WindowSample(period_s=1, length=30),
        metric=Metric.ROC_AUC,
    )


def test_golden_inputs_lie_within_the_ranges_and_miss_a_tenth() -> None:
    inputs = golden_inputs("ab" * 32, windowed())
    features, context = inputs["features"], inputs["context"]
    assert (features.shape, features.dtype) == ((8, 30, 20), np.float32)
    assert (context.shape, context.dtype) == ((8,), np.int64)
    assert set(context.tolist()) <= set(range(4))
    low = 100.0 * np.arange(20)
    present = ~np.isnan(features)
    assert np.all((features >= low) & (features <= low + 5) | ~present)
    assert 0.08 < 1 - present.mean() < 0.12


def test_golden_inputs_follow_from_the_hash_alone() -> None:
    first, again, other = (golden_inputs(h * 32, windowed())["features"] for h in ("ab", "ab", "ac"))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)
    assert golden_inputs("ab" * 32, tiny_contract()).keys() == {"features"}
    # Fixed for ever: another release must draw the same numbers.
    drawn = golden_inputs("00" * 31 + "01", tiny_contract())["features"]
    expected = 10 * np.random.Generator(np.random.PCG64(1)).random((8, 2))
    present = ~np.isnan(drawn)
    assert np.array_equal(drawn[present], expected.astype(np.float32)[present])


def test_golden_outputs_are_the_model_s_on_those_inputs() -> None:
    golden = golden_outputs(TEMPLATE, FILE)
    features = golden_inputs(TEMPLATE.sha256, TEMPLATE.contract)["features"]
    assert golden == pytest.approx(run(FILE, features).tolist())
    assert len(golden) == 8
    assert all(isinstance(value, float) for value in golden)
    assert run_model(FILE, {"features": features[:1]}).shape == (1,)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([0.5], [0.50009], True),
        ([0.5], [0.50011], False),
        ([1000.0], [1000.09], True),
        ([1000.0], [1000.11], False),
        ([0.5], [0.5, 0.5], False),
        ([float("nan")], [float("nan")], False),
        ([float("nan")], [0.5], False),
        ([0.5], [float("nan")], False),
        ([float("inf")], [float("inf")], False),
        ([], [], True),
    ],
)
def test_outputs_agree_within_a_tolerance(ours: list[float], theirs: list[float], same: bool) -> None:
    assert agrees(ours, theirs) is same


# The contract's hash --------------------------------------------------------------------------------------------------


def test_a_title_or_a_threshold_changes_no_meaning_and_a_unit_does() -> None:
    contract = tiny_contract()
    described = contract.model_copy(update={"title": "Another title", "quality": Quality(min_samples=7)})
    assert described.meaning_sha256 == contract.meaning_sha256
    other_unit = contract.features[0].model_copy(update={"unit": "mm"})
    changed = contract.model_copy(update={"features": (other_unit, *contract.features[1:])})
    assert changed.meaning_sha256 != contract.meaning_sha256


def test_base_models_of_one_template_differ_in_their_vector_alone() -> None:
    first, second = (read_model_file(tiny_model(TEMPLATE, seed)) for seed in (1, 2))
    assert first.template.sha256 == second.template.sha256
    assert first.sha256 != second.sha256
    assert isinstance(first.template, Template)


def test_an_event_and_a_window_contract_are_two_templates() -> None:
    one = tiny_contract()
    two = one.model_copy(update={"sample": EventSample(key="panel")})
    assert tiny_template(one).sha256 != tiny_template(two).sha256
