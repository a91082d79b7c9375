"""The plant's switches: a file, a command, a topic of the plant's broker. One that is on is enough."""

from __future__ import annotations

from pathlib import Path

COMMAND_FILE = "paused"
"""In the bridge's data directory: what `headgate bridge pause` makes and `headgate bridge resume` removes."""
_ON = frozenset({b"true", b"1", b"on"})
_OFF = frozenset({b"", b"false", b"0", b"off"})


class Pause:
    """Whether anything may leave. Nothing that comes from upstream reaches this.

    Args: files: paused while any of them exists, or can't be looked for.
    """

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._topic: str | None = None

    def on_topic(self, payload: bytes) -> None:
        """The pause topic of the plant's broker says something; what isn't clearly off is on."""
        word = payload.strip().lower()
        if word in _OFF:
            self._topic = None
        else:
            self._topic = (
                "by its pause topic" if word in _ON else "by its pause topic, which holds no clear true or false"
            )

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
