"""`headgate config schema`: the configuration files' JSON Schema, for editors and for people."""

from __future__ import annotations

import argparse
import json

from pydantic import BaseModel

from headgate.exits import Exit
from headgate.parsers import Subparsers, add_command

KINDS = ("edge", "aggregator", "bridge", "export-policy", "contract", "signal-map")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "config",
        "Describe configuration files.",
        ("headgate config schema edge", "headgate config schema contract > contract.schema.json"),
        None,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    schema = add_command(
        actions,
        "schema",
        "Print the JSON Schema of a configuration file.",
        ("headgate config schema edge", "headgate config schema signal-map"),
        run_schema,
    )
    schema.add_argument("kind", choices=KINDS)


def run_schema(arguments: argparse.Namespace) -> int:
    """`headgate config schema KIND`."""
    print(json.dumps(_model(arguments.kind).model_json_schema(), indent=2))
    return Exit.OK


def _model(kind: str) -> type[BaseModel]:
    if kind == "edge":
        from edge.config import EdgeConfig

        return EdgeConfig
    if kind == "aggregator":
        from aggregator.config import AggregatorConfig

        return AggregatorConfig
    if kind == "bridge":
        from broker_bridge.bridge.config import BridgeConfig

        return BridgeConfig
    if kind == "export-policy":
        from broker_bridge.bridge.policy import ExportPolicy

        return ExportPolicy
    if kind == "contract":
        from uns_topics.contract import Contract

        return Contract
    from edge.signal_map import SignalMap

    return SignalMap
