"""`headgate assess`: is this plant's data ready for a federation? It listens and reads, and publishes nothing."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

from broker_bridge.config import BrokerConfig
from broker_bridge.settings import load, read_yaml, validate
from headgate.commands.assess_table import show
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command, add_login, number_to
from headgate.running import run_service

if TYPE_CHECKING:
    from edge.assess.listening import Limits, Listened, Visit
    from edge.assess.recording import Heard
    from edge.assess.report import Assessment, Step
    from edge.assess.survey import Survey
    from edge.config import EdgeConfig
    from uns_topics.contract import Contract
    from uns_topics.plan import Plan

DEFAULT_MINUTES = 10.0
_positive = number_to(999_999_999, "no number above 0")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "assess",
        "Listen to a plant and say whether its data are ready: coverage, units, gaps, clocks, labels. Read-only.",
        (
            "headgate assess --config edge.yaml --minutes 10 --html report.html",
            "headgate assess --suggest --contract contract.yaml --broker mqtt://127.0.0.1 'acme/#' > signal-map.yaml",
        ),
        run_assess,
    )
    parser.add_argument("filter", nargs="*", default=[], help="--suggest: MQTT topic filters to look at (default: #)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the edge's configuration")
    parser.add_argument("--contract", type=Path, metavar="FILE", help="default: the edge's, else the federation's plan")
    parser.add_argument("--data", type=Path, metavar="FILE", help="read a recording instead of a broker")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep what is heard as a recording")
    for_time = parser.add_mutually_exclusive_group()
    for_time.add_argument("--minutes", type=_positive, metavar="N", help=f"how long (default {DEFAULT_MINUTES:g})")
    for_time.add_argument("--seconds", type=_positive, metavar="N", help="the same in seconds")
    parser.add_argument("--max-messages", type=int, default=200_000, metavar="N", help="listen no further (200,000)")
    parser.add_argument("--max-mb", type=_positive, default=256.0, metavar="N", help="listen no further (256)")
    parser.add_argument("--no-training", action="store_true", help="don't take the time of a training step")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page, too")
    parser.add_argument("--suggest", action="store_true", help="propose a signal map from the topics, as YAML")
    parser.add_argument("--broker", metavar="URL", help="--suggest without --config: the plant's broker")
    add_login(parser)


def run_assess(arguments: argparse.Namespace) -> int:
    """`headgate assess`. Returns: 0 ready, 6 with findings."""
    _refuse_files(arguments)
    if arguments.suggest:
        from headgate.commands.assess_suggest import run_suggest

        return run_suggest(arguments)
    if arguments.config is None:
        raise CommandError("name the edge's configuration: --config edge.yaml (or propose one: --suggest)", Exit.USAGE)
    if arguments.broker is not None or arguments.filter:
        raise CommandError("--broker and filters are for --suggest; an assessment goes by --config", Exit.USAGE)
    from edge.config import EdgeConfig

    config = load(EdgeConfig, arguments.config)
    found: list[Assessment] = []

    async def main(stop: asyncio.Event) -> int:
        found.append(await _assess(arguments, config, stop))
        return Exit.OK

    run_service(main)
    return _tell(arguments, found[0])


def _refuse_files(arguments: argparse.Namespace) -> None:
    """What can't be written is told before anybody listens for minutes. Raises: CommandError."""
    data, record, page = arguments.data, arguments.record, arguments.html
    if data is not None and record is not None and data.resolve() == record.resolve():
        raise CommandError(f"{record} is the recording that --data reads: name another file for --record", Exit.USAGE)
    if page is not None and (page.is_dir() or not os.access(page if page.exists() else page.parent, os.W_OK)):
        raise CommandError(f"{page} can't be written: no such folder, or no right to")


