"""`headgate edge backfill`: a historian's export into an edge's store."""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid

from broker_bridge.settings import read_yaml, validate
from headgate.exits import CommandError, Exit

if TYPE_CHECKING:
    from edge.backfill.run import Outcome
    from edge.config import EdgeConfig
    from edge.store import SampleStore
    from uns_topics.contract import Contract

WIDTH = 110
TELL_EVERY_S = 10.0
"""Where stderr is no terminal, progress is a line in this time."""
LISTED = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `backfill`; the edge's configuration is given beside them."""
    group = parser.add_argument_group("backfill")
    group.add_argument(
        "--from", dest="files", action="append", type=Path, default=[], metavar="FILE",
        help="CSV (also .gz, .xz) or Parquet; several times for several files, which are merged by time",
    )  # fmt: skip
    group.add_argument("--map", dest="tag_map", type=Path, metavar="FILE", help="YAML: which topic each tag stands for")
    group.add_argument("--zone", metavar="NAME", help="of timestamps that name none: UTC, Europe/Berlin")
    group.add_argument("--dry-run", action="store_true", help="read and report; the edge's store stays as it is")
    group.add_argument("--json", action="store_true", help="one JSON object")


def refuse_arguments(arguments: argparse.Namespace) -> None:
    """What is backfill's alone, beside another action: a `--dry-run` that runs the edge would be no dry run.

    Raises: CommandError: usage.
    """
    said = {
        "--from": bool(arguments.files),
        "--map": arguments.tag_map is not None,
        "--zone": arguments.zone is not None,
        "--dry-run": arguments.dry_run,
        "--json": arguments.json and arguments.action != "problems",
    }
    for option, is_there in said.items():
        if is_there:
            raise CommandError(f"{option} is not for `edge {arguments.action}`: did you mean backfill?", Exit.USAGE)


def run_backfill(arguments: argparse.Namespace, config: EdgeConfig) -> int:
    """Fill the store of an edge that doesn't run. Returns: 6 where a first training isn't possible yet."""
    from edge.backfill.run import backfill
    from edge.backfill.tables import TableError, open_table
    from edge.backfill.tag_map import TagMap
    from edge.binding import MapError, bind
    from edge.signal_map import SignalMap
    from edge.store_file import StoreBusy, StoreError

    if not arguments.files:
        raise CommandError("name the export: --from FILE.csv or --from FILE.parquet", Exit.USAGE)
    tag_map = TagMap()
    if arguments.tag_map is not None:
        tag_map = validate(TagMap, read_yaml(arguments.tag_map), str(arguments.tag_map))
    signal_map = validate(SignalMap, read_yaml(config.signal_map), str(config.signal_map))
    contract = _contract(config)
    try:
        bound = bind(signal_map, contract)
        tables = [open_table(f, delimiter=tag_map.delimiter, encoding=tag_map.encoding) for f in arguments.files]
        with _store(config, dry=arguments.dry_run) as (store, folder), _progress() as progress:
            aside = store.use(contract)
            outcome = backfill(
                tables, tag_map, bound, contract, store,
                zone=arguments.zone, now_s=time.time(), folder=folder, progress=progress,
            )  # fmt: skip
    except TableError as error:
        missing = str(error).endswith("no such file")
        raise CommandError(str(error), Exit.NOT_FOUND if missing else Exit.USAGE) from None
    except MapError as error:
        raise CommandError(f"{config.signal_map}: {error}", Exit.USAGE) from None
    except StoreBusy as error:
        raise CommandError(str(error), Exit.INTEGRITY) from None
    except (StoreError, sqlite3.Error, OSError) as error:
        raise CommandError(f"the samples can't be stored: {error}") from None
    if arguments.json:
        print(json.dumps(_content(outcome, dry=arguments.dry_run), ensure_ascii=False))
    else:
        _show(outcome, contract, dry=arguments.dry_run)
        if aside is not None:
            print(f"samples of another contract were set aside as {aside}")
    return Exit.OK if outcome.why_no_training is None else Exit.FINDINGS


