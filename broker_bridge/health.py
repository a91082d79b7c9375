"""A service's health, for people's monitoring, for containers and for systemd.

    /healthz   200 `ok` while the event loop turns and no watched task has ended
    /readyz    200 `ready`, or 503 with one line `name: sentence` for each condition that isn't met
    /metrics   Prometheus' text format

A service makes one `Health`, names its conditions and holds it around its work:

    health = Health(config.health, service_registry(self._sheet))
    health.condition("broker", lambda: None if link.is_up else "no session with the broker")
    async with health.serving():                # ConfigError where the port is taken
        async with asyncio.TaskGroup() as tasks:
            health.watch(tasks.create_task(...))
            await stop.wait()
            health.stopping()

Under systemd (`Type=notify`) the service counts as started the first time that every condition holds at once, so for an
edge or an aggregator once it has its sessions: whatever is ordered behind it finds it at work. Until then systemd is
asked for more time at every look, and `systemctl status` shows what is waited for: a broker that is away at boot is no
failed start. A session that is lost later makes /readyz say so and changes nothing for systemd: the service waits and
comes back by itself. The watchdog's pings come from the event loop: one that hangs is ended and started anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, generate_latest

from broker_bridge.health_config import HealthConfig
from broker_bridge.http_server import HttpServer, Response
from broker_bridge.notify import Notifier
from broker_bridge.settings import ConfigError

__all__ = ["Check", "Health", "HealthConfig"]

_LOG = logging.getLogger("headgate.health")

LOOK_S = 0.5
"""How often the conditions are looked at for systemd until the service is ready."""
STATUS_S = 5.0
"""And from then on, for the line that `systemctl status` shows; the watchdog may ask for more."""
MORE_TIME_S = 30
"""What systemd is asked for at each look before the service is ready; without a further one it counts as failed."""

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, in the version that every scraper reads."""

Check = Callable[[], str | None]
"""Says in one sentence why a condition isn't met, without topics or secrets; None where it is. Quick, never waits."""


class Health:
    """What a service says of its health.

    Args:
        registry: what /metrics shows; `broker_bridge.metrics.service_registry` makes one.
        notifier: by default what the environment says.
    """

    def __init__(
        self, config: HealthConfig, registry: CollectorRegistry | None = None, *, notifier: Notifier | None = None
    ) -> None:
        self._config = config
        self._registry = registry if registry is not None else CollectorRegistry()
        self._notifier = notifier if notifier is not None else Notifier.from_environment()
        self._conditions: dict[str, Check] = {}
        self._notes: dict[str, Check] = {}
        self._watched: set[asyncio.Task[object]] = set()
        self._ended: list[str] = []
        self._broken: set[str] = set()
        self._is_stopping = False
        self._said_ready = False
        self._said_status = ""

    def condition(self, name: str, check: Check) -> None:
        """Something that the service needs in order to be ready. Args: name: short, one of its kind."""
        if name in self._conditions:
            raise ValueError(f"there is a condition {name} already")
        self._conditions[name] = check

    def note(self, name: str, check: Check) -> None:
        """Something that people should know of a service that is ready. Args: name: short, one of its kind."""
        if name in self._notes:
            raise ValueError(f"there is a note {name} already")
        self._notes[name] = check

    def watch(self, *tasks: asyncio.Task[object]) -> None:
        """Tasks that run as long as the service: one that ends before `stopping` makes it unhealthy."""
        for task in tasks:
            self._watched.add(task)
            task.add_done_callback(self._on_end)

    def stopping(self) -> None:
        """The service was asked to end, or ends by itself: it isn't ready any more."""
        if not self._is_stopping:
            self._is_stopping = True
            self._notifier.stopping()

    def unmet(self) -> dict[str, str]:
        """Sentences by the name of each condition that isn't met; empty where the service is ready."""
        if self._is_stopping:
            return {"running": "the service is stopping"}
        return self._answers(self._conditions)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer while the body runs. Raises: ConfigError: nothing can be listened on there."""
        server = HttpServer({"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics})
        address = self._config.address
        if address is not None:
            try:
                await server.start(*address)
            except OSError as error:
                why = error.strerror or str(error)
                raise ConfigError(
                    f"health.listen: {self._config.listen} can't be listened on ({why}); name a free port of this "
                    "machine there, or leave it out"
                ) from None
            _LOG.info("health and metrics on http://%s", self._config.listen)
            if not self._config.is_loopback:
                _LOG.warning("health and metrics are open to the network of %s, without a password", address[0])
        telling = asyncio.create_task(self._tell_systemd(), name="health systemd")
        try:
            yield
        finally:
            self.stopping()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await server.close()

    async def run(self) -> None:
        """Answer until cancelled, as a task of a group. Raises: ConfigError."""
        async with self.serving():
            await asyncio.Event().wait()

    # Pages ------------------------------------------------------------------------------------------------------------

    def _healthz(self) -> Response:
        if self._ended:
            return Response(503, "".join(f"task {name} has ended\n" for name in self._ended).encode())
        return Response(200, b"ok\n")

    def _readyz(self) -> Response:
        unmet = self.unmet()
        if unmet:
            return Response(503, "".join(f"{name}: {sentence}\n" for name, sentence in unmet.items()).encode())
        notes = self._answers(self._notes)
        return Response(200, "".join(["ready\n", *(f"{name}: {said}\n" for name, said in notes.items())]).encode())

    def _metrics(self) -> Response:
        return Response(200, generate_latest(self._registry), EXPOSITION)

    # ------------------------------------------------------------------------------------------------------------------

    def _answers(self, checks: dict[str, Check]) -> dict[str, str]:
        answers = {name: self._ask(name, check) for name, check in checks.items()}
        return {name: " ".join(sentence.split()) for name, sentence in answers.items() if sentence is not None}

    def _ask(self, name: str, check: Check) -> str | None:
        try:
            return check()
        except Exception as error:
            if name not in self._broken:
                self._broken.add(name)
                _LOG.exception("the condition %s can't be told", name)
            return f"can't be told ({type(error).__name__})"

    def _on_end(self, task: asyncio.Task[object]) -> None:
        self._watched.discard(task)
        if not self._is_stopping:
            self._ended.append(task.get_name())

    async def _tell_systemd(self) -> None:
        ping_s = self._notifier.ping_s
        while self._notifier.is_active:
            self._look()
            self._notifier.ping()
            look_s = STATUS_S if self._said_ready else LOOK_S
            await asyncio.sleep(look_s if ping_s is None else min(look_s, ping_s))

    def _look(self) -> None:
        unmet = self.unmet()
        if not unmet and not self._said_ready:
            self._said_ready = self._notifier.ready()
        if not self._said_ready and not self._is_stopping:
            self._notifier.send(f"EXTEND_TIMEOUT_USEC={MORE_TIME_S * 1_000_000}")
        status = "; ".join(f"{name}: {sentence}" for name, sentence in unmet.items()) or "ready"
        if status != self._said_status and self._notifier.send(f"STATUS={status}"):
            self._said_status = status
