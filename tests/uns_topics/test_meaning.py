from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.contract import Contract
from uns_topics.meaning import changes


def contract(**changed: Any) -> Contract:
    return Contract.model_validate(CONTENT | changed)


def feature(name: str, **changed: Any) -> dict[str, Any]:
    return {"name": name, "unit": "mm", "minimum": 0, "maximum": 5} | changed


LABEL = {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"}
CONTENT: dict[str, Any] = {
    "federation": "solder",
    "features": [feature("height"), feature("volume", unit="%", maximum=200)],
    "context": {"kind": "declared", "name": "product", "values": ["a", "b"]},
    "label": LABEL,
    "sample": {"kind": "window", "period_s": 1, "length": 30},
    "metric": "average_precision",
}


@pytest.mark.parametrize(
    "harmless",
    [
        {"title": "Solder defects, all plants"},
        {"quality": {"min_samples": 500, "max_missing": 0.1, "max_out_of_range": 0.05}},
        {"split": {"train": 0.7, "select": 0.1}},
        {"features": [feature("height", description="of paste"), feature("volume", unit="%", maximum=200)]},
    ],
)
def test_what_changes_no_meaning_is_no_change(harmless: dict[str, Any]) -> None:
    assert changes(contract(), contract(**harmless)) == ()
    assert contract().meaning_sha256 == contract(**harmless).meaning_sha256


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"features": [*CONTENT["features"], feature("tilt", unit="deg", maximum=9.5, optional=True)]},
            ("feature tilt added (deg, 0.0 to 9.5, optional)",),
        ),
        ({"features": [feature("height")]}, ("feature volume removed",)),
        (
            {"features": [feature("height", unit="um", maximum=5000), feature("volume", unit="", maximum=200)]},
            (
                "feature height: unit mm -> um",
                "feature height: range 0.0 to 5.0 -> 0.0 to 5000.0",
                "feature volume: unit % -> a pure number",
            ),
        ),
        (
            {"features": [feature("height", optional=True), CONTENT["features"][1]]},
            ("feature height: optional now",),
        ),
        (
            {"features": [feature("height", fill="middle"), CONTENT["features"][1]]},
            ("feature height: fill mean -> middle",),
        ),
        ({"features": CONTENT["features"][::-1]}, ("features in another order: volume, height",)),
        ({"sample": {"kind": "window", "period_s": 1, "length": 60}}, ("sample.length: 30 -> 60",)),
        ({"sample": {"kind": "event", "key": "board"}}, ("sample: window -> event",)),
        ({"label": LABEL | {"matures_after_s": 60}}, ("label.matures_after_s: 3600.0 -> 60.0",)),
        (
            {"label": LABEL | {"classes": ["good", "bridge"], "positive": "bridge"}},
            ("label.classes: good, defect -> good, bridge", "label.positive: defect -> bridge"),
        ),
        ({"context": None}, ("context: declared -> none",)),
        ({"context": CONTENT["context"] | {"values": ["a", "b", "c"]}}, ("context.values: a, b -> a, b, c",)),
        ({"metric": "roc_auc"}, ("metric: average_precision -> roc_auc",)),
    ],
)
def test_each_change_of_meaning_is_told(changed: dict[str, Any], said: tuple[str, ...]) -> None:
    assert changes(contract(), contract(**changed)) == said


PARTS: dict[str, list[Any]] = {
    "title": ["", "Paste"],
    "features": [
        CONTENT["features"],
        CONTENT["features"][::-1],
        CONTENT["features"][:1],
        [feature("height", maximum=6)],
        [feature("height", fill=2.5)],
        [feature("height", fill=2), CONTENT["features"][1]],
        [feature("height", optional=True), feature("volume", unit="%", maximum=200, description="d")],
    ],
    "context": [None, CONTENT["context"], CONTENT["context"] | {"spare": 2}],
    "label": [LABEL, LABEL | {"positive": "good"}, LABEL | {"matures_after_s": 5}],
    "sample": [CONTENT["sample"], CONTENT["sample"] | {"pad": False}, {"kind": "event", "key": "board"}],
    "quality": [{}, {"max_missing": 0.2}],
    "metric": ["average_precision", "roc_auc"],
}
contracts = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in PARTS.items()})


@given(contracts, contracts)
def test_there_is_a_sentence_exactly_where_the_hash_differs(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = contract(**old), contract(**new)
    assert (changes(before, after) == ()) == (before.meaning_sha256 == after.meaning_sha256)
