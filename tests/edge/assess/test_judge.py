"""Each fault of a plant is found, alone and among others; what is ordinary is no finding."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from edge.assess.judge import assess
from edge.assess.recording import Heard
from edge.assess.report import Assessment, Check, RoundTrip, Step
from tests.edge.assess.plant import ALL_FAULTS, LINE, START_S, Faults, messages, survey

TICKS = 400


def judged(heard: list[Heard], *, seconds: float = TICKS, **settings: Any) -> Assessment:
    made = survey(heard)
    return assess(made, participant="berlin", started_s=START_S, ended_s=START_S + seconds, **settings)


def found(assessment: Assessment) -> set[tuple[str, str]]:
    return {(finding.check.value, finding.where.removeprefix(f"{LINE}/")) for finding in assessment.findings}


def test_a_good_plant_is_ready() -> None:
    assessment = judged(list(messages(TICKS)))
    assert assessment.findings == ()
    assert assessment.is_ready
    assert (assessment.samples, assessment.matched, assessment.labels) == (200, 200, 200)
    assert assessment.per_day == pytest.approx(43_200)
    assert assessment.days_to_first_training == pytest.approx(50 / 0.6 / 43_200 + 600 / 86_400, abs=0.01)
    assert (assessment.instances, assessment.notes, assessment.replayed) == ((LINE,), (), False)
    (height,) = (line for line in assessment.features if line.feature == "paste_height")
    assert height.quantiles is not None
    assert height.quantiles[2] == pytest.approx(120, abs=4)
    (spi,) = (line for line in assessment.topics if line.topic == f"{LINE}/spi")
    assert (spi.messages, spi.per_minute, spi.interval_s, spi.form) == (200, 30, 2, "flat")
    assert spi.lag_s == pytest.approx(0.005, abs=1e-3)
    assert sum(spi.strip) == 200


FINDINGS = [
    (Faults(fahrenheit=True), ("unit", "printer/temperature"), "looks like degF where the map says degC"),
    (Faults(gap=True), ("gap", "printer/humidity"), "silent for 80 s, 200 s after the start, where 1 s are usual"),
    (Faults(twice=True), ("duplicates", "printer/speed"), "40 of 440 messages came before"),
    (Faults(clock_s=90), ("clock", "printer/force"), "its clock is 90 s ahead"),
    (Faults(clock_s=-90), ("clock", "printer/force"), "its clock is 90 s behind"),
    (Faults(unknown_code=True), ("label-code", "aoi"), "'TOMBSTONE'"),
]


@pytest.mark.parametrize(("faults", "where", "text"), FINDINGS, ids=[str(case[1]) for case in FINDINGS])
def test_one_fault_is_one_finding(faults: Faults, where: tuple[str, str], text: str) -> None:
    assessment = judged(list(messages(TICKS, faults=faults)))
    assert found(assessment) == {where}
    assert text in assessment.findings[0].text


def test_all_faults_at_once_are_as_many_findings() -> None:
    assessment = judged(list(messages(TICKS, faults=ALL_FAULTS)))
    assert found(assessment) == {where for faults, where, _ in FINDINGS if faults.clock_s >= 0}
    assert len(assessment.findings) == 5


def test_what_other_plants_measure_tells_more_than_the_range() -> None:
    heard = list(messages(TICKS))
    others = {"paste_height": (90_000, 110_000, 120_000, 130_000, 150_000), "humidity": (35, 42, 45, 48, 60)}
    assessment = judged(heard, references=others)
    assert found(assessment) == {("unit", "spi")}
    assert "looks 1000 times too small" in assessment.findings[0].text or "mm" in assessment.findings[0].text
    assert next(line.reference for line in assessment.features if line.feature == "humidity") == others["humidity"]


def test_a_silence_until_the_end_is_a_gap() -> None:
    heard = [m for m in messages(TICKS) if not (m.topic.endswith("humidity") and m.time_s > START_S + 300)]
    assert found(judged(heard)) == {("gap", "printer/humidity")}


def test_a_tag_that_is_sent_on_change_has_long_silences() -> None:
    rng = random.Random(3)
    kept = [m for m in messages(4000) if not m.topic.endswith("humidity") or rng.random() < 0.1]
    assert found(judged(kept, seconds=4000)) == set()


def test_a_feature_that_is_mapped_and_silent_is_not_covered() -> None:
    heard = [m for m in messages(TICKS) if not m.topic.endswith(("speed", "humidity"))]
    assert found(judged(heard)) == {("coverage", "squeegee_speed"), ("coverage", "humidity")}
    bad = [replace(m, payload=m.payload.replace(b'"value": 6', b'"value": null, "x": 6')) for m in messages(50)]
    assessment = judged(bad, seconds=50)
    speed = next(f for f in assessment.findings if f.where == "squeegee_speed" or f.where.endswith("speed"))
    assert speed.check in (Check.COVERAGE, Check.QUALITY)


def test_messages_that_cannot_be_read() -> None:
    heard = [
        replace(m, payload=b"{broken") if m.topic.endswith("force") and n % 7 == 0 else m
        for n, m in enumerate(messages(TICKS))
    ]
    assessment = judged(heard)
    assert found(assessment) == {("messages", "printer/force")}
    assert "undecodable" in assessment.findings[0].text
    assert "not JSON" in assessment.findings[0].text


def test_values_out_of_range_that_no_unit_explains() -> None:
    heard = [m if not m.topic.endswith("humidity") else _with(m, value=-7e5) for m in messages(TICKS)]
    assessment = judged(heard)
    assert found(assessment) == {("range", "printer/humidity")}
    heard = [m if not m.topic.endswith("humidity") or n % 3 else _with(m, value=99) for n, m in enumerate(messages())]
    assert found(judged(heard)) == {("range", "printer/humidity")}


def test_keys_that_never_meet() -> None:
    heard = [m if not m.topic.endswith("aoi") else _with(m, board="X" + str(n)) for n, m in enumerate(messages(TICKS))]
    assert found(judged(heard)) == {("samples", "labels")}


def test_history_played_back_says_nothing_of_clocks() -> None:
    heard = [replace(m, time_s=START_S + 10**7 + n / 1000) for n, m in enumerate(messages(TICKS))]
    made = survey(heard)
    assessment = assess(made, participant="berlin", started_s=heard[0].time_s, ended_s=heard[-1].time_s + 1)
    assert assessment.replayed
    assert assessment.findings == ()
    assert assessment.per_day == pytest.approx(43_200, rel=0.02)
    assert all(line.lag_s is None for line in assessment.topics)


def test_retained_values_count_for_coverage_alone() -> None:
    retained = [Heard(START_S, m.topic, m.payload, retain=True) for m in list(messages(1))[:4]]
    assessment = judged(retained, seconds=60)
    assert found(assessment) == {("coverage", "paste_height")}
    assert {line.feature: line.values for line in assessment.features}["squeegee_speed"] == 1


def test_nothing_heard() -> None:
    assessment = judged([], seconds=60)
    assert {check for check, _ in found(assessment)} == {"coverage"}
    assert len(assessment.findings) == 5
    assert json.dumps(assessment.content())


def test_the_broker_and_the_trainer_may_be_findings() -> None:
    heard = list(messages(TICKS))
    assessment = judged(heard, round_trip=RoundTrip(failed="away"), step=Step(failed="it broke"))
    assert found(assessment) == {("enterprise", "federation"), ("training", "trainer")}
    assert judged(heard, round_trip=RoundTrip(3.0, 1.0, 2.0), step=Step(skipped="no torch")).is_ready


def test_a_survey_is_bounded() -> None:
    made = survey([])
    for n, m in enumerate(messages(20_000)):
        made.hear(_with(m, verdict=f"V{n}") if m.topic.endswith("aoi") else m)
    for seen in made.topics.values():
        assert len(seen.gaps.distances.kept) <= 4096
        assert len(seen.codes) <= 100
        assert all(len(values.kept) <= 4096 for values in seen.values.values())


def _with(heard: Heard, **fields: Any) -> Heard:
    return replace(heard, payload=json.dumps(json.loads(heard.payload) | fields).encode())
