"""Tags for Ignition 8.1 with Cirrus Link's MQTT Engine: reference tags onto what a custom namespace makes of leaves.

A custom namespace turns each topic into folders, and a JSON payload's keys into tags in the last of them; a namespace
for strings makes the last segment the tag. Reference tags above them have fixed types, units, alarms and names of the
plant's own, and can be imported before the first message has come.
Sources: Ignition 8.1 manual, "Tag Properties", "Tag Alarm Properties"; MQTT Engine, "MQTT Engine Custom Namespace".
"""

from __future__ import annotations

import re
from typing import Any

from edge.exports.published import ExportError, Published
from edge.leaves import LeafSpec, ValueKind
from edge.outputs import Profile

PROVIDER = "MQTT Engine"
"""The tag provider that the module makes."""
DATA_TYPES = {
    ValueKind.FLOAT: "Float8",
    ValueKind.INTEGER: "Int4",
    ValueKind.BOOLEAN: "Boolean",
    ValueKind.TEXT: "String",
}
# Letters and digits of any script, and what the manual allows beside them.
_NOT_ALLOWED = re.compile(r"[^\w '\-:()]")


def tag_import(published: Published) -> dict[str, Any]:
    """The content of a tag export file, to be imported into a provider or a folder.

    Raises: ExportError: two instances would be one folder, because a tag's name can't hold what tells them apart.
    """
    folders: dict[str, str] = {}
    for instance in published.instances:
        other = folders.setdefault("/".join(map(tag_name, instance.split("/"))), instance)
        if other != instance:
            raise ExportError(f"Ignition's tags can't tell {other!r} and {instance!r} apart: export them one by one")
    root: dict[str, Any] = _folder(published.federation)
    for instance in published.instances:
        folder = root
        for segment in instance.split("/"):
            folder = _child(folder, tag_name(segment))
        folder["tags"] += [_leaf(published, instance, spec) for spec in published.specs]
    root["tags"].append(_alive(published))
    return {"tags": [root]}


def namespaces(published: Published) -> dict[str, tuple[str, ...]]:
    """Topic filters of the two custom namespaces that MQTT Engine needs, by the payload type to configure."""
    leaves = tuple(published.topic(instance, spec) for instance in published.instances for spec in published.specs)
    if published.profile is Profile.SCALAR:
        return {"String": (*leaves, published.alive)}
    return {"JSON": leaves, "String": (published.alive,)}


def replaced(published: Published) -> tuple[str, ...]:
    """Characters of the plant's paths that no tag may have: MQTT Engine's String Replacement must make them `_`."""
    topics = [published.root(instance) for instance in published.instances] + [published.alive]
    return tuple(sorted({char for topic in topics for char in _NOT_ALLOWED.findall(topic.replace("/", ""))}))


def tag_name(segment: str) -> str:
    """A topic's segment as a tag or folder may be called."""
    return _NOT_ALLOWED.sub("_", segment)


def _source(topic: str) -> str:
    return f"[{PROVIDER}]" + "/".join(tag_name(segment) for segment in topic.split("/"))


def _leaf(published: Published, instance: str, spec: LeafSpec) -> dict[str, Any]:
    source = _source(published.topic(instance, spec))
    if published.profile is not Profile.SCALAR:
        source += "/value"
    tag = _reference(spec.name, DATA_TYPES[spec.kind], source, spec.about)
    if spec.name == published.output:
        tag |= {"engUnit": published.unit} if published.unit else {}
        tag |= {"engLow": published.low} if published.low is not None else {}
        tag |= {"engHigh": published.high} if published.high is not None else {}
    if spec.name == "alarm":
        tag["alarms"] = [_alarm(published.title, 1.0, "High", instance)]
    return tag


def _alive(published: Published) -> dict[str, Any]:
    about = f"Whether {published.participant} publishes inference; false by its will where it has gone"
    tag = _reference(f"{published.participant} alive", "Boolean", _source(published.alive), about)
    tag["alarms"] = [_alarm(f"{published.participant} publishes no inference", 0.0, "Medium", published.participant)]
    return tag


def _reference(name: str, data_type: str, source: str, about: str) -> dict[str, Any]:
    return {
        "name": name,
        "tagType": "AtomicTag",
        "valueSource": "reference",
        "dataType": data_type,
        "sourceTagPath": source,
        "readOnly": True,
        "documentation": about,
    }


def _alarm(name: str, setpoint: float, priority: str, path: str) -> dict[str, Any]:
    """Active while the value equals the setpoint, which is the mode that Ignition leaves out of its exports."""
    # A slash in an alarm's name hides what stands before it.
    return {"name": name.replace("/", "-"), "setpointA": setpoint, "priority": priority, "displayPath": path}


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "tagType": "Folder", "tags": []}


def _child(folder: dict[str, Any], name: str) -> dict[str, Any]:
    for tag in folder["tags"]:
        if tag["name"] == name and tag["tagType"] == "Folder":
            found: dict[str, Any] = tag
            return found
    made = _folder(name)
    folder["tags"].append(made)
    return made
