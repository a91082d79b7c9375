"""compose.yaml's services as processes: their own commands, environment and files, against real brokers with TLS.

Mounts become folders of the test, and `host:port` becomes a free port of 127.0.0.1; nothing else is changed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker_bridge.embedded import free_port
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Session
from tests.aio import Inbox, run
from tests.deploy.compose_file import ROOT, Service, read_compose
from tests.deploy.deployed import PROBE, broker, login, make_secrets
from tests.servers import Server
from uns_topics.payloads import read
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.rounds import History
from uns_topics.topics import FlTopic, Kind

COMPOSE = read_compose()
DEMO = COMPOSE.profile("demo")
PLANTS = ("berlin", "gdansk")
FEDERATION = "solder-defect"
STOP_S = 20.0

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(240)]


@dataclass
class Machine:
    """Everything that runs: brokers by the names that services know them by, and processes."""

    folder: Path
    brokers: dict[str, Server] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    health_ports: dict[str, int] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "volumes/secrets"

    def root(self, name: str) -> Path:
        """What a service sees as its file system."""
        return self.folder / "services" / name

    def unpack(self, name: str, service: Service) -> None:
        """Put the service's mounts beneath its root, files with this machine's addresses and paths."""
        root = self.root(name)
        for mount in service.mounts:
            target = root / mount.target.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if mount.is_bind and mount.path.is_dir():
                shutil.copytree(mount.path, target)
            elif mount.is_bind:
                shutil.copy(mount.path, target)
            else:
                source = self.folder / "volumes" / mount.source / (mount.subpath or "")
                source.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source, target_is_directory=True)
        for file in root.rglob("*.yaml"):
            if not file.is_symlink():
                file.write_text(self.here(name, service, file.read_text("utf-8")), "utf-8")

    def here(self, name: str, service: Service, text: str) -> str:
        """A service's text with this machine's addresses and paths; only brokers in its networks have an address."""
        for host, server in self.brokers.items():
            if set(DEMO[host].networks) & set(service.networks):
                text = text.replace(f"mqtts://{host}:8883", server.url)
        return re.sub(r"(?<![\w/.])/(run|var|etc)/", rf"{self.root(name)}/\1/", text)

    def command(self, name: str, words: list[str]) -> list[str]:
        service = DEMO[name]
        return [sys.executable, "-m", "headgate", *(self.here(name, service, word) for word in words)]

    def environment(self, name: str) -> dict[str, str]:
        """The service's environment; containers have a loopback each, these processes share one."""
        ports = self.health_ports
        said = {**DEMO[name].environment, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        if (listen := said.get("HEADGATE_HEALTH__LISTEN")) is not None:
            said["HEADGATE_HEALTH__LISTEN"] = f"{listen.partition(':')[0]}:{ports.setdefault(name, free_port())}"
        return said

    def start(self, name: str) -> subprocess.Popen[bytes]:
        service = DEMO[name]
        self.unpack(name, service)
        with (self.folder / f"{name}.log").open("wb") as log:
            command = self.command(name, service.command or [])
            process = subprocess.Popen(command, cwd=self.root(name), env=self.environment(name), stdout=log, stderr=log)
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8")

    def stop(self) -> dict[str, int]:
        """End all that still runs; exit codes by service."""
        for process in self.processes.values():
            process.terminate()
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self.processes.clear()
        return codes


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """All brokers of the demo, with secrets made by the very command of the one-shot service."""
    here = Machine(tmp_path)
    places = {"/secrets": str(here.secrets), "/usr/local/share/headgate/hivemq": str(ROOT / "deploy/hivemq")}
    words = [re.sub(r"(?<==)/.*|^/.*", lambda found: places[found[0]], w) for w in DEMO["secrets"].command or []]
    make_secrets(Path(words[0]), *words[1:])
    with ExitStack() as stack:
        for name, service in DEMO.items():
            if service.image.startswith("eclipse-mosquitto:"):
                make_secrets(here.secrets, "--broker", name, "--user", PROBE)
                here.brokers[name] = stack.enter_context(mosquitto_service(here, name, service))
        try:
            yield here
        finally:
            here.stop()


def mosquitto_service(machine: Machine, name: str, service: Service) -> AbstractContextManager[Server]:
    """A broker with the files that compose.yaml mounts."""
    mounts = {mount.target: mount for mount in service.mounts}
    assert service.command is not None
    conf = mounts[service.command[-1]].path
    assert service.command == ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
    secrets = machine.secrets / (mounts["/mosquitto/headgate"].subpath or "")
    data = machine.folder / "volumes" / mounts["/mosquitto/data"].source
    acl = mounts["/mosquitto/config/headgate.acl"].path
    return broker(conf, acl, secrets, data)


def statuses(inbox: Inbox) -> dict[str, ParticipantState]:
    """The last state of each participant."""
    found = {}
    for message in inbox.messages:
        topic = FlTopic.parse(message.topic)
        if topic.kind is Kind.STATUS:
            _, status = read(topic, message.payload)
            assert isinstance(status, ParticipantStatus)
            found[str(topic.participant)] = status.state
    return found


def promoted(inbox: Inbox) -> bool:
    """Whether a round has been promoted with both plants' updates."""
    for message in inbox.messages:
        topic = FlTopic.parse(message.topic)
        if topic.kind is Kind.HISTORY and message.payload:
            _, history = read(topic, message.payload)
            assert isinstance(history, History)
            for summary in history.rounds:
                accepted = [one.participant for one in summary.participants if one.outcome == "accepted"]
                if summary.result == "promoted" and sorted(accepted) == list(PLANTS):
                    return True
    return False


def test_the_demo_learns_across_zones(machine: Machine) -> None:
    """Brokers with TLS, edges and aggregator behind bridges, a round across all of them, inference in the plants."""
    assert machine.start("model").wait(120) == 0, machine.log("model")
    running = ["aggregator", *(f"{kind}-{plant}" for kind in ("edge", "bridge", "line") for plant in PLANTS)]
    for name in running:
        machine.start(name)

    async def body() -> None:
        centre, scores = Inbox(), {plant: Inbox() for plant in PLANTS}
        async with AsyncExitStack() as stack:
            watching = await observe(stack, machine, "enterprise", centre)
            await watching.subscribe(f"fl/v1/{FEDERATION}/up/+/status", f"fl/v1/{FEDERATION}/down/history")
            for plant in PLANTS:
                session = await observe(stack, machine, f"plant-{plant}", scores[plant])
                await session.subscribe(f"acme/{plant}/#")
            await centre.until(lambda _: set(statuses(centre)) == set(PLANTS))
            await centre.until(lambda _: promoted(centre))
            for plant in PLANTS:
                await scores[plant].until(lambda messages: any(m.topic.endswith("/score") for m in messages))
            for name in running:
                await healthy(machine, name)
            killed = machine.processes.pop("edge-berlin")
            killed.kill()
            killed.wait()
            await centre.until(lambda _: statuses(centre)["berlin"] is ParticipantState.OFFLINE)
            assert statuses(centre)["gdansk"] is not ParticipantState.OFFLINE

    try:
        run(body(), timeout_s=150)
    except BaseException:
        sys.stderr.write("".join(f"--- {name}\n{machine.log(name)[-2000:]}" for name in running))
        raise
    assert {name: code for name, code in machine.stop().items() if code != 0} == {}


async def observe(stack: AsyncExitStack, machine: Machine, name: str, inbox: Inbox) -> Session:
    """A session as `observer`."""
    connector = PahoConnector(login(machine.brokers[name], machine.secrets, name, "observer"))
    return await stack.enter_async_context(connector.connect(f"test-{name}", on_message=inbox))


async def healthy(machine: Machine, name: str) -> None:
    """Run the service's health check."""
    check = DEMO[name].healthcheck
    assert check is not None
    _, program, *words = check.test
    assert program == "headgate"
    process = await asyncio.create_subprocess_exec(
        *machine.command(name, words), env=machine.environment(name), stdout=subprocess.DEVNULL
    )
    assert await process.wait() == 0, name
