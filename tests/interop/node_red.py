"""Node-RED as a process of its own, headless, with flows and one more that keeps what comes out of them."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.interop.programs import HERE, node_module, program
from tests.servers import free_port

Flow = list[dict[str, Any]]
_ALL = "const all = flow.get('all') || {};\n"
_KEEP = _ALL + "all[msg.topic] = msg; delete msg._event;\nflow.set('all', all);\n"
POLL_S = 0.2


def with_keeper(flows: Flow) -> Flow:
    """Connect each `link out`, as a user does, to a tab that keeps the last message of each topic for GET /seen."""

    def node(name: str, kind: str, *wires: str, **settings: Any) -> dict[str, Any]:
        return {"id": name, "type": kind, "z": "keeper", "wires": [list(wires)] if wires else [], **settings}

    function = {"outputs": 1, "initialize": "", "finalize": "", "libs": []}
    return [
        *({**n, "links": ["keep-in"]} if n["type"] == "link out" else n for n in flows),
        {"id": "keeper", "type": "tab", "label": "keeper", "disabled": False, "info": ""},
        node("keep-in", "link in", "keep", links=[n["id"] for n in flows if n["type"] == "link out"]),
        node("keep", "function", func=_KEEP, **function),
        node("asked", "http in", "answer", url="/seen", method="get", upload=False),
        node("answer", "function", "say", func=_ALL + "msg.payload = all;\nreturn msg;\n", **function),
        node("say", "http response", statusCode="", headers={}),
    ]


class NodeRed:
    """A running one. `seen` asks for the last message of each topic that came out of the flows."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self._port, self.log = process, port, log

    async def seen(self) -> dict[str, dict[str, Any]]:
        """By topic; empty while it doesn't answer."""
        try:
            return await asyncio.to_thread(self._get)
        except OSError:
            return {}

    async def until(self, wanted: Any, what: str, timeout_s: float = 30.0) -> dict[str, dict[str, Any]]:
        """Ask until the answer is as wanted; it has no other way to tell."""
        seen: dict[str, dict[str, Any]] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while not wanted(seen := await self.seen()):
                    assert self.process.returncode is None, self.log.read_text()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"Node-RED never had {what}: {seen}\n{self.log.read_text()[-3000:]}") from None
        return seen

    def _get(self) -> dict[str, dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/seen", timeout=5) as answer:
            said: dict[str, dict[str, Any]] = json.load(answer)
        return said


def _write(folder: Path, flows: Flow) -> None:
    folder.mkdir()
    (folder / "flows.json").write_text(json.dumps(with_keeper(flows)), "utf-8")


@asynccontextmanager
async def node_red(folder: Path, flows: Flow) -> AsyncIterator[NodeRed]:
    """Run these flows; ended by a signal, as services are."""
    await asyncio.to_thread(_write, folder, flows)
    port, log = free_port(), folder / "log"
    red = node_module("node-red") / "red.js"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program("node"), str(red), "--settings", str(HERE / "js" / "node-red-settings.js"),
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "HEADGATE_PORT": str(port), "HEADGATE_USER_DIR": str(folder),
                 "HEADGATE_FLOWS": str(folder / "flows.json"), "NODE_PATH": str(HERE / "node_modules")},
        )  # fmt: skip
    try:
        yield NodeRed(process, port, log)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
