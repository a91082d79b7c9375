"""`headgate bridge`: the way out of a plant, and the plant's own switches for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from broker_bridge.settings import load
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command, number_to
from headgate.running import run_service, set_up_logging

_minutes = number_to(7 * 24 * 60, "no time between 0 and a week")


def register(subparsers: Subparsers) -> None:
    """Add the command and its actions."""
    bridge = add_command(
        subparsers,
        "bridge",
        "Connect a plant's broker to the next zone: only declared bytes leave, and all of them are on record.",
        (
            "headgate bridge --config bridge.yaml",
            "headgate bridge --config bridge.yaml --dry-run --minutes 10",
        ),
        run_bridge,
    )
    bridge.add_argument(
        "action",
        nargs="?",
        default="run",
        choices=("run", "pause", "resume"),
        help="run the bridge (default); pause: nothing leaves until resume, also while no bridge runs",
    )
    bridge.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML configuration")
    bridge.add_argument("--verbose", action="store_true", help="log what is normally not of interest")
    bridge.add_argument(
        "--dry-run", action="store_true", help="read the plant's broker and show what would leave; nothing does"
    )
    bridge.add_argument("--minutes", type=_minutes, default=5.0, metavar="N", help="length of a dry run (default 5)")
    bridge.add_argument("--json", action="store_true", help="print the dry run's result as one JSON object")


def run_bridge(arguments: argparse.Namespace) -> int:
    """`headgate bridge`."""
    from broker_bridge.bridge.config import BridgeConfig
    from broker_bridge.bridge.service import read_policy
    from broker_bridge.bridge.service import run_bridge as run

    if arguments.dry_run and arguments.action != "run":
        raise CommandError(f"--dry-run is not for `bridge {arguments.action}`", Exit.USAGE)
    config = load(BridgeConfig, arguments.config)
    if arguments.action != "run":
        return _switch(config.data_dir, arguments.action)
    policy = read_policy(config)
    set_up_logging(arguments.verbose)
    if arguments.dry_run:
        from headgate.commands.dry_run import run_dry

        return run_dry(config, policy, arguments.minutes, as_json=arguments.json)
    return run_service(lambda stop: run(config, policy, stop))


def _switch(data_dir: Path, action: str) -> int:
    from broker_bridge.bridge.ledger import FOLDER, is_in_use
    from broker_bridge.bridge.pause import COMMAND_FILE

    file = data_dir / COMMAND_FILE
    try:
        if action == "pause":
            data_dir.mkdir(parents=True, exist_ok=True)
            file.touch()
            print(f"paused: nothing leaves while {file} exists; `headgate bridge resume` removes it")
        else:
            file.unlink(missing_ok=True)
            print("resumed, unless the policy's own pause file or topic says otherwise")
        if not is_in_use(data_dir / FOLDER):
            print(f"no bridge runs on {data_dir} now; is HEADGATE_DATA_DIR set for the service?", file=sys.stderr)
    except OSError as error:
        raise CommandError(f"{file} can't be changed: {error.strerror}", Exit.FAILURE) from None
    return Exit.OK
