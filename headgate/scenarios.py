"""The scenarios by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headgate.exits import CommandError, Exit

if TYPE_CHECKING:
    from headgate.demo.scenario import Scenario

SCENARIOS = ("solder", "turbofan")


def build_scenario(name: str, seed: int, plants: int | None, data: Path | None) -> Scenario:
    """A scenario. Raises: CommandError: recorded data is missing, or a number of plants that it doesn't have."""
    if name == "solder":
        from headgate.demo.solder import solder_scenario

        return solder_scenario(seed, plants)
    from headgate.demo.turbofan import turbofan_scenario
    from headgate.plants.cmapss import PUBLISHED, DataMalformed, DataMissing

    if data is None:
        files = "train_FD001.txt, test_FD001.txt, RUL_FD001.txt to FD004"
        needs = f"scenario turbofan needs --data DIR, the folder with the recorded data ({files})"
        raise CommandError(f"{needs}. {PUBLISHED}", Exit.USAGE)
    try:
        return turbofan_scenario(data, plants)
    except DataMissing as error:
        raise CommandError(str(error), Exit.NOT_FOUND) from None
    except DataMalformed as error:
        raise CommandError(str(error), Exit.INTEGRITY) from None
