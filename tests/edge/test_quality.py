"""The data-quality gate: what is counted, and when a participant is held."""

from __future__ import annotations

import numpy as np

from edge.quality import FLAT_ROWS, QualityCounters
from tests.edge.examples import solder_contract

NAN = np.nan


def rows(*values: tuple[float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_good_data_passes() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", rows((200, 20, 120), (201, 21, 121)))
    judged = seen.judge({"duplicate": 50, "retained": 50}, 100)
    assert (judged.verdict, judged.reasons) == ("pass", ())


def test_a_missing_required_feature_holds_and_an_optional_one_does_not() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", rows((NAN, NAN, 120), (NAN, NAN, 121), (NAN, NAN, 120), (200, NAN, 121)))
    judged = seen.judge({}, 4)
    assert judged.verdict == "hold"
    assert judged.reasons == ("viscosity is missing in 75% of the samples (limit 50%)",)
    assert [f.missing for f in seen.features] == [0.75, 1.0, 0.0]


def test_out_of_range_is_a_share_of_what_was_there() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", rows((900, 20, 120), (NAN, 20, 120), (NAN, 20, 121)))
    seen.add("b", rows((10, 20, 120), (200, 20, 121)))
    assert seen.features[0].out_of_range == 2 / 3
    assert seen.judge({}, 5).verdict == "hold"


def test_nearly_too_much_warns() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", rows((NAN, 20, 120), (200, 20, 121), (200, 20, 122)))
    assert seen.judge({}, 3).verdict == "warn"


def test_problems_warn_by_their_share_of_messages() -> None:
    seen = QualityCounters(solder_contract())
    assert seen.judge({"unmapped-code": 5}, 100).verdict == "pass"
    judged = seen.judge({"unmapped-code": 6}, 100)
    assert (judged.verdict, judged.reasons) == ("warn", ("unmapped-code: 6 of 100 messages",))


def test_a_flat_line_warns_per_instance_and_over_batches() -> None:
    seen = QualityCounters(solder_contract())
    moving = np.arange(FLAT_ROWS * 2, dtype=np.float32) % 7
    half = FLAT_ROWS // 2
    both = np.stack([180 + moving, 20 + moving, np.full(len(moving), 120)], axis=1).astype(np.float32)
    for start in range(0, FLAT_ROWS - half, half):
        seen.add("a", both[start : start + half])
        seen.add("b", both[start : start + half])
    assert list(seen.flat_lined) == []
    seen.add("a", both[:half])
    assert list(seen.flat_lined) == ["height"]
    assert "height has not changed" in seen.judge({}, 1).reasons[0]
    seen.add("a", rows((200, 20, 121)))
    assert list(seen.flat_lined) == []


def test_a_missing_value_is_no_flat_line() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", np.full((FLAT_ROWS * 2, 3), np.nan, np.float32))
    assert seen.flat_lined == ()


def test_what_leaves_the_plant_is_numbers() -> None:
    seen = QualityCounters(solder_contract())
    seen.add("a", rows((NAN, 20, 120)))
    report = seen.report({"late": 2, "future": 0}, 10, samples=7, matured=3)
    assert (report.verdict, report.samples, report.matured) == ("hold", 7, 3)
    assert report.problems == {"late": 2}
    assert report.features[0].missing == 1.0
