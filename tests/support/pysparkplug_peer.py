"""pysparkplug as somebody who speaks Sparkplug with us. Runs in its own environment (`scripts/setup-sparkplug`).

    decode             payloads as JSON lines `{"topic", "hex"}` on stdin, each as pysparkplug reads it on stdout
    encode             metrics as JSON lines on stdin, payloads of its own as hex on stdout
    read HOST PORT     a host: every message under `spBv1.0/` as pysparkplug reads it;
                       a line `{"rebirth": [group, node]}` on stdin asks for births
    node HOST PORT GROUP NODE DEVICE
                       an edge node: the first line of stdin is its device's metrics `{name: value}`,
                       each further one new values with `timestamp`

JSON lines on stdout; the first is `{"ready": true}` where there is a broker.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pysparkplug as sp
from paho.mqtt import client as mqtt
from pysparkplug._protobuf import Payload  # the classes that protoc made of Tahu's schema: all fields of a message

TYPES = {bool: sp.DataType.BOOLEAN, int: sp.DataType.INT64, float: sp.DataType.DOUBLE, str: sp.DataType.STRING}


class Reader:
    """Decodes messages as pysparkplug does, by the births that came before."""

    def __init__(self) -> None:
        self._births: dict[tuple[Any, Any], Any] = {}

    def read(self, topic_text: str, raw: bytes) -> dict[str, Any]:
        topic = sp.Topic.from_str(topic_text)
        said: dict[str, Any] = {"topic": topic_text, "kind": str(topic.message_type.value), "device": topic.device_id}
        if topic.message_type is sp.MessageType.STATE:
            state = sp.State.decode(raw)
            return said | {"online": state.online, "timestamp": state.timestamp}
        key = (topic.edge_node_id, topic.device_id)
        decoded = topic.message_type.payload.decode(raw, birth=self._births.get(key))
        if isinstance(decoded, sp.NBirth | sp.DBirth):
            self._births[key] = decoded
        whole = Payload.FromString(raw)
        metrics = [decoded.bd_seq_metric] if isinstance(decoded, sp.NDeath) else getattr(decoded, "metrics", ())
        said["seq"] = whole.seq if whole.HasField("seq") else None
        said["timestamp"] = whole.timestamp
        said["metrics"] = [
            {
                "name": metric.name,
                "alias": metric.alias,
                "datatype": int(metric.datatype),
                "sent": [field.name for field, _ in theirs.ListFields()],
                "value": metric.value,
                "timestamp": metric.timestamp,
                "historical": metric.is_historical,
                "properties": properties(theirs),
            }
            for metric, theirs in zip(metrics, whole.metrics, strict=True)
        ]
        return said


def properties(metric: Any) -> dict[str, Any]:
    """Each with its type, its field and its value."""
    found = {}
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=True):
        field = value.WhichOneof("value")
        found[key] = [value.type, field, getattr(value, field) if field else None]
    return found


def say(line: dict[str, Any] | str) -> None:
    sys.stdout.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    sys.stdout.flush()


def decode() -> None:
    reader = Reader()
    for line in sys.stdin:
        message = json.loads(line)
        say(reader.read(message["topic"], bytes.fromhex(message["hex"])))


def encode() -> None:
    for line in sys.stdin:
        metrics = tuple(
            sp.Metric(
                timestamp=m.get("timestamp"), name=m.get("name"), datatype=sp.DataType(m["datatype"]), value=m["value"],
                alias=m.get("alias"), is_historical=m.get("historical", False),
            )
            for m in json.loads(line)
        )  # fmt: skip
        say(sp.NBirth(timestamp=1_700_000_000_000, seq=3, metrics=metrics).encode().hex())


def read(host: str, port: int) -> None:
    reader = Reader()
    client = mqtt.Client(client_id="pysparkplug-host", clean_session=True)

    def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        try:
            said = reader.read(message.topic, message.payload)
        except Exception as error:
            said = {"error": f"{message.topic}: {type(error).__name__}: {error}"}
        say(said | {"qos": message.qos, "retain": bool(message.retain)})

    client.on_connect = lambda *_: client.subscribe("spBv1.0/#", 1)
    client.on_subscribe = lambda *_: say({"ready": True})
    client.on_message = on_message
    client.connect(host, port)
    client.loop_start()
    for line in sys.stdin:
        group, node = json.loads(line)["rebirth"]
        now = sp.get_current_timestamp()
        rebirth = sp.Metric(
            timestamp=now, name="Node Control/Rebirth", datatype=sp.DataType.BOOLEAN, value=True
        )  # fmt: skip
        topic = sp.Topic(message_type=sp.MessageType.NCMD, group_id=group, edge_node_id=node)
        client.publish(str(topic), sp.NCmd(timestamp=now, metrics=(rebirth,)).encode(include_dtypes=True))
    client.loop_stop()


def node(host: str, port: int, group: str, name: str, device: str) -> None:
    def metrics(values: dict[str, Any], timestamp: int) -> tuple[sp.Metric, ...]:
        return tuple(sp.Metric(timestamp, key, TYPES[type(value)], value=value) for key, value in values.items())

    edge_node = sp.EdgeNode(group, name, ())
    first = json.loads(sys.stdin.readline())
    edge_node.register(sp.Device(device, metrics(first, sp.get_current_timestamp())))
    edge_node.connect(host, port=port)
    say({"ready": True})
    for line in sys.stdin:
        values = json.loads(line)
        edge_node.update_device(
            device, metrics({k: v for k, v in values.items() if k != "timestamp"}, values["timestamp"])
        )
    edge_node.disconnect()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["decode"]:
            decode()
        case ["encode"]:
            encode()
        case ["read", host, port]:
            read(host, int(port))
        case ["node", host, port, *names]:
            node(host, int(port), *names)
