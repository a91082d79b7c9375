"""`headgate config`: JSON Schema of configuration files, access rules for brokers, the page of all topics."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command

if TYPE_CHECKING:
    from edge.config import SparkplugConfig
    from uns_topics.access import PlantEdge

KINDS = ("edge", "aggregator", "bridge", "export-policy", "contract", "signal-map")
BROKERS = ("mosquitto", "hivemq", "emqx")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "config",
        "Describe configuration files, and write what brokers need to know of Headgate's topics.",
        ("headgate config schema edge", "headgate config access enterprise --broker mosquitto > acl"),
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
    schema.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    access = add_command(
        actions,
        "access",
        "Print the access rules of a broker: the enterprise's, or a plant's with a bridge.",
        (
            "headgate config access enterprise --broker mosquitto > acl",
            "headgate config access plant --edge edge.yaml --pause acme/berlin/_headgate/pause > acl",
        ),
        run_access,
    )
    access.add_argument("side", choices=("enterprise", "plant"))
    access.add_argument("--broker", choices=BROKERS, default="mosquitto", help="whose file (default mosquitto)")
    access.add_argument("--federation", default="+", metavar="NAME", help="one federation only (default: all)")
    access.add_argument("--edge", action="append", type=Path, default=[], metavar="FILE", help="plant: an edge.yaml")
    access.add_argument("--pause", metavar="TOPIC", help="plant: the bridge's pause topic")
    access.add_argument("--participant", action="append", default=[], metavar="NAME", help="hivemq: a user to list")
    add_command(
        actions,
        "topics",
        "Print the page of all topics: who writes, who reads, what they carry.",
        ("headgate config topics", "headgate config topics > docs/topics.md"),
        run_topics,
    )


def run_schema(arguments: argparse.Namespace) -> int:
    """`headgate config schema KIND`."""
    print(json.dumps(_model(arguments.kind).model_json_schema(), indent=2))
    return Exit.OK


def run_access(arguments: argparse.Namespace) -> int:
    """`headgate config access enterprise|plant`."""
    from uns_topics.access import enterprise_access, plant_access
    from uns_topics.acl_files import emqx_acl, hivemq_credentials, mosquitto_acl

    is_plant = arguments.side == "plant"
    if is_plant != bool(arguments.edge) or is_plant != bool(arguments.pause):
        raise CommandError("a plant's rules need --edge and --pause, an enterprise broker's have neither", Exit.USAGE)
    try:
        if is_plant:
            edges = tuple(_plant_edge(path) for path in arguments.edge)
            access = plant_access(edges, arguments.pause, arguments.federation)
        else:
            access = enterprise_access(arguments.federation)
        if arguments.broker == "hivemq":
            text = hivemq_credentials(access, tuple(arguments.participant))
        else:
            text = mosquitto_acl(access) if arguments.broker == "mosquitto" else emqx_acl(access)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    print(text, end="")
    return Exit.OK


def _plant_edge(path: Path) -> PlantEdge:
    """What an edge reads and writes in its plant's tree, from its own files."""
    from broker_bridge.settings import load, read_yaml, validate
    from edge.config import EdgeConfig
    from edge.outputs import alive_topic, instance_root
    from edge.signal_map import SignalMap
    from uns_topics.access import PlantEdge
    from uns_topics.filters import TopicPattern
    from uns_topics.sparkplug import state_topic

    config = load(EdgeConfig, path)
    signals = validate(SignalMap, read_yaml(config.signal_map), str(config.signal_map))
    inference = config.inference
    home = inference.home_of(signals.instance_prefixes())
    outputs = [
        f"{instance_root(instances, config.federation, inference.out_root)}/+"
        for instances in TopicPattern(signals.instance).filters
    ]
    commands = dict.fromkeys(source.command_filter for source in signals.sources if source.command_filter is not None)
    state = (state_topic(signals.sparkplug.host),) if signals.sparkplug is not None else ()
    says, obeys = _node_access(inference.sparkplug)
    return PlantEdge(
        participant=config.participant,
        reads=tuple(dict.fromkeys(topic_filter for source in signals.sources for topic_filter in source.filters)),
        writes=(*outputs, alive_topic(home, config.federation, config.participant), *says),
        asks=(*commands, *state),
        obeys=obeys,
    )


def _node_access(node: SparkplugConfig | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What an edge says as a Sparkplug node, and what is said to it."""
    from uns_topics.sparkplug import MessageType, SparkplugTopic, state_topic

    if node is None:
        return (), ()
    says = tuple(
        str(SparkplugTopic(node.group, kind, node.node, "+" if kind.value[0] == "D" else None))
        for kind in MessageType
        if kind is not MessageType.NCMD
    )
    host = () if node.primary_host is None else (state_topic(node.primary_host),)
    return says, (str(SparkplugTopic(node.group, MessageType.NCMD, node.node)), *host)


def run_topics(_arguments: argparse.Namespace) -> int:
    """`headgate config topics`."""
    from uns_topics.topic_page import topics_page

    print(topics_page(), end="")
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
