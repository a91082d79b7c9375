"""The page needs nothing else, and what a plant writes can't become a part of it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from edge.assess.judge import assess
from edge.assess.page import page
from edge.assess.report import Assessment, RoundTrip, Step
from tests.edge.assess.plant import ALL_FAULTS, START_S, Faults, messages, survey

VOID = {"meta", "rect", "br"}


class Checked(HTMLParser):
    """Keeps the open elements and all that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "xlink:href", "onload", "onclick")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Checked:
    parser = Checked()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def judged(faults: Faults, **settings: object) -> Assessment:
    made = survey(list(messages(400, faults=faults)))
    return assess(made, participant="berlin", started_s=START_S, ended_s=START_S + 400, **settings)  # type: ignore[arg-type]


def test_the_page_stands_alone() -> None:
    references = {"paste_height": (90.0, 110.0, 120.0, 130.0, 150.0)}
    found = judged(ALL_FAULTS, references=references, step=Step(1.5, 64, "mlp"), round_trip=RoundTrip(9, 3, 5))
    text = page(found, START_S)
    checked = read(text)
    assert checked.loads == []
    assert not checked.tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert "svg" in checked.tags
    assert not re.search(r"url\(|@import|https?://", text)
    shown = " ".join(checked.text)
    for finding in found.findings:
        assert finding.text in shown
        assert finding.where in shown
    assert "5 findings" in shown
    assert "the other plants" in shown
    assert "1.5 ms" in shown
    assert "nan" not in text.lower().replace("annan", "")


def test_a_good_plant_is_ready() -> None:
    shown = " ".join(read(page(judged(Faults()), START_S)).text)
    assert "ready" in shown
    assert "Findings" not in shown
    assert "the other plants" not in shown


def test_what_a_plant_writes_stays_text() -> None:
    found = judged(Faults(unknown_code=True))
    evil = "</span><script>alert(1)</script>"
    topics = tuple(replace(line, topic=f"a/{evil}") for line in found.topics)
    features = tuple(replace(line, topic=f"a/{evil}", map_unit=evil) for line in found.features)
    findings = tuple(replace(one, where=evil, text=evil) for one in found.findings)
    checked = read(page(replace(found, topics=topics, features=features, findings=findings, notes=(evil,)), START_S))
    assert "script" not in checked.tags


def test_nothing_heard_is_a_page_too() -> None:
    found = assess(survey([]), participant="berlin", started_s=START_S, ended_s=START_S)
    assert "no topic was heard" in " ".join(read(page(found, START_S)).text)
