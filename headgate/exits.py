"""Exit codes. They are permanent, because service managers and scripts act on them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    BROKER = 4
    """The broker is unreachable where waiting was not asked for, or refused us."""
    INTEGRITY = 5
    """Something was changed, or a rule forbids it (another aggregator is live, a model file was altered)."""
    FINDINGS = 6
    TIMED_OUT = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """A command ends with this sentence on stderr and this exit code."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILURE) -> None:
        super().__init__(sentence)
        self.code = code
