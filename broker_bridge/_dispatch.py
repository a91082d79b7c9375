"""Handing a message over without letting a fault in its handler end the session."""

from __future__ import annotations

import asyncio

from broker_bridge.session import Message, OnMessage


def dispatch(loop: asyncio.AbstractEventLoop, on_message: OnMessage, message: Message) -> None:
    """Call the handler; what it raises goes to the loop's exception handler with the topic, and the session lives on.

    An exception inside paho's callback would leave its packet parser halfway through a packet.
    """
    try:
        on_message(message)
    except Exception as error:  # a handler's bug: reported with its topic, by whoever watches the loop
        loop.call_exception_handler(
            {"message": f"the handler of messages failed on topic {message.topic!r}", "exception": error}
        )
