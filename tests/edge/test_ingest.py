"""From messages to effects: the solder line and the engine bench, with all that goes wrong in plants."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from edge import ingest as ingest_module
from edge.binding import bind
from edge.effects import Effect, LabelSet, Problem, RunEnded, SampleReady
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from tests.edge.examples import (
    engine_contract,
    engine_ingest,
    engine_map,
    flat,
    solder_contract,
    solder_ingest,
    solder_map,
    umh,
)
from uns_topics.codes import DataProblem

LINE = "Werk Süd/smt/Linie 3 (grün)"
NOW = 10_000.0


def feed(ingest: Ingest, topic: str, payload: bytes, *, retain: bool = False, now: float = NOW) -> list[Effect]:
    return ingest.feed(topic, payload, retain=retain, arrival_s=now)


def board(ingest: Ingest, key: str, time_s: float, line: str = LINE, **fields: Any) -> list[Effect]:
    return feed(ingest, f"{line}/spi", flat(time_s, serial=key, **{"h": 120.0, **fields}))


def only(effects: list[Effect]) -> SampleReady:
    (sample,) = effects
    assert isinstance(sample, SampleReady)
    return sample


def test_filters_are_said_once() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"].append(content["sources"][3])
    ingest = Ingest(bind(SignalMap.model_validate(content), solder_contract()), solder_contract())
    assert len(ingest.filters) == 5
    assert "Werk Süd/smt/+/printer/viscosity" in ingest.filters


def test_tags_join_the_board_in_the_contracts_units() -> None:
    ingest = solder_ingest()
    assert feed(ingest, f"{LINE}/product", umh(90, "A-1")) == []
    assert feed(ingest, f"{LINE}/printer/viscosity", umh(95, 190_000)) == []
    feed(ingest, f"{LINE}/air", umh(96, 68))
    feed(ingest, f"{LINE}/air", umh(98, 86))
    sample = only(board(ingest, "B-1", 100, panel=7))
    assert (sample.instance, sample.key, sample.time_s, sample.arrival_s) == (LINE, "B-1", 100.0, NOW)
    assert (sample.group, sample.context, sample.matures_s) == ("7", 1, 1100.0)
    np.testing.assert_allclose(sample.values, [190, 25, 120], rtol=1e-6)
    assert sample.values.dtype == np.float32
    assert ingest.instances == (LINE,)


def test_two_instances_do_not_mix() -> None:
    ingest = solder_ingest()
    other = "Werk Süd/smt/line.4"
    feed(ingest, f"{LINE}/printer/viscosity", umh(95, 190_000))
    feed(ingest, f"{other}/printer/viscosity", umh(95, 230_000))
    assert only(board(ingest, "B-1", 100)).values[0] == pytest.approx(190)
    second = only(board(ingest, "B-1", 100, line=other))
    assert second.values[0] == pytest.approx(230)
    assert second.instance == other


def test_a_missing_sensor_is_nan() -> None:
    sample = only(board(solder_ingest(), "B-1", 100))
    assert np.isnan(sample.values[:2]).all()


def test_verdicts_are_labels_by_key_before_or_after_the_sample() -> None:
    ingest = solder_ingest()
    (label,) = feed(ingest, f"{LINE}/aoi", flat(130, serial="B-1", verdict="BRIDGE"))
    assert label == LabelSet(LINE, "B-1", 1.0, "aoi", 0, 130.0, 1000.0)
    only(board(ingest, "B-1", 100))
    (label,) = feed(ingest, f"{LINE}/aoi", flat(140, serial="B-1", verdict="OK"))
    assert isinstance(label, LabelSet)
    assert label.value == 0.0


def test_an_unmapped_code_is_a_problem_and_no_label() -> None:
    ingest = solder_ingest()
    (problem,) = feed(ingest, f"{LINE}/aoi", flat(130, serial="B-1", verdict="SMEAR"))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.topic) == ("unmapped-code", f"{LINE}/aoi")
    (problem,) = feed(ingest, f"{LINE}/aoi", flat(130, serial="B-1"))
    assert isinstance(problem, Problem)
    assert problem.code == "no-label"
    assert ingest.counters == {"unmapped-code": 1, "no-label": 1}


def test_a_retained_message_only_seeds_a_tag() -> None:
    ingest = solder_ingest()
    assert feed(ingest, f"{LINE}/printer/viscosity", umh(95, 190_000), retain=True) == []
    assert feed(ingest, f"{LINE}/spi", flat(99, serial="B-0", h=100), retain=True) == []
    assert feed(ingest, f"{LINE}/aoi", flat(99, serial="B-0", verdict="OK"), retain=True) == []
    assert only(board(ingest, "B-1", 100)).values[0] == pytest.approx(190)
    assert only(board(ingest, "B-0", 101)).key == "B-0"  # the retained one was none
    assert ingest.counters == {"retained": 3}


def test_a_board_that_comes_twice_is_one_sample() -> None:
    ingest = solder_ingest()
    only(board(ingest, "B-1", 100))
    assert board(ingest, "B-1", 100) == []
    assert ingest.counters == {"duplicate": 1}


def test_a_clock_in_the_future_is_clamped_and_counted() -> None:
    ingest = solder_ingest()
    problem, sample = board(ingest, "B-1", NOW + 3600)
    assert isinstance(problem, Problem)
    assert problem.code == "future"
    assert isinstance(sample, SampleReady)
    assert sample.time_s == NOW


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"timestamp": 100000, "serial": "B", "h": NaN}', "not-finite"),
        (b'{"timestamp": 100000, "serial": "B", "h": 1e39}', "not-finite"),
        (b'{"timestamp": 100000, "serial": "B", "h": "12"}', "wrong-type"),
        (b'{"timestamp": 100000, "serial": "B", "h": true}', "wrong-type"),
    ],
)
def test_a_number_that_is_none_is_missing_and_said(payload: bytes, code: str) -> None:
    ingest = solder_ingest()
    problem, sample = feed(ingest, f"{LINE}/spi", payload)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.detail[:18]) == (code, "field 'h' (height)")
    assert isinstance(sample, SampleReady)
    assert np.isnan(sample.values[2])
    assert ingest.counters == {code: 1}


def test_a_number_too_large_once_converted_is_missing() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"][2]["features"][0]["unit"] = "km"
    ingest = Ingest(bind(SignalMap.model_validate(content), solder_contract()), solder_contract())
    problem, sample = board(ingest, "B", 100, h=1e35)
    assert isinstance(problem, Problem)
    assert problem.code == "not-finite"
    assert isinstance(sample, SampleReady)
    assert np.isnan(sample.values[2])


def test_bad_quality_is_missing_data() -> None:
    ingest = solder_ingest()
    sample = only(board(ingest, "B-1", 100, quality=0))
    assert np.isnan(sample.values[2])
    assert feed(ingest, f"{LINE}/aoi", flat(130, serial="B-1", verdict="OK", quality="Bad")) == []
    assert ingest.counters == {"bad-quality": 2}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "undecodable"),
        (b"x" * 70_000, "oversized"),
        (b'{"serial": "B", "h": 1}', "no-timestamp"),
        (b'{"timestamp": 100000, "h": 1}', "no-key"),
        (b'{"timestamp": 100000, "h": 1, "serial": {}}', "no-key"),
        (b'{"timestamp": "now", "h": 1, "serial": "B"}', "bad-timestamp"),
    ],
)
def test_a_bad_message_is_named_and_counted(payload: bytes, code: str) -> None:
    ingest = solder_ingest()
    (problem,) = feed(ingest, f"{LINE}/spi", payload)
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert ingest.counters == {code: 1}


def test_an_unknown_product_is_slot_0_and_counted() -> None:
    ingest = solder_ingest()
    feed(ingest, f"{LINE}/product", umh(90, "Z-9"))
    assert only(board(ingest, "B-1", 100)).context == 0
    assert ingest.counters == {"unknown-context": 1}


def test_our_own_inference_is_never_fed_back() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"][0]["topic"] = "Werk Süd/smt/{line}/#"
    ingest = Ingest(bind(SignalMap.model_validate(content), solder_contract()), solder_contract())
    assert feed(ingest, f"{LINE}/_inference/solder-defect/score", umh(95, 0.5)) == []
    assert ingest.messages == 0
    feed(ingest, f"{LINE}/anything", umh(95, 190_000))
    assert ingest.messages == 1


def test_foreign_topics_and_too_many_instances_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "MAX_INSTANCES", 1)
    monkeypatch.setattr(ingest_module, "MAX_ROUTES", 2)
    ingest = solder_ingest()
    assert feed(ingest, "somewhere/else", b"1") == []
    only(board(ingest, "B-1", 100))
    assert board(ingest, "B-1", 100, line="Werk Süd/smt/other") == []
    assert ingest.counters == {"too-many-instances": 1}


def test_a_part_that_never_comes_is_given_up_in_event_time() -> None:
    content = solder_map().model_dump(mode="json", exclude_unset=True)
    content["sources"][1] = {
        "topic": "Werk Süd/smt/{line}/oven", "form": "flat", "key": "serial",
        "features": [{"feature": "temperature", "field": "t", "unit": "degC"}],
    }  # fmt: skip
    ingest = Ingest(bind(SignalMap.model_validate(content), solder_contract()), solder_contract())
    assert board(ingest, "B-1", 100) == []
    assert feed(ingest, f"{LINE}/printer/viscosity", umh(200, 190_000)) == []
    sample = only(feed(ingest, f"{LINE}/printer/viscosity", umh(201, 190_000)))
    assert (sample.key, sample.time_s) == ("B-1", 100.0)
    assert np.isnan(sample.values[1])


# Windows ----------------------------------------------------------------------------------------------------


def cycle(ingest: Ingest, number: int, engine: int = 1, **fields: Any) -> list[Effect]:
    content = {"s2": 640.0 + number, "s7": 550.0, "engine": engine, "file": "train", **fields}
    return feed(ingest, "test/FD001/cycle", flat(60.0 * number, seconds=True, **content))


def test_a_cycle_is_a_window_at_once() -> None:
    ingest = engine_ingest()
    sample = only(cycle(ingest, 1))
    assert (sample.instance, sample.group, sample.split) == ("test/FD001", "1", "train")
    assert (sample.key, sample.time_s, sample.matures_s) == ("1@1970-01-01T00:01:00.000+00:00", 60.0, 60.0)
    np.testing.assert_equal(sample.values[:, 0], np.array([np.nan, np.nan, 641], np.float32))
    cycle(ingest, 2)
    third = only(cycle(ingest, 3))
    assert third.values[:, 0].tolist() == [641, 642, 643]
    assert third.rows is not None
    assert third.rows.tolist() == [[643, 550]]
    assert (third.segment_s, third.step) == (60.0, 2)


def test_a_runs_end_is_said_with_its_last_row() -> None:
    ingest = engine_ingest()
    cycle(ingest, 1)
    cycle(ingest, 2)
    (end,) = feed(ingest, "test/FD001/end", flat(500, seconds=True, engine=1, left=7))
    assert end == RunEnded("test/FD001", "1", 120.0, 7.0, 60.0)
    assert cycle(ingest, 2) == []
    assert ingest.counters == {"late": 1}
    (problem,) = feed(ingest, "test/FD001/end", flat(500, seconds=True, engine=1, left="many"))
    assert isinstance(problem, Problem)


def test_a_run_may_end_with_a_key_of_its_last_message() -> None:
    content = engine_map().model_dump(mode="json", exclude_unset=True)
    content["sources"] = [content["sources"][0] | {"end_of_run": {"remaining": "left"}}]
    ingest = Ingest(bind(SignalMap.model_validate(content), engine_contract()), engine_contract())
    only(cycle(ingest, 1))
    sample, end = cycle(ingest, 2, left=0)
    assert isinstance(sample, SampleReady)
    assert end == RunEnded("test/FD001", "1", 120.0, 0.0, 60.0)


def test_engines_side_by_side() -> None:
    ingest = engine_ingest()
    for number in range(1, 4):
        cycle(ingest, number, engine=1)
        sample = only(cycle(ingest, number, engine=2, s2=600.0, file="test"))
    assert sample.values[:, 0].tolist() == [600, 600, 600]
    assert (sample.group, sample.split) == ("2", "report")


def test_a_field_that_a_row_lacks_is_missing() -> None:
    ingest = engine_ingest()
    sample = only(feed(ingest, "test/FD001/cycle", flat(60, seconds=True, s2=640.0, engine=1, file="odd")))
    assert sample.values[2, 0] == 640
    assert np.isnan(sample.values[2, 1])
    assert sample.split == ""
    assert ingest.counters == {"unknown-split": 1}


def test_windows_out_of_tags_close_with_event_time() -> None:
    content = {
        "instance": "hall/{press}",
        "sources": [
            {"topic": "hall/{press}/t", "form": "umh", "features": [{"feature": "t24", "unit": "degR"}]},
            {
                "topic": "hall/{press}/p", "form": "umh",
                "features": [{"feature": "p30", "unit": "psi", "join": "mean"}],
            },
        ],
    }  # fmt: skip
    contract = engine_contract(period_s=10, length=2)
    ingest = Ingest(bind(SignalMap.model_validate(content), contract), contract)
    feed(ingest, "hall/a/t", umh(90, 600), retain=True)
    assert feed(ingest, "hall/a/p", umh(101, 200)) == []
    assert feed(ingest, "hall/a/p", umh(102, 300)) == []
    sample = only(feed(ingest, "hall/a/t", umh(111, 610)))
    assert sample.time_s == 110.0
    np.testing.assert_equal(sample.values, np.array([[np.nan, np.nan], [600, 250]], np.float32))


def test_no_message_raises_and_every_reason_is_declared() -> None:
    seeds = [
        (f"{LINE}/printer/viscosity", umh(95, 190_000)),
        (f"{LINE}/product", umh(95, "A-1")),
        (f"{LINE}/spi", flat(100, serial="B-1", h=120.0, panel="p")),
        (f"{LINE}/aoi", flat(130, serial="B-1", verdict="OK")),
    ]
    engine = [
        ("test/FD001/cycle", flat(60, seconds=True, s2=640.0, s7=550.0, engine=1, file="train")),
        ("test/FD001/end", flat(120, seconds=True, engine=1, left=0)),
    ]
    random_ = random.Random(7)
    tokens = [b"NaN", b"-1e999", b"null", b"true", b"[]", b"{}", b'"\\ud800"', b"9" * 30, b"0", b'""']
    seen = 0
    for ingest, messages in [(solder_ingest(), seeds), (engine_ingest(), engine)]:
        for _ in range(3000):
            topic, payload = random_.choice(messages)
            fields = json.loads(payload)
            name = random_.choice(list(fields))
            raw = json.dumps(fields | {name: "@"}).encode().replace(b'"@"', random_.choice(tokens))
            if random_.random() < 0.3:
                raw = raw[: random_.randrange(len(raw))]
            effects = feed(ingest, topic, raw, retain=random_.random() < 0.1)
            seen += sum(isinstance(effect, Problem) for effect in effects)
            assert all(isinstance(effect, Problem | SampleReady | LabelSet | RunEnded) for effect in effects)
        assert set(ingest.counters) <= set(DataProblem)
    assert seen > 1000
