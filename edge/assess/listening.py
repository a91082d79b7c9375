"""Listening to a broker for some time without asking more of it than that: subscriptions alone, capped. A shell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from broker_bridge.session import BrokerRefused, Connector, Message, SessionError
from edge.assess.recording import Heard
from edge.assess.report import RoundTrip
from uns_topics.contract import Contract
from uns_topics.envelope import PayloadError
from uns_topics.model import Value
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.reference import Quantiles, Reference
from uns_topics.topics import FlTopic, Kind

MAX_MESSAGES = 200_000
MAX_BYTES = 256 * 1024 * 1024
ROUND_TRIPS = 10
KEPT_S = 2.0
"""How long plan and reference, which are retained, are waited for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop listening."""

    seconds: float
    messages: int = MAX_MESSAGES
    payload_bytes: int = MAX_BYTES


@dataclass(frozen=True, slots=True)
class Listened:
    """From when to when, and why it ended early ("" where it didn't)."""

    started_s: float
    ended_s: float
    why: str


async def listen(
    connector: Connector,
    client_id: str,
    filters: Sequence[str],
    limits: Limits,
    hear: Callable[[Heard], None],
    stop: asyncio.Event,
    *,
    wall_clock: Callable[[], float] = time.time,
) -> Listened:
    """Hand on what the broker says, until a limit is met or `stop` is set. Nothing is published.

    Raises: what connecting raises; BrokerRefused: a filter was not granted; SessionLost: the broker went away.
    """
    enough = asyncio.Event()
    count = size = 0
    why = ""

    def on_message(message: Message) -> None:
        nonlocal count, size, why
        if enough.is_set():
            return
        count, size = count + 1, size + len(message.payload)
        hear(Heard(wall_clock(), message.topic, message.payload, message.retain))
        if count >= limits.messages:
            why = f"{limits.messages:,} messages were enough"
        elif size >= limits.payload_bytes:
            why = f"{limits.payload_bytes:,} bytes were enough"
        if why:
            enough.set()

    async with connector.connect(client_id, on_message=on_message) as session:
        started_s = wall_clock()
        await session.subscribe(*filters, qos=0)
        waiting = [
            asyncio.create_task(what, name=f"assess.{name}")
            for name, what in (("lost", session.wait_closed()), ("stop", stop.wait()), ("enough", enough.wait()))
        ]
        try:
            await asyncio.wait(waiting, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting[0].done():
                waiting[0].result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    return Listened(started_s, wall_clock(), why or ("it was interrupted" if stop.is_set() else ""))


@dataclass(frozen=True, slots=True)
class Visit:
    """What the federation's broker told: how far it is, the plan that it keeps, and how all plants' values lie."""

    round_trip: RoundTrip
    plan: Plan | None = None
    reference: Reference | None = None

    def quantiles(self, contract: Contract) -> dict[str, Quantiles]:
        """The plants' quantiles by feature, where they speak of this contract."""
        plan, reference = self.plan, self.reference
        if plan is None or reference is None or reference.generation != plan.generation:
            return {}
        if plan.contract_hash != contract.meaning_sha256:
            return {}
        return {feature.feature: feature.quantiles for feature in reference.features}


async def visit(connector: Connector, client_id: str, federation: str, participant: str) -> Visit:
    """Measure the way to the federation's broker, by subscriptions that a participant may make; read what it keeps."""
    kept = {str(topic): topic for topic in (FlTopic(federation, Kind.PLAN), FlTopic(federation, Kind.REFERENCE))}
    bodies: dict[str, Value] = {}
    complete = asyncio.Event()

    def on_message(message: Message) -> None:
        if message.topic in kept:
            with suppress(PayloadError):
                bodies[message.topic] = read(kept[message.topic], message.payload)[1]
            if len(bodies) == len(kept):
                complete.set()

    own = str(FlTopic(federation, Kind.RECEIPT, participant=participant))
    started = time.perf_counter()
    try:
        async with connector.connect(client_id, on_message=on_message) as session:
            connect_s = time.perf_counter() - started
            trips = []
            for _ in range(ROUND_TRIPS):
                started = time.perf_counter()
                await session.subscribe(own)
                trips.append(time.perf_counter() - started)
            await session.subscribe(*kept)
            with suppress(TimeoutError):
                async with asyncio.timeout(KEPT_S):
                    await complete.wait()
    except BrokerRefused as error:
        return Visit(RoundTrip(failed=f"the federation's broker refuses: {error}"))
    except SessionError as error:
        return Visit(RoundTrip(failed=f"the federation's broker can't be reached: {error}"))
    trips.sort()
    trip = RoundTrip(round(connect_s * 1e3, 2), round(trips[len(trips) // 2] * 1e3, 2), round(trips[-1] * 1e3, 2))
    found = list(bodies.values())
    plan = next((body for body in found if isinstance(body, Plan)), None)
    return Visit(trip, plan, next((body for body in found if isinstance(body, Reference)), None))
