"""Labels that come late: who has the last word, until when, and what a run's end says about its samples. Pure.

A label speaks of a sample by its key and may come before it. Its window closes `matures_after_s` after the sample, in
event time; what is said later is too late for training, and until then a stronger source may still revise it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """What is known of one sample's label.

    Attributes:
        value: class index. precedence: 0 is the strongest source. revision: 1 for the first word, counted up by each
            that changed it. time_s: event time of the word that stands.
    """

    value: float
    source: str
    precedence: int
    revision: int
    time_s: float


def revised(known: LabelRecord | None, value: float, source: str, precedence: int, time_s: float) -> LabelRecord | None:
    """The record after a source spoke; None where what it said changes nothing.

    A stronger source replaces a weaker one whenever it spoke; the same source replaces itself by a later word. A
    repeated message and a word that was overtaken on its way change nothing.
    """
    if known is None:
        return LabelRecord(value, source, precedence, 1, time_s)
    if precedence > known.precedence:
        return None
    if precedence == known.precedence and (time_s < known.time_s or (time_s == known.time_s and value == known.value)):
        return None
    return LabelRecord(value, source, precedence, known.revision + 1, time_s)


def is_timely(sample_s: float, label_s: float, matures_after_s: float) -> bool:
    """Whether a label was said before its sample's window closed."""
    return label_s <= sample_s + matures_after_s


def remaining_steps(
    times_s: npt.NDArray[np.float64], end_s: float, remaining: float, period_s: float
) -> npt.NDArray[np.float64]:
    """Steps to the end of a run, uncapped: whoever trains on them caps them at what the contract says.

    Args:
        times_s: event times of the run's samples; end_s: that of its last row.
        remaining: steps that were left at its last row (a run cut short), 0 for a run to failure.
    """
    steps: npt.NDArray[np.float64] = remaining + np.round((end_s - times_s) / period_s)
    return steps
