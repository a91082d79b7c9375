"""The data-quality gate: what is counted, and when a participant is held."""

from __future__ import annotations

import numpy as np
import pytest

from edge.quality import HALF_MESSAGES, HALF_ROWS, Observed, QualityCounters
from edge.quality_gate import GateState, Measure, step
from tests.edge.examples import solder_contract
from uns_topics.codes import QualityCheck
from uns_topics.contract import Quality

NAN = np.nan
FLAT_ROWS = Quality().flat_rows
NOTHING = Observed()


def rows(*values: tuple[float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def many(count: int, *values: tuple[float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """These rows over and over, a little different each time."""
    made = np.tile(rows(*values), (count, 1))
    made[:, :] += (np.arange(len(made)) % 7)[:, None] / 100
    return made


def test_good_data_passes() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(50, (200, 20, 120), (201, 21, 121)))
    judged = seen.judge(Observed({"duplicate": 49, "retained": 100}, 100))
    assert (judged.verdict, judged.reasons) == ("pass", ())


def test_a_batch_counts_as_its_samples_one_by_one() -> None:
    rng = np.random.default_rng(3)
    samples = []
    for index in range(300):
        numbers = np.round(rng.normal(100, 60, (1, 3))).astype(np.float32)
        numbers[rng.random(numbers.shape) < 0.2] = np.nan
        samples.append((f"line{index % 3}", numbers, 100.0 + 7 * index + rng.random()))
    single, batched = QualityCounters(solder_contract()), QualityCounters(solder_contract())
    for instance, numbers, time_s in samples:
        single.add(instance, numbers, time_s)
    for start in range(0, len(samples), 70):
        batched.add_samples(samples[start : start + 70])
    assert batched.flat == single.flat
    assert batched.per_hour == single.per_hour
    for one, other in zip(batched.features, single.features, strict=True):
        assert one.missing == pytest.approx(other.missing, abs=0.01)
        assert one.out_of_range == pytest.approx(other.out_of_range, abs=0.01)


def test_a_missing_required_feature_holds_and_an_optional_one_does_not() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(10, (NAN, NAN, 120), (NAN, NAN, 121), (NAN, NAN, 120), (200, NAN, 121)))
    judged = seen.judge(NOTHING)
    assert judged.verdict == "hold"
    assert judged.reasons == ("viscosity is missing in 75% of the samples (limit 50%)",)
    assert [f.missing for f in seen.features] == [0.75, 1.0, 0.0]


def test_out_of_range_is_a_share_of_what_was_there() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(10, (900, 20, 120), (NAN, 20, 120), (NAN, 20, 121)))
    seen.add("b", many(10, (10, 20, 120), (200, 20, 121)))
    assert seen.features[0].out_of_range == pytest.approx(2 / 3, abs=0.01)
    assert seen.judge(NOTHING).verdict == "hold"


def test_a_few_rows_say_nothing() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(19, (NAN, 20, 120)))
    assert seen.judge(Observed({"undecodable": 19}, 19)).verdict == "pass"


def test_nearly_too_much_warns() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(10, (NAN, 20, 120), (200, 20, 121), (200, 20, 122)))
    assert seen.judge(NOTHING).verdict == "warn"


def test_problems_warn_by_their_share_of_messages() -> None:
    seen = QualityCounters(solder_contract())
    assert seen.judge(Observed({"undecodable": 5}, 100)).verdict == "pass"
    judged = seen.judge(Observed({"undecodable": 11}, 200))  # 11 of 200, since the start
    assert (judged.verdict, judged.reasons) == ("warn", ("undecodable: 6% of the messages",))


def test_unmapped_codes_are_a_share_of_the_labels() -> None:
    seen = QualityCounters(solder_contract())
    seen.add_labels(40)
    judged = seen.judge(Observed({"unmapped-code": 60}, 10_000))
    assert (judged.verdict, judged.reasons) == (
        "hold",
        ("60% of the labels have a code that the signal map doesn't know (limit 50%)",),
    )


def test_what_has_no_limit_in_the_contract_only_warns() -> None:
    watched = Observed({"duplicate": 60}, 100, stale=0.6, unlabelled=0.6)
    seen = QualityCounters(solder_contract())
    seen.add("a", many(50, (200, 20, 120)))
    judged = seen.judge(watched)
    assert judged.verdict == "warn"
    assert len(judged.reasons) == 3
    limits = {"max_stale": 0.55, "max_unlabelled": 0.55, "max_duplicates": 0.55}
    strict = QualityCounters(solder_contract(quality=limits))
    strict.add("a", many(50, (200, 20, 120)))
    assert strict.judge(watched).verdict == "hold"
    report, _ = strict.report(watched, 50, 0)
    assert {(f.check, f.verdict) for f in report.findings} == {
        (QualityCheck.STALE, "hold"), (QualityCheck.LABEL_LAG, "hold"), (QualityCheck.DUPLICATES, "hold"),
    }  # fmt: skip


@pytest.mark.parametrize(("gap_s", "verdict"), [(60, "pass"), (30, "hold"), (400, "hold")])
def test_the_rate_has_limits_where_the_contract_says_so(gap_s: float, verdict: str) -> None:
    seen = QualityCounters(solder_contract(quality={"min_per_hour": 10, "max_per_hour": 90}))
    for index in range(60):
        seen.add("a", many(1, (200, 20, 120)), 1_700_000_000 + index * gap_s)
    seen.add("a", many(1, (200, 20, 120)), 1_700_000_000 + 60 * gap_s + 200_000)  # a weekend
    assert seen.judge(NOTHING).verdict == verdict


