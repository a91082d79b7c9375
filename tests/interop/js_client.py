"""MQTT.js as a process of its own, with Cirrus Link's Sparkplug library, driven by a test."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.interop.programs import HERE, node_module, program
from tests.servers import Server

_PROTOCOLS = {"3.1.1": "4", "5": "5"}
_LINE_BYTES = 2**22


class JsClient:
    """What it heard is in `messages`: topic, payload (bytes), qos, retain; of Sparkplug topics what was decoded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.messages: list[dict[str, Any]] = []
        self._sent = 0
        self._done = 0
        self._ready = False
        self._changed = asyncio.Event()

    async def subscribe(self, topic_filter: str) -> None:
        """Return after SUBACK."""
        await self._command({"subscribe": topic_filter})

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Return after PUBACK."""
        said = base64.b64encode(payload).decode()
        await self._command({"publish": topic, "payload": said, "retain": retain, "qos": qos})

    async def publish_sparkplug(self, topic: str, payload: dict[str, Any]) -> None:
        """Encode by Cirrus Link's library and publish at QoS 0."""
        await self._command({"publish": topic, "sparkplug": payload, "qos": 0})

    async def until(self, wanted: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        """Wait until what was heard brings a condition about."""
        try:
            async with asyncio.timeout(timeout_s):
                while not wanted():
                    self._changed.clear()
                    assert self.process.returncode is None, "the client has ended"
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"MQTT.js never heard: {what}") from None

    async def ready(self) -> None:
        """Return when it is connected."""
        await self.until(lambda: self._ready, "CONNACK")

    async def listen(self) -> None:
        """Take its lines in until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "topic" in said:
                self.messages.append({**said, "payload": base64.b64decode(said["payload"])})
            else:
                self._ready = self._ready or "ready" in said
                self._done += "done" in said
            self._changed.set()
        self._changed.set()

    async def _command(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()
        self._sent += 1
        number = self._sent
        await self.until(lambda: self._done >= number, f"the acknowledgement of {command}")


@asynccontextmanager
async def js_client(
    server: Server, protocol: str = "3.1.1", death: tuple[str, dict[str, Any]] | None = None
) -> AsyncIterator[JsClient]:
    """A connected MQTT.js; it is killed at the end, so that the broker publishes its will.

    Args: death: topic and payload of a Sparkplug node's will.
    """
    node_module("mqtt")
    last = [death[0], json.dumps(death[1])] if death is not None else []
    script = str(HERE / "js" / "client.js")
    process = await asyncio.create_subprocess_exec(
        program("node"), script, server.url, _PROTOCOLS[protocol], *last,
        stdin=PIPE, stdout=PIPE, stderr=sys.stderr, limit=_LINE_BYTES,
    )  # fmt: skip
    client = JsClient(process)
    listening = asyncio.create_task(client.listen(), name="js client")
    try:
        await client.ready()
        yield client
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening
