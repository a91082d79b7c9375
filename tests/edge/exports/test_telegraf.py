"""The Telegraf configuration: valid TOML, one field per leaf, and a parser that fits each profile's payloads."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from edge.exports.published import Published
from edge.exports.telegraf import telegraf
from edge.outputs import Outputs, Prediction, Profile
from tests.edge.exports.plants import INSTANCES, broker, published
from uns_topics.filters import TopicPattern, matches
from uns_topics.presence import Variant

OPTIONS = {
    "servers", "topics", "topic_tag", "name_override", "qos", "username", "password", "tls_ca", "tls_cert", "tls_key",
    "data_format", "data_type", "value_field_name", "json_v2", "topic_parsing", "tags",
}  # fmt: skip
"""Those of the plugin's page that are used here."""


CASTS: dict[str, Callable[[str], object]] = {
    "float": float,
    "integer": int,
    "string": str,
    "boolean": lambda text: {"true": True, "false": False}[text],
}


def parsed(what: Published, **settings: Any) -> dict[str, Any]:
    return tomllib.loads(telegraf(what, broker(**settings)))


def read(config: dict[str, Any], topic: str, payload: bytes) -> tuple[dict[str, str], dict[str, object], int | None]:
    """What Telegraf makes of a message, done here as its pages say: tags, fields and time in ms.

    Fails where no input, or more than one, subscribes to the topic.
    """
    (block,) = [b for b in config["inputs"]["mqtt_consumer"] if topic in b["topics"]]
    tags = dict(block["tags"])
    if block["topic_tag"]:
        tags[block["topic_tag"]] = topic
    for rule in block.get("topic_parsing", ()):
        assert matches(rule["topic"], topic)
        pairs = zip(rule["tags"].split("/"), topic.split("/"), strict=True)
        tags |= {name: segment for name, segment in pairs if name != "_"}
    time_ms = None
    if block["data_format"] == "value":
        fields = {block["value_field_name"]: CASTS[block["data_type"]](payload.decode())}
    else:
        (rules,) = block["json_v2"]
        body = json.loads(payload)
        (field,) = rules["field"]
        assert {"float": float, "int": int, "bool": bool, "string": str}[field["type"]] is type(body[field["path"]])
        fields = {field["path"]: body[field["path"]]}
        stamp = body[rules["timestamp_path"]]
        if rules["timestamp_format"] == "unix_ms":
            time_ms = stamp
        else:
            assert rules["timestamp_format"] == "2006-01-02T15:04:05.000Z07:00"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
            time_ms = round(datetime.fromisoformat(stamp).timestamp() * 1000)
    if block["name_override"] == "headgate_inference":
        for rule in config["processors"]["regex"]:
            (tag,) = rule["tags"]
            tags[tag["key"]] = re.sub(tag["pattern"], tag["replacement"].replace("${1}", r"\1"), tags[tag["key"]])
        for rule in config["processors"]["pivot"]:
            fields = {tags.pop(rule["tag_key"]): fields.pop(rule["value_key"])}
    return tags, fields, time_ms


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("out_root", [None, "ai/headgate (v1)"])
def test_each_leaf_becomes_a_field_of_its_instance(profile: Profile, out_root: str | None) -> None:
    what = published(profile=profile, out_root=out_root)
    config = parsed(what)
    outputs = Outputs("solder-defect", "score", profile=profile, out_root=out_root)
    for instance in INSTANCES:
        fields: dict[str, object] = {}
        for leaf in outputs.messages([Prediction(instance, "", 1_700_000_000.25, 0.25, 3, Variant.GLOBAL)]):
            tags, read_fields, time_ms = read(config, leaf.topic, leaf.payload)
            assert tags == {
                "federation": "solder-defect", "participant": "berlin", "instance": instance,
                "line": instance.rpartition("/")[2],
            }  # fmt: skip
            assert time_ms == (None if profile is Profile.SCALAR else 1_700_000_000_250)
            fields |= read_fields
        assert fields == {"quality": 192, "model_version": 3, "variant": "global", "score": 0.25}
    assert read(config, what.alive, b"false") == (
        {"federation": "solder-defect", "participant": "berlin"}, {"alive": False}, None
    )  # fmt: skip


def test_only_options_of_the_plugin_are_written_and_no_topic_is_read_twice() -> None:
    blocks = parsed(published())["inputs"]["mqtt_consumer"]
    assert {key for block in blocks for key in block} <= OPTIONS
    topics = [topic for block in blocks for topic in block["topics"]]
    assert len(topics) == len(set(topics))
    assert not any("+" in topic or "#" in topic for topic in topics)


def test_no_credentials_are_written_but_their_places(tmp_path: Any) -> None:
    (tmp_path / "password").write_text("hunter2")
    settings = {"username": "plant-edge", "password_file": str(tmp_path / "password"), "ca_file": "ca.pem"}
    text = telegraf(published(), broker("mqtts://broker.example", **settings))
    assert "hunter2" not in text
    assert "plant-edge" not in text
    for block in tomllib.loads(text)["inputs"]["mqtt_consumer"]:
        assert block["password"] == "${HEADGATE_MQTT_PASSWORD}"
        assert block["servers"] == ["ssl://broker.example:8883"]


@pytest.mark.parametrize(
    ("url", "server"),
    [("mqtt://[::1]:1884", "tcp://[::1]:1884"), ("wss://broker.example/mqtt", "wss://broker.example:443/mqtt")],
)
def test_the_brokers_address_in_telegrafs_words(url: str, server: str) -> None:
    assert {block["servers"][0] for block in parsed(published(), url=url)["inputs"]["mqtt_consumer"]} == {server}


def test_a_capture_never_takes_the_place_of_our_own_tags() -> None:
    what = replace(published(), pattern=TopicPattern("acme/Werk Köln.2/{leaf}/{instance}"))
    for block in parsed(what)["inputs"]["mqtt_consumer"]:
        for rule in block.get("topic_parsing", ()):
            assert rule["tags"] == "_/_/_/_/_/_/leaf"
