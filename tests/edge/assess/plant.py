"""A printing line whose messages are written down, well or with faults: what an assessment has to find, and no more."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.assess.recording import Heard
from edge.assess.survey import Survey
from edge.binding import bind
from edge.signal_map import SignalMap
from uns_topics.contract import Contract

LINE = "acme/berlin/smt/line1"
START_S = 1_700_000_000.0

CONTRACT: dict[str, Any] = {
    "contract": 1,
    "federation": "solder-defect",
    "features": [
        {"name": "ambient_temperature", "unit": "degC", "minimum": 10, "maximum": 45},
        {"name": "humidity", "unit": "%", "minimum": 5, "maximum": 95, "optional": True},
        {"name": "squeegee_speed", "unit": "mm/s", "minimum": 10, "maximum": 110},
        {"name": "squeegee_force", "unit": "N", "minimum": 20, "maximum": 130},
        {"name": "paste_height", "unit": "um", "minimum": 50, "maximum": 200},
    ],
    "label": {
        "kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect",
        "matures_after_s": 600,
    },
    "sample": {"kind": "event", "key": "board"},
    "metric": "average_precision",
    "quality": {"min_samples": 50},
}  # fmt: skip

SIGNAL_MAP: dict[str, Any] = {
    "signal_map": 1,
    "instance": "acme/berlin/smt/{line}",
    "sources": [
        {
            "topic": "acme/berlin/smt/{line}/printer/temperature", "form": "umh",
            "features": [{"feature": "ambient_temperature", "unit": "degC"}],
        },
        {
            "topic": "acme/berlin/smt/{line}/printer/humidity", "form": "umh",
            "features": [{"feature": "humidity", "unit": "%"}],
        },
        {
            "topic": "acme/berlin/smt/{line}/printer/speed", "form": "umh",
            "features": [{"feature": "squeegee_speed", "unit": "mm/s"}],
        },
        {
            "topic": "acme/berlin/smt/{line}/printer/force", "form": "vqt",
            "features": [{"feature": "squeegee_force", "unit": "N"}],
        },
        {
            "topic": "acme/berlin/smt/{line}/spi", "form": "flat", "key": "board",
            "features": [{"feature": "paste_height", "field": "height", "unit": "um"}],
        },
        {
            "topic": "acme/berlin/smt/{line}/aoi", "form": "flat", "key": "board",
            "label": {"field": "verdict", "source": "aoi", "codes": {"OK": "good", "BRIDGE": "defect"}},
        },
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """What goes wrong, one thing each."""

    fahrenheit: bool = False
    gap: bool = False
    twice: bool = False
    clock_s: float = 0.0
    unknown_code: bool = False


ALL_FAULTS = Faults(fahrenheit=True, gap=True, twice=True, clock_s=90.0, unknown_code=True)


def messages(
    ticks: int = 400,
    *,
    start_s: float = START_S,
    tick_s: float = 1.0,
    faults: Faults | None = None,
    seed: int = 1,
    gap_every: int | None = None,
) -> Iterator[Heard]:
    """Four tags at each tick, a board at each second one: in the order of their arrival.

    Args: gap_every: ticks from gap to gap; None: there is one in the middle.
    """
    gap_every = gap_every or ticks
    rng, faults = random.Random(seed), faults or Faults()
    for tick in range(ticks):
        time_s = start_s + tick * tick_s
        celsius = 24 + rng.gauss(0, 0.5)
        yield _umh(time_s, "printer/temperature", celsius * 1.8 + 32 if faults.fahrenheit else celsius)
        if not (faults.gap and 0.5 * gap_every < tick % gap_every < 0.7 * gap_every):
            yield _umh(time_s + 0.1 * tick_s, "printer/humidity", 45 + rng.gauss(0, 2))
        speed = _umh(time_s + 0.2 * tick_s, "printer/speed", 60 + rng.gauss(0, 3))
        yield speed
        if faults.twice and tick % 10 == 0:
            yield speed
        at_s = time_s + 0.3 * tick_s
        force = {"value": 70 + rng.gauss(0, 4), "quality": 192, "timestamp": round((at_s + faults.clock_s) * 1000)}
        yield Heard(at_s, f"{LINE}/printer/force", json.dumps(force).encode())
        if tick % 2 == 0:
            yield _flat(time_s + 0.4 * tick_s, "spi", board=f"B{tick}", height=120 + rng.gauss(0, 8))
            verdict = "BRIDGE" if rng.random() < 0.1 else "OK"
            if faults.unknown_code and tick % 40 == 6:
                verdict = "TOMBSTONE"
            yield _flat(time_s + 0.6 * tick_s, "aoi", board=f"B{tick}", verdict=verdict)


def survey(heard: Iterator[Heard] | list[Heard], **changes: Any) -> Survey:
    """All of it through the line's signal map."""
    contract = Contract.model_validate(CONTRACT | changes)
    made = Survey(bind(SignalMap.model_validate(SIGNAL_MAP), contract), contract)
    for one in heard:
        made.hear(one)
    return made


def _umh(time_s: float, leaf: str, value: float) -> Heard:
    content = {"timestamp_ms": round(time_s * 1000), "value": round(value, 4)}
    return Heard(time_s + 0.005, f"{LINE}/{leaf}", json.dumps(content).encode())


def _flat(time_s: float, leaf: str, **fields: Any) -> Heard:
    content = {"timestamp": round(time_s * 1000), **fields}
    return Heard(time_s + 0.005, f"{LINE}/{leaf}", json.dumps(content).encode())