@contextlib.contextmanager
def _store(config: EdgeConfig, *, dry: bool) -> Iterator[tuple[SampleStore, Path]]:
    """The edge's store and a folder with room; for a dry run a store that is thrown away."""
    from edge.store import SampleStore

    if not dry:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with SampleStore(config.data_dir / "samples.sqlite", max_samples=config.max_samples) as store:
            yield store, config.data_dir
        return
    with (
        TemporaryDirectory(prefix="headgate-dry-run-") as name,
        SampleStore(Path(name) / "samples.sqlite", max_samples=config.max_samples) as store,
    ):
        yield store, Path(name)


def _contract(config: EdgeConfig) -> Contract:
    from edge.known_contract import peeked_contract

    contract = peeked_contract(config)
    if contract is None:
        raise CommandError(
            "no contract is known: name its file as `contract` in the edge's configuration, or let the edge run once "
            "until the federation's plan has come",
            Exit.NOT_FOUND,
        )
    return contract


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A line on stderr: kept up to date in a terminal, else one in some seconds."""
    console = Console(stderr=True)
    started = told = time.monotonic()
    if console.is_terminal:
        with console.status("opening the files") as status:
            yield lambda what, share: status.update(f"{what}: {share:.0%}, {time.monotonic() - started:.0f} s")
        return

    def tell(what: str, share: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            print(f"{what}: {share:.0%}, {told - started:.0f} s", file=sys.stderr, flush=True)

    yield tell


def _content(outcome: Outcome, *, dry: bool) -> dict[str, Any]:
    why = outcome.why_no_training
    return {
        "dry_run": dry,
        "rows": outcome.rows,
        "readings": outcome.readings,
        "from": _moment(outcome.first_s),
        "to": _moment(outcome.last_s),
        "sorted": [str(path) for path in outcome.sorted],
        "samples_made": outcome.made,
        "samples_added": outcome.added,
        "labels_said": outcome.labels,
        "stored": outcome.stored,
        "labelled": outcome.labelled,
        "matured": outcome.matured,
        "classes": outcome.classes,
        "trainable": outcome.trainable,
        "needed": outcome.needed,
        "problems": dict(sorted(outcome.problems.items())),
        "unread": dict(outcome.unread.most_common()),
        "quality": {"verdict": outcome.judgement.verdict, "reasons": list(outcome.judgement.reasons)},
        "training": {"possible": why is None, "because": why},
    }


def _show(outcome: Outcome, contract: Contract, *, dry: bool) -> None:
    console = Console(width=WIDTH if not Console().is_terminal else None)
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_row("read", f"{outcome.rows:,} rows, {outcome.readings:,} readings that the signal map takes")
    grid.add_row("", f"{_moment(outcome.first_s)} to {_moment(outcome.last_s)}")
    if outcome.sorted:
        grid.add_row("", f"sorted by time first: {', '.join(path.name for path in outcome.sorted)}")
    where = "would be new in an empty store" if dry else "new in the store"
    grid.add_row("samples", f"{outcome.made:,} made, {outcome.added:,} {where}")
    if contract.label.kind != "none":
        grid.add_row("labels", f"{outcome.labels:,} said, {outcome.labelled:,} samples of {outcome.stored:,} have one")
    classes = ", ".join(f"{count:,} {name}" for name, count in outcome.classes.items())
    grid.add_row("matured", f"{outcome.matured:,}{f': {classes}' if classes else ''}")
    grid.add_row("quality", "; ".join([outcome.judgement.verdict, *outcome.judgement.reasons[:LISTED]]))
    for code, count in sorted(outcome.problems.items()):
        if count:
            grid.add_row("problem", f"{code}: {count:,}")
    for tag, count in outcome.unread.most_common(LISTED):
        grid.add_row("not read", f"{tag}: {count:,}")
    if len(outcome.unread) > LISTED:
        grid.add_row("", f"and {len(outcome.unread) - LISTED:,} more tags that the signal map doesn't read")
    why = outcome.why_no_training
    able = f"possible: {outcome.trainable:,} samples to train on, {outcome.needed:,} needed"
    grid.add_row("training", able if why is None else f"not yet: {why}")
    console.print(grid, highlight=False, markup=False)


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
