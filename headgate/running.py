"""Running a service: log lines, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from headgate.exits import Exit


def set_up_logging(verbose: bool = False) -> None:
    """One line per event on stderr; stdout is for results."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("asyncio", "mqtt", "amqtt", "transitions"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run_service(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `main` until it returns or a signal asks it to stop: SIGTERM ends with its code, SIGINT with 130.

    A terminal that is closed (SIGHUP) ends it like SIGTERM, unless it runs under nohup.
    """
    interrupted = False

    async def body() -> int:
        stop = asyncio.Event()

        def ask(number: int) -> None:
            nonlocal interrupted
            interrupted = interrupted or number == signal.SIGINT
            stop.set()

        loop = asyncio.get_running_loop()
        hangup = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()
        for number in (signal.SIGTERM, signal.SIGINT, *hangup):
            loop.add_signal_handler(number, ask, number)
        return await main(stop)

    code = asyncio.run(body())
    return Exit.INTERRUPTED if interrupted and code == Exit.OK else code
