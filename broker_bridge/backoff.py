"""When to try again: exponential backoff with full jitter.

Every participant of a federation loses a restarted broker in the same second; a delay drawn from the whole interval
spreads their return best (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: "full jitter").
"""

from __future__ import annotations

BASE_S = 0.5
CAP_S = 60.0


def delay(attempt: int, random_unit: float, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the seconds to wait before the next attempt: a draw from [0, min(cap, base * 2**attempt)).

    Args:
        attempt: failures so far in a row, counted from 0.
        random_unit: a uniform draw from [0, 1).
    """
    exponent = min(attempt, 64)  # far beyond any cap, and never an overflow
    return random_unit * min(cap_s, base_s * 2.0**exponent)
