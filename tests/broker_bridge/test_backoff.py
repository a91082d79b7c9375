from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.backoff import BASE_S, CAP_S, delay

UNITS = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(0, 10_000), UNITS)
def test_a_delay_is_a_draw_from_the_whole_interval(attempt: int, unit: float) -> None:
    assert 0.0 <= delay(attempt, unit) <= CAP_S
    assert delay(attempt, 0.0) == 0.0


def test_the_interval_doubles_up_to_the_cap() -> None:
    ends = [delay(attempt, 0.5) * 2 for attempt in range(10)]
    assert ends == [BASE_S, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, CAP_S, CAP_S, CAP_S]
