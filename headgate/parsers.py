"""Argument parsers whose help starts with examples: what people read first is what they can type."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]
Subparsers = Any
"""argparse's own type for this is private."""


class Parser(argparse.ArgumentParser):
    """An argument parser with examples before the usage."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help(self) -> str:
        """Examples, then argparse's own help."""
        shown = "".join(f"  {example}\n" for example in self.examples)
        return f"Examples:\n{shown}\n{super().format_help()}" if shown else super().format_help()


def add_command(subparsers: Subparsers, name: str, summary: str, examples: tuple[str, str], run: Run | None) -> Parser:
    """A command with its summary and two examples; `run` gets the parsed arguments and returns an exit code."""
    parser: Parser = subparsers.add_parser(name, help=summary, description=summary, examples=examples)
    if run is not None:
        parser.set_defaults(run=run)
    return parser
