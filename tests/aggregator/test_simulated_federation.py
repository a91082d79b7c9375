"""Many participants and the reducer back to back on one clock: rounds end whatever each of them does."""

from __future__ import annotations

import random

from aggregator.effects import RecordRound
from aggregator.reducer import next_deadline
from aggregator.state import Phase
from tests.support.reducer_world import World, make_rules


class Plant:
    """A participant as the aggregator sees it: heartbeats, trains for a while, sometimes dies and comes back."""

    def __init__(self, name: str, rng: random.Random, flaky: float) -> None:
        self.name, self.rng, self.flaky = name, rng, flaky
        self.birth = 1
        self.alive = True
        self.answered: int | None = None
        self.ready_at: tuple[float, int] | None = None
        self.scored: int | None = None

    def turn(self, world: World) -> None:
        if self.alive and self.rng.random() < self.flaky:
            self.alive = False
            self.ready_at = None
            world.die(self.name, birth=self.birth)
        elif not self.alive and self.rng.random() < 0.3:
            self.alive = True
            self.birth += 1
        if not self.alive:
            return
        world.status(self.name, birth=self.birth)
        current = world.state.open_round
        if current is not None and self.name in current.cohort and self.answered != current.number:
            if self.ready_at is None or self.ready_at[1] != current.number:
                self.ready_at = (world.now + self.rng.uniform(1, 30), current.number)
            if world.now >= self.ready_at[0]:
                self.answered = current.number
                world.send(self.name)
        candidate = world.state.candidate
        if world.state.phase is Phase.EVALUATING and candidate is not None and self.scored != candidate.version:
            self.scored = candidate.version
            world.evaluate(self.name, self.rng.uniform(0.5, 1.0), 1.0)


def test_a_flaky_federation_finishes_its_rounds() -> None:
    rng = random.Random(7)
    world = World(make_rules(rounds=20, deadline_s=60.0, quorum=3))
    plants = [Plant(f"plant-{i}", rng, 0.02) for i in range(12)]
    world.boot_up(*(p.name for p in plants))
    for _ in range(2000):
        for plant in plants:
            plant.turn(world)
        world.advance(5.0)
        if world.state.phase is Phase.RESTING:
            break
    assert world.state.phase is Phase.RESTING
    results = [r.summary.result for r in world.of(RecordRound)]
    assert len(results) == 20
    assert results.count("promoted") >= 18
    assert next_deadline(world.state) is None


def test_a_federation_that_is_cut_in_half_goes_on_with_the_rest() -> None:
    rng = random.Random(1)
    world = World(make_rules(rounds=5, deadline_s=60.0, quorum=3))
    plants = [Plant(f"plant-{i}", rng, 0.0) for i in range(8)]
    world.boot_up(*(p.name for p in plants))
    for plant in plants[4:]:
        world.die(plant.name)
    for _ in range(200):
        for plant in plants[:4]:
            plant.turn(world)
        world.advance(5.0)
    assert [r.summary.result for r in world.of(RecordRound)] == ["promoted"] * 5
    first = world.of(RecordRound)[0].summary
    assert sum(p.outcome == "absent" for p in first.participants) == 4
