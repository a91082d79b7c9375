"""A Telegraf configuration that reads inference: `mqtt_consumer` inputs, one for each type of value.

All leaves of an instance end as fields of one measurement, named as the leaves are. Topics are exact, because some
brokers send nothing retained to a wildcard. Sources: Telegraf's pages of `mqtt_consumer`, `json_v2`, `value`, `regex`
and `pivot`.
"""

from __future__ import annotations

import json
import re

from broker_bridge.config import BrokerConfig
from edge.exports.published import Published
from edge.leaves import LeafSpec, ValueKind
from edge.outputs import Profile

MEASUREMENT = "headgate_inference"
EDGE_MEASUREMENT = "headgate_edge"
TAGS = ("instance", "leaf", "federation", "participant")
"""Tags of our own: a captured segment of such a name is in `instance` alone."""
_SCHEMES = {"mqtt": "tcp", "mqtts": "ssl", "ws": "ws", "wss": "wss"}
_JSON_TYPES = {
    ValueKind.FLOAT: "float",
    ValueKind.INTEGER: "int",
    ValueKind.BOOLEAN: "bool",
    ValueKind.TEXT: "string",
}
_VALUE_TYPES = {
    ValueKind.FLOAT: "float",
    ValueKind.INTEGER: "integer",
    ValueKind.BOOLEAN: "boolean",
    ValueKind.TEXT: "string",
}


def telegraf(published: Published, broker: BrokerConfig) -> str:
    """The configuration in TOML. Credentials are named as environment variables, never written.

    Args: broker: the plant's broker, which the edge publishes to.
    """
    blocks = [
        f"# Inference of {published.participant} in {published.federation}, for Telegraf 1.24 or newer.",
        "# Add an output of your own; Grafana's export reads what this writes.",
    ]
    for kind in ValueKind:
        specs = [spec for spec in published.specs if spec.kind is kind]
        if specs:
            blocks.append(_leaves(published, broker, kind, specs))
    blocks += [_alive(published, broker), _processors(published)]
    return "\n".join(blocks)


def _leaves(published: Published, broker: BrokerConfig, kind: ValueKind, specs: list[LeafSpec]) -> str:
    topics = [published.topic(instance, spec) for spec in specs for instance in published.instances]
    lines = _consumer(broker, topics, MEASUREMENT, topic_tag="instance")
    match published.profile:
        case Profile.SCALAR:
            lines += _value_format(kind, "value")
        case Profile.UMH:
            lines += _json_format(kind, "timestamp_ms", "unix_ms")
        case Profile.VQT:
            lines += _json_format(kind, "timestamp", "2006-01-02T15:04:05.000Z07:00")  # Go's way to say ISO 8601
    lines += _topic_parsing(published) + _tags(published)
    return "\n".join([*lines, ""])


def _alive(published: Published, broker: BrokerConfig) -> str:
    lines = _consumer(broker, [published.alive], EDGE_MEASUREMENT, topic_tag="")
    lines += _value_format(ValueKind.BOOLEAN, "alive") + _tags(published)
    return "\n".join([*lines, ""])


def _consumer(broker: BrokerConfig, topics: list[str], measurement: str, topic_tag: str) -> list[str]:
    scheme = _SCHEMES[broker.address.partition("://")[0]]
    lines = [
        "",
        "[[inputs.mqtt_consumer]]",
        f"  servers = [{_text(scheme + broker.address[broker.address.index('://') :])}]",
        "  topics = [",
        *(f"    {_text(topic)}," for topic in topics),
        "  ]",
        f"  topic_tag = {_text(topic_tag)}",
        f"  name_override = {_text(measurement)}",
        "  qos = 1",
    ]
    if broker.username is not None:
        lines += ['  username = "${HEADGATE_MQTT_USERNAME}"', '  password = "${HEADGATE_MQTT_PASSWORD}"']
    if broker.ca_file is not None:
        lines.append('  tls_ca = "/etc/telegraf/ca.pem"')
    if broker.client_certificate_file is not None:
        lines += ['  tls_cert = "/etc/telegraf/client.pem"', '  tls_key = "/etc/telegraf/client.key"']
    return lines


def _value_format(kind: ValueKind, field: str) -> list[str]:
    return [
        '  data_format = "value"',
        f"  data_type = {_text(_VALUE_TYPES[kind])}",
        f"  value_field_name = {_text(field)}",
    ]


def _json_format(kind: ValueKind, time_key: str, time_format: str) -> list[str]:
    return [
        '  data_format = "json_v2"',
        "  [[inputs.mqtt_consumer.json_v2]]",
        f"    timestamp_path = {_text(time_key)}",
        f"    timestamp_format = {_text(time_format)}",
        "    [[inputs.mqtt_consumer.json_v2.field]]",
        '      path = "value"',
        f"      type = {_text(_JSON_TYPES[kind])}",
    ]


def _topic_parsing(published: Published) -> list[str]:
    """The leaf and the captured segments become tags; the leaf then names the field."""
    segments = published.root(published.pattern.text).split("/")
    captured = {f"{{{name}}}": "_" if name in TAGS else name for name in published.pattern.names}
    topic = [("+" if segment in captured else segment) for segment in segments]
    tags = [captured.get(segment, "_") for segment in segments]
    return [
        "  [[inputs.mqtt_consumer.topic_parsing]]",
        f"    topic = {_text('/'.join([*topic, '+']))}",
        f"    tags = {_text('/'.join([*tags, 'leaf']))}",
    ]


def _tags(published: Published) -> list[str]:
    return [
        "  [inputs.mqtt_consumer.tags]",
        f"    federation = {_text(published.federation)}",
        f"    participant = {_text(published.participant)}",
    ]


def _processors(published: Published) -> str:
    """The tag `instance` comes as the whole topic and goes as the instance's path; leaves become fields."""
    before = re.escape(published.out_root + "/") if published.out_root is not None else ""
    after = re.escape(f"/_inference/{published.federation}/")
    return "\n".join(
        [
            "",
            "[[processors.regex]]",
            "  order = 1",
            f"  namepass = [{_text(MEASUREMENT)}]",
            "  [[processors.regex.tags]]",
            '    key = "instance"',
            f"    pattern = {_text(f'^{before}(.*){after}[^/]*$')}",
            '    replacement = "${1}"',
            "",
            "[[processors.pivot]]",
            "  order = 2",
            f"  namepass = [{_text(MEASUREMENT)}]",
            '  tag_key = "leaf"',
            '  value_key = "value"',
            "",
        ]
    )


def _text(value: str) -> str:
    """A TOML basic string: as JSON's, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
