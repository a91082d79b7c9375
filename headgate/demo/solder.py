"""Scenario `solder`: simulated solder-paste printing lines, one plant each, that learn to foresee joint defects."""

from __future__ import annotations

import time
from functools import partial

from headgate.demo.scenario import PlantScript, Scenario
from headgate.exits import CommandError, Exit
from headgate.plants.solder import SolderPlant
from headgate.plants.solder_contract import signal_map, solder_contract
from headgate.plants.solder_scenario import solder_plants

MARGIN_S = 6 * 3600.0
"""The history ends this long ago: live boards come faster than real time and must not run into the future."""
MIN_SAMPLES = 350
"""Matured training samples before a plant takes part: its statistics and class weights rest on them."""

REMARKS = {"porto": "another paste chemistry; what the others learn isn't expected to help it"}


def solder_scenario(seed: int, plants: int | None = None) -> Scenario:
    """The default plants, or as many as asked for. Raises: CommandError: a number that there aren't."""
    try:
        made = solder_plants(seed, plants) if plants is not None else solder_plants(seed)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    return Scenario(
        name="solder",
        title="Solder joint defects (simulated lines)",
        contract={**solder_contract(), "quality": {"min_samples": MIN_SAMPLES}},
        network=("mlp", "32,32"),
        training={"steps": 100, "batch_size": 64, "learning_rate": 0.001},
        tolerances={"quorum": min(2, len(made)), "deadline_s": 60.0, "evaluation_s": 30.0, "min_new_samples": 0},
        rounds=8,
        plants=tuple(_script(plant) for plant in made),
        live_speed=2.0,
    )


def _script(plant: SolderPlant) -> PlantScript:
    start_s = time.time() - MARGIN_S - plant.history_span_s()
    return PlantScript(
        participant=plant.plant_id,
        instances=plant.instances,
        signal_map=signal_map(plant),
        history=partial(plant.emissions, start_s=start_s),
        live=partial(plant.live, start_s=time.time() - MARGIN_S),
        remark=REMARKS.get(plant.plant_id, ""),
    )
