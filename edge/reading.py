"""How a plant is read under one contract, and how the answers of its model are told.

Usually an edge reads by one contract. Between two generations it reads by two: samples are built for the contract that
is learnt, and besides for the one of the model that still runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge.binding import BoundMap, MapError
from edge.coverage import bind_what_fits
from edge.ingest import Ingest
from edge.inputs import InputCheck
from edge.outputs import Outputs
from edge.signal_map import SignalMap
from uns_topics.contract import Contract

log = logging.getLogger("headgate.edge")


@dataclass(frozen=True)
class Reading:
    """Attributes: ingest: messages to samples. inputs: what inputs alone say against an answer. outputs: its leaves."""

    ingest: Ingest
    inputs: InputCheck
    outputs: Outputs


def make_reading(bound: BoundMap, contract: Contract, outputs: Outputs) -> Reading:
    """Read by a map that is bound to the contract."""
    return Reading(Ingest(bound, contract), InputCheck(contract), outputs)


class Readings:
    """The ways in which an edge reads its plant: by the contract that is learnt, and by that of the model that runs.

    Each is made once, as it remembers what it heard; others are forgotten.

    Args: outputs: the leaves of a contract's model.
    """

    def __init__(self, signal_map: SignalMap, outputs: Callable[[Contract], Outputs]) -> None:
        self._map = signal_map
        self._outputs = outputs
        self._learnt: dict[str, Reading] = {}
        self._served: dict[str, Reading] = {}
        """By the contract's meaning; one at most in each."""

    def to_learn(self, contract: Contract, bound: BoundMap) -> Reading:
        """Read by this contract, labels too, from now on."""
        found = make_reading(bound, contract, self._outputs(contract))
        self._learnt = {contract.meaning_sha256: found}
        return found

    def to_serve(self, contract: Contract) -> Reading | None:
        """What feeds a model of this contract; None where the signal map no longer can."""
        meaning = contract.meaning_sha256
        known = self._learnt.get(meaning) or self._served.get(meaning)
        if known is None:
            try:
                bound = bind_what_fits(self._map, contract, labels=False)
            except MapError as error:
                log.error("the model that ran can't be fed any more: %s", error)  # noqa: TRY400 - for people
                return None
            known = make_reading(bound, contract, self._outputs(contract))
        self._served = {meaning: known}
        return known
