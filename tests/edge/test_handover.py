"""A plant between two contracts, without a broker: what is read, stored and answered by which."""

from __future__ import annotations

import pytest

from edge.binding import bind
from edge.coverage import bind_what_fits
from edge.effects import SampleReady
from edge.handover import Handover, Learning
from edge.outputs import Outputs
from edge.quality import QualityCounters
from edge.reading import Reading, make_reading
from edge.unit_watch import UnitWatch
from tests.edge.versions import CONTRACT, LINE, MAP, NARROW, board

OUTPUTS = Outputs("tiny", CONTRACT.output_name)


def wide() -> Reading:
    return make_reading(bind(MAP, CONTRACT), CONTRACT, OUTPUTS)


def learning(reading: Reading) -> Learning:
    return Learning(reading, QualityCounters(NARROW), UnitWatch(NARROW), begin=lambda: None, done=lambda: None)


def narrow() -> Learning:
    return learning(make_reading(bind_what_fits(MAP, NARROW), NARROW, OUTPUTS))


def samples(contracts: Handover, number: int) -> list[SampleReady]:
    message = board(number)
    effects = contracts.ingest.feed(message.topic, message.payload, arrival_s=0.0)
    return [effect for effect in effects if isinstance(effect, SampleReady)]


def test_of_one_contract_all_is_read_once_and_given_to_the_model() -> None:
    contracts = Handover(wide())
    found = samples(contracts, 1)
    assert len(contracts.ingests) == 1
    assert contracts.besides(board(2), 0.0) == []
    assert contracts.to_serve(found, 9) == found
    assert not contracts.is_waiting


def test_the_model_that_runs_is_given_its_own_contract_s_samples_so_many_at_a_time() -> None:
    contracts = Handover(wide())
    coming = narrow()
    contracts.read_by(coming, waiting=0)
    contracts.learns = contracts.next().reading
    assert len(contracts.ingests) == 2
    for number in range(3):
        contracts.ask(contracts.besides(board(number), 0.0))
    assert contracts.asked == 3
    found = samples(contracts, 3)
    assert found[0].values.shape == (1,)
    given = contracts.to_serve(found, 2)
    assert [sample.key for sample in given] == ["B0", "B1"]
    assert {sample.values.shape for sample in given} == {(2,)}
    assert contracts.is_waiting
    assert contracts.serve(coming.reading) == {LINE: found[0]}  # what the new model is asked first
    assert contracts.asked == 0
    assert len(contracts.ingests) == 1


def test_a_contract_has_its_turn_once_what_was_read_before_is_taken() -> None:
    contracts = Handover(wide())
    samples(contracts, 1)
    first, second = narrow(), learning(wide())
    contracts.read_by(first, waiting=5)
    samples(contracts, 2)
    contracts.took(3)
    contracts.read_by(second, waiting=4)
    assert contracts.ingest.messages == 2  # counted over all contracts
    assert contracts.before_next(9) == 2
    contracts.took(2)
    assert contracts.before_next(9) == 0
    assert contracts.next() is first
    assert contracts.before_next(1) == 1
    contracts.took(2)
    assert contracts.next() is second
    assert contracts.before_next(9) == 9
    with pytest.raises(IndexError):
        contracts.next()
