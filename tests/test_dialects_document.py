"""docs/dialects.md shows every form, with examples that are read as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edge.binding import bind
from edge.dialects import Form
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from uns_topics.contract import Contract
from uns_topics.sparkplug import DataType, MessageType, Metric, Payload, SparkplugTopic, encode_payload

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "dialects.md").read_text("utf-8")
SECTIONS = {
    found[1]: section
    for section in DOCUMENT.split("\n## ")[1:]
    if (found := re.match(r".*: `(\w+)`\n", section)) is not None
}
README = (ROOT / "README.md").read_text("utf-8")
(_CONTRACT,) = re.findall(r"^```yaml\n# contract.yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
CONTRACT = Contract.model_validate(yaml.safe_load(_CONTRACT))
NOW = 1_800_000_000.0


def blocks(form: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[form], re.DOTALL | re.MULTILINE)


EXAMPLES = [
    (form, source, message)
    for form in Form
    for source, message in zip(blocks(form, "yaml"), blocks(form, "json"), strict=True)
]


def ingest(form: str, text: str) -> tuple[Ingest, str, dict[str, Any]]:
    """The example's source, with what it lacks of the contract; its topic at one line; the source."""
    source: dict[str, Any] = yaml.safe_load(text)
    assert source["form"] == form
    features = [
        {"feature": name, "field": name, "unit": unit}
        for name, unit in (("paste_volume", "%"), ("paste_height", "um"), ("ambient_temperature", "degC"))
        if name not in {feature["feature"] for feature in source["features"]}
    ]
    tags = [f for f in features if f["feature"] == "ambient_temperature"]
    boards = [f for f in features if f not in tags]
    rest = [
        {"topic": "{site}/{line}/tags", "form": "flat", "features": tags},
        {"topic": "{site}/{line}/boards", "form": "flat", "key": "board", "features": boards},
    ]
    content = {"instance": "{site}/{line}", "sources": [source, *(one for one in rest if one["features"])]}
    made = Ingest(bind(SignalMap.model_validate(content), CONTRACT), CONTRACT)
    return made, source["topic"].replace("{site}", "berlin").replace("{line}", "line1"), source


def test_every_form_has_its_section_and_its_row() -> None:
    assert set(SECTIONS) == set(Form)
    assert re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE) == list(Form)


@pytest.mark.parametrize(("form", "source", "message"), [e for e in EXAMPLES if e[0] is not Form.SPARKPLUG])
def test_an_example_is_read(form: str, source: str, message: str) -> None:
    made, topic, declared = ingest(form, source)
    effects = made.feed(topic, message.strip().encode(), arrival_s=NOW)
    assert (made.instances, made.messages, dict(made.counters)) == (("berlin/line1",), 1, {})
    if not effects:  # tags: a board shows that each of them has a value
        time_s = {"umh": 1_700_000_001, "vqt": 1_709_283_601}.get(form, NOW + 1)
        board = {"timestamp": time_s * 1000, "board": "B-1"}
        effects = made.feed("berlin/line1/boards", json.dumps(board).encode(), arrival_s=NOW + 1)
    (sample,) = effects
    positions = {feature.name: index for index, feature in enumerate(CONTRACT.features)}
    fed = [positions[feature["feature"]] for feature in declared["features"]]
    assert np.isfinite(sample.values[fed]).all()  # type: ignore[union-attr]


def test_the_sparkplug_example_is_read() -> None:
    ((_, source, message),) = [example for example in EXAMPLES if example[0] is Form.SPARKPLUG]
    made, topic, _ = ingest("sparkplug", source)
    group, _, node, device = topic.split("/")[1:]

    def say(kind: MessageType, payload: Payload, device: str | None = None) -> list[Any]:
        return made.feed(str(SparkplugTopic(group, kind, node, device)), encode_payload(payload), arrival_s=NOW)

    data = json.loads(message)
    names = re.findall(r"field: ([^,]+),", source)
    births = tuple(Metric(name, alias, datatype=DataType.FLOAT) for alias, name in enumerate(names, start=1))
    say(MessageType.NBIRTH, Payload(data["timestamp"] - 1000, (), 0))
    say(MessageType.DBIRTH, Payload(data["timestamp"] - 1000, births, 1), device)
    metrics = tuple(
        Metric(m.get("name"), m.get("alias"), m.get("timestamp"), None, m["value"], False, m.get("properties", {}))
        for m in data["metrics"]
    )
    assert say(MessageType.DDATA, Payload(data["timestamp"], metrics, data["seq"]), device) == []
    assert not made.counters
    stamp = data["timestamp"] + 1
    board = {"timestamp": stamp, "board": "B-1", "paste_volume": 97.5, "paste_height": 119.0}
    (sample,) = made.feed("berlin/line1/boards", json.dumps(board).encode(), arrival_s=NOW)
    assert sample.values.tolist() == [97.5, 119.0, 21.5, 41.5]  # type: ignore[union-attr]
