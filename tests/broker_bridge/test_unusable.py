"""What can't be read is counted, and said seldom."""

from __future__ import annotations

import logging

import pytest

from broker_bridge.unusable import Unusable


def test_a_flood_of_junk_is_a_few_lines_and_a_whole_count(caplog: pytest.LogCaptureFixture) -> None:
    unusable = Unusable(logging.getLogger("headgate.test"), "from above")
    with caplog.at_level(logging.WARNING, "headgate.test"):
        for number in range(2500):
            unusable.take("t" * 900, ValueError(f"junk {number}"))
        unusable.take("other", KeyError("x"))
    assert unusable == {"ValueError": 2500, "KeyError": 1}
    assert len(caplog.messages) == 6
    assert caplog.messages[0] == f"from above, {'t' * 200}: junk 0 (1 so far)"
    assert caplog.messages[4].endswith("(2000 so far)")