async def _assess(arguments: argparse.Namespace, config: EdgeConfig, stop: asyncio.Event) -> Assessment:
    from edge.assess.judge import assess

    visited = await visit_federation(config) if arguments.data is None else None
    contract = find_contract(arguments, config, visited.plan if visited is not None else None)
    survey = _survey(config, contract)
    with keeping(arguments.record, survey.hear) as hear:
        listened = await hear_plant(arguments, config.plant_broker or config.broker, survey.filters, hear, stop)
    step = await _step(arguments, config, contract, visited.plan if visited is not None else None, stop)
    return assess(
        survey,
        participant=config.participant,
        started_s=listened.started_s,
        ended_s=listened.ended_s,
        why_ended=listened.why,
        trains=config.trainer.enabled,
        references=visited.quantiles(contract) if visited is not None else None,
        step=step,
        round_trip=visited.round_trip if visited is not None else None,
    )


def _survey(config: EdgeConfig, contract: Contract) -> Survey:
    from edge.assess.survey import Survey
    from edge.binding import MapError, bind
    from edge.signal_map import SignalMap

    signal_map = validate(SignalMap, read_yaml(config.signal_map), str(config.signal_map))
    try:
        return Survey(bind(signal_map, contract), contract)
    except MapError as error:
        raise CommandError(f"{config.signal_map}: {error}", Exit.USAGE) from None


def find_contract(arguments: argparse.Namespace, config: EdgeConfig | None, plan: Plan | None) -> Contract:
    """The contract of --contract, of the edge, or of the federation's plan."""
    from edge.known_contract import peeked_contract
    from uns_topics.contract import Contract

    if arguments.contract is not None:
        return validate(Contract, read_yaml(arguments.contract), str(arguments.contract))
    contract = peeked_contract(config) if config is not None else None
    if contract is not None:
        return contract
    if plan is None:
        raise CommandError(
            "no contract is known: name its file (--contract), or the edge's configuration", Exit.NOT_FOUND
        )
    return plan.contract


async def visit_federation(config: EdgeConfig) -> Visit:
    """How far the federation's broker is, and its plan."""
    from broker_bridge.paho_session import PahoConnector
    from edge.assess.listening import visit

    client_id = f"{config.participant}-assess-{os.getpid()}-fl"
    return await visit(PahoConnector(config.broker), client_id, config.federation, config.participant)


async def hear_plant(
    arguments: argparse.Namespace,
    broker: BrokerConfig,
    filters: tuple[str, ...],
    hear: Callable[[Heard], None],
    stop: asyncio.Event,
) -> Listened:
    """Listen to the plant's broker, or read the recording of --data."""
    from broker_bridge.paho_session import PahoConnector
    from edge.assess.listening import listen

    limits = _limits(arguments)
    if arguments.data is not None:
        return _read(arguments.data, filters, hear, limits)
    seconds = limits.seconds
    shown = f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} s"
    print(f"listening on {broker.address} for {shown}; Ctrl-C ends it early", file=sys.stderr, flush=True)
    return await listen(PahoConnector(broker), f"headgate-assess-{os.getpid()}", filters, limits, hear, stop)


def _limits(arguments: argparse.Namespace) -> Limits:
    from edge.assess.listening import Limits

    seconds = arguments.seconds if arguments.seconds is not None else 60 * (arguments.minutes or DEFAULT_MINUTES)
    return Limits(seconds, max(1, arguments.max_messages), int(arguments.max_mb * 1024 * 1024))


def _read(path: Path, filters: tuple[str, ...], hear: Callable[[Heard], None], limits: Limits) -> Listened:
    """A recording as if it were heard: what the filters cover, until a limit is met."""
    from edge.assess.listening import Listened
    from edge.assess.recording import RecordingError, read_recording
    from uns_topics.filters import matches

    first = last = None
    count = size = 0
    try:
        for heard in read_recording(path):
            first = heard.time_s if first is None else first
            last = heard.time_s if last is None else max(last, heard.time_s)
            if not any(matches(one, heard.topic) for one in filters):
                continue
            hear(heard)
            count, size = count + 1, size + len(heard.payload)
            if count >= limits.messages or size >= limits.payload_bytes:
                return Listened(first, last, f"{count:,} messages of the recording were enough")
    except RecordingError as error:
        missing = str(error).endswith("no such file")
        raise CommandError(str(error), Exit.NOT_FOUND if missing else Exit.USAGE) from None
    if first is None or last is None:
        raise CommandError(f"{path}: there is no message in it", Exit.USAGE)
    return Listened(first, last, "")


