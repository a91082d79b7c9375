"""`headgate replay`: recorded data onto the topic tree, at a chosen speed."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.settings import validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command
from headgate.running import run_service, set_up_logging


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "replay",
        "Publish recorded engine tests (NASA C-MAPSS) to UNS topics, one flat JSON per cycle.",
        (
            "headgate replay --data CMAPSS --subset FD001 --broker mqtt://127.0.0.1",
            "headgate replay --data CMAPSS --subset FD003 --speed 600 --prefix acme/hamburg",
        ),
        run_replay,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the files as distributed")
    parser.add_argument("--subset", default="FD001", choices=("FD001", "FD002", "FD003", "FD004"))
    parser.add_argument("--broker", default="mqtt://127.0.0.1", metavar="URL")
    parser.add_argument("--prefix", metavar="PATH", help="topic prefix of the plant (default: acme/<subset>)")
    parser.add_argument(
        "--speed",
        type=float,
        metavar="X",
        help="recorded seconds per second, a cycle is 60 s (default: as fast as the broker takes it)",
    )


def run_replay(arguments: argparse.Namespace) -> int:
    """`headgate replay`."""
    from headgate.demo.simulator import Publisher, publish_fast, publish_paced
    from headgate.plants.cmapss import DataMalformed, DataMissing, emissions, read_subset

    if arguments.speed is not None and arguments.speed <= 0:
        raise CommandError("--speed must be above 0", Exit.USAGE)
    set_up_logging()
    broker = validate(BrokerConfig, {"url": arguments.broker}, "--broker")
    try:
        subset = read_subset(arguments.data, arguments.subset)
    except DataMissing as error:
        raise CommandError(str(error), Exit.NOT_FOUND) from None
    except DataMalformed as error:
        raise CommandError(str(error), Exit.INTEGRITY) from None
    prefix = (arguments.prefix or f"acme/{arguments.subset.lower()}").rstrip("/")
    recorded = emissions(subset, f"{prefix}/testbed/bench1")

    async def main(stop: asyncio.Event) -> int:
        publisher = Publisher(PahoConnector(broker), f"headgate-replay-{os.getpid()}")
        sending = (
            publish_fast(publisher, recorded)
            if arguments.speed is None
            else publish_paced(publisher, recorded, arguments.speed)
        )
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(), name="replay link")
            work = tasks.create_task(sending, name="replay")
            stopping = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                seconds = time.monotonic() - started
                print(f"{work.result()} messages in {seconds:.1f} s under {prefix}/testbed/bench1")
            work.cancel()
            stopping.cancel()
            await publisher.close()
        return Exit.OK

    return run_service(main)
