"""Plants to export: an edge's configuration, a contract and a signal map, small and in the real formats."""

from __future__ import annotations

from typing import Any

from broker_bridge.config import BrokerConfig
from edge.config import EdgeConfig
from edge.exports.published import Published, describe
from edge.signal_map import SignalMap
from uns_topics.contract import Contract

FEATURES = [{"name": "volume", "unit": "%", "minimum": 0, "maximum": 200}]
CLASSES = {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"}
BOARDS = {
    "federation": "solder-defect", "title": "Solder defects", "features": FEATURES, "label": CLASSES,
    "sample": {"kind": "event", "key": "board"}, "metric": "average_precision",
}  # fmt: skip
ENGINES = {
    "federation": "turbofan", "features": FEATURES,
    "label": {"kind": "run_to_failure", "name": "remaining_cycles", "unit": "h", "cap": 125},
    "sample": {"kind": "window", "period_s": 1, "length": 3}, "metric": "rmse",
}  # fmt: skip
INSTANCES = ("acme/Werk Köln.2/smt/line1", "acme/Werk Köln.2/smt/line 2")
RULE = {"rule": "cost", "miss": 10, "false_alarm": 1}
"""A site's rule: with it there are the leaves `threshold` and `alarm`."""
SIGNAL_MAP = {
    "instance": "acme/Werk Köln.2/smt/{line}",
    "sources": [
        {
            "topic": "acme/Werk Köln.2/smt/{line}/spi", "form": "flat", "key": "board",
            "features": [{"feature": "volume", "field": "volume", "unit": "%"}],
        }
    ],
}  # fmt: skip


def published(contract: dict[str, Any] = BOARDS, instances: tuple[str, ...] = INSTANCES, **inference: Any) -> Published:
    """What an edge called berlin publishes."""
    config = EdgeConfig.model_validate(
        {
            "federation": contract["federation"],
            "participant": "berlin",
            "data_dir": "data",
            "broker": {"url": "mqtt://broker.example"},
            "signal_map": "signal-map.yaml",
            "inference": inference,
        }
    )
    return describe(config, Contract.model_validate(contract), SignalMap.model_validate(SIGNAL_MAP), instances)


def broker(url: str = "mqtt://broker.example", **settings: Any) -> BrokerConfig:
    """The plant's broker."""
    return BrokerConfig.model_validate({"url": url, **settings})
