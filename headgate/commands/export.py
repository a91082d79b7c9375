"""`headgate export`: ready-made files for the programs of a plant that read inference."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command

if TYPE_CHECKING:
    from edge.config import EdgeConfig
    from edge.exports.published import Published

TARGETS = {
    "ignition": "tags for Ignition 8.1 with MQTT Engine (JSON)",
    "node-red": "a Node-RED flow (JSON)",
    "telegraf": "mqtt_consumer inputs for Telegraf (TOML)",
    "grafana": "a Grafana dashboard on what the Telegraf export writes to InfluxDB (JSON)",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "export",
        "Write what a plant's programs need to read an edge's inference, from its contract and configuration.",
        (
            "headgate export ignition --config edge.yaml --out tags.json",
            "headgate export telegraf --config edge.yaml --instance acme/berlin/smt/line1",
        ),
        run_export,
    )
    listed = "; ".join(f"{name}: {what}" for name, what in TARGETS.items())
    parser.add_argument("target", choices=tuple(TARGETS), help=listed)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the edge's YAML configuration")
    parser.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="PATH",
        help="an instance's path, repeated for more; default: those in the edge's store that have given a sample",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")


def run_export(arguments: argparse.Namespace) -> int:
    """`headgate export TARGET`."""
    from broker_bridge.settings import load
    from edge.config import EdgeConfig
    from edge.exports.published import ExportError
    from edge.store_file import StoreError

    config = load(EdgeConfig, arguments.config)
    try:
        published = _published(config, arguments.instance)
        text = _text(arguments.target, published, config)
    except (ExportError, StoreError) as error:
        raise CommandError(str(error), Exit.USAGE) from None
    if arguments.out is None:
        print(text, end="")
    else:
        try:
            arguments.out.write_text(text, "utf-8")
        except OSError as error:
            raise CommandError(f"{arguments.out} can't be written: {error.strerror}") from None
    if arguments.target == "ignition":
        _say_namespaces(published)
    return Exit.OK


def _published(config: EdgeConfig, named: list[str]) -> Published:
    from broker_bridge.settings import read_yaml, validate
    from edge.exports.published import describe
    from edge.known_contract import peeked_contract
    from edge.known_instances import known_instances
    from edge.signal_map import SignalMap
    from uns_topics.filters import TopicPattern

    contract = peeked_contract(config)
    if contract is None:
        raise CommandError(
            "no contract is known yet: name it in the configuration, or run the edge until a plan brings it",
            Exit.NOT_FOUND,
        )
    signal_map = validate(SignalMap, read_yaml(config.signal_map), str(config.signal_map))
    pattern = TopicPattern(signal_map.instance)
    # What an earlier signal map made is no instance any more.
    known = [p for p in known_instances(config.data_dir / "samples.sqlite") if pattern.match(p) is not None]
    return describe(config, contract, signal_map, named or known)


def _text(target: str, published: Published, config: EdgeConfig) -> str:
    from edge.exports.grafana import dashboard
    from edge.exports.ignition import tag_import
    from edge.exports.node_red import flow
    from edge.exports.telegraf import telegraf

    broker = config.plant_broker or config.broker
    if target == "telegraf":
        return telegraf(published, broker)
    made: object
    match target:
        case "ignition":
            made = tag_import(published)
        case "node-red":
            made = flow(published, broker)
        case _:
            made = dashboard(published)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _say_namespaces(published: Published) -> None:
    """What has to be configured in MQTT Engine, which no tag import can do."""
    from edge.exports.ignition import namespaces, replaced

    for payload, topics in namespaces(published).items():
        print(f"MQTT Engine, custom namespace with {payload} payload, no tag name; subscribe to:", file=sys.stderr)
        for topic in topics:
            print(f"  {topic}", file=sys.stderr)
    if characters := replaced(published):
        print(f"MQTT Engine, String Replacement: each of {' '.join(characters)} by _", file=sys.stderr)
