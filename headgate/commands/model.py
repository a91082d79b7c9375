"""`headgate model new|show|replay`: base models as ONNX files that carry their contract."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from broker_bridge.settings import load, read_yaml, validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command
from uns_topics.contract import Contract

if TYPE_CHECKING:
    from uns_topics.template import ModelFile

KINDS = ("mlp", "cnn1d", "gru", "autoencoder")


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    parser = add_command(
        subparsers,
        "model",
        "Make and show base models.",
        ("headgate model new contract.yaml --kind mlp --out solder.onnx", "headgate model show solder.onnx"),
        None,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = add_command(
        actions,
        "new",
        "Make a model for a contract and prove that torch and onnxruntime agree on it (needs torch).",
        (
            "headgate model new contract.yaml --kind gru --hidden 32,64 --out rul.onnx",
            "headgate model new contract.yaml --local 'network.layers.2.*' --out solder.onnx",
        ),
        run_new,
    )
    new.add_argument("contract", type=Path, metavar="CONTRACT", help="YAML file of the contract")
    new.add_argument(
        "--kind", default="mlp", metavar="|".join(KINDS), help="network (default mlp), or package.module:callable"
    )
    new.add_argument("--hidden", type=_widths, default=(64, 32), metavar="N,N", help="widths (default 64,32)")
    new.add_argument("--dropout", type=float, default=0.0, metavar="P")
    new.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="TENSOR",
        help="tensors that each plant keeps to itself, by name, * for anything; several times for several",
    )
    new.add_argument("--seed", type=int, default=1, metavar="N", help="of the initial parameters (default 1)")
    new.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX file to write")
    show = add_command(
        actions,
        "show",
        "Show a model file: inputs with units, output, parameters, lineage.",
        ("headgate model show solder.onnx", "headgate model show solder.onnx --json"),
        run_show,
    )
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--json", action="store_true", help="one JSON object")
    replay = add_command(
        actions,
        "replay",
        "Make a version once more from the stored updates and compare its SHA-256; the aggregator may be running.",
        (
            "headgate model replay 12 --config aggregator.yaml",
            "headgate model replay 12 --config aggregator.yaml --json",
        ),
        run_replay,
    )
    replay.add_argument("version", type=int, metavar="VERSION")
    replay.add_argument("--config", type=Path, required=True, metavar="FILE", help="the aggregator's configuration")
    replay.add_argument("--json", action="store_true", help="one JSON object")


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 64,32") from None
    if any(width < 1 for width in widths):
        raise argparse.ArgumentTypeError("a width is a positive number")
    return widths


def run_new(arguments: argparse.Namespace) -> int:
    """`headgate model new`."""
    from uns_topics.template import Lineage, Network  # numpy takes its time to import

    contract = validate(Contract, read_yaml(arguments.contract), str(arguments.contract))
    given = {"kind": arguments.kind, "hidden": arguments.hidden, "dropout": arguments.dropout}
    given["local"] = tuple(arguments.local)
    network = validate(Network, given, "command line")
    try:
        from edge.training.export import ExportError, make_model
        from edge.training.networks import NetworkError
    except ModuleNotFoundError as error:
        sentence = f"making a model needs {error.name}, which is not installed: pip install 'headgate[train]'"
        raise CommandError(sentence) from None
    # Naming a module on one's own command line allows it; an edge allows it in its own configuration.
    factories = {network.kind} if ":" in network.kind else set()
    try:
        template, vector = make_model(contract, network, arguments.seed, factories)
    except NetworkError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    except ExportError as error:
        raise CommandError(str(error)) from None
    raw = template.file(vector, template.version_info(0, 1, Lineage(origin="new")))
    try:
        arguments.out.write_bytes(raw)
    except OSError as error:
        raise CommandError(f"{arguments.out} can't be written: {error.strerror}") from None
    print(f"{arguments.out}: {network.kind}, {template.table.size:,} parameters, {len(raw):,} bytes, proven")
    return Exit.OK


def run_show(arguments: argparse.Namespace) -> int:
    """`headgate model show`."""
    from uns_topics.template import TemplateError, read_model_file

    try:
        raw = arguments.file.read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{arguments.file}: no such file", Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{arguments.file} can't be read: {error.strerror}") from None
    try:
        model = read_model_file(raw)
    except TemplateError as error:
        raise CommandError(f"{arguments.file}: {error}", Exit.INTEGRITY) from None
    if arguments.json:
        print(json.dumps(_summary(model, len(raw))))
    else:
        _print(model, len(raw))
    return Exit.OK


def run_replay(arguments: argparse.Namespace) -> int:
    """`headgate model replay`."""
    from aggregator.config import AggregatorConfig
    from aggregator.replay import ReplayError, StoreError, replay
    from uns_topics.template import TemplateError

    config = load(AggregatorConfig, arguments.config)
    try:
        found = replay(config, arguments.version)
    except OSError as error:
        raise CommandError(f"{config.model} can't be read: {error.strerror}", Exit.NOT_FOUND) from None
    except (ReplayError, StoreError, TemplateError) as error:
        raise CommandError(str(error)) from None
    if arguments.json:
        print(json.dumps({**asdict(found), "agrees": found.agrees}))
    else:
        made_from = f"version {found.parent} and {len(found.participants)} updates of round {found.round_number}"
        verdict = "the same to the bit" if found.agrees else f"NOT the same: it is recorded as {found.recorded}"
        if found.recorded == found.made and not found.same_state:
            verdict = "the same to the bit, but NOT the strategy's state that is stored with it"
        print(f"version {found.version}, from {made_from}: sha256 {found.made}, {verdict}")
    return Exit.OK if found.agrees else Exit.INTEGRITY


def _summary(model: ModelFile, size: int) -> dict[str, Any]:
    from uns_topics.tensors import Role

    info, version, contract = model.template.info, model.version, model.template.contract
    return {
        "federation": version.federation,
        "version": version.version,
        "generation": version.generation,
        "sha256": model.sha256,
        "template_sha256": model.template.sha256,
        "contract_sha256": contract.meaning_sha256,
        "network": info.network.model_dump(mode="json"),
        "bytes": size,
        "inputs": [f.model_dump(mode="json", exclude={"description"}) for f in contract.features],
        "window": contract.window_length,
        "context": contract.context.model_dump(mode="json") if contract.context is not None else None,
        "output": info.output,
        "parameters": {role.value: info.table.elements(role) for role in Role},
        "tensors": len(info.table.tensors),
        "lineage": version.lineage.model_dump(mode="json"),
    }


def _print(model: ModelFile, size: int) -> None:
    from uns_topics.tensors import Role

    console = Console(highlight=False)
    summary, lineage = _summary(model, size), model.version.lineage
    network = model.template.info.network
    console.print(f"[bold]{summary['federation']}[/] version {summary['version']}, generation {summary['generation']}")
    hidden = ", ".join(map(str, network.hidden))
    console.print(f"network     {network.kind} ({hidden}), {summary['tensors']} tensors, {size:,} bytes")
    console.print("parameters  " + ", ".join(f"{role} {n:,}" for role, n in summary["parameters"].items() if n))
    if network.local:
        kept = [t.name for t in model.template.table.tensors if t.role is Role.LOCAL]
        console.print(f"stays local {', '.join(kept)}", soft_wrap=True)
    for name, key in (("vector", "sha256"), ("template", "template_sha256"), ("contract", "contract_sha256")):
        console.print(f"{name:<11} sha256 {summary[key]}", soft_wrap=True)
    origin = {
        "new": "made by headgate model new",
        "statistics": "standardised by statistics",
        "round": f"aggregated in round {lineage.round_number} from {lineage.contributors} updates",
        "imported": "imported",
        "warm-start": "warm start of a generation",
    }[lineage.origin]
    parent = f", from version {lineage.parent}" if lineage.parent is not None else ""
    console.print(f"lineage     {origin}{parent}")
    window = f", {summary['window']} steps each" if summary["window"] else ""
    table = Table(title=f"inputs (raw values{window}; NaN = missing)", title_justify="left", box=None, pad_edge=False)
    for name in ("name", "unit", "minimum", "maximum", "optional", "fill"):
        table.add_column(name, justify="right" if name in ("minimum", "maximum") else "left")
    for feature in model.template.contract.features:
        limits = (f"{feature.minimum:g}", f"{feature.maximum:g}")
        table.add_row(feature.name, feature.unit or "-", *limits, "yes" if feature.optional else "", str(feature.fill))
    console.print(table)
    console.print(f"output      {summary['output']}")
