"""`headgate assess --suggest`: a signal map proposed from the topics that a broker speaks of."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from broker_bridge.config import BrokerConfig
from broker_bridge.settings import load, validate
from headgate.commands.assess import find_contract, hear_plant, keeping, visit_federation
from headgate.exits import CommandError, Exit
from headgate.parsers import said_of_broker
from headgate.running import run_service
from uns_topics.filters import validate_filter

if TYPE_CHECKING:
    from edge.assess.suggest import Suggestion
    from edge.config import EdgeConfig


def run_suggest(arguments: argparse.Namespace) -> int:
    """Print a signal map as YAML. Returns: 0 where it binds to the contract, 6 where a person has to add to it."""
    for text in arguments.filter:
        try:
            validate_filter(text)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from None
    if arguments.json or arguments.html is not None:
        raise CommandError("--suggest prints YAML; --json and --html are for an assessment", Exit.USAGE)
    config, broker = _broker(arguments)
    found: list[tuple[Suggestion, int]] = []

    async def main(stop: asyncio.Event) -> int:
        found.append(await _suggest(arguments, config, broker, stop))
        return Exit.OK

    run_service(main)
    return _tell(*found[0])


def _broker(arguments: argparse.Namespace) -> tuple[EdgeConfig | None, BrokerConfig]:
    """The edge's configuration and plant, or the broker of the command line."""
    from edge.config import EdgeConfig

    if arguments.config is not None:
        if arguments.broker is not None:
            raise CommandError("--broker and --config name a broker each: give one", Exit.USAGE)
        config = load(EdgeConfig, arguments.config)
        return config, config.plant_broker or config.broker
    if arguments.broker is None and arguments.data is None:
        raise CommandError("name the plant's broker: --broker URL, --config edge.yaml, or --data FILE", Exit.USAGE)
    return None, validate(BrokerConfig, said_of_broker(arguments), "command line")


async def _suggest(
    arguments: argparse.Namespace, config: EdgeConfig | None, broker: BrokerConfig, stop: asyncio.Event
) -> tuple[Suggestion, int]:
    """The proposal, and how much of Sparkplug came before a birth."""
    from edge.assess.suggest import suggest
    from edge.assess.tags import Tags

    needs_plan = arguments.contract is None and config is not None and arguments.data is None
    visited = await visit_federation(config) if needs_plan and config is not None else None
    contract = find_contract(arguments, config, visited.plan if visited is not None else None)
    tags = Tags()
    filters = tuple(dict.fromkeys(arguments.filter)) or ("#",)
    with keeping(arguments.record, tags.hear) as hear:
        await hear_plant(arguments, broker, filters, hear, stop)
    return suggest(tags, contract), tags.unborn


def _tell(found: Suggestion, unborn: int) -> int:
    if unborn:
        print(
            f"headgate: Sparkplug data came before a birth ({unborn:,} times), so their tags have no names: "
            "have the nodes say their births again (Node Control/Rebirth) while this listens",
            file=sys.stderr,
        )
    if found.text is None:
        sentence = "no tag looked like a feature of the contract; name other topics, or listen longer"
        print(f"headgate: {sentence}", file=sys.stderr)
        return Exit.FINDINGS
    print(found.text, end="")
    for problem in found.problems:
        print(f"headgate: still to do: {problem}", file=sys.stderr)
    return Exit.OK if not found.problems else Exit.FINDINGS
