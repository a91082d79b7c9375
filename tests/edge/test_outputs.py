"""Inference leaves: exact bytes, order, and time that never goes back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.leaves import ValueKind
from edge.outputs import Outputs, Prediction, Profile, alive_topic, common_home, number
from uns_topics.presence import Variant

LINE = "acme/Werk Köln/smt/line 1"


def prediction(time_s: float, value: float = 0.25, instance: str = LINE, key: str = "B-17") -> Prediction:
    return Prediction(instance, key, time_s, value, 3, Variant.GLOBAL)


def test_leaves_are_the_exact_umh_form_and_the_value_comes_last() -> None:
    leaves = Outputs("solder-defect", "score").messages([prediction(1_700_000_000.5)])
    root = f"{LINE}/_inference/solder-defect"
    assert [(leaf.topic, leaf.payload, leaf.retain) for leaf in leaves] == [
        (
            f"{root}/event",
            b'{"timestamp_ms":1700000000500,"key":"B-17","context":null,"score":0.25,"quality":192,"model_version":3,"variant":"global"}',
            False,
        ),
        (f"{root}/quality", b'{"timestamp_ms":1700000000500,"value":192}', True),
        (f"{root}/model_version", b'{"timestamp_ms":1700000000500,"value":3}', True),
        (f"{root}/variant", b'{"timestamp_ms":1700000000500,"value":"global"}', True),
        (f"{root}/score", b'{"timestamp_ms":1700000000500,"value":0.25}', True),
    ]


def test_with_a_rule_of_the_site_there_is_a_decision_and_what_it_was_made_by() -> None:
    outputs = Outputs("f", "score", alarms=True)
    flagged = replace(prediction(1), flagged=True, alarm=True, threshold=0.2, context="C-1")
    leaves = {leaf.topic.rpartition("/")[2]: leaf.payload.decode() for leaf in outputs.messages([flagged])}
    assert list(leaves) == ["event", "quality", "model_version", "variant", "threshold", "alarm", "score"]
    assert leaves["threshold"] == '{"timestamp_ms":1000,"value":0.2}'
    assert leaves["alarm"] == '{"timestamp_ms":1000,"value":true}'
    assert leaves["event"] == (
        '{"timestamp_ms":1000,"key":"B-17","context":"C-1","score":0.25,"alarm":true,"threshold":0.2,"quality":192,'
        '"model_version":3,"variant":"global"}'
    )
    undecided = {leaf.topic.rpartition("/")[2]: leaf.payload for leaf in outputs.messages([prediction(2)])}
    assert "threshold" not in undecided
    assert undecided["alarm"] == b'{"timestamp_ms":2000,"value":false}'
    failed = {leaf.topic.rpartition("/")[2] for leaf in outputs.messages([prediction(3, math.nan)])}
    assert failed == {"quality", "model_version", "variant"}  # the last decision stands with the last value


def test_what_has_stopped_is_marked_stale_by_its_quality_alone_until_the_next_sample() -> None:
    outputs = Outputs("f", "score")
    assert outputs.stale(LINE) == []  # nothing stands there
    outputs.messages([prediction(10)])
    (leaf,) = outputs.stale(LINE)
    assert (leaf.topic, leaf.payload) == (f"{LINE}/_inference/f/quality", b'{"timestamp_ms":10001,"value":516}')
    assert [leaf.topic.rpartition("/")[2] for leaf in outputs.messages([prediction(10)])] == ["event"]
    assert len(outputs.messages([prediction(10.5)])) == 5


def test_a_site_chooses_how_a_leaf_says_its_value() -> None:
    def payloads(profile: Profile, p: Prediction) -> dict[str, str]:
        leaves = Outputs("f", "score", profile=profile).messages([p])
        return {leaf.topic.rpartition("/")[2]: leaf.payload.decode() for leaf in leaves if leaf.retain}

    known = replace(prediction(1_700_000_000.5), quality=256)
    stamp = '"timestamp":"2023-11-14T22:13:20.500Z"'
    assert payloads(Profile.VQT, known) == {
        "quality": f'{{"value":256,"quality":192,{stamp}}}',
        "model_version": f'{{"value":3,"quality":192,{stamp}}}',
        "variant": f'{{"value":"global","quality":192,{stamp}}}',
        "score": f'{{"value":0.25,"quality":256,{stamp}}}',
    }
    assert payloads(Profile.SCALAR, known) == {
        "quality": "256", "model_version": "3", "variant": "global", "score": "0.25",
    }  # fmt: skip
    assert payloads(Profile.SCALAR, prediction(1, math.nan)) == {
        "quality": "512", "model_version": "3", "variant": "global",
    }  # fmt: skip


def test_leaves_may_stand_below_a_root_of_the_plant_s_choice_and_are_known_again() -> None:
    outputs = Outputs("f", "score", out_root="ai/headgate")
    leaves = outputs.messages([prediction(1)])
    assert all(leaf.topic.startswith(f"ai/headgate/{LINE}/_inference/f/") for leaf in leaves)
    for leaf in leaves:
        assert outputs.instance_of(leaf.topic) == (LINE if leaf.retain else None)
        assert Outputs("f", "score").instance_of(leaf.topic) != LINE
        assert Outputs("g", "score", out_root="ai/headgate").instance_of(leaf.topic) is None
    assert outputs.instance_of(f"ai/headgate/{LINE}/_inference/f/_edge/berlin/alive") is None
    assert outputs.instance_of("score") is None


def test_a_batch_gives_an_event_each_and_state_for_the_newest_of_each_instance() -> None:
    other = "acme/lyon/smt/line2"
    leaves = Outputs("f", "score").messages(
        [prediction(2), prediction(3), prediction(1), prediction(1, instance=other)]
    )
    assert sum(leaf.topic.endswith("/event") for leaf in leaves) == 4
    stamps = {leaf.topic: json.loads(leaf.payload)["timestamp_ms"] for leaf in leaves if leaf.retain}
    assert stamps[f"{LINE}/_inference/f/score"] == 3000
    assert stamps[f"{other}/_inference/f/score"] == 1000


def test_state_never_goes_back_in_event_time() -> None:
    outputs = Outputs("f", "score")
    outputs.messages([prediction(10)])
    assert [leaf.topic.rpartition("/")[2] for leaf in outputs.messages([prediction(9)])] == ["event"]
    assert len(outputs.messages([prediction(10)])) == 5  # a new model on the same sample may speak again


@pytest.mark.parametrize("alarms", [False, True])
def test_every_retained_leaf_is_in_the_inventory(alarms: bool) -> None:
    outputs = Outputs("f", "score", alarms=alarms)
    leaves = [*outputs.messages([replace(prediction(1), threshold=0.5)]), *outputs.stale(LINE)]
    assert {leaf.topic for leaf in leaves if leaf.retain} == set(outputs.topics(LINE))
    for topic in outputs.topics(LINE):
        assert outputs.instance_of(topic) == LINE
    assert Outputs("f", "score").instance_of(f"{LINE}/_inference/f/alarm") is None, "no rule any more: it is cleared"


def test_no_topic_is_leaf_and_parent() -> None:
    outputs = Outputs("f", "score")
    topics = [*(leaf.topic for leaf in outputs.messages([prediction(1)])), alive_topic("acme", "f", "berlin")]
    assert not [(a, b) for a in topics for b in topics if b.startswith(a + "/")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (1.0, "1.0"), (0.1, "0.1"), (1e-9, "0.000000001"), (123456789.0, "123456789.0"), (1e-14, "0.0")],
)
def test_numbers_carry_a_decimal_point(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e9, 1e9))
def test_any_number_reads_back(value: float) -> None:
    text = number(value)
    assert "." in text
    assert "e" not in text
    assert math.isclose(float(text), value, rel_tol=1e-5, abs_tol=1e-11)


def test_home_is_the_longest_common_path() -> None:
    assert common_home(["acme/lyon/smt/line1", "acme/lyon/smt/line2"]) == "acme/lyon/smt"
    assert common_home([LINE]) == LINE


def json_kind(text: bytes) -> ValueKind:
    value = json.loads(text)["value"]
    kinds = {bool: ValueKind.BOOLEAN, int: ValueKind.INTEGER, float: ValueKind.FLOAT, str: ValueKind.TEXT}
    return kinds[type(value)]


@pytest.mark.parametrize("alarms", [False, True])
def test_what_is_said_of_leaves_is_what_is_published(alarms: bool) -> None:
    outputs = Outputs("f", "score", alarms=alarms)
    published = [leaf for leaf in outputs.messages([replace(prediction(1, 1.0), threshold=1.0)]) if leaf.retain]
    assert [leaf.topic for leaf in published] == list(outputs.topics(LINE))
    said = [(leaf.topic.rpartition("/")[2], json_kind(leaf.payload)) for leaf in published]
    assert said == [(spec.name, spec.kind) for spec in outputs.specs]
