"""The demo: everything of a federation on one machine, started side by side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live

from broker_bridge.config import BrokerConfig
from broker_bridge.embedded import free_port
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerUnreachable, Session
from headgate.demo.display import render
from headgate.demo.processes import ProcessDied, Processes
from headgate.demo.result import missing, result
from headgate.demo.scenario import PlantScript, Scenario
from headgate.demo.watch import View
from headgate.exits import CommandError, Exit
from uns_topics.topics import ROOT

REFRESH_S = 0.25
BROKER_START_S = 15.0
SETTLE_S = 120.0
"""After the last round the participants have this long for their final figures."""


@dataclass(frozen=True)
class DemoOptions:
    """What `headgate demo` was asked for."""

    scenario: Scenario
    arguments: tuple[str, ...]
    """Scenario, seed, plants and data, as the simulator process needs them."""
    rounds: int
    seed: int
    once: bool
    json: bool
    broker: str | None


async def run_demo(options: DemoOptions, stop: asyncio.Event) -> int:
    """Run until the last round (`once`) or until stopped; leaves no process and no folder behind."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    processes = Processes(folder)
    try:
        return await _Demo(options, folder, processes, stop).run()
    except ProcessDied as error:
        raise CommandError(str(error)) from None
    finally:
        await processes.stop(order=("aggregator", "broker"))
        shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, options: DemoOptions, folder: Path, processes: Processes, stop: asyncio.Event) -> None:
        self._options = options
        self._folder = folder
        self._processes = processes
        self._stop = stop
        self._started = time.monotonic()
        scenario = options.scenario
        output = "score" if scenario.contract["label"]["kind"] == "classes" else scenario.contract["label"]["name"]
        self._federation = str(scenario.contract["federation"])
        self._view = View(self._federation, output, self._started)
        self._url = options.broker or f"mqtt://127.0.0.1:{free_port(1883)}"
        self._console = Console(stderr=True)

    async def run(self) -> int:
        self._write_files()
        await self._start_all()
        async with self._watching():
            code = await self._until_done()
            if code != Exit.OK:
                return code
            self._print_result()
            if not self._options.once:
                await self._serve_on()
        return Exit.OK

    # Files and processes ---------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        scenario, folder = self._options.scenario, self._folder
        _write_yaml(folder / "contract.yaml", scenario.contract)
        for plant in scenario.plants:
            home = folder / plant.participant
            home.mkdir()
            _write_yaml(home / "signal-map.yaml", plant.signal_map)
            _write_yaml(home / "edge.yaml", self._edge(plant))
        _write_yaml(
            folder / "aggregator.yaml",
            {
                "federation": self._federation,
                "model": "model.onnx",
                "data_dir": "aggregator",
                "broker": {"url": self._url},
                "training": scenario.training,
                "tolerances": {**scenario.tolerances, "rounds": self._options.rounds},
                "heartbeat_s": 2.0,
            },
        )

    def _edge(self, plant: PlantScript) -> dict[str, Any]:
        return {
            "federation": self._federation,
            "participant": plant.participant,
            "data_dir": "data",
            "broker": {"url": self._url},
            "signal_map": "signal-map.yaml",
            "contract": "../contract.yaml",
        }

    async def _start_all(self) -> None:
        """Export, broker, edges and plants side by side: what needs the other waits for it by itself."""
        options, start = self._options, self._processes.start
        if options.broker is None:
            port = self._url.rpartition(":")[2]
            await start("broker", "broker", "--port", port)
        kind, hidden = options.scenario.network
        contract, model = self._folder / "contract.yaml", self._folder / "model.onnx"
        seed = str(options.seed)
        await start(
            "model",
            "model",
            "new",
            str(contract),
            "--kind",
            kind,
            "--hidden",
            hidden,
            "--seed",
            seed,
            "--out",
            str(model),
        )
        for plant in options.scenario.plants:
            await start(plant.participant, "edge", "--config", str(self._folder / plant.participant / "edge.yaml"))
        await start("plants", "simulate", "--broker", self._url, *options.arguments)

    async def _start_aggregator(self) -> None:
        await self._processes.finished("model")
        await self._processes.start("aggregator", "aggregator", "--config", str(self._folder / "aggregator.yaml"))

    # Watching --------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[Session]:
        connector = PahoConnector(BrokerConfig(url=self._url))
        async with contextlib.AsyncExitStack() as stack:
            deadline = time.monotonic() + (0 if self._options.broker else BROKER_START_S)
            while True:
                try:
                    opening = connector.connect(f"headgate-demo-{os.getpid()}", on_message=self._view.on_message)
                    session = await stack.enter_async_context(opening)
                    break
                except BrokerUnreachable:
                    if time.monotonic() > deadline or self._stop.is_set():
                        raise
                    await asyncio.sleep(0.1)
            instances = [path for plant in self._options.scenario.plants for path in plant.instances]
            json_topics = ("status", "plan", "round", "history", "model/current", "model/candidate")
            await session.subscribe(
                *(f"{ROOT}/{self._federation}/down/{name}" for name in json_topics),
                *(
                    f"{ROOT}/{self._federation}/up/+/{name}"
                    for name in ("status", "statistics", "evaluation", "data-quality", "last-update")
                ),
                *(f"{path}/_inference/{self._federation}/+" for path in instances),
                f"{instances[0]}/#",
                qos=0,
            )
            yield session

    async def _until_done(self) -> int:
        aggregator = asyncio.create_task(self._start_aggregator(), name="aggregator")
        dying = asyncio.create_task(self._watch_processes(aggregator), name="processes")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        settle_until: float | None = None
        try:
            with self._display() as show:
                while not self._stop.is_set():
                    show("Ctrl-C ends the demo.")
                    if dying.done():
                        dying.result()
                    if self._view.resting:
                        settle_until = settle_until or time.monotonic() + SETTLE_S
                        gaps = missing(self._view, self._options.scenario)
                        if not gaps:
                            show("")
                            return Exit.OK
                        if time.monotonic() > settle_until:
                            raise CommandError("the demo didn't complete: " + "; ".join(gaps), Exit.TIMED_OUT)
                    await asyncio.wait({stopping, dying}, timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)
            return Exit.INTERRUPTED
        finally:
            for task in (aggregator, dying, stopping):
                task.cancel()
            await asyncio.gather(aggregator, dying, stopping, return_exceptions=True)

    async def _watch_processes(self, aggregator: asyncio.Task[None]) -> None:
        await aggregator
        await self._processes.watch()

    @contextlib.contextmanager
    def _display(self) -> Any:
        """Yields `show(note)`: a live screen on a terminal, else a line whenever something was reached."""
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False, transient=False) as live:
                yield lambda note: live.update(render(self._view, self._options.scenario, note), refresh=True)
            return
        said: set[str] = set()

        def show(_note: str) -> None:
            for name, seconds in list(self._view.milestones.items()):
                if name not in said:
                    said.add(name)
                    print(f"{seconds:6.1f} s  {name}", file=sys.stderr, flush=True)

        yield show

    def _print_result(self) -> None:
        view, scenario = self._view, self._options.scenario
        if self._options.json:
            print(json.dumps(result(view, scenario, time.monotonic() - self._started)), flush=True)
        elif not self._console.is_terminal:
            Console(stderr=True, width=160).print(render(view, scenario, ""))

    async def _serve_on(self) -> None:
        """Keep serving inference, and say how to watch it."""
        host, _, port = self._url.partition("://")[2].rpartition(":")
        path = self._options.scenario.plants[0].instances[0]
        self._console.print(
            "\nAll rounds are done; inference goes on. Watch it from another terminal:\n"
            f"  mosquitto_sub -h {host} -p {port} -v -t '+/+/+/+/_inference/#'\n"
            f"  .venv/bin/headgate tree --broker {self._url} '{path}/#'\n"
            "Ctrl-C ends the demo.",
            highlight=False,
            soft_wrap=True,
        )
        dying = asyncio.create_task(self._processes.watch(), name="processes")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({dying, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if dying.done():
            dying.result()
        dying.cancel()
        await asyncio.gather(dying, stopping, return_exceptions=True)


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
