"""From samples to what is said of them: the model's value, what it is worth, and whether it is an alarm. Pure.

The model is an argument, so that it changes between two batches and never within one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.alarm import AlarmMemory
from edge.effects import SampleReady
from edge.inputs import InputCheck
from edge.instance_memory import InstanceMemory
from edge.outputs import QUALITY_GOOD, QUALITY_REPLAYED, QUALITY_UNCERTAIN, Prediction
from edge.variants import Served


@dataclass(frozen=True, slots=True)
class Input:
    """A sample to infer on. Attributes: replayed: it comes later after its event than is usual."""

    sample: SampleReady
    replayed: bool


class Inference:
    """Runs models on samples.

    Args:
        inputs: what inputs alone say against an answer.
        memory: what is remembered of each instance; alarms are followed in it.
        max_batch: samples of one run.
        on_failure: told the name of an error that a model ended with; its samples' quality is bad.
    """

    def __init__(
        self,
        inputs: InputCheck,
        memory: dict[str, InstanceMemory],
        max_batch: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self.is_held = False
        """The data-quality gate holds: answers are uncertain."""
        self.inputs = inputs
        """Of the contract whose samples come."""
        self._memory = memory
        self._max_batch = max_batch
        self._on_failure = on_failure

    def run(self, taken: Sequence[Input], served: Served) -> list[Prediction]:
        """What is said of these samples, in their order; alarms follow the order of their event time."""
        values: list[float] = []
        uncertain: list[bool] = []
        for start in range(0, len(taken), self._max_batch):
            part = taken[start : start + self._max_batch]
            features = np.stack([one.sample.values for one in part])
            contexts = np.array([one.sample.context for one in part], np.int64)
            uncertain += self.inputs.uncertain(features, contexts).tolist()
            try:
                values += served.runs.run(features, contexts).tolist()
            except Exception as error:  # onnxruntime raises many types; SCADA learns of it by the quality
                values += [math.nan] * len(part)
                self._on_failure(type(error).__name__)
        found: list[Prediction | None] = [None] * len(taken)
        for place in sorted(range(len(taken)), key=lambda place: taken[place].sample.time_s):
            found[place] = self._said(taken[place], values[place], uncertain[place], served)
        return [prediction for prediction in found if prediction is not None]

    def _said(self, one: Input, value: float, is_uncertain: bool, served: Served) -> Prediction:
        sample, decision = one.sample, served.decision
        trip = decision.trip_of(sample.instance) if decision.problem is None else None
        memory = self._memory.setdefault(sample.instance, InstanceMemory())
        memory.alarm = memory.alarm.on(trip, value, sample.time_s, sample.key) if trip is not None else AlarmMemory()
        if self.is_held or is_uncertain or decision.problem is not None:
            quality = QUALITY_UNCERTAIN
        else:
            quality = QUALITY_REPLAYED if one.replayed else QUALITY_GOOD
        return Prediction(
            sample.instance,
            sample.key,
            sample.time_s,
            value,
            served.version,
            served.variant,
            quality,
            flagged=trip is not None and trip.is_past(value),
            alarm=memory.alarm.now.active,
            threshold=trip.threshold if trip is not None else None,
            context=self.inputs.name(sample.context),
        )
