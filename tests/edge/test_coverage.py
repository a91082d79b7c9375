from __future__ import annotations

from typing import Any

import pytest

from edge.binding import MapError, bind
from edge.coverage import bind_what_fits, missing_features, narrowed, why_not_covered
from edge.effects import LabelSet, SampleReady
from edge.ingest import Ingest
from tests.edge.examples import engine_contract, engine_map, flat, solder_contract, solder_map, umh
from uns_topics.contract import Contract

T0 = 1_700_000_000.0


def features(*names: str, **changed: Any) -> list[dict[str, Any]]:
    known = {f.name: f.model_dump() for f in solder_contract().features}
    return [known[name] | changed.get(name, {}) for name in names]


def without(name: str) -> Contract:
    return solder_contract(features=features(*(n for n in solder_contract().feature_names if n != name)))


def test_a_map_that_feeds_more_than_a_contract_asks_for_covers_it() -> None:
    fewer = without("viscosity")
    with pytest.raises(MapError):
        bind(solder_map(), fewer)
    assert why_not_covered(solder_map(), fewer) is None
    assert missing_features(solder_map(), fewer) == ()


def test_a_required_feature_that_nothing_feeds_is_named() -> None:
    tilt = {"name": "tilt", "unit": "deg", "minimum": 0, "maximum": 9}
    contract = solder_contract(features=[*features("viscosity", "height"), tilt])
    why = why_not_covered(solder_map(), contract)
    assert why is not None
    assert "tilt" in why
    assert missing_features(solder_map(), contract) == ("tilt",)
    optional = solder_contract(features=[*features("viscosity", "height"), tilt | {"optional": True}])
    assert why_not_covered(solder_map(), optional) is None
    assert missing_features(solder_map(), optional) == ()


def test_a_unit_that_cannot_be_converted_leaves_its_feature_missing() -> None:
    contract = solder_contract(features=features("viscosity", "height", height={"unit": "kg"}))
    assert missing_features(solder_map(), contract) == ("height",)
    assert why_not_covered(solder_map(), contract) is not None


def test_one_map_feeds_the_contract_of_two_generations() -> None:
    both = (solder_contract(), without("viscosity"))
    ingests = [Ingest(bind_what_fits(solder_map(), contract), contract) for contract in both]
    messages = [
        ("Werk Süd/smt/l1/printer/viscosity", umh(T0, 200_000.0)),
        ("Werk Süd/smt/l1/air", umh(T0, 77.0)),
        ("Werk Süd/smt/l1/spi", flat(T0 + 1, serial="B1", h=120.0)),
    ]
    samples = []
    for ingest in ingests:
        effects = [e for topic, payload in messages for e in ingest.feed(topic, payload, arrival_s=T0 + 2)]
        samples += [e for e in effects if isinstance(e, SampleReady)]
    assert [len(sample.values) for sample in samples] == [3, 2]
    assert samples[0].values.tolist() == pytest.approx([200.0, 25.0, 120.0], rel=1e-5)
    assert samples[1].values.tolist() == pytest.approx([25.0, 120.0], rel=1e-5)


def test_for_inference_alone_no_label_has_to_fit() -> None:
    label = solder_contract().label.model_dump() | {"classes": ["fine", "bridge"], "positive": "bridge"}
    renamed = solder_contract(label=label)
    with pytest.raises(MapError):
        bind(solder_map(), renamed)
    bound = bind_what_fits(solder_map(), renamed, labels=False)
    assert not bound.is_labelled
    effects = Ingest(bound, renamed).feed("Werk Süd/smt/l1/aoi", flat(T0, serial="B1", verdict="OK"), arrival_s=T0)
    assert not [e for e in effects if isinstance(e, LabelSet)]


def test_contexts_that_a_contract_does_not_have_are_left_out() -> None:
    other = solder_contract(context={"kind": "declared", "name": "product", "values": ["gamma"]})
    assert why_not_covered(solder_map(), other) is None
    assert why_not_covered(solder_map(), solder_contract(context=None)) is None


def test_another_kind_of_sample_is_not_covered() -> None:
    assert why_not_covered(solder_map(), engine_contract()) is not None
    assert why_not_covered(engine_map(), solder_contract()) is not None


def test_a_map_written_for_the_contract_is_narrowed_to_itself() -> None:
    assert narrowed(solder_map(), solder_contract()) == solder_map()
    assert narrowed(engine_map(), engine_contract()) == engine_map()
