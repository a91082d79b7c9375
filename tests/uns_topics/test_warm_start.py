from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from uns_topics.contract import Contract
from uns_topics.template import Network, TemplateInfo
from uns_topics.tensors import Role, Tensor, TensorTable, Vector
from uns_topics.warm_start import WarmStart, take_over

HIDDEN = 2
A = {"name": "a", "unit": "mm", "minimum": 0, "maximum": 5}
B = {"name": "b", "unit": "K", "minimum": 200, "maximum": 400}
C = {"name": "c", "unit": "bar", "minimum": 0, "maximum": 9}


def contract(*features: Mapping[str, Any], **changed: Any) -> Contract:
    content: dict[str, Any] = {
        "federation": "f",
        "features": features,
        "label": {"kind": "classes", "name": "v", "classes": ["good", "bad"], "positive": "bad"},
        "sample": {"kind": "event", "key": "board"},
        "metric": "average_precision",
    }
    return Contract.model_validate(content | changed)


def info(of: Contract, kind: str = "mlp", hidden: int = HIDDEN) -> TemplateInfo:
    """One hidden layer with the names and shapes that our own networks have."""
    width, steps = len(of.features), of.window_length or 1
    shapes: dict[str, tuple[tuple[int, ...], Role]] = {
        "standardise.minimum": ((width,), Role.FROZEN),
        "standardise.mean": ((of.slots, width), Role.FROZEN),
        "standardise.deviation": ((of.slots, width), Role.FROZEN),
        "network.layers.1.weight": ((hidden, 2 * width * steps), Role.WEIGHT),
        "network.layers.1.bias": ((hidden,), Role.WEIGHT),
        "network.layers.5.weight": ((1, hidden), Role.WEIGHT),
        "network.layers.5.bias": ((1,), Role.WEIGHT),
        "calibration.scale": ((1,), Role.LOCAL),
    }
    tensors, offset = [], 0
    for name, (shape, role) in shapes.items():
        tensors.append(Tensor(name=name, shape=shape, role=role, offset=offset, file_offset=4 * offset))
        offset += tensors[-1].size
    network = Network(kind=kind, hidden=(hidden,))
    return TemplateInfo(network=network, contract=of, output=of.output_name, table=TensorTable(tensors=tuple(tensors)))


def numbered(of: TemplateInfo, first: float) -> Vector:
    """Every element another number, so that a moved one is told apart."""
    return (first + np.arange(of.table.size)).astype(np.float32)


def started(old: TemplateInfo, new: TemplateInfo) -> tuple[WarmStart, dict[str, npt.NDArray[np.float32]]]:
    made = take_over(old, numbered(old, 1000.0), new, numbered(new, 0.0))
    return made, {t.name: new.table.view(made.vector, t.name) for t in new.table.tensors}


def was(of: TemplateInfo, name: str, first: float = 1000.0) -> npt.NDArray[np.float32]:
    return of.table.view(numbered(of, first), name)


def columns(of: TemplateInfo, *wanted: int) -> Sequence[Sequence[float]]:
    return was(of, "network.layers.1.weight")[:, wanted].tolist()


def test_the_same_contract_takes_over_everything_but_what_it_froze_itself() -> None:
    old = info(contract(A, B))
    new = info(contract(A, B, title="another", label=contract(A).label.model_dump() | {"matures_after_s": 5}))
    made, now = started(old, new)
    assert made.fresh == made.part == ()
    assert made.standardised == ("a", "b")
    for name in made.whole:
        assert np.array_equal(now[name], was(old, name))
    assert np.array_equal(now["standardise.minimum"], was(new, "standardise.minimum", 0.0))


def test_an_added_feature_starts_with_columns_of_zero() -> None:
    old, new = info(contract(A, B)), info(contract(C, A, B))
    made, now = started(old, new)
    weight = now["network.layers.1.weight"]  # values c a b, then masks c a b
    assert made.part == ("network.layers.1.weight",)
    assert weight[:, [1, 2, 4, 5]].tolist() == columns(old, 0, 1, 2, 3)
    assert not weight[:, [0, 3]].any()
    assert np.array_equal(now["network.layers.1.bias"], was(old, "network.layers.1.bias"))
    assert now["standardise.mean"][0, 1:].tolist() == was(old, "standardise.mean")[0].tolist()
    assert now["standardise.mean"][0, 0] == was(new, "standardise.mean", 0.0)[0, 0]
    assert made.standardised == ("a", "b")


