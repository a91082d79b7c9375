"""The plant's switches: a file, a command, a topic of the plant's broker. One that is on is enough."""

from __future__ import annotations

from pathlib import Path

COMMAND_FILE = "paused"
"""In the bridge's data directory: what `headgate bridge pause` makes and `headgate bridge resume` removes."""
_ON = frozenset({b"true", b"1", b"on"})
_OFF = frozenset({b"", b"false", b"0", b"off"})


class Pause:
    """Whether anything may leave. Nothing that comes from upstream reaches this.

    Args:
        files: paused while any of them exists, or can't be looked for.
        with_topic: there is a pause topic, which counts as on until the plant's broker had time to say what it holds.
    """

    def __init__(self, *files: Path, with_topic: bool = False) -> None:
        self._files = files
        self._topic: str | None = "until its pause topic was heard" if with_topic else None
        self._was_heard = not with_topic

    def on_topic(self, payload: bytes) -> None:
        """The pause topic of the plant's broker says something; what isn't clearly off is on."""
        self._was_heard = True
        word = payload.strip().lower()
        if word in _OFF:
            self._topic = None
        else:
            self._topic = (
                "by its pause topic" if word in _ON else "by its pause topic, which holds no clear true or false"
            )

    def settle(self) -> None:
        """The plant's broker was asked, and had time to answer: a topic that holds nothing is off."""
        if not self._was_heard:
            self.on_topic(b"")

    @property
    def reason(self) -> str | None:
        """Why nothing may leave, in words; None where it may."""
        for file in self._files:
            try:
                file.lstat()
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"its pause file can't be looked for ({error.strerror})"
            return "by command" if file.name == COMMAND_FILE else "by its pause file"
        return self._topic
