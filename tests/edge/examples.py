"""Contracts and signal maps that several tests feed: a solder line of events, an engine of windows."""

from __future__ import annotations

import json
from typing import Any

from edge.binding import bind
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from uns_topics.contract import Contract

AOI = {"field": "verdict", "source": "aoi", "codes": {"OK": "good", "BRIDGE": "defect"}}


def solder_contract(**changes: Any) -> Contract:
    """Viscosity, temperature and height; height comes with the board; a product as context."""
    content: dict[str, Any] = {
        "federation": "solder-defect",
        "features": [
            {"name": "viscosity", "unit": "Pa.s", "minimum": 50, "maximum": 400},
            {"name": "temperature", "unit": "degC", "minimum": 10, "maximum": 40, "optional": True},
            {"name": "height", "unit": "um", "minimum": 50, "maximum": 200},
        ],
        "context": {"kind": "declared", "name": "product", "values": ["alpha", "beta"]},
        "label": {
            "kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect",
            "matures_after_s": 1000,
        },
        "sample": {"kind": "event", "key": "board", "patience_s": 100},
        "metric": "average_precision",
    }  # fmt: skip
    return Contract.model_validate(content | changes)


def solder_map(**changes: Any) -> SignalMap:
    """Tags in UMH form, inspection by board in flat JSON, the verdict later and by board, too."""
    content: dict[str, Any] = {
        "instance": "Werk Süd/smt/{line}",
        "sources": [
            {
                "topic": "Werk Süd/smt/{line}/printer/viscosity", "form": "umh",
                "features": [{"feature": "viscosity", "unit": "cP"}],
            },
            {
                "topic": "Werk Süd/smt/{line}/air", "form": "umh",
                "features": [{"feature": "temperature", "unit": "degF", "join": "mean", "max_age_s": 60}],
            },
            {
                "topic": "Werk Süd/smt/{line}/spi", "form": "flat", "key": "serial", "group": "panel",
                "features": [{"feature": "height", "field": "h", "unit": "um"}],
            },
            {"topic": "Werk Süd/smt/{line}/aoi", "form": "flat", "key": "serial", "label": AOI},
            {
                "topic": "Werk Süd/smt/{line}/product", "form": "umh",
                "context": {"codes": {"A-1": "alpha"}},
            },
        ],
    }  # fmt: skip
    return SignalMap.model_validate(content | changes)


def engine_contract(**sample: Any) -> Contract:
    """Two sensors, windows of three cycles, remaining cycles as label."""
    return Contract.model_validate(
        {
            "federation": "turbofan",
            "features": [
                {"name": "t24", "unit": "degR", "minimum": 500, "maximum": 700},
                {"name": "p30", "unit": "psi", "minimum": 100, "maximum": 600},
            ],
            "label": {"kind": "run_to_failure", "name": "rul", "cap": 4},
            "sample": {"kind": "window", "period_s": 60, "length": 3} | sample,
            "split": {"by": "source", "report_rows": "last-of-group"},
            "metric": "rmse",
        }
    )


def engine_map(**changes: Any) -> SignalMap:
    """One flat JSON per cycle; another topic says when an engine has failed."""
    content: dict[str, Any] = {
        "instance": "test/{bench}",
        "sources": [
            {
                "topic": "test/{bench}/cycle", "form": "flat", "timestamp_format": "s", "group": "engine",
                "split": "file",
                "features": [
                    {"feature": "t24", "field": "s2", "unit": "degR"},
                    {"feature": "p30", "field": "s7", "unit": "psi"},
                ],
            },
            {
                "topic": "test/{bench}/end", "form": "flat", "timestamp_format": "s", "group": "engine",
                "end_of_run": {"remaining": "left"},
            },
        ],
    }  # fmt: skip
    return SignalMap.model_validate(content | changes)


def solder_ingest() -> Ingest:
    """An ingest of the solder line."""
    return Ingest(bind(solder_map(), solder_contract()), solder_contract())


def engine_ingest(**sample: Any) -> Ingest:
    """An ingest of the engine bench."""
    contract = engine_contract(**sample)
    return Ingest(bind(engine_map(), contract), contract)


def umh(time_s: float, value: Any) -> bytes:
    """A UMH message."""
    return json.dumps({"timestamp_ms": round(time_s * 1000), "value": value}).encode()


def flat(time_s: float, *, seconds: bool = False, **fields: Any) -> bytes:
    """A flat message; its timestamp in ms, or in s."""
    return json.dumps({"timestamp": time_s if seconds else round(time_s * 1000), **fields}).encode()
