"""The federation as a dashboard sees it."""

from __future__ import annotations

import pytest

from broker_bridge.session import Message
from headgate.demo.progress import Progress
from headgate.demo.watch import View
from tests.headgate.views import (
    FEDERATION,
    Clock,
    announcement,
    evaluation,
    history,
    infer,
    manifest,
    new_view,
    say,
    status,
    success,
    summary,
    update,
)
from uns_topics.codes import Reason
from uns_topics.rounds import History
from uns_topics.topics import Kind


def at(view: View, seconds: float) -> None:
    assert isinstance(view.clock, Clock)
    view.clock.now = view.started + seconds


def test_milestones_are_when_they_were_first_seen() -> None:
    view = new_view()
    at(view, 2.0)
    view.on_message(Message("acme/berlin/smt/line1/printer/temperature", b"21.5"))
    at(view, 3.0)
    view.on_message(Message("acme/berlin/smt/line1/printer/temperature", b"21.6"))
    infer(view, "acme/berlin/smt/line1")
    at(view, 4.0)
    say(view, Kind.HISTORY, history("promoted", resting=False))
    at(view, 5.0)
    say(view, Kind.HISTORY, history("promoted", "promoted"))
    expected = {"first plant value": 2.0, "first inference value": 3.0, "round 1": 4.0, "round 2": 5.0}
    assert view.milestones == pytest.approx(expected)
    assert view.resting


def test_a_round_is_open_until_it_is_closed_and_counts_who_delivered() -> None:
    view = new_view()
    say(view, Kind.ROUND, announcement(2))
    say(view, Kind.LAST_UPDATE, update(1), "berlin")
    say(view, Kind.LAST_UPDATE, update(2), "lyon")
    assert view.delivered() == ["lyon"]
    say(view, Kind.ROUND, announcement(2).model_copy(update={"state": "closed"}))
    assert view.round is None
    assert view.delivered() == []


def test_a_candidate_goes_when_its_topic_is_cleared() -> None:
    view = new_view()
    say(view, Kind.MODEL_CANDIDATE, manifest(4))
    assert view.candidate is not None
    assert view.current is None
    view.on_message(Message(f"fl/v1/{FEDERATION}/down/model/candidate", b""))
    assert view.candidate is None


def test_figures_are_evaluations_that_compare_with_baselines() -> None:
    view = new_view()
    say(view, Kind.EVALUATION, evaluation(final=False), "berlin")
    shown = view.participants["berlin"].figures
    bare = evaluation(final=False)
    models = {"candidate": bare.select.models["current"]}
    bare = bare.model_copy(update={"candidate": 4, "select": bare.select.model_copy(update={"models": models})})
    say(view, Kind.EVALUATION, bare, "berlin")
    assert view.participants["berlin"].evaluation == bare
    assert view.participants["berlin"].figures == shown
    assert view.participants["berlin"].final is None


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (f"fl/v1/{FEDERATION}/down/status", b"no json"),
        (f"fl/v1/{FEDERATION}/down/nonsense", b"{}"),
        (f"acme/berlin/smt/line1/_inference/{FEDERATION}/score", b"\xff\x00"),
        (f"acme/berlin/smt/line1/_inference/{FEDERATION}/score", b"[1]"),
        (f"acme/berlin/smt/line1/_inference/{FEDERATION}/score", b"{}"),
    ],
)
def test_what_cannot_be_read_is_counted_and_changes_nothing(topic: str, payload: bytes) -> None:
    view = new_view()
    view.on_message(Message(topic, payload))
    assert view.unreadable == 1
    assert view.inference == {}
    assert view.aggregator is None


def test_progress_says_each_thing_once_with_who_delivered_and_the_losses() -> None:
    view = new_view()
    progress = Progress(view)
    assert list(progress.news()) == []
    at(view, 7.0)
    say(view, Kind.STATUS, status(reason=Reason("too-few-samples")), "lyon")
    assert list(progress.news()) == ["   7.0 s  lyon is online: too-few-samples"]
    at(view, 8.0)
    say(view, Kind.HISTORY, history("promoted", resting=False))
    at(view, 9.0)
    expected = (
        "   8.0 s  round 1 promoted as version 2, 1 of 2 delivered, loss 0.750 -> 0.500 (berlin, lyon rejected (late))"
    )
    assert list(progress.news()) == [expected]
    assert list(progress.news()) == []


def test_progress_tells_a_refused_and_a_failed_round() -> None:
    view = new_view()
    rounds = (summary(1, "refused", candidate_loss=None), summary(2, "failed", participants=(), candidate_loss=None))
    say(view, Kind.HISTORY, History(rounds=rounds, current=1))
    assert [line.partition("  round")[2] for line in Progress(view).news()] == [
        " 1 refused, 1 of 2 delivered (berlin, lyon rejected (late))",
        " 2 failed, 0 of 0 delivered ()",
    ]


def test_progress_of_a_success_ends_with_rest() -> None:
    lines = list(Progress(success()).news())
    assert lines[-1].endswith("all rounds are done; the plants score the last version on their report splits")
