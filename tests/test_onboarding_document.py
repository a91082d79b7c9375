"""docs/onboarding.md: its commands can be typed, its tag map fits the README's signal map, its lists are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from edge.assess.recording import decode_line
from edge.assess.report import Check
from edge.backfill.tag_map import Resolver, TagMap
from edge.binding import bind
from edge.signal_map import SignalMap
from headgate.cli import build_parser
from tests.test_documents import example
from uns_topics.contract import Contract

DOCUMENT = (Path(__file__).parent.parent / "docs" / "onboarding.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def test_its_commands_can_be_typed() -> None:
    lines = [line.partition(" #")[0] for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "headgate"
        assert callable(build_parser().parse_args(words[1:]).run)


def test_its_tag_map_fits_the_signal_map_of_the_readme() -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("# tags.yaml"))
    tag_map = TagMap.model_validate(yaml.safe_load(text))
    bound = bind(
        SignalMap.model_validate(example("signal-map.yaml")), Contract.model_validate(example("contract.yaml"))
    )
    resolver = Resolver(bound, tag_map)
    found = {tag: resolver.target(tag) for tag in tag_map.tags}
    assert [target.field for target in found.values() if target is not None] == ["value", "volume_pct", "board_serial"]
    whole = resolver.target("acme/berlin/smt/line1/spi/result/volume_pct")
    assert whole == found["SPI1.VOL"]


def test_its_recording_is_one() -> None:
    (line,) = blocks("json")
    assert decode_line(line).payload.startswith(b'{"timestamp_ms"')


def test_every_finding_is_explained() -> None:
    told = [
        name
        for row in re.findall(r"^\| (`[^|]*`) \|", DOCUMENT, re.MULTILINE)
        for name in re.findall(r"`([\w-]+)`", row)
    ]
    assert sorted(told) == sorted(check.value for check in Check)