@contextlib.contextmanager
def keeping(path: Path | None, hear: Callable[[Heard], None]) -> Iterator[Callable[[Heard], None]]:
    """Hand on what is heard, and keep it in a file where one is named."""
    from edge.assess.recording import encode_line

    if path is None:
        yield hear
        return
    try:
        file: TextIO = path.open("w", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None

    failed: list[OSError] = []

    def both(heard: Heard) -> None:
        hear(heard)
        if not failed:
            try:
                file.write(encode_line(heard))
            except OSError as error:  # a full disk costs the recording, not what was heard
                failed.append(error)

    try:
        yield both
    finally:
        try:
            file.close()
        except OSError as error:
            failed.append(error)
        if failed:
            print(f"{path} is not complete: {failed[0].strerror}", file=sys.stderr)


async def _step(
    arguments: argparse.Namespace, config: EdgeConfig, contract: Contract, plan: Plan | None, stop: asyncio.Event
) -> Step:
    from edge.assess.report import Step
    from edge.assess.training import time_step
    from edge.trainer_client import make_trainer
    from uns_topics.plan import Training

    if arguments.no_training or stop.is_set():
        return Step(skipped="it was not asked for" if arguments.no_training else "it was interrupted")
    if not config.trainer.enabled:
        return Step(skipped="training is switched off in the edge's configuration")
    if config.trainer.command is None and importlib.util.find_spec("torch") is None:
        return Step(skipped="torch is not installed here: pip install 'headgate[train]'")
    with TemporaryDirectory(prefix="headgate-assess-") as name:
        skeleton = _kept_skeleton(config, contract) or await _new_skeleton(contract, Path(name))
        if skeleton is None:
            return Step(skipped="no model is known yet, and none can be made here: see `headgate model new`")
        trainer = make_trainer(config.trainer)
        assert trainer is not None
        try:
            batch_size = (plan.training if plan is not None else Training()).batch_size
            return await time_step(trainer, skeleton, Path(name), batch_size)
        finally:
            await trainer.close()


def _kept_skeleton(config: EdgeConfig, contract: Contract) -> bytes | None:
    """The federation's own template, where this edge has fetched it."""
    from edge.models import ModelRefused, ModelStore

    folder = config.data_dir / "models"
    if not folder.is_dir():
        return None
    store = ModelStore(folder)
    for sha256 in sorted(store.skeletons()):
        with contextlib.suppress(ModelRefused):
            template = store.template(sha256)
            if template.contract.meaning_sha256 == contract.meaning_sha256:
                return template.skeleton
    return None


async def _new_skeleton(contract: Contract, folder: Path) -> bytes | None:
    """A model of the usual size for the contract, made by a process of its own: torch stays out of this one."""
    from uns_topics.template import read_model_file

    (folder / "contract.json").write_text(contract.model_dump_json(), "utf-8")
    out = folder / "model.onnx"
    kind = "autoencoder" if contract.label.kind == "none" else "mlp"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headgate", "model", "new", str(folder / "contract.json")),
        *("--kind", kind, "--out", str(out)),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return read_model_file(out.read_bytes()).template.skeleton if process.returncode == 0 else None


def _tell(arguments: argparse.Namespace, found: Assessment) -> int:
    if arguments.html is not None:
        from edge.assess.page import page

        try:
            arguments.html.write_text(page(found, time.time()), "utf-8")
        except OSError as error:
            raise CommandError(f"{arguments.html} can't be written: {error.strerror}") from None
    if arguments.json:
        print(json.dumps(found.content(), ensure_ascii=False))
    else:
        show(found)
        if arguments.html is not None:
            print(f"the same as a page: {arguments.html}")
    return Exit.OK if found.is_ready else Exit.FINDINGS
