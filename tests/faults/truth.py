"""What must hold whatever happens: checked at each commit of the aggregator, and at the end against a fold of our own.

The end doesn't ask the aggregator what it did: the accepted updates, as they were committed, are folded again without
its store, its queues and its restarts, and every version that was ever made has to be the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from aggregator.combine import combine
from aggregator.effects import (
    RecordReceipt,
    RecordRound,
    RecordStatistics,
    RecordUpdate,
    RecordVersion,
    RecordVersionStatus,
    records,
)
from aggregator.state import Phase, State
from aggregator.statistics import fill
from aggregator.store import STATISTICS, Entry
from aggregator.strategies import make_strategy
from aggregator.strategies.base import StrategyState
from aggregator.updates import ArrayUpdates
from uns_topics.codes import Code
from uns_topics.plan import Strategy
from uns_topics.reports import Statistics
from uns_topics.steps import make_step
from uns_topics.template import Template
from uns_topics.tensors import Role, Vector, vector_sha256
from uns_topics.update import decode_update, unpack_groups

Result = Literal["accepted", "rejected"]


class Broken(AssertionError):
    """An invariant doesn't hold."""


@dataclass
class Made:
    """A version as it was recorded."""

    sha256: str
    parent: int | None
    origin: str
    round_number: int | None


@dataclass
class Truth:
    """Everything that one aggregator ever committed, over all its lives."""

    template: Template
    strategy: Strategy
    downlink: str | None
    updates: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """By participant and the round that it was asked in."""
    counted_in: dict[tuple[str, int], int] = field(default_factory=dict)
    receipts: dict[tuple[str, str], tuple[Result, Code | None]] = field(default_factory=dict)
    accepted: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """Key of the update by participant and transfer."""
    versions: dict[int, Made] = field(default_factory=dict)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    filled_from: tuple[str, ...] = ()
    rounds: list[int] = field(default_factory=list)
    current: int = 0
    last_round: int = 0
    epoch: int = 0
    commits: int = 0

    # At each commit ---------------------------------------------------------------------------------------------------

    def on_commit(self, entries: Sequence[Entry], state: State) -> None:
        """One transaction that is durable."""
        self.commits += 1
        for entry in entries:
            for record in records(entry.outputs):
                match record:
                    case RecordUpdate():
                        self._on_update(record, entry.attachments)
                    case RecordReceipt():
                        self._on_receipt(record)
                    case RecordVersion():
                        self._on_version(record)
                    case RecordVersionStatus() if record.status == "current":
                        self.current = record.version
                    case RecordStatistics():
                        raw = entry.attachments[STATISTICS]
                        self.statistics[record.participant] = Statistics.model_validate_json(raw)
                    case RecordRound():
                        self._check(record.summary.round_number not in self.rounds, "a round ended twice")
                        self.rounds.append(record.summary.round_number)
        self._on_state(state)

    def _on_update(self, record: RecordUpdate, attachments: Mapping[str, bytes]) -> None:
        key = (record.participant, record.round_number)
        self._check(key not in self.updates, f"two updates of {key} were accepted")
        self.updates[key] = attachments[record.sha256]
        self.counted_in[key] = record.counted_in

    def _on_receipt(self, record: RecordReceipt) -> None:
        key = (record.participant, record.transfer)
        known = self.receipts.setdefault(key, (record.result, record.code))
        self._check(record.result != "accepted" or known[0] == "accepted", f"{key} was refused, then accepted")
        self._check(known[0] != "accepted" or record.result == "accepted", f"{key} was accepted, then refused")
        if record.result == "accepted":
            self.accepted[key] = (record.participant, record.round_number)

    def _on_version(self, record: RecordVersion) -> None:
        known = self.versions.get(record.version)
        self._check(known is None, f"version {record.version} was made twice")
        lineage = record.lineage
        self.versions[record.version] = Made(record.sha256, lineage.parent, lineage.origin, lineage.round_number)
        if lineage.origin == "statistics":
            self.filled_from = tuple(sorted(self.statistics))

    def _on_state(self, state: State) -> None:
        self._check(state.last_round >= self.last_round, "a round's number went back")
        self._check(state.epoch >= self.epoch, "the epoch went back")
        self._check(state.current.version < state.next_version, "the current version's number is still to be given")
        self._check(state.current.version in self.versions, "the current version was never recorded")
        self._check(state.current.sha256 == self.versions[state.current.version].sha256, "current is another vector")
        self.last_round, self.epoch = state.last_round, state.epoch
        current = state.round
        if current is not None and state.phase not in (Phase.WAITING, Phase.RESTING, Phase.BOOTSTRAP):
            stored = {p for (p, number), where in self.counted_in.items() if where == current.number == number}
            self._check(set(current.accepted) == stored, "the round counts other updates than those that are stored")

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Broken(f"commit {self.commits}: {otherwise}")

    # At the end -------------------------------------------------------------------------------------------------------

    def fold_again(self, first: Vector) -> dict[int, Vector]:
        """Every version anew, from the first one and what was accepted. Raises: Broken: one that differs in a bit."""
        table, rule = self.template.table, make_strategy(self.strategy)
        vectors: dict[int, Vector] = {}
        states: dict[int, StrategyState] = {}
        residuals: dict[int, Vector | None] = {}
        for number, made in sorted(self.versions.items()):
            residual: Vector | None = None
            if made.origin == "new":
                vector, state = first, rule.init(table.elements(Role.WEIGHT))
            elif made.origin == "statistics":
                assert made.parent is not None
                given = [self.statistics[p] for p in self.filled_from]
                vector = fill(vectors[made.parent], table, self.template.contract, given)
                state = rule.init(table.elements(Role.WEIGHT))
            else:
                assert made.parent is not None
                weights, buffers = self._contributions(made.round_number or 0)
                combined = combine(vectors[made.parent], rule, states[made.parent], weights, buffers, table)
                vector, state = combined.vector, combined.state
                if self.downlink is not None:
                    parent = vectors[made.parent]
                    step = make_step(number, parent, vector, residuals[made.parent], table, self.downlink)
                    vector, residual = step.vector, step.residual
            if vector_sha256(vector) != made.sha256:
                raise Broken(f"version {number} ({made.origin}) is another one than its updates make")
            vectors[number], states[number], residuals[number] = vector, state, residual
        return vectors

    def _contributions(self, round_number: int) -> tuple[ArrayUpdates, ArrayUpdates]:
        table = self.template.table
        keys = sorted(key for key, where in self.counted_in.items() if where == round_number)
        updates = [decode_update(self.updates[key], 2**24) for key in keys]
        deltas = [unpack_groups(update, table) for update in updates]
        names, examples = [name for name, _ in keys], [update.header.num_examples for update in updates]
        steps = [update.header.num_steps for update in updates]

        def of(role: Role) -> ArrayUpdates:
            rows = [table.gather(delta, role) for delta in deltas]
            return ArrayUpdates(names, examples, rows, size=table.elements(role), steps=steps)

        return of(Role.WEIGHT), of(Role.BUFFER)

    def sent(self, participant: str) -> Vector:
        """The sum of all weights that came from one participant and were accepted, float64."""
        table = self.template.table
        total = np.zeros(table.elements(Role.WEIGHT), np.float64)
        for (name, _), content in self.updates.items():
            if name == participant:
                total += table.gather(unpack_groups(decode_update(content, 2**24), table), Role.WEIGHT)
        return total
