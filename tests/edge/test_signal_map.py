"""Signal maps: what is refused is named with its place; what fits is resolved."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge.binding import MapError, bind
from edge.clock import Clock
from edge.signal_map import SignalMap
from tests.edge.examples import AOI, engine_contract, engine_map, solder_contract, solder_map
from uns_topics.codes import Reason


def changed(number: int, **changes: Any) -> SignalMap:
    """The solder map with one source changed."""
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"][number] |= changes
    return SignalMap.model_validate(content)


def test_conversions_positions_and_codes_are_resolved() -> None:
    bound = bind(solder_map(), solder_contract())
    viscosity, temperature = bound.sources[0].features[0], bound.sources[1].features[0]
    assert (viscosity.index, viscosity.field) == (0, "value")
    assert viscosity.scale == pytest.approx(0.001)
    assert temperature.scale * 68 + temperature.offset == pytest.approx(20.0)
    assert bound.keyed == {2}
    assert set(bound.tags) == {0, 1}
    label, context = bound.sources[3].label, bound.sources[4].context
    assert label is not None
    assert label.codes == {"OK": 0, "BRIDGE": 1}
    assert context is not None
    assert context.slots == {"alpha": 1, "beta": 2, "A-1": 1}
    assert bound.instance_path({"line": "Linie 3 (grün)"}) == "Werk Süd/smt/Linie 3 (grün)"
    assert bound.is_labelled
    assert solder_map().instance_prefixes() == ("Werk Süd/smt",)


def test_one_source_of_all_features_gives_rows() -> None:
    assert bind(engine_map(), engine_contract()).by_row
    assert not bind(solder_map(), solder_contract()).by_row


def test_a_scalar_is_timed_by_its_arrival() -> None:
    bound = bind(changed(0, form="scalar"), solder_contract())
    assert bound.sources[0].clock is Clock.ARRIVAL
    with pytest.raises(ValidationError, match="only be arrival"):
        changed(0, form="scalar", clock="payload")


def test_wildcards_are_allowed_beside_captures() -> None:
    bound = bind(changed(0, topic="Werk Süd/smt/{line}/+/viscosity/#"), solder_contract())
    assert bound.sources[0].pattern.filters == ("Werk Süd/smt/+/+/viscosity/#",)


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (0, {"features": [{"feature": "colour", "unit": ""}]}, "sources[0].features[0].feature: the contract has no"),
        (2, {"features": [{"feature": "height", "field": "h", "unit": "umm"}]}, "sources[2].features[0].unit: unknown"),
        (2, {"features": [{"feature": "height", "field": "h", "unit": "N"}]}, "no conversion from 'N' to 'um'"),
        (2, {"topic": "Werk Süd/smt/+/spi"}, "sources[2].topic: 'Werk Süd/smt/+/spi' does not capture {line}"),
        (3, {"label": AOI | {"codes": {"OK": "fine"}}}, "sources[3].label.codes[OK]: the contract has no class 'fine'"),
        (3, {"key": None}, "sources[3].label: name the `key`"),
        (2, {"end_of_run": {}}, "sources[2].end_of_run: the contract's samples are events"),
        (4, {"context": {"codes": {"A-1": "gamma"}}}, "sources[4].context.codes[A-1]: the contract's context has no"),
        (
            2,
            {"features": [{"feature": "height", "field": "h", "unit": "um", "join": "mean"}]},
            "sources[2].features[0]: join and max_age_s are for unkeyed",
        ),
        (
            1,
            {"features": [{"feature": "height", "unit": "um"}]},
            "'height' comes with a key in one source and without in sources[1].features[0]",
        ),
        (2, {"features": [], "label": AOI}, "sources: no source has a `key`"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(number: int, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MapError) as raised:
        bind(changed(number, **changes), solder_contract())
    assert said in str(raised.value)
    assert raised.value.reason is Reason.CONTRACT_NOT_COVERED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"join": "linear"}, "gap_limit_s and join linear go together"),
        ({"join": "mean", "gap_limit_s": 5}, "gap_limit_s and join linear go together"),
        ({"join": "linear", "gap_limit_s": 5, "max_age_s": 9}, "its limit is gap_limit_s"),
        ({"join": "count"}, "a number of readings has unit ''"),
    ],
)
def test_joins_have_what_they_need_and_nothing_else(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        changed(0, features=[{"feature": "viscosity", "unit": "cP"} | change])


def test_an_event_can_not_wait_for_the_reading_after_it() -> None:
    linear = {"feature": "viscosity", "unit": "cP", "join": "linear", "gap_limit_s": 5}
    with pytest.raises(MapError, match=r"sources\[0\].features\[0\].join: an event is answered when it happens"):
        bind(changed(0, features=[linear]), solder_contract())


def test_a_count_feeds_a_pure_number_only() -> None:
    with pytest.raises(MapError, match=r"no conversion from '' to 'Pa\.s'"):
        bind(changed(0, features=[{"feature": "viscosity", "unit": "", "join": "count"}]), solder_contract())


def test_raw_counts_are_scaled_before_the_unit() -> None:
    raw = {"feature": "viscosity", "unit": "cP", "scale": 10, "offset": 500}
    bound = bind(changed(0, features=[raw]), solder_contract())
    (feature,) = bound.sources[0].features
    assert feature.scale * 18_950 + feature.offset == pytest.approx((18_950 * 10 + 500) / 1000)
    with pytest.raises(ValidationError, match="a scale of 0"):
        changed(0, features=[{"feature": "viscosity", "unit": "cP", "scale": 0}])


def test_an_instance_of_any_depth_is_one_subscription_per_depth() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    for source in content["sources"]:
        source["topic"] = source["topic"].replace("{line}", "{path...}")
    with pytest.raises(MapError, match=r"\{path...\} takes several segments: write it so in `instance`"):
        bind(SignalMap.model_validate(content | {"instance": "Werk Süd/smt/{path}"}), solder_contract())
    bound = bind(SignalMap.model_validate(content | {"instance": "Werk Süd/smt/{path...}"}), solder_contract())
    assert bound.sources[1].declared.filters[:2] == ("Werk Süd/smt/+/air", "Werk Süd/smt/+/+/air")
    assert bound.instance_path({"path": "Halle 2/Linie 3"}) == "Werk Süd/smt/Halle 2/Linie 3"


def test_a_missing_sensor_is_named_unless_it_is_optional() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    without_optional = content | {"sources": [s for i, s in enumerate(content["sources"]) if i != 1]}
    assert set(bind(SignalMap.model_validate(without_optional), solder_contract()).tags) == {0}
    without_required = content | {"sources": content["sources"][1:]}
    with pytest.raises(MapError, match=r"sources: nothing feeds the required feature 'viscosity' \(Pa.s\)"):
        bind(SignalMap.model_validate(without_required), solder_contract())


def test_all_problems_are_said_at_once() -> None:
    broken = changed(0, topic="a", features=[{"feature": "viscosity", "unit": "N"}])
    with pytest.raises(MapError) as raised:
        bind(broken, solder_contract())
    assert len(raised.value.problems) == 2


def test_several_label_sources_need_an_order() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"].append(content["sources"][3] | {"label": AOI | {"source": "repair"}, "topic": "r/{line}"})
    with pytest.raises(MapError, match="label_sources: list who has the last word"):
        bind(SignalMap.model_validate(content), solder_contract())
    content["label_sources"] = ["repair", "aoi"]
    bound = bind(SignalMap.model_validate(content), solder_contract())
    assert [s.label.precedence for s in bound.sources if s.label is not None] == [1, 0]


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (0, {"colour": "red"}, "Extra inputs"),
        (0, {"topic": "a/#/b"}, "'#' must be the whole last segment"),
        (0, {"topic": "a/{line"}, "is no capture"),
        (0, {"form": "scalar", "key": "serial"}, "key: a scalar message has one value"),
        (0, {"keys": {"value": "v"}}, "keys and timestamp_format are fixed"),
        (2, {"features": [{"feature": "height", "unit": "um"}]}, "features[0].field: a flat message has many fields"),
        (3, {"label": AOI | {"codes": {False: "good"}}}, "quote this code"),
        (4, {"context": None}, "this source feeds nothing"),
    ],
)
def test_the_file_is_checked_by_itself(number: int, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        changed(number, **changes)
    assert said in str(raised.value)


def test_codes_may_be_numbers() -> None:
    bound = bind(changed(3, label=AOI | {"codes": {0: "good", 1: "defect"}}), solder_contract())
    assert bound.sources[3].label is not None
    assert bound.sources[3].label.codes == {"0": 0, "1": 1}


def test_instances_have_no_wildcards() -> None:
    with pytest.raises(ValidationError, match="has a wildcard"):
        solder_map(instance="Werk Süd/+/{line}")


def test_windows_have_no_keys_and_runs_end_by_a_key_of_their_own() -> None:
    content = engine_map().model_dump(mode="json", exclude_unset=True)
    content["sources"][0] |= {"key": "serial", "end_of_run": {}}
    with pytest.raises(MapError) as raised:
        bind(SignalMap.model_validate(content), engine_contract())
    assert "sources[0].key: the contract's samples are windows" in str(raised.value)
    assert "sources[0].end_of_run.remaining: every message would end the run" in str(raised.value)
