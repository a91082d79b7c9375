"""`headgate aggregator backup` and `restore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.exits import CommandError, Exit

if TYPE_CHECKING:
    from aggregator.config import AggregatorConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a parser of `headgate aggregator` takes for them."""
    parser.add_argument(
        "action",
        nargs="?",
        default="run",
        choices=("run", "backup", "restore"),
        help="run the aggregator (default); backup: write store, vectors and model to one file, while it runs or not; "
        "restore: make them anew from that file where there is no store",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="backup: the file to write")


def run_backup(arguments: argparse.Namespace, config: AggregatorConfig) -> int:
    """`headgate aggregator backup`."""
    from aggregator.backup import BackupError, backup

    if arguments.to is None:
        raise CommandError("backup: where to? Name a file with --to", Exit.USAGE)
    if not arguments.to.parent.is_dir():
        raise CommandError(f"{arguments.to.parent}: no such folder", Exit.NOT_FOUND)
    try:
        made = backup(config, arguments.to)
    except BackupError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{arguments.to} can't be written: {error.strerror}") from None
    size = arguments.to.stat().st_size
    print(
        f"{arguments.to}: federation {made.federation}, generation {made.generation}, version {made.current} current "
        f"after round {made.last_round}; {len(made.files)} files, {size:,} bytes"
    )
    return Exit.OK


def run_restore(arguments: argparse.Namespace, config: AggregatorConfig) -> int:
    """`headgate aggregator restore`."""
    from aggregator.backup import BackupError, restore
    from aggregator.vectors import DirectoryInUse

    if arguments.from_file is None:
        raise CommandError("restore: what from? Name the backup with --from", Exit.USAGE)
    if not arguments.from_file.is_file():
        raise CommandError(f"{arguments.from_file}: no such file", Exit.NOT_FOUND)
    try:
        made = restore(config, arguments.from_file)
    except (BackupError, DirectoryInUse) as error:
        raise CommandError(str(error), Exit.INTEGRITY if isinstance(error, BackupError) else Exit.USAGE) from None
    except OSError as error:
        raise CommandError(f"{config.data_dir} can't be written: {error.strerror}") from None
    print(
        f"{config.data_dir}: federation {made.federation}, generation {made.generation}, version {made.current} "
        f"current after round {made.last_round}; its epoch is {made.epoch + 1} or more: participants will follow it"
    )
    return Exit.OK
