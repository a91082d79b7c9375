"""Templates: names, roles and offsets; what torch computes is what the file computes."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge.model_check import check_run, check_skeleton, random_vector
from edge.training.export import ExportError, make_model
from edge.training.modules import PlantModel
from edge.training.networks import NetworkError, build_model
from edge.training.proof import ProofError, prove
from edge.training.vectors import read_vector, write_vector
from tests.edge.training.cases import ALLOWED, CAP, CASES, COMPUTED, Deaf, Folding, make_contract, make_dataset
from tests.edge.training.conftest import Made
from uns_topics.golden import agrees, golden_outputs, open_session, run_model, run_session
from uns_topics.protobuf import metadata_entries
from uns_topics.standardisation import context_slots
from uns_topics.template import (
    CONTEXT_INPUT,
    FEATURES_INPUT,
    TEMPLATE_KEY,
    Lineage,
    ModelFile,
    Network,
    Template,
    TemplateError,
    golden_inputs,
    make_template,
    read_model_file,
    read_template,
)
from uns_topics.tensors import Role, TensorTable, Vector

NEW = Lineage(origin="new")


def torch_model(name: str) -> PlantModel:
    return build_model(*CASES[name], ALLOWED).eval()


def file_of(template: Template, vector: Vector) -> bytes:
    return template.file(vector, template.version_info(0, 1, NEW))


@pytest.mark.parametrize("name", CASES)
def test_every_name_is_kept_and_has_its_role(made: Made, name: str) -> None:
    template, vector = made(name)
    state = torch_model(name).state_dict()
    names = [n for n in state if not n.endswith("num_batches_tracked")]
    assert [t.name for t in template.table.tensors] == names
    assert [t.shape for t in template.table.tensors] == [tuple(state[n].shape) for n in names]
    roles = {t.name: t.role for t in template.table.tensors}
    assert {r for n, r in roles.items() if n.startswith("standardise.")} == {Role.FROZEN}
    assert {r for n, r in roles.items() if n.startswith("calibration.")} == {Role.LOCAL}
    running = {n for n in names if "running_" in n}
    assert {n for n, r in roles.items() if r is Role.BUFFER} == running
    assert bool(running) == (name == "factory")
    assert vector.dtype == np.float32
    assert template.table.view(vector, "standardise.mean").shape == (template.contract.slots, 3)
    assert np.all(template.table.view(vector, "standardise.mean") == 0.5)
    assert np.all(template.table.view(vector, "standardise.deviation") == 0.25)
    assert template.table.view(vector, "calibration.scale").tolist() == [1.0]
    assert template.table.view(vector, "calibration.bias").tolist() == [0.0]


@pytest.mark.parametrize("name", CASES)
def test_file_and_torch_compute_the_same_on_any_batch(made: Made, name: str) -> None:
    template, _ = made(name)
    contract, model = template.contract, torch_model(name)
    dataset = make_dataset(contract)
    rng = np.random.default_rng(5)
    for rows in (1, 57):
        vector = random_vector(template, rng)
        write_vector(model, template.table, vector)
        index = rng.integers(0, len(dataset), rows)
        inputs = {FEATURES_INPUT: dataset.features(index)}
        if contract.context is not None and contract.context.kind == "declared":
            inputs[CONTEXT_INPUT] = dataset.contexts[index]
        with torch.no_grad():
            expected = model(**{key: torch.from_numpy(value) for key, value in inputs.items()}).numpy()
        assert expected.shape == (rows,)
        np.testing.assert_allclose(run_model(file_of(template, vector), inputs), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_file_carries_no_trace_of_the_machine(made: Made, name: str) -> None:
    template, _ = made(name)
    model = onnx.load_model_from_string(template.skeleton)
    assert b".py" not in template.skeleton
    assert model.graph.doc_string == ""
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert [o.name for o in model.graph.output] == [template.contract.output_name]


def test_two_processes_export_the_same_bytes(made: Made) -> None:
    made("cnn1d")  # whatever was exported before in this process must not show
    template, vector = made("mlp")
    script = (
        "import hashlib; from edge.training.export import make_model; from tests.edge.training.cases import CASES;"
        "template, vector = make_model(*CASES['mlp'], seed=1);"
        "print(template.sha256, hashlib.sha256(vector.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [template.sha256, hashlib.sha256(vector.tobytes()).hexdigest()]


@pytest.mark.parametrize("name", CASES)
def test_a_swapped_parameter_is_noticed(made: Made, name: str) -> None:
    template, _ = made(name)
    tensors = list(template.table.tensors)
    pairs = [
        (i, j)
        for i, a in enumerate(tensors)
        for j, b in enumerate(tensors[:i])
        if a.shape == b.shape and a.role is b.role is Role.WEIGHT
    ]
    assert pairs
    for i, j in pairs:
        a, b = tensors[i], tensors[j]
        swapped = list(tensors)
        swapped[i] = a.model_copy(update={"file_offset": b.file_offset})
        swapped[j] = b.model_copy(update={"file_offset": a.file_offset})
        info = template.info.model_copy(update={"table": TensorTable(tensors=tuple(swapped))})
        graph = template.skeleton[: _metadata_start(template)]
        with pytest.raises(ProofError, match="differ"):
            prove(make_template(graph, info), torch_model(name))
        with pytest.raises(TemplateError, match="doesn't lie where the table says"):
            check_skeleton(make_template(graph, info).skeleton)


def _metadata_start(template: Template) -> int:
    return next(position for position, key, _ in metadata_entries(template.skeleton) if key == TEMPLATE_KEY)


def test_another_module_under_the_same_name_is_noticed(made: Made) -> None:
    template, _ = made("mlp")
    other = build_model(template.contract, Network(kind="mlp", hidden=(16, 9)))
    with pytest.raises(ProofError, match=r"tensor network\.\S+ is"):
        prove(template, other)
    relu = torch_model("mlp")
    for module in relu.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 0.5
    before = read_vector(relu, template.table)
    with pytest.raises(ProofError, match="onnxruntime and torch differ"):
        prove(template, relu)
    assert np.array_equal(read_vector(relu, template.table), before)


def test_a_module_that_exports_as_something_else_is_refused() -> None:
    kind = f"{Folding.__module__}:{Folding.__name__}"
    with pytest.raises(ExportError, match="not a usable template"):
        make_model(make_contract(), Network(kind=kind), seed=1, factories={kind})


def test_a_module_that_hears_nothing_is_refused() -> None:
    kind = f"{Deaf.__module__}:{Deaf.__name__}"
    with pytest.raises(ExportError, match="the same output for different inputs"):
        make_model(make_contract(), Network(kind=kind), seed=1, factories={kind})


def test_tensors_that_the_network_names_stay_local(made: Made) -> None:
    network = CASES["factory"][1].model_copy(update={"local": ("network.1.*", "network.3.bias")})
    template, _ = make_model(CASES["factory"][0], network, seed=1, factories=ALLOWED)
    roles = {t.name: t.role for t in template.table.tensors}
    usual = {t.name: t.role for t in made("factory")[0].table.tensors}
    moved = {name for name in roles if roles[name] is not usual[name]}
    named = {"network.1.weight", "network.1.bias", "network.1.running_mean", "network.1.running_var", "network.3.bias"}
    assert moved == named
    assert {roles[name] for name in moved} == {Role.LOCAL}


@pytest.mark.parametrize(
    ("local", "sentence"),
    [
        (("network.layers.9.*",), r"no tensor is named network.layers.9.\*; there are network.layers.1.weight, "),
        (("standardise.*",), "no tensor is named"),
        (("network.*",), "leave nothing to learn together"),
    ],
)
def test_local_tensors_that_make_no_federation_are_refused(local: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        make_model(make_contract(), Network(kind="mlp", hidden=(8,), local=local), seed=1)


@pytest.mark.parametrize(
    ("contract", "network", "sentence"),
    [
        (make_contract(), Network(kind="gru"), "needs window"),
        (make_contract(), Network(kind="autoencoder"), "label"),
        (make_contract("none"), Network(kind="mlp"), "label"),
        (make_contract(), Network(kind="transformer"), "known: mlp, cnn1d, gru, autoencoder"),
        (make_contract(), Network(kind="os:abort"), "trainer.factories"),
    ],
)
def test_networks_that_do_not_fit_are_refused_with_a_sentence(
    contract: object, network: Network, sentence: str
) -> None:
    with pytest.raises(NetworkError, match=sentence):
        build_model(contract, network)  # type: ignore[arg-type]


# What the graph does with values --------------------------------------------------------------------------------------


def score(made: Made, name: str, features: object, **more: object) -> np.ndarray:
    template, vector = made(name)
    inputs = {FEATURES_INPUT: np.asarray(features, np.float32)}
    inputs |= {key: np.asarray(value) for key, value in more.items()}
    return run_model(file_of(template, vector), inputs)


def test_values_beyond_the_range_count_as_its_ends(made: Made) -> None:
    inside = [[260.0, 0.0, 950.0], [200.0, 200.0, 1050.0]]
    beyond = [[1e9, -5.0, 0.0], [-273.0, np.inf, 1e30]]
    context = np.zeros(2, np.int64)
    assert np.array_equal(score(made, "mlp", inside, context=context), score(made, "mlp", beyond, context=context))


def test_a_missing_value_is_not_the_mean(made: Made) -> None:
    # The middle of the range standardises to 0, which is what a missing value is filled with: only the mask differs.
    middle, missing = [[230.0, 100.0, 1000.0]], [[230.0, 100.0, np.nan]]
    context = np.zeros(1, np.int64)
    a, b = (score(made, "mlp", rows, context=context)[0] for rows in (middle, missing))
    assert np.isfinite([a, b]).all()
    assert a != b


def test_a_fill_stands_in_for_a_missing_value_and_is_masked() -> None:
    contract, network = CASES["mlp"]
    fills = {"volume": 150.0, "pressure": "middle"}
    features = tuple(f.model_copy(update={"fill": fills.get(f.name, "mean")}) for f in contract.features)
    template, vector = make_model(contract.model_copy(update={"features": features}), network, 0)
    plain, _ = make_model(contract, network, 0)
    assert [t.name for t in template.table.tensors] == [t.name for t in plain.table.tensors]  # it is no parameter
    vector = vector.copy()
    template.table.view(vector, "standardise.mean")[:] = 0.25  # neither fill is the mean
    first = next(t.name for t in template.table.tensors if t.name.startswith("network.") and len(t.shape) == 2)
    template.table.view(vector, first)[:, len(features) :] = 0  # deaf to masks: only what fills a value is left of it
    session = open_session(file_of(template, vector))
    context = np.zeros(1, np.int64)

    def run(*row: float) -> float:
        rows = np.array([row], np.float32)
        return float(run_session(session, {FEATURES_INPUT: rows, CONTEXT_INPUT: context})[0])

    missing = float("nan")
    assert run(230, missing, 980) == pytest.approx(run(230, 150, 980), abs=1e-6)
    assert run(230, 90, missing) == pytest.approx(run(230, 90, 1000), abs=1e-6)
    assert run(missing, 90, 980) == pytest.approx(run(215, 90, 980), abs=1e-6)  # the mean
    assert abs(run(230, missing, 980) - run(230, 90, 980)) > 1e-4


def test_a_declared_context_picks_its_row_and_an_unknown_one_row_0(made: Made) -> None:
    template, vector = made("mlp")
    changed = vector.copy()
    template.table.view(changed, "standardise.mean")[:] = np.linspace(0.1, 0.9, template.contract.slots)[:, None]
    rows = np.tile(np.float32([[230.0, 100.0, 1000.0]]), (8, 1))
    context = np.array([0, 1, 2, 3, 4, 5, -1, 2**40], np.int64)
    scores = run_model(file_of(template, changed), {FEATURES_INPUT: rows, CONTEXT_INPUT: context})
    assert len(set(scores[:5].tolist())) == 5
    assert scores[5:].tolist() == [scores[0]] * 3


def test_calibration_is_the_last_thing_before_the_sigmoid(made: Made) -> None:
    template, vector = made("mlp")
    calibrated = vector.copy()
    template.table.view(calibrated, "calibration.scale")[:] = 3.0
    template.table.view(calibrated, "calibration.bias")[:] = -0.5
    inputs = golden_inputs(template.sha256, template.contract)
    before, after = (run_model(file_of(template, v), inputs) for v in (vector, calibrated))
    logit = np.log(before / (1 - before))
    np.testing.assert_allclose(after, 1 / (1 + np.exp(-(3.0 * logit - 0.5))), atol=1e-5)


def test_a_regression_comes_out_in_its_own_unit(made: Made) -> None:
    template, vector = made("cnn1d")
    inputs = golden_inputs(template.sha256, template.contract)
    outputs = run_model(file_of(template, vector), inputs)
    model = torch_model("cnn1d")
    write_vector(model, template.table, vector)
    with torch.no_grad():
        raw = model.raw(torch.from_numpy(inputs[FEATURES_INPUT])).numpy()
    np.testing.assert_allclose(outputs, CAP * raw, rtol=1e-4)
    assert template.info.output == "remaining"


def test_the_reconstruction_error_counts_present_values_alone(made: Made) -> None:
    template, _ = made("autoencoder")
    zero = np.zeros(template.table.size, np.float32)
    for name, value in (("minimum", 0.0), ("maximum", 1.0), ("mean", 0.5), ("deviation", 0.25)):
        template.table.view(zero, f"standardise.{name}")[...] = value
    template.table.view(zero, "calibration.scale")[:] = 1.0
    rows = np.full((2, 6, 3), np.nan, np.float32)
    rows[0, 0] = [1.0, 0.5, np.nan]  # standardised: 2, 0 and missing; a network of zeros rebuilds 0
    assert run_model(file_of(template, zero), {FEATURES_INPUT: rows}).tolist() == [2.0, 0.0]


# Files that were changed ----------------------------------------------------------------------------------------------


def test_a_model_file_reads_back_to_its_parts(made: Made) -> None:
    template, vector = made("mlp")
    read = read_model_file(file_of(template, vector))
    assert isinstance(read, ModelFile)
    assert np.array_equal(read.vector, vector)
    assert read.template.sha256 == template.sha256
    assert read.version.lineage == NEW


def test_an_appended_initializer_is_refused(made: Made) -> None:
    template, vector = made("mlp")
    raw = file_of(template, vector)
    values = numpy_helper.from_array(np.full((1, 8), 9.0, np.float32), "network.layers.8.weight")
    shadow = helper.make_model(onnx.GraphProto(initializer=[values]))
    with pytest.raises(TemplateError, match="changed"):
        read_model_file(raw + shadow.SerializeToString())
    with pytest.raises(TemplateError):
        check_skeleton(template.skeleton + shadow.SerializeToString())


@pytest.mark.parametrize("name", CASES)
def test_an_honest_skeleton_passes_the_look_and_the_run(made: Made, name: str) -> None:
    template, _ = made(name)
    assert check_skeleton(template.skeleton).sha256 == template.sha256
    check_run(read_template(template.skeleton))


def rebuilt(template: Template, change: object) -> bytes:
    """The skeleton with a changed graph, its table put right again, as an attacker would."""
    vector = random_vector(template, np.random.default_rng(3))
    model = onnx.load_model_from_string(template.file(vector, template.version_info(0, 1, NEW)))
    del model.metadata_props[:]
    change(model)  # type: ignore[operator]
    graph = model.SerializeToString()
    tensors = []
    for tensor in template.table.tensors:
        raw = vector[tensor.offset : tensor.offset + tensor.size].tobytes()
        tensors.append(tensor.model_copy(update={"file_offset": graph.index(raw)}))
    info = template.info.model_copy(update={"table": TensorTable(tensors=tuple(tensors))})
    return make_template(graph, info).skeleton


def add_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", [], ["x"], body=body))


def add_foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Inverse", ["features"], ["x"], domain="com.microsoft"))


def add_external(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="outside", dims=[1], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)


def add_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("own", "f", [], [], [], [helper.make_opsetid("", 18)]))


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def add_random(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["x"], shape=[1]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (add_loop, "Loop is not accepted"),
        (add_foreign, r"com\.microsoft\.Inverse is not accepted"),
        (add_random, "RandomNormal is not accepted"),
        (add_external, "lies outside the file"),
        (add_function, "functions"),
        (add_output, "outputs"),
        (add_input, "inputs"),
    ],
)
def test_a_skeleton_with_more_in_it_is_refused(made: Made, change: object, sentence: str) -> None:
    template, _ = made("mlp")
    assert check_skeleton(rebuilt(template, lambda _: None))
    with pytest.raises(TemplateError, match=sentence):
        check_skeleton(rebuilt(template, change))


# Golden outputs -------------------------------------------------------------------------------------------------------


def test_golden_outputs_tell_one_changed_weight(made: Made) -> None:
    template, vector = made("mlp")
    golden = golden_outputs(template, file_of(template, vector))
    assert len(golden) == 8
    assert agrees(golden_outputs(template, file_of(template, vector.copy())), golden)
    changed = vector.copy()
    template.table.view(changed, "calibration.bias")[:] += 0.01
    assert not agrees(golden_outputs(template, file_of(template, changed)), golden)


def test_the_nearest_centre_is_the_one_that_statistics_use(made: Made) -> None:
    contract, _ = CASES["cnn1d"]
    module = torch_model("cnn1d")
    rows = make_dataset(contract).rows
    rows = np.concatenate([rows, np.float32([[1e9, 0, -1], [np.nan, 0, 960], [224, 0, 980], [210, 0, 960]])])
    with torch.no_grad():
        slots = module._slots_of(torch.from_numpy(rows)[None], None)
    assert slots is not None
    expected = context_slots(rows, np.zeros(len(rows), np.int64), contract)
    assert slots[0].tolist() == expected.tolist()
    assert set(expected.tolist()) == set(range(1 + len(COMPUTED.centres)))
