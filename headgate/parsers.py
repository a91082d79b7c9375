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


def number_to(most: float, refusal: str) -> Callable[[str], float]:
    """The type of an argument: a number above 0 and at most `most`. Args: refusal: follows the text that is none."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is {refusal}")
        return number

    return read


def add_login(parser: argparse.ArgumentParser) -> None:
    """The options that say who asks at the broker of --broker, and whom to trust."""
    parser.add_argument("--username")
    parser.add_argument("--password-file", metavar="FILE")
    parser.add_argument("--ca-file", metavar="FILE")


def said_of_broker(arguments: argparse.Namespace, *others: str) -> dict[str, str]:
    """What the command line says of the broker, as a configuration would. Args: others: options beside the login's."""
    said = {"url": arguments.broker}
    said |= {name: getattr(arguments, name) for name in ("username", "password_file", "ca_file", *others)}
    return {name: value for name, value in said.items() if value is not None}


def add_command(subparsers: Subparsers, name: str, summary: str, examples: tuple[str, str], run: Run | None) -> Parser:
    """A command with its summary and two examples; `run` gets the parsed arguments and returns an exit code."""
    parser: Parser = subparsers.add_parser(name, help=summary, description=summary, examples=examples)
    if run is not None:
        parser.set_defaults(run=run)
    return parser
