"""The demo: everything of a federation on one machine, started side by side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from rich.console import Console
from rich.live import Live

from broker_bridge.bridge.policy import Export
from broker_bridge.config import BrokerConfig
from broker_bridge.embedded import free_port
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerUnreachable, Message, Session, SessionLost
from headgate.demo.display import Space, render
from headgate.demo.processes import ProcessDied, Processes
from headgate.demo.progress import Progress
from headgate.demo.result import failed, missing, result
from headgate.demo.scenario import PlantScript, Scenario
from headgate.demo.watch import View
from headgate.exits import CommandError, Exit
from uns_topics.topics import ROOT

REFRESH_S = 0.25
BROKER_START_S = 15.0
SETTLE_S = 120.0
"""After the last round the participants have this long for their final figures."""
DEATH_S = 1.0
"""A lost connection waits this long for the death of a process that explains it."""
PLAIN_WIDTH = 120
HINT_LINES = 5


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
    per_plant: bool = False
    """Each plant has a broker of its own, and a bridge to the enterprise broker."""


async def run_demo(options: DemoOptions, stop: asyncio.Event) -> int:
    """Run until the last round (`once`) or until stopped; leaves no process and no folder behind.

    Raises: CommandError: a process died, or what a success needs is missing. BrokerUnreachable; BrokerRefused.
    """
    folder = Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    processes = Processes(folder)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    running = asyncio.create_task(_Demo(options, folder, processes).run(), name="demo")
    try:
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else Exit.INTERRUPTED
    except ProcessDied as error:
        raise CommandError(str(error)) from None
    finally:
        for task in (stopping, running):
            task.cancel()
        await asyncio.gather(stopping, running, return_exceptions=True)
        plants = [plant.participant for plant in options.scenario.plants]
        bridges, brokers = [_bridge(name) for name in plants], ["broker", *(_broker(name) for name in plants)]
        await processes.stop(order=(["aggregator"], bridges, brokers))
        shutil.rmtree(folder, ignore_errors=True)


Show = Callable[[], None]


class _Demo:
    def __init__(self, options: DemoOptions, folder: Path, processes: Processes) -> None:
        self._options = options
        self._folder = folder
        self._processes = processes
        self._started = time.monotonic()
        scenario = options.scenario
        output = "score" if scenario.contract["label"]["kind"] == "classes" else scenario.contract["label"]["name"]
        self._federation = str(scenario.contract["federation"])
        self._view = View(self._federation, output, self._started)
        self._url = options.broker or f"mqtt://127.0.0.1:{free_port()}"
        self._plant_urls = {plant.participant: self._url for plant in scenario.plants}
        if options.per_plant:
            self._plant_urls = {name: f"mqtt://127.0.0.1:{port}" for name, port in _ports(list(self._plant_urls))}
        self._console = Console(stderr=True)
        self._hint_lines = 0
        self._note = "Ctrl-C ends the demo."

    async def run(self) -> int:
        """Until done (`once`); else until cancelled."""
        self._write_files()
        await self._start_all()
        async with self._watching() as sessions:
            with self._display() as show:
                code = await self._guarded(sessions, self._until_done(show))
                if not self._options.once and code == Exit.OK:
                    self._say_how_to_watch(show)
                    await self._guarded(sessions, self._serve_on(show))
        return code

    # Files and processes ---------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        scenario, folder = self._options.scenario, self._folder
        _write_yaml(folder / "contract.yaml", scenario.contract)
        for plant in scenario.plants:
            home = folder / plant.participant
            home.mkdir()
            _write_yaml(home / "signal-map.yaml", plant.signal_map)
            _write_yaml(home / "edge.yaml", self._edge(plant))
            if self._options.per_plant:
                self._write_bridge(plant.participant)
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
            "broker": {"url": self._plant_urls[plant.participant]},
            "signal_map": "signal-map.yaml",
            "contract": "../contract.yaml",
        }

    def _write_bridge(self, participant: str) -> None:
        home = self._folder / _bridge(participant)
        home.mkdir()
        allow = [{"federation": self._federation, "kinds": list(get_args(Export))}]
        _write_yaml(home / "export-policy.yaml", {"export_policy": 1, "allow": allow})
        _write_yaml(
            home / "bridge.yaml",
            {
                "bridge": f"{participant}-gate",
                "data_dir": "data",
                "plant": {"url": self._plant_urls[participant]},
                "uplink": {"url": self._url},
                "participants": [{"federation": self._federation, "participant": participant}],
                "policy": "export-policy.yaml",
            },
        )

    async def _start_all(self) -> None:
        """Export, broker, edges and plants side by side: what needs the other waits for it by itself."""
        options, start = self._options, self._processes.start
        if options.broker is None:
            await start("broker", "broker", "--port", _port(self._url))
        if options.per_plant:
            for name, url in self._plant_urls.items():
                await start(_broker(name), "broker", "--port", _port(url))
                await start(_bridge(name), "bridge", "--config", str(self._folder / _bridge(name) / "bridge.yaml"))
        kind, hidden = options.scenario.network
        contract, model = self._folder / "contract.yaml", self._folder / "model.onnx"
        shape = ("--kind", kind, "--hidden", hidden, "--seed", str(options.seed))
        await start("model", "model", "new", str(contract), *shape, "--out", str(model))
        for plant in options.scenario.plants:
            await start(plant.participant, "edge", "--config", str(self._folder / plant.participant / "edge.yaml"))
        if options.per_plant:
            for name, url in self._plant_urls.items():
                await start(_line(name), "simulate", "--broker", url, "--participant", name, *options.arguments)
        else:
            await start("plants", "simulate", "--broker", self._url, *options.arguments)

    async def _start_aggregator(self) -> None:
        await self._processes.finished("model")
        if all(plant.live is None for plant in self._options.scenario.plants):  # recorded data comes whole, then rounds
            names = [_line(name) for name in self._plant_urls] if self._options.per_plant else ["plants"]
            await asyncio.gather(*(self._processes.finished(name) for name in names))
        await self._processes.start("aggregator", "aggregator", "--config", str(self._folder / "aggregator.yaml"))

    # Watching --------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[list[Session]]:
        """Sessions with the federation's broker and, where plants have their own, with each of them."""
        async with contextlib.AsyncExitStack() as stack:
            sessions = {self._url: await self._connect(stack, self._url)}
            down, up = f"{ROOT}/{self._federation}/down", f"{ROOT}/{self._federation}/up/+"
            await sessions[self._url].subscribe(
                *(f"{down}/{name}" for name in ("status", "plan", "round", "history")),
                *(f"{down}/model/{name}" for name in ("current", "candidate")),
                *(f"{up}/{name}" for name in ("status", "statistics", "evaluation", "data-quality", "last-update")),
                qos=0,
            )
            for number, plant in enumerate(self._options.scenario.plants):
                url = self._plant_urls[plant.participant]
                if url not in sessions:
                    sessions[url] = await self._connect(stack, url)
                inference = [f"{path}/_inference/{self._federation}/+" for path in plant.instances]
                first = [f"{plant.instances[0]}/#"] if number == 0 else []
                await sessions[url].subscribe(*inference, *first, qos=0)
            yield list(sessions.values())

    async def _connect(self, stack: contextlib.AsyncExitStack, url: str) -> Session:
        """Wait for our own broker, which is starting; somebody else's has to be there."""
        connector = PahoConnector(BrokerConfig(url=url))
        deadline = time.monotonic() + (0 if url == self._options.broker else BROKER_START_S)
        while True:
            try:
                opening = connector.connect(f"headgate-demo-{os.getpid()}", on_message=self._on_message)
                return await stack.enter_async_context(opening)
            except BrokerUnreachable:
                self._processes.check()
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def _on_message(self, message: Message) -> None:
        # What a broker kept is of an earlier run: in this one everybody speaks up after we have subscribed.
        if not message.retain or self._options.broker is None:
            self._view.on_message(message)

    async def _guarded(self, sessions: list[Session], work: Any) -> int:
        """Do the work as long as the sessions and all processes live. Raises: ProcessDied; CommandError."""
        working = asyncio.create_task(work, name="work")
        lost = asyncio.create_task(_any_lost(sessions), name="sessions")
        try:
            await asyncio.wait({working, lost}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return int(working.result())
            await asyncio.wait({working}, timeout=DEATH_S)
            if working.done():
                return int(working.result())
            try:
                lost.result()
            except SessionLost as error:
                raise CommandError(f"{error}; the demo ends with it", Exit.BROKER) from None
            return Exit.BROKER
        finally:
            for task in (working, lost):
                task.cancel()
            await asyncio.gather(working, lost, return_exceptions=True)

    async def _until_done(self, show: Show) -> int:
        """Start the aggregator once there is a model; then until nothing is missing any more."""
        aggregator = asyncio.create_task(self._start_aggregator(), name="aggregator")
        try:
            while self._lacks():
                self._processes.check()
                if aggregator.done():
                    aggregator.result()
                show()
                await asyncio.sleep(REFRESH_S)
            show()
        finally:
            aggregator.cancel()
            await asyncio.gather(aggregator, return_exceptions=True)
        return self._conclude()

    def _lacks(self) -> bool:
        """Whether something is missing that may still come."""
        settled = self._view.milestones.get(f"round {self._options.rounds}")
        if settled is not None and self._view.seconds > settled + SETTLE_S:
            return False
        return bool(missing(self._view, self._options.scenario, self._options.rounds))

    def _conclude(self) -> int:
        """Print the result. Raises: CommandError: it is no success."""
        view, scenario = self._view, self._options.scenario
        if self._options.json:
            print(json.dumps(result(view, scenario, view.seconds)), flush=True)
        if not self._console.is_terminal:
            plain = Console(stderr=True, width=PLAIN_WIDTH)
            plain.print(render(view, scenario, Space(PLAIN_WIDTH)))
        gaps = missing(view, scenario, self._options.rounds)
        if gaps or failed(view):
            code = Exit.TIMED_OUT if gaps else Exit.FAILURE
            raise CommandError("the demo didn't succeed: " + "; ".join([*failed(view), *gaps]), code)
        return Exit.OK

    def _say_how_to_watch(self, show: Show) -> None:
        """How to see the inference from another terminal; in the scrollback, where it can be selected and copied."""
        url = next(iter(self._plant_urls.values()))
        broker = BrokerConfig(url=url)
        tls = " --tls-use-os-certs" if broker.tls else ""
        host = shlex.quote(broker.host)
        levels = "/".join("+" for _ in self._options.scenario.plants[0].instances[0].split("/"))
        lines = (
            "All rounds are done; inference goes on until Ctrl-C. From another terminal:",
            f"  mosquitto_sub -h {host} -p {broker.port}{tls} -v -t '{levels}/_inference/#'",
            f"  {shlex.quote(_headgate())} tree --broker {url} '{levels}/_inference/#'",
        )
        self._note, self._hint_lines = "", len(lines)
        show()  # makes room, so that what is printed now stays in sight above it
        self._console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    async def _serve_on(self, show: Show) -> int:
        """Until cancelled. Raises: ProcessDied."""
        while True:
            self._processes.check()
            show()
            await asyncio.sleep(REFRESH_S)

    # Showing ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _display(self) -> Iterator[Show]:
        """Yields what brings the display up to date: a live screen on a terminal, else lines of what was reached."""
        if not self._console.is_terminal:
            progress = Progress(self._view)
            print(f"{self._view.seconds:6.1f} s  broker {self._url} is up", file=sys.stderr, flush=True)

            def say() -> None:
                for line in progress.news():
                    print(line, file=sys.stderr, flush=True)

            yield say
            return
        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as live:

            def draw() -> None:
                size = self._console.size
                space = Space(size.width, size.height - self._hint_lines)
                live.update(render(self._view, self._options.scenario, space, self._note), refresh=True)

            yield draw


async def _any_lost(sessions: list[Session]) -> None:
    """Raises: SessionLost: of the first session that ends."""
    waits = [asyncio.ensure_future(session.wait_closed()) for session in sessions]
    try:
        await asyncio.gather(*waits)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _bridge(participant: str) -> str:
    return f"{participant}-bridge"


def _broker(participant: str) -> str:
    return f"{participant}-broker"


def _line(participant: str) -> str:
    return f"{participant}-line"


def _port(url: str) -> str:
    return url.rpartition(":")[2]


def _ports(names: list[str]) -> list[tuple[str, int]]:
    """A free port for each; all are held until the last one is known, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        found = []
        for name in names:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append((name, int(probe.getsockname()[1])))
        return found


def _headgate() -> str:
    """How this command was called, for commands to copy."""
    called = Path(sys.argv[0])
    return "headgate" if shutil.which("headgate") or called.name == "__main__.py" else str(called)


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
