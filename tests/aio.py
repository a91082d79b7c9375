"""Running asynchronous tests without a plugin, and waiting for messages instead of for time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from broker_bridge.session import Message

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], timeout_s: float = 20.0) -> T:
    """Run a test's coroutine to its end; whatever the loop's exception handler hears of fails the test."""

    async def bounded() -> T:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(timeout_s):
            result = await main
        assert faults == [], faults  # in words: no test module, so pytest doesn't tell the two apart
        return result

    return asyncio.run(bounded())


class Inbox:
    """An `on_message` that keeps what comes and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._arrived = asyncio.Event()

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self._arrived.set()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.messages]

    async def until(self, wanted: Callable[[list[Message]], bool]) -> list[Message]:
        """Wait until the messages so far satisfy a condition."""
        while not wanted(self.messages):
            self._arrived.clear()
            await self._arrived.wait()
        return self.messages

    async def count(self, number: int) -> list[Message]:
        """Wait for this many messages."""
        return await self.until(lambda messages: len(messages) >= number)

    async def topic(self, topic: str) -> Message:
        """Wait for a message on this topic."""
        messages = await self.until(lambda messages: any(message.topic == topic for message in messages))
        return next(message for message in messages if message.topic == topic)