def test_a_flat_line_warns_per_instance_and_over_batches() -> None:
    seen = QualityCounters(solder_contract())
    moving = np.arange(FLAT_ROWS * 2, dtype=np.float32) % 7
    half = FLAT_ROWS // 2
    both = np.stack([180 + moving, 20 + moving, np.full(len(moving), 120)], axis=1).astype(np.float32)
    for start in range(0, FLAT_ROWS - half, half):
        seen.add("a", both[start : start + half])
        seen.add("b", both[start : start + half])
    assert set(seen.flat.values()) == {0.0}
    seen.add("a", both[:half])
    assert seen.flat["height"] == 0.5
    assert "height does not change in 50% of the instances" in seen.judge(NOTHING).reasons
    seen.add("a", rows((200, 20, 121)))
    assert seen.flat["height"] == 0.0


def test_a_missing_value_is_no_flat_line() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", np.full((FLAT_ROWS * 2, 3), np.nan, np.float32))
    assert set(seen.flat.values()) == {0.0}


def test_what_leaves_the_plant_is_numbers() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(25, (NAN, 20, 120)))
    report, _ = seen.report(Observed({"late": 2, "future": 0}, 100), samples=7, matured=3)
    assert (report.verdict, report.samples, report.matured) == ("hold", 7, 3)
    assert report.problems == {"late": 2}
    assert report.features[0].missing == 1.0
    assert [(f.check, f.feature, f.verdict, f.value) for f in report.findings] == [
        (QualityCheck.MISSING, "viscosity", "hold", 1.0)
    ]


def test_a_bad_first_day_is_forgotten_and_a_good_first_year_hides_nothing() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", many(20 * HALF_ROWS, (200, 20, 120)))
    seen.judge(Observed({}, 100_000))
    seen.add("a", many(2 * HALF_ROWS, (NAN, 20, 120)))
    assert seen.judge(Observed({"undecodable": HALF_MESSAGES // 10}, 100_000 + HALF_MESSAGES)).verdict == "hold"
    assert seen.features[0].missing == pytest.approx(0.75, abs=0.01)
    seen.add("a", many(4 * HALF_ROWS, (200, 20, 120)))
    assert seen.features[0].missing < 0.1


# The gate -------------------------------------------------------------------------------------------------------------


def level(strain: float, *, holds: bool = True, feature: str = "x") -> Measure:
    return Measure(QualityCheck.MISSING, feature, strain, strain, 0.5, holds, "")


def verdicts(strains: list[float], dwell_s: float = 0.0, every_s: float = 60.0) -> list[str]:
    state, found = GateState(), []
    for index, strain in enumerate(strains):
        state = step(state, [level(strain)], index * every_s, dwell_s)
        found.append(state.verdict)
    return found


def test_around_a_limit_the_verdict_does_not_flap() -> None:
    assert verdicts([0.3, 1.01, 0.99, 1.01, 0.99, 0.81, 1.0]) == ["pass", *["hold"] * 6]
    assert verdicts([0.51, 0.49, 0.51, 0.41]) == ["warn"] * 4
    assert verdicts([1.01, 0.79, 0.39]) == ["hold", "warn", "pass"]


def test_worse_counts_at_once_and_better_only_once_it_has_lasted() -> None:
    assert verdicts([0.1, 2.0, 0.1, 0.1, 0.1, 2.0, 0.1, 0.1, 0.1, 0.1], dwell_s=150) == [
        "pass", "hold", "hold", "hold", "hold", "hold", "hold", "hold", "hold", "pass",
    ]  # fmt: skip


def test_what_did_not_raise_a_hold_does_not_keep_it() -> None:
    state = step(GateState(), [level(1.2), level(0.9, feature="y")], 0, 0)
    assert step(state, [level(0.1), level(0.9, feature="y")], 1, 0).verdict == "warn"


def test_time_that_stands_still_softens_nothing() -> None:
    state = step(GateState(), [level(2)], 100, 10)
    for _ in range(5):
        state = step(state, [level(0)], 100, 10)
    assert state.verdict == "hold"
    assert step(state, [level(0)], 110, 10).verdict == "pass"


def test_a_restart_keeps_verdict_dwell_and_figures() -> None:
    contract = solder_contract(quality={"min_dwell_s": 100})
    seen = QualityCounters(contract)
    seen.add("a", many(50, (NAN, 20, 120)), 1000.0)
    assert seen.judge(NOTHING).verdict == "hold"
    seen.add("a", many(3000, (200, 20, 120)), 1010.0)
    assert seen.judge(NOTHING).verdict == "hold"  # better, but not for long
    again = QualityCounters(contract, seen.dump())
    assert again.features == seen.features
    assert again.judge(NOTHING).verdict == "hold"
    again.add("a", many(1, (200, 20, 120)), 1111.0)
    assert again.judge(NOTHING).verdict == "pass"


@pytest.mark.parametrize("kept", [b"", b"[]", b"{}", b'{"features":["viscosity","temperature","height"],"gate":"{}"}'])
def test_what_was_kept_and_can_not_be_read_is_learnt_anew(kept: bytes) -> None:
    assert QualityCounters(solder_contract(), kept).judge(NOTHING).verdict == "pass"
    other = QualityCounters(solder_contract())
    other.add("a", many(50, (NAN, 20, 120)))
    changed = other.dump().replace(b"viscosity", b"thickness")
    assert QualityCounters(solder_contract(), changed).judge(NOTHING).verdict == "pass"
