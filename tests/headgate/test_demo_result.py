"""What a success needs, reason by reason, and the one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from headgate.demo.result import failed, missing, result
from headgate.demo.watch import View
from tests.headgate.views import (
    LEAVES,
    ROUNDS,
    SCENARIO,
    SHA,
    difference,
    evaluation,
    history,
    infer,
    manifest,
    new_view,
    say,
    scores,
    status,
    success,
)
from uns_topics.codes import Reason
from uns_topics.presence import ParticipantState, Serves, Variant
from uns_topics.topics import Kind


def test_nothing_is_missing_from_a_success() -> None:
    assert missing(success(), SCENARIO, ROUNDS) == []
    assert failed(success()) == []


def test_at_the_start_nothing_is_there() -> None:
    assert missing(new_view(), SCENARIO, ROUNDS) == ["not every round has ended", "no current version"]


SPOILERS: dict[str, tuple[Callable[[View], None], str]] = {
    "rounds go on": (
        lambda v: say(v, Kind.HISTORY, history("promoted", "refused", resting=False)),
        "not every round has ended",
    ),
    "a participant left": (
        lambda v: say(v, Kind.STATUS, status(state=ParticipantState.OFFLINE), "lyon"),
        "lyon is offline",
    ),
    "an older version is held": (
        lambda v: say(v, Kind.STATUS, status(holds_version=2), "lyon"),
        "lyon doesn't hold version 3",
    ),
    "an older version serves": (
        lambda v: say(v, Kind.STATUS, status(serves=Serves(version=2, variant=Variant.GLOBAL)), "lyon"),
        "lyon doesn't serve version 3 and names no reason",
    ),
    "nothing serves": (
        lambda v: say(v, Kind.STATUS, status(serves=None), "lyon"),
        "lyon doesn't serve version 3 and names no reason",
    ),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_each_lack_is_named(name: str) -> None:
    spoil, sentence = SPOILERS[name]
    view = success()
    spoil(view)
    assert missing(view, SCENARIO, ROUNDS) == [sentence]


def test_a_round_that_nobody_heard_of_is_missing() -> None:
    assert missing(success(), SCENARIO, ROUNDS + 1) == ["not every round has ended"]


def test_final_figures_are_those_of_the_current_version_on_the_report_split() -> None:
    for lacking in (evaluation(version=2), evaluation(report=False)):
        view = success()
        say(view, Kind.EVALUATION, lacking, "lyon")
        assert missing(view, SCENARIO, ROUNDS) == ["lyon hasn't published its final figures"]


def test_a_reason_code_stands_for_serving_and_figures_but_not_for_holding() -> None:
    view = success()
    view.participants["lyon"].final = None
    say(view, Kind.STATUS, status(serves=None, reason=Reason("too-few-samples")), "lyon")
    assert missing(view, SCENARIO, ROUNDS) == []
    say(view, Kind.STATUS, status(serves=None, reason=Reason("fetching-model"), holds_version=2), "lyon")
    assert missing(view, SCENARIO, ROUNDS) == ["lyon doesn't hold version 3"]


def test_a_plant_may_stay_with_the_last_good_version_and_with_no_other_older_one() -> None:
    view = success()
    for variant, expected in (
        (Variant.LAST_GOOD, []),
        (Variant.PERSONALISED, ["lyon doesn't serve version 3 and names no reason"]),
    ):
        say(view, Kind.STATUS, status(serves=Serves(version=2, variant=variant)), "lyon")
        assert missing(view, SCENARIO, ROUNDS) == expected


@pytest.mark.parametrize("silent", LEAVES)
def test_every_leaf_of_every_instance_has_to_carry_values(silent: str) -> None:
    view = success()
    path = "acme/lyon/atelier CMS/ligne 1"
    view.inference_topics.clear()
    infer(view, "acme/berlin/smt/line1")
    infer(view, path, tuple(name for name in LEAVES if name != silent))
    assert missing(view, SCENARIO, ROUNDS) == [f"{path} carried no inference value on {silent}"]


def test_a_failed_round_is_no_success_and_waiting_does_not_help() -> None:
    view = success()
    say(view, Kind.HISTORY, history("failed", "promoted"))
    assert missing(view, SCENARIO, ROUNDS) == []
    assert failed(view) == ["rounds that failed: 1"]


def test_rounds_that_left_the_history_still_count() -> None:
    view = success()
    later = history("promoted", "promoted", "promoted")
    say(view, Kind.HISTORY, later.model_copy(update={"rounds": later.rounds[2:]}))
    assert missing(view, SCENARIO, 3) == []
    assert result(view, SCENARIO, 1.0)["rounds"] == 3


def test_the_result_is_one_json_object_of_what_was_seen() -> None:
    view = success()
    say(view, Kind.EVALUATION, evaluation(gain=difference(-0.1, 0.1)), "berlin")
    record = json.loads(json.dumps(result(view, SCENARIO, 12.34)))
    assert record == {
        "rounds": 2,
        "seconds": 12.3,
        "model": {"version": 3, "sha256": SHA, "bytes": 4096},
        "participants": [
            {
                "id": name,
                "instances": 1,
                "samples": 1234,
                "holds_version": 3,
                "serves": {"version": 3, "variant": "global"},
                "metric": "average_precision",
                "n_report": 50,
                "constant": 0.1,
                "linear": 0.2,
                "local_only": 0.3,
                "federated": 0.4,
                "personalised": None,
                "served_minus_federated": 0.0,
                "bytes_up": 2048,
                "bytes_down": 4096,
            }
            for name in ("berlin", "lyon")
        ],
        "inference": {"topics": 8, "messages": 8},
        "raw_bytes_kept_local": 2000,
    }


def test_capped_figures_stand_beside_uncapped_ones() -> None:
    view = success()
    capped = evaluation().model_copy(update={"report_capped": scores(None, values=(0.5, 0.6, 0.7, 0.8))})
    say(view, Kind.EVALUATION, capped, "berlin")
    record = result(view, SCENARIO, 1.0)["participants"][0]
    assert record["capped"] == {"constant": 0.5, "linear": 0.6, "local_only": 0.7, "federated": 0.8}
    assert record["federated"] == 0.4


def test_a_participant_that_serves_nothing_shows_its_reason_code() -> None:
    view = success()
    say(view, Kind.STATUS, status(serves=None, reason=Reason("model-refused")), "lyon")
    shown = {record["id"]: record["serves"] for record in result(view, SCENARIO, 1.0)["participants"]}
    assert shown["lyon"] == "model-refused"


def test_a_result_before_anything_was_said_has_the_same_keys() -> None:
    empty, full = result(new_view(), SCENARIO, 0.0), result(success(), SCENARIO, 0.0)
    assert empty.keys() == full.keys()
    assert [p.keys() for p in empty["participants"]] == [p.keys() for p in full["participants"]]
    assert empty["model"] == {"version": None, "sha256": None, "bytes": None}
    assert manifest().version == full["model"]["version"]
