"""A warm-started network computes what the old one did: the layers that read features are those we think they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.training.modules import PlantModel
from edge.training.networks import build_model
from edge.training.vectors import read_vector, role_of, write_vector
from tests.edge.training.cases import ALLOWED, CASES, FEATURES
from uns_topics.contract import Contract, Feature, WindowSample
from uns_topics.template import Network, TemplateInfo
from uns_topics.tensors import Tensor, TensorTable
from uns_topics.warm_start import WarmStart, take_over

TILT = Feature(name="tilt", unit="deg", minimum=0, maximum=9)
OURS = ("mlp", "cnn1d", "gru", "autoencoder")


def build(contract: Contract, network: Network, seed: int) -> tuple[PlantModel, TemplateInfo]:
    torch.manual_seed(seed)
    module = build_model(contract, network, ALLOWED).eval()
    parameters = frozenset(name for name, _ in module.named_parameters())
    tensors, offset = [], 0
    for name, value in module.state_dict().items():
        if value.dtype == torch.float32:
            role = role_of(name, parameters)
            tensors.append(
                Tensor(name=name, shape=tuple(value.shape), role=role, offset=offset, file_offset=4 * offset)
            )
            offset += tensors[-1].size
    table = TensorTable(tensors=tuple(tensors))
    return module, TemplateInfo(network=network, contract=contract, output=contract.output_name, table=table)


def warm(old: Contract, new: Contract, network: Network) -> tuple[PlantModel, PlantModel, WarmStart]:
    """A module with random everything, and the one that takes over from it."""
    before, old_info = build(old, network, 1)
    after, new_info = build(new, network, 2)
    rng = np.random.default_rng(3)
    vector = read_vector(before, old_info.table)
    for tensor in old_info.table.tensors:
        if tensor.name in ("standardise.mean", "standardise.deviation"):
            drawn = rng.uniform(0.2, 0.6, tensor.shape).astype(np.float32)
            old_info.table.view(vector, tensor.name)[...] = drawn
    write_vector(before, old_info.table, vector)
    made = take_over(old_info, vector, new_info, read_vector(after, new_info.table))
    write_vector(after, new_info.table, made.vector)
    return before, after, made


def samples(contract: Contract, rows: int = 16) -> dict[str, torch.Tensor]:
    """Values of each feature in its range: (rows,) or (rows, L)."""
    rng = np.random.default_rng(4)
    shape = (rows, contract.window_length) if contract.window_length else (rows,)
    drawn = {f.name: f.minimum + (f.maximum - f.minimum) * rng.random(shape) for f in (*FEATURES, TILT)}
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in drawn.items()}


def run(module: PlantModel, contract: Contract, values: dict[str, torch.Tensor]) -> torch.Tensor:
    features = torch.stack([values[name] for name in contract.feature_names], dim=-1)
    context = torch.zeros(len(features), dtype=torch.int64) if module.takes_context else None
    with torch.no_grad():
        return module.raw(features, context)


def with_features(contract: Contract, *features: Feature) -> Contract:
    return contract.model_copy(update={"features": features})


@pytest.mark.parametrize("kind", ["mlp", "cnn1d", "gru"])
def test_with_a_new_feature_and_another_order_it_computes_what_it_did(kind: str) -> None:
    old, network = CASES[kind]
    new = with_features(old, FEATURES[1], TILT, FEATURES[2], FEATURES[0])
    before, after, made = warm(old, new, network)
    values = samples(old)
    assert torch.allclose(run(before, old, values), run(after, new, values), atol=1e-5)
    assert not made.fresh
    assert len(made.part) == 1


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_without_a_feature_it_computes_what_it_did_at_that_features_mean(kind: str) -> None:
    old, network = CASES[kind]
    new = with_features(old, FEATURES[2], FEATURES[0])
    before, after, _ = warm(old, new, network)
    values = samples(old)
    gone = old.feature_names.index("volume")
    volume = FEATURES[1]
    at_mean = float(before.standardise.mean[0, gone]) * (volume.maximum - volume.minimum) + volume.minimum
    values["volume"] = torch.full_like(values["volume"], at_mean)
    assert torch.allclose(run(before, old, values), run(after, new, values), atol=1e-4)


def test_a_convolution_loses_a_feature_but_at_the_edges_of_its_window() -> None:
    old, network = CASES["cnn1d"]
    _, _, made = warm(old, with_features(old, FEATURES[2], FEATURES[0]), network)
    assert made.part == ("network.convolutions.0.weight", "network.convolutions.0.bias")


def test_a_longer_window_starts_as_the_short_one_did() -> None:
    sample = WindowSample(period_s=60, length=3)
    old = CASES["gru"][0].model_copy(update={"sample": sample})
    new = old.model_copy(update={"sample": sample.model_copy(update={"length": 5})})
    before, after, made = warm(old, new, Network(kind="mlp", hidden=(8,)))
    values = samples(new)
    short = {name: value[:, 2:] for name, value in values.items()}
    assert torch.allclose(run(before, old, short), run(after, new, values), atol=1e-5)
    assert made.part == ("network.layers.1.weight",)


def test_an_autoencoder_rebuilds_what_it_did() -> None:
    old, network = CASES["autoencoder"]
    new = with_features(old, FEATURES[2], TILT, FEATURES[0], FEATURES[1])
    before, after, made = warm(old, new, network)
    values = samples(old)
    rebuilt = {}
    for module, contract in ((before, old), (after, new)):
        features = torch.stack([values[name] for name in contract.feature_names], dim=-1)
        with torch.no_grad():
            known = torch.cat(module.standardise(features, None), dim=-1)
            out = module.network(known)
        rebuilt[module] = {name: out[..., at] for at, name in enumerate(contract.feature_names)}
    for name in old.feature_names:
        assert torch.allclose(rebuilt[before][name], rebuilt[after][name], atol=1e-5)
    assert not made.fresh


@pytest.mark.parametrize("kind", OURS)
def test_the_same_contract_takes_over_every_tensor(kind: str) -> None:
    contract, network = CASES[kind]
    before, after, made = warm(contract, contract, network)
    assert not made.part + made.fresh
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])
