"""Scenario `turbofan`: NASA C-MAPSS FD001-FD004 as four plants that test engines to failure.

Two plants see one operating regime and two see six; two know the fan fault and two do not. Splits go by engine; the
official test file of each subset is its plant's report split.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from headgate.demo.scenario import PlantScript, Scenario
from headgate.exits import CommandError, Exit
from headgate.plants.cmapss import SUBSETS, Subset, emissions, read_subset

FEDERATION = "turbofan-rul"
RUL_CAP = 125.0
"""Cycles; an engine further from failure shows no wear yet (Heimes 2008, and most work since)."""

SETTINGS = {"setting1": ("kft", -1.0, 43.0), "setting2": ("", -0.01, 0.9), "setting3": ("", 50.0, 110.0)}
SENSORS = {
    "T24": ("degR", 500.0, 680.0),
    "T30": ("degR", 1200.0, 1660.0),
    "T50": ("degR", 980.0, 1480.0),
    "P30": ("psi", 120.0, 590.0),
    "Nf": ("rpm", 1900.0, 2400.0),
    "Nc": ("rpm", 7900.0, 9350.0),
    "Ps30": ("psi", 35.0, 50.0),
    "phi": ("", 120.0, 560.0),
    "NRf": ("rpm", 2010.0, 2400.0),
    "NRc": ("rpm", 7800.0, 8350.0),
    "BPR": ("", 8.0, 11.3),
    "htBleed": ("", 295.0, 405.0),
    "W31": ("", 9.5, 41.0),
    "W32": ("", 5.7, 24.5),
}
"""The fourteen sensors that move with wear; units and ranges of the contract."""
OPERATING_POINTS = (
    (0.0, 0.0, 100.0),
    (10.0, 0.25, 100.0),
    (20.0, 0.7, 100.0),
    (25.0, 0.62, 60.0),
    (35.0, 0.84, 100.0),
    (42.0, 0.84, 100.0),
)
"""Altitude, Mach number and throttle angle of the six regimes in the data's description."""


def turbofan_contract() -> dict[str, Any]:
    """The contract as its YAML file holds it."""
    features = [
        {"name": name, "unit": unit, "minimum": low, "maximum": high}
        for name, (unit, low, high) in {**SETTINGS, **SENSORS}.items()
    ]
    return {
        "contract": 1,
        "federation": FEDERATION,
        "title": "Remaining useful life of turbofan engines",
        "features": features,
        "context": {
            "kind": "computed",
            "features": list(SETTINGS),
            "centres": [list(point) for point in OPERATING_POINTS],
        },
        "label": {"kind": "run_to_failure", "name": "remaining_cycles", "cap": RUL_CAP},
        "sample": {"kind": "window", "period_s": 60.0, "length": 30, "stride": 1, "pad": True},
        "split": {"by": "source", "train": 0.8, "select": 0.2, "report": "final", "report_rows": "last-of-group"},
        "metric": "rmse",
        "quality": {"min_samples": 12000},
    }


def signal_map(instance: str) -> dict[str, Any]:
    """The signal map of one test bed."""
    return {
        "signal_map": 1,
        "instance": instance,
        "sources": [
            {
                "topic": f"{instance}/engine",
                "form": "flat",
                "keys": {"timestamp": "timestamp_ms"},
                "timestamp_format": "ms",
                "group": "unit",
                "split": "split",
                "features": [
                    {"feature": name, "field": name, "unit": unit}
                    for name, (unit, _, _) in {**SETTINGS, **SENSORS}.items()
                ],
            },
            {
                "topic": f"{instance}/engine_end",
                "form": "flat",
                "keys": {"timestamp": "timestamp_ms"},
                "timestamp_format": "ms",
                "group": "unit",
                "end_of_run": {"remaining": "remaining_cycles"},
            },
        ],
    }


def turbofan_scenario(folder: Path, plants: int | None = None) -> Scenario:
    """FD001-FD004 (or the first `plants` of them) from the folder that holds the files as distributed.

    Raises: CommandError: a number of plants that there aren't. DataMissing: names the missing file and where it is
    published. DataMalformed.
    """
    if plants is not None and plants > len(SUBSETS):
        raise CommandError(f"{plants} turbofan plants: the data has subsets for 1 to {len(SUBSETS)}", Exit.USAGE)
    subsets = {name: read_subset(folder, name) for name in SUBSETS[: plants or len(SUBSETS)]}
    return Scenario(
        name="turbofan",
        title="Turbofan remaining useful life (NASA C-MAPSS)",
        contract=turbofan_contract(),
        network=("mlp", "100,50"),
        training={"steps": 200, "batch_size": 256, "learning_rate": 0.001},
        tolerances={
            "quorum": min(2, len(subsets)),
            "deadline_s": 600.0,
            "evaluation_s": 300.0,
            "bootstrap_s": 300.0,
            "min_new_samples": 0,
        },
        rounds=15,
        plants=tuple(_plant(name, subset) for name, subset in subsets.items()),
    )


def _plant(name: str, subset: Subset) -> PlantScript:
    participant = name.lower()
    instance = f"acme/{participant}/testbed/bench1"
    return PlantScript(
        participant=participant,
        instances=(instance,),
        signal_map=signal_map(instance),
        history=partial(emissions, subset, instance),
    )