def test_a_removed_feature_leaves_its_average_in_the_bias() -> None:
    old, new = info(contract(A, B)), info(contract(B))
    made, now = started(old, new)
    assert now["network.layers.1.weight"].tolist() == columns(old, 1, 3)
    expected = was(old, "network.layers.1.bias") + was(old, "network.layers.1.weight")[:, 2]
    assert np.array_equal(now["network.layers.1.bias"], expected)
    assert "network.layers.1.bias" in made.part


def test_another_order_moves_the_columns_although_every_shape_fits() -> None:
    old, new = info(contract(A, B)), info(contract(B, A))
    made, now = started(old, new)
    assert now["network.layers.1.weight"].tolist() == columns(old, 1, 0, 3, 2)
    assert made.standardised == ("b", "a")
    assert now["standardise.deviation"][0].tolist() == was(old, "standardise.deviation")[0, ::-1].tolist()
    assert np.array_equal(now["network.layers.1.bias"], was(old, "network.layers.1.bias"))


def test_another_unit_or_range_is_another_input_although_every_shape_fits() -> None:
    old = info(contract(A, B))
    for changed in ({"unit": "um"}, {"maximum": 6}):
        made, now = started(old, info(contract(A | changed, B)))
        assert not now["network.layers.1.weight"][:, [0, 2]].any()
        assert now["network.layers.1.weight"][:, [1, 3]].tolist() == columns(old, 1, 3)
        assert made.standardised == ("b",)


def test_a_longer_window_keeps_the_steps_before_its_end() -> None:
    short, long = ({"kind": "window", "period_s": 1.0, "length": n} for n in (2, 3))
    old, new = info(contract(A, sample=short)), info(contract(A, sample=long))
    made, now = started(old, new)
    assert now["network.layers.1.weight"][:, 2:].tolist() == columns(old, 0, 1, 2, 3)
    assert not now["network.layers.1.weight"][:, :2].any()
    assert made.standardised == ("a",)
    slower = info(contract(A, sample=long | {"period_s": 2.0}))
    assert "network.layers.1.weight" in started(old, slower)[0].fresh


def test_another_label_gets_another_last_layer() -> None:
    old = info(contract(A, B))
    label = contract(A).label.model_dump()
    swapped = started(old, info(contract(A, B, label=label | {"positive": "good"})))[0]
    assert swapped.fresh == ("network.layers.5.weight", "network.layers.5.bias")
    renamed = started(old, info(contract(A, B, label=label | {"classes": ["bad", "good"]})))[0]
    assert renamed.fresh == ()


def test_another_width_or_kind_takes_over_what_still_fits() -> None:
    old = info(contract(A, B))
    assert set(started(old, info(contract(A, B), hidden=3))[0].whole) == {"network.layers.5.bias", "calibration.scale"}
    assert started(old, info(contract(A, B), kind="gru"))[0].whole == ()


def test_another_context_standardises_anew() -> None:
    products = {"kind": "declared", "name": "product", "values": ["x"], "spare": 0}
    made, now = started(info(contract(A)), info(contract(A, context=products)))
    assert made.standardised == ()
    assert now["standardise.mean"].shape == (2, 1)


def test_of_a_foreign_module_only_what_surely_reads_no_feature() -> None:
    old, new = (info(contract(*features), kind="site.models:make", hidden=3) for features in ((A, B), (B, A)))
    made, _ = started(old, new)
    assert made.whole == ("network.layers.1.bias",)
    assert set(started(old, old)[0].fresh) == set()


def test_inputs_stay_untouched() -> None:
    old, new = info(contract(A)), info(contract(A, B))
    before, fresh = numbered(old, 7.0), numbered(new, 3.0)
    take_over(old, before, new, fresh)
    assert np.array_equal(before, numbered(old, 7.0))
    assert np.array_equal(fresh, numbered(new, 3.0))
