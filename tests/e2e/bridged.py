"""Plants with brokers of their own behind real bridges, around a `Federation` on the enterprise broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.e2e.federation import FEDERATION, Federation, Service, federation
from tests.servers import Server, mosquitto

EVERYTHING = ("update", "status", "presence", "statistics", "evaluation", "data-quality", "last-update")


def policy(*kinds: str, **more: Any) -> dict[str, Any]:
    """An export policy that allows these kinds, or all."""
    return {"export_policy": 1, "allow": [{"federation": FEDERATION, "kinds": list(kinds or EVERYTHING)}], **more}


@dataclass
class Plant:
    """A plant's broker as a test sees it."""

    participant: str
    server: Server
    session: Session
    messages: list[Message] = field(default_factory=list)

    def topics(self) -> set[str]:
        return {message.topic for message in self.messages}

    def retained(self) -> dict[str, bytes]:
        """The last payload of each topic, without those that were cleared."""
        last = {message.topic: message.payload for message in self.messages}
        return {topic: payload for topic, payload in last.items() if payload}


@asynccontextmanager
async def plant(f: Federation, participant: str, server: Server) -> AsyncIterator[Plant]:
    """Watch a plant's broker, and let the federation publish this participant's boards to it."""
    made: list[Plant] = []

    def hear(message: Message) -> None:
        if made:
            made[0].messages.append(message)
        f.on_plant_message(message)

    connector = PahoConnector(BrokerConfig(url=server.url))
    async with connector.connect(f"test-{participant}", on_message=hear) as session:
        made.append(Plant(participant, server, session))
        await session.subscribe("acme/#", "fl/#")
        f.plants[participant] = session
        yield made[0]


async def start_bridge(
    f: Federation,
    name: str,
    below: str,
    above: str,
    participants: tuple[str, ...],
    *,
    export_policy: dict[str, Any] | None = None,
    behind: tuple[str, ...] = (),
    uplink: dict[str, Any] | None = None,
    credentials: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> Service:
    """Start `headgate bridge` between two brokers. Args: below, above: URLs."""
    f.write(f"{name}/export-policy.yaml", export_policy or policy())
    own = credentials or {}
    config = {
        "bridge": name,
        "data_dir": "data",
        "plant": {"url": below},
        "uplink": {"url": above, **(uplink or {})},
        "participants": [
            {"federation": FEDERATION, "participant": p, "behind": list(behind), **own.get(p, {})} for p in participants
        ],
        "policy": "export-policy.yaml",
        **settings,
    }
    path = f.write(f"{name}/bridge.yaml", config)
    return await f.start(name, "bridge", "--config", str(path))


def data_of(f: Federation, bridge: str) -> Path:
    """A bridge's data directory."""
    return f.folder / bridge / "data"


@asynccontextmanager
async def berlin_behind_a_bridge(
    folder: Path, server: Server, **settings: Any
) -> AsyncIterator[tuple[Federation, Plant]]:
    """berlin at a broker of its own, behind a bridge, and lyon at the federation's: each has 150 boards."""
    async with AsyncExitStack() as stack:
        f = await stack.enter_async_context(federation(folder, server, **settings))
        own = stack.enter_context(mosquitto())
        at_berlin = await stack.enter_async_context(plant(f, "berlin", own))
        await start_bridge(f, "gate", own.url, server.url, ("berlin",))
        await f.start_edge("berlin", broker={"url": own.url})
        await f.start_edge("lyon")
        for participant in ("berlin", "lyon"):
            await f.listening(participant)
            await f.publish_boards(participant, 150)
        yield f, at_berlin
