"""What the README and the files beside it say is so: its examples work together, its commands exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.config import AggregatorConfig
from edge.binding import bind
from edge.config import EdgeConfig
from edge.signal_map import SignalMap
from headgate.cli import build_parser
from headgate.exits import Exit
from uns_topics.contract import Contract

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def example(name: str) -> dict[str, Any]:
    """The YAML example that starts with `# name`."""
    (found,) = (block for block in blocks("yaml") if block.startswith(f"# {name}\n"))
    content = yaml.safe_load(found)
    assert isinstance(content, dict)
    return content


def test_the_readme_has_the_four_files() -> None:
    names = [block.partition("\n")[0].removeprefix("# ") for block in blocks("yaml")]
    assert names == ["contract.yaml", "signal-map.yaml", "edge.yaml", "aggregator.yaml"]


def test_the_examples_are_valid_and_belong_together() -> None:
    contract = Contract.model_validate(example("contract.yaml"))
    signal_map = SignalMap.model_validate(example("signal-map.yaml"))
    edge = EdgeConfig.model_validate(example("edge.yaml"))
    aggregator = AggregatorConfig.model_validate(example("aggregator.yaml"))
    bound = bind(signal_map, contract)
    assert bound.is_labelled
    assert contract.federation == edge.federation == aggregator.federation
    assert edge.broker.url == aggregator.broker.url
    assert (str(edge.signal_map), str(edge.contract)) == ("signal-map.yaml", "contract.yaml")


def commands() -> list[str]:
    """Every `headgate ...` that a reader could type."""
    shell = [line.partition(" #")[0] for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", README)
    return [text.strip() for text in (*shell, *inline) if text.startswith("headgate ")]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_of_the_readme_can_be_typed(command: str) -> None:
    for variant in _alternatives(shlex.split(command)[1:]):
        if variant == ["--help"]:
            with pytest.raises(SystemExit) as ended:
                build_parser().parse_args(variant)
            assert ended.value.code == Exit.OK
        else:
            assert callable(build_parser().parse_args(variant).run)


def _alternatives(words: list[str]) -> list[list[str]]:
    """`schema edge|aggregator` stands for two commands."""
    variants: list[list[str]] = [[]]
    for word in words:
        variants = [[*known, option] for known in variants for option in word.split("|")]
    return variants


def test_options_that_the_readme_passes_through_make_exist() -> None:
    passed = re.findall(r"ARGS='([^']*)'", README)
    assert passed
    for options in passed:
        if not options.startswith("--extra-index-url"):
            build_parser().parse_args(["demo", *shlex.split(options)])


def test_every_exit_code_is_in_the_readme() -> None:
    said = {
        int(number) for number in re.findall(r"(\d+) [a-z]", README.partition("Exit codes: ")[2].partition(". ")[0])
    }
    assert said == {int(code) for code in Exit}


def test_no_placeholder_is_left_where_output_belongs() -> None:
    assert "@@DEMO@@" not in README
    shown = README.partition("## What you will see")[2].partition("## ")[0]
    assert max(len(line) for line in shown.splitlines()) <= 130


def test_constraints_cover_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {_normal(re.split(r"[\[<>=!~ ]", one)[0]) for one in wanted} - {"headgate"}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line.strip() and not line.startswith("#"))
    assert names <= {_normal(name) for name in pins}
    assert pins["torch"] == "2.13.0"


def _normal(name: str) -> str:
    """As package indices compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
