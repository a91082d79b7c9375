"""What outlives a restart of each instance."""

from __future__ import annotations

import pytest

from edge.alarm import AlarmMemory, AlarmState, Trip
from edge.backlog import Lag
from edge.instance_memory import InstanceMemory


@pytest.mark.parametrize(
    "memory",
    [
        InstanceMemory(),
        InstanceMemory(published_s=1.5, usual_s=30.25),
        InstanceMemory(1.5, 0.1, Lag(1.0, -2.0, 3.5), AlarmMemory().on(Trip(0.5), 0.9, 7.25, "B-ü")),
        InstanceMemory(alarm=AlarmMemory(AlarmState(True, 1), AlarmState(True, 2), 9.0)),
    ],
)
def test_it_reads_back(memory: InstanceMemory) -> None:
    assert InstanceMemory.load(memory.dump()) == memory


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"published_s":1,"usual_s":null,"lag":[1],"alarm":[1,2,3]}'])
def test_what_can_not_be_read_is_learnt_anew(raw: bytes) -> None:
    assert InstanceMemory.load(raw) == InstanceMemory()
