"""From samples to what is said of them, with a model that says what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.alarm import AlarmState, Trip
from edge.decision import Decision
from edge.inference import Inference, Input
from edge.inputs import InputCheck
from edge.instance_memory import InstanceMemory
from edge.outputs import Prediction
from edge.variants import Served
from tests.edge.versions import CONTRACT, LINE, sample
from uns_topics.presence import Variant

DECIDED = Decision(trip=Trip(5.0, hysteresis=0.2), problem=None)
OTHER = "acme/berlin/smt/line2"


class Echo:
    """Gives back the first feature."""

    def run(self, features: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        return features[:, 0]


class Bench:
    def __init__(self, decision: Decision = DECIDED) -> None:
        self.memory: dict[str, InstanceMemory] = {}
        self.failures: list[str] = []
        self.inference = Inference(InputCheck(CONTRACT), self.memory, 3, self.failures.append)
        self.decision = decision

    def say(self, *boards: tuple[int, float], instance: str = LINE, replayed: bool = False) -> list[Prediction]:
        model: Any = Echo()
        taken = [Input(sample(index, value, instance), replayed) for index, value in boards]
        return self.inference.run(taken, Served(model, 7, Variant.LAST_GOOD, self.decision))


def alarms(found: Sequence[Prediction]) -> list[bool]:
    return [prediction.alarm for prediction in found]


def test_alarms_follow_event_time_whatever_the_order_of_arrival() -> None:
    here = Bench()
    found = here.say((1, 6.0), (3, 4.5), (2, 4.5), (4, 4.0), (5, 4.9))
    assert alarms(found) == [True, True, True, False, False]
    assert [prediction.flagged for prediction in found] == [True, False, False, False, False]
    assert [prediction.key for prediction in found] == ["B1", "B3", "B2", "B4", "B5"]
    assert {(p.threshold, p.version, p.variant, p.quality) for p in found} == {(5.0, 7, Variant.LAST_GOOD, 192)}
    late = here.say((2, 9.0))
    assert (late[0].flagged, late[0].alarm) == (True, False)  # it is an event; the alarm is of now


def test_instances_have_alarms_and_thresholds_of_their_own() -> None:
    here = Bench(Decision(trip=Trip(5.0), own={OTHER: Trip(8.0)}, problem=None))
    assert alarms(here.say((1, 6.0))) == [True]
    found = here.say((1, 6.0), instance=OTHER)
    assert (found[0].alarm, found[0].threshold) == (False, 8.0)
    assert alarms(here.say((2, 4.9))) == [True]


def test_on_probation_there_is_a_number_and_no_decision() -> None:
    here = Bench()
    assert alarms(here.say((1, 6.0))) == [True]
    here.decision = Decision(trip=Trip(5.0), problem="too few")
    (found,) = here.say((2, 6.0))
    assert (found.value, found.quality, found.alarm, found.flagged, found.threshold) == (6.0, 256, False, False, None)
    assert here.memory[LINE].alarm.now == AlarmState()


def test_the_worst_that_is_known_is_what_the_quality_says() -> None:
    here = Bench()
    assert [p.quality for p in here.say((1, 1.0), (2, 11.0))] == [192, 256]  # 0 to 10 is the contract's range
    assert [p.quality for p in here.say((3, 1.0), (4, 11.0), replayed=True)] == [203, 256]
    here.inference.is_held = True
    assert [p.quality for p in here.say((5, 1.0), replayed=True)] == [256]


def test_remaining_life_is_bad_where_it_is_low() -> None:
    here = Bench(Decision(trip=Trip(3.0, above=False), problem=None))
    assert alarms(here.say((1, 4.0), (2, 3.0), (3, 3.2), (4, 3.4))) == [False, True, True, False]
