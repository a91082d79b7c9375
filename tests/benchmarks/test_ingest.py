"""Messages through an edge: every dialect's payloads are read by its source, and the tags make their samples."""

from __future__ import annotations

import pytest

from benchmarks import ingest
from benchmarks.ingest import DIALECTS, RUNS, SCALAR, START_MS, Dialect, many_tags
from edge.binding import bind
from edge.effects import SampleReady
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from uns_topics.contract import Contract
from uns_topics.sparkplug import MessageType, Metric, Payload, SparkplugTopic, encode_payload


def test_many_tags_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SECONDS", 1)
    monkeypatch.setattr(ingest, "TAGS", 3)
    many_tags()
    built, messages = capsys.readouterr().out.splitlines()
    assert built.startswith("3 tags at 10 Hz: samples built per CPU second")
    assert messages.endswith(" 30")


@pytest.mark.parametrize("dialect", [*DIALECTS, SCALAR], ids=lambda dialect: dialect.name)
def test_every_message_makes_a_sample(dialect: Dialect) -> None:
    period_s = next(period_s for period_s, dialects in RUNS if dialect in dialects)
    contract = Contract.model_validate(ingest.contract_of(period_s))
    is_sparkplug = dialect.source["form"] == "sparkplug"
    topic = str(SparkplugTopic("acme", MessageType.NDATA, "plant")) if is_sparkplug else "acme/plant/tag"
    pattern = topic.replace("NDATA", "+")
    content = {"instance": "acme/plant", "sources": [{"topic": pattern, **dialect.source}]}
    made = Ingest(bind(SignalMap.model_validate(content), contract), contract)
    now_s = START_MS / 1000 + 1000
    if is_sparkplug:
        metrics = tuple(Metric(name, alias) for alias, name in enumerate(("volume", "height"), start=1))
        born = encode_payload(Payload(START_MS - 1000, metrics, 0))
        made.feed(str(SparkplugTopic("acme", MessageType.NBIRTH, "plant")), born, arrival_s=now_s)
    samples = [
        effect
        for index in range(20)
        for effect in made.feed(topic, dialect.payload(index), arrival_s=now_s + index)
        if isinstance(effect, SampleReady)
    ]
    assert len(samples) == (19 if is_sparkplug else 20)
