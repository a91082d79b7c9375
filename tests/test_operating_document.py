"""docs/operate.md explains every code that anybody can meet, and no other."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from broker_bridge.bridge.inspection import Why
from headgate.cli import build_parser
from uns_topics.codes import Code, DataProblem, Reason
from uns_topics.presence import ParticipantState

DOCUMENT = (Path(__file__).parent.parent / "docs" / "operate.md").read_text("utf-8")
SECTIONS = {
    "| state |": ParticipantState,
    "| reason |": Reason,
    "## Answers to updates": Code,
    "## What a bridge doesn't let out": Why,
    "## Data problems": DataProblem,
}


def first_cells(start: str) -> set[str]:
    """The codes in the first column of the table that follows."""
    text = DOCUMENT[DOCUMENT.index(start) :]
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    found: set[str] = set()
    for line in lines[begin + 1 :]:
        if not line.startswith("|"):
            break
        found |= set(re.findall(r"`([a-z-]+)`", line.split("|")[1]))
    return found


@pytest.mark.parametrize("start", SECTIONS)
def test_every_code_is_explained(start: str) -> None:
    codes: type[StrEnum] = SECTIONS[start]
    assert first_cells(start) == {code.value for code in codes}


def test_its_commands_can_be_typed() -> None:
    shell = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`(headgate [^`]+)`", DOCUMENT)
    commands = [line for block in shell for line in block.splitlines()] + inline
    assert len(commands) >= 6
    for command in commands:
        words = [word.strip("'") for word in command.split()[1:]]
        assert callable(build_parser().parse_args(words).run)
