"""A Node-RED flow that reads inference: a broker, one `mqtt in` per instance, one message for each value.

It needs nothing beside Node-RED's own nodes (release 3 or newer) and ends in a `link out`, to which the plant's own
flows connect. Each message has `payload` (the value), `instance`, `leaf`, `topic` and, where the payload says it,
`timestamp` (event time in ms). Ids are made from the names, so that an import replaces what an earlier one brought.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from broker_bridge.config import BrokerConfig
from edge.exports.published import EVENT, Published
from edge.outputs import QUALITY_UNCERTAIN, Profile

_PROTOCOLS = {"3.1.1": "4", "5": "5"}
_ROW = 60


def flow(published: Published, broker: BrokerConfig) -> list[dict[str, Any]]:
    """The nodes, as Node-RED imports them. Credentials are left out: the editor asks for them.

    Args: broker: the plant's broker, which the edge publishes to.
    """

    def id_of(*names: str) -> str:
        return node_id(published, *names)

    tab, read, said = id_of("tab"), id_of("read"), id_of("said")
    nodes: list[dict[str, Any]] = [
        {"id": tab, "type": "tab", "label": f"{published.federation} ({published.participant})", "disabled": False,
         "info": f"Inference of {published.participant}: {published.title}"},
        *_broker(published, broker),
    ]  # fmt: skip
    for row, instance in enumerate(published.instances):
        node = _mqtt_in(published, id_of("in", instance), f"{published.root(instance)}/+", instance)
        nodes.append({**node, "x": 200, "y": _ROW * (row + 1), "wires": [[read]]})
    alive = _mqtt_in(published, id_of("in alive"), published.alive, "alive")
    nodes.append({**alive, "x": 200, "y": _ROW * (len(published.instances) + 1), "wires": [[id_of("alive")]]})
    nodes += [
        _function(published, read, "leaf and value", _read(published), 640, _ROW, [[said, id_of("changes")]]),
        _function(published, id_of("alive"), "true or false", _READ_ALIVE, 640, 2 * _ROW, [[said]]),
        {"id": id_of("changes"), "type": "rbe", "z": tab, "name": "changes", "func": "rbe", "gap": "", "start": "",
         "inout": "out", "septopics": True, "property": "payload", "topi": "topic", "x": 640, "y": 3 * _ROW,
         "wires": [[id_of("watch")]]},
        {"id": id_of("watch"), "type": "switch", "z": tab, "name": "what people must see", "property": "leaf",
         "propertyType": "msg", "rules": [{"t": "eq", "v": name, "vt": "str"} for name in ("alarm", "quality")],
         "checkall": "false", "repair": False, "outputs": 2, "x": 860, "y": 2 * _ROW,
         "wires": [[id_of("is alarm")], [id_of("is bad")]]},
        {"id": id_of("is alarm"), "type": "switch", "z": tab, "name": "alarm", "property": "payload",
         "propertyType": "msg", "rules": [{"t": "true"}], "checkall": "true", "repair": False, "outputs": 1,
         "x": 1060, "y": 2 * _ROW, "wires": [[id_of("debug")]]},
        {"id": id_of("is bad"), "type": "switch", "z": tab, "name": "quality not good", "property": "payload",
         "propertyType": "msg", "rules": [{"t": "gte", "v": str(QUALITY_UNCERTAIN), "vt": "num"}], "checkall": "true",
         "repair": False, "outputs": 1, "x": 1080, "y": 3 * _ROW, "wires": [[id_of("debug")]]},
        {"id": id_of("debug"), "type": "debug", "z": tab, "name": "attention", "active": True, "tosidebar": True,
         "console": False, "tostatus": True, "complete": "true", "targetType": "full",
         "statusVal": "leaf", "statusType": "msg", "x": 1280, "y": 2 * _ROW, "wires": []},
        {"id": said, "type": "link out", "z": tab, "name": f"{published.federation} inference", "mode": "link",
         "links": [], "x": 815, "y": _ROW, "wires": []},
    ]  # fmt: skip
    return nodes


def node_id(published: Published, *names: str) -> str:
    """A node's id: the same at each export of the same edge."""
    text = "\0".join((published.federation, published.participant, *names))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _broker(published: Published, broker: BrokerConfig) -> list[dict[str, Any]]:
    tls = node_id(published, "tls")
    node = {
        "id": node_id(published, "broker"),
        "type": "mqtt-broker",
        "name": f"{published.participant}'s plant",
        "broker": broker.address if broker.websocket else broker.host,
        "port": str(broker.port),
        "clientid": "",
        "autoConnect": True,
        "usetls": broker.tls,
        "protocolVersion": _PROTOCOLS[broker.protocol],
        "keepalive": str(broker.keepalive_s),
        "cleansession": True,
        "autoUnsubscribe": True,
        **{f"{when}{what}": "" for when in ("birth", "close", "will") for what in ("Topic", "Payload")},
        "userProps": "",
        "sessionExpiry": "",
    }
    if not broker.tls:
        return [node]
    secure = {"id": tls, "type": "tls-config", "name": "plant's broker", "cert": "", "key": "", "ca": "",
              "certname": "", "keyname": "", "caname": "", "servername": broker.server_name,
              "verifyservercert": True, "alpnprotocol": ""}  # fmt: skip
    return [{**node, "tls": tls}, secure]


def _mqtt_in(published: Published, node: str, topic: str, name: str) -> dict[str, Any]:
    return {"id": node, "type": "mqtt in", "z": node_id(published, "tab"), "name": name, "topic": topic, "qos": "1",
            "datatype": "utf8", "broker": node_id(published, "broker"), "nl": False, "rap": True, "rh": 0,
            "inputs": 0}  # fmt: skip


def _function(
    published: Published, node: str, name: str, code: str, x: int, y: int, wires: list[list[str]]
) -> dict[str, Any]:
    return {"id": node, "type": "function", "z": node_id(published, "tab"), "name": name, "func": code, "outputs": 1,
            "timeout": 0, "noerr": 0, "initialize": "", "finalize": "", "libs": [], "x": x, "y": y,
            "wires": wires}  # fmt: skip


_READ_ALIVE = 'msg.leaf = "alive";\nmsg.payload = msg.payload === "true";\nreturn msg;\n'
_VALUES = {
    Profile.UMH: """\
const said = JSON.parse(msg.payload);
msg.timestamp = said.timestamp_ms;
msg.payload = said.value;
""",
    Profile.VQT: """\
const said = JSON.parse(msg.payload);
msg.timestamp = Date.parse(said.timestamp);
msg.payload = said.value;
""",
    Profile.SCALAR: """\
try { msg.payload = JSON.parse(msg.payload); } catch (_) { /* a bare word */ }
""",
}


def _read(published: Published) -> str:
    """JavaScript that takes a leaf's message apart; an empty one says that the leaf was cleared."""
    before = "" if published.out_root is None else published.out_root + "/"
    return f"""\
const mark = {json.dumps(f"/_inference/{published.federation}/")};
const at = msg.topic.lastIndexOf(mark);
msg.leaf = msg.topic.slice(at + mark.length);
if (msg.leaf === {json.dumps(EVENT)} || msg.payload === "") {{ return null; }}
msg.instance = msg.topic.slice({json.dumps(before)}.length, at);
{_VALUES[published.profile]}return msg;
"""
