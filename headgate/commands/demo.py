"""`headgate demo` and `headgate simulate`: a whole federation on one machine, and its plants alone."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from broker_bridge.config import BrokerConfig
from broker_bridge.settings import load, validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command
from headgate.running import run_service, set_up_logging
from headgate.scenarios import SCENARIOS, build_scenario

if TYPE_CHECKING:
    from headgate.demo.scenario import Scenario


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    demo = add_command(
        subparsers,
        "demo",
        "Run simulated plants, their edges, an aggregator and a broker, and watch them learn one model.",
        ("headgate demo", "headgate demo --once --json --rounds 3"),
        run_demo,
    )
    demo.add_argument("--rounds", type=_positive, metavar="N", help="rounds to run (default: the scenario's)")
    demo.add_argument("--once", action="store_true", help="end after the last round")
    demo.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    demo.add_argument("--broker", metavar="URL", help="use this broker instead of the embedded one")
    demo.add_argument(
        "--brokers",
        choices=("one", "per-plant"),
        default="one",
        help="per-plant: each plant has a broker of its own, and a bridge to the enterprise broker (default: one)",
    )
    simulate = add_command(
        subparsers,
        "simulate",
        "Publish the plants of a scenario to a broker: history fast, then live.",
        ("headgate simulate --broker mqtt://127.0.0.1", "headgate simulate --participant berlin --config line.yaml"),
        run_simulate,
    )
    where = simulate.add_mutually_exclusive_group()
    where.add_argument("--broker", metavar="URL", help="a broker that lets everybody in (default mqtt://127.0.0.1)")
    where.add_argument("--config", type=Path, metavar="FILE", help="YAML with broker: as in edge.yaml (TLS, password)")
    simulate.add_argument("--participant", metavar="NAME", help="play this participant's plant alone")
    for parser in (demo, simulate):
        parser.add_argument("--scenario", default="solder", choices=SCENARIOS)
        parser.add_argument("--plants", type=_positive, metavar="N", help="number of plants")
        parser.add_argument("--seed", type=int, default=1, metavar="N")
        parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the recorded data (turbofan)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def run_demo(arguments: argparse.Namespace) -> int:
    """`headgate demo`."""
    from headgate.demo.run import DemoOptions
    from headgate.demo.run import run_demo as run

    if arguments.broker is not None:
        validate(BrokerConfig, {"url": arguments.broker}, "--broker")
    scenario = build_scenario(arguments.scenario, arguments.seed, arguments.plants, arguments.data)
    passed = ["--scenario", arguments.scenario, "--seed", str(arguments.seed)]
    passed += ["--plants", str(arguments.plants)] if arguments.plants else []
    passed += ["--data", str(arguments.data)] if arguments.data else []
    options = DemoOptions(
        scenario=scenario,
        arguments=tuple(passed),
        rounds=arguments.rounds or scenario.rounds,
        seed=arguments.seed,
        once=arguments.once,
        json=arguments.json,
        broker=arguments.broker,
        per_plant=arguments.brokers == "per-plant",
    )

    async def main(stop: asyncio.Event) -> int:
        return await run(options, stop)

    return run_service(main) if arguments.once else _until_interrupted(run_service(main))


def _until_interrupted(code: int) -> int:
    """Ctrl-C is how a demo without --once is meant to end."""
    return Exit.OK if code == Exit.INTERRUPTED else code


def _alone(scenario: Scenario, participant: str) -> Scenario:
    """The scenario with one of its plants. Raises: CommandError: it has no such plant."""
    plants = tuple(plant for plant in scenario.plants if plant.participant == participant)
    if not plants:
        known = ", ".join(plant.participant for plant in scenario.plants)
        raise CommandError(f"scenario {scenario.name} has no plant {participant!r}; it has {known}", Exit.USAGE)
    return replace(scenario, plants=plants)


def run_simulate(arguments: argparse.Namespace) -> int:
    """`headgate simulate`."""
    from headgate.demo.simulator import SimulatorConfig, play

    set_up_logging()
    if arguments.config is not None:
        broker = load(SimulatorConfig, arguments.config).broker
    else:
        broker = validate(BrokerConfig, {"url": arguments.broker} if arguments.broker else {}, "--broker")
    scenario = build_scenario(arguments.scenario, arguments.seed, arguments.plants, arguments.data)
    if arguments.participant is not None:
        scenario = _alone(scenario, arguments.participant)

    async def main(stop: asyncio.Event) -> int:
        await play(scenario, broker, stop)
        return Exit.OK

    return run_service(main)
