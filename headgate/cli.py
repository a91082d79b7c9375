"""`headgate`: the command line."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys

from broker_bridge.session import BrokerMisconfigured, BrokerRefused, BrokerUnreachable, SessionLost
from broker_bridge.settings import ConfigError
from headgate import __version__
from headgate.cli_names import DIE_WITH_PARENT
from headgate.commands import assess, bridge, config, demo, export, health, ledger, model, replay, services, sites, tree
from headgate.exits import CommandError, Exit
from headgate.parsers import Parser

_PR_SET_PDEATHSIG = 1


def build_parser() -> Parser:
    """All commands."""
    parser = Parser(
        prog="headgate",
        description="Federated learning for factories over the MQTT brokers that they already run.",
        examples=("headgate demo --once", "headgate edge --config edge.yaml"),
    )
    parser.add_argument("--version", action="version", version=f"headgate {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in (demo, services, assess, export, bridge, ledger, health, model, replay, tree, sites, config):
        module.register(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    _die_with_parent(os.environ.get(DIE_WITH_PARENT))
    arguments = build_parser().parse_args(argv)
    try:
        return _run(arguments)
    except CommandError as error:
        return _end(str(error), error.code)
    except ConfigError as error:
        return _end(str(error), Exit.NOT_FOUND if str(error).endswith("no such file") else Exit.USAGE)
    except BrokerMisconfigured as error:
        return _end(str(error), Exit.USAGE)
    except (BrokerRefused, BrokerUnreachable, SessionLost) as error:
        return _end(str(error), Exit.BROKER)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # `headgate tree --once | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _run(arguments: argparse.Namespace) -> int:
    code = int(arguments.run(arguments))
    sys.stdout.flush()  # in time for the caller: a reader that has left is no failure
    return code


def _die_with_parent(parent: str | None) -> None:
    if not parent:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent.isdecimal() and int(parent) > 1 and os.getppid() != int(parent):
        sys.exit(Exit.INTERRUPTED)  # it was gone before we asked


def _end(sentence: str, code: Exit) -> int:
    print(f"headgate: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
