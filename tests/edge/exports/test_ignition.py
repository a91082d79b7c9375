"""The tag import: the shape of Ignition's own exports, and sources that MQTT Engine makes of the very topics."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from edge.exports.ignition import namespaces, replaced, tag_import
from edge.exports.published import ExportError, Published
from edge.outputs import Outputs, Prediction, Profile
from tests.edge.exports.plants import BOARDS, ENGINES, INSTANCES, RULE, published
from uns_topics.presence import Variant


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Name = Annotated[str, Field(pattern=r"^[\w][\w '\-:()]*$")]


class Alarm(Strict):
    """Of "Tag Alarm Properties": the mode is left out where it is Equal, its default."""

    name: Annotated[str, Field(min_length=1, pattern="^[^/]+$")]
    setpointA: float  # noqa: N815 - Ignition's name
    priority: Literal["Diagnostic", "Low", "Medium", "High", "Critical"]
    displayPath: str  # noqa: N815


class AtomicTag(Strict):
    """A reference tag, of "Tag Properties"."""

    name: Name
    tagType: Literal["AtomicTag"]  # noqa: N815
    valueSource: Literal["reference"]  # noqa: N815
    dataType: Literal["Float8", "Int4", "Boolean", "String"]  # noqa: N815
    sourceTagPath: Annotated[str, Field(pattern=r"^\[MQTT Engine\][\w][\w '\-:()]*(/[\w][\w '\-:()]*)+$")]  # noqa: N815
    readOnly: Literal[True]  # noqa: N815
    documentation: Annotated[str, Field(min_length=10)]
    engUnit: str = ""  # noqa: N815
    engLow: float | None = None  # noqa: N815
    engHigh: float | None = None  # noqa: N815
    alarms: list[Alarm] = []


class Folder(Strict):
    name: Name
    tagType: Literal["Folder"]  # noqa: N815
    tags: list[Annotated[Folder | AtomicTag, Field(discriminator="tagType")]]


class Import(Strict):
    tags: list[Folder]


def tags_of(what: Published) -> dict[str, AtomicTag]:
    """Every tag by its path, checked against the schema; no two of a name in one folder."""
    content = TypeAdapter(Import).validate_json(json.dumps(tag_import(what)))
    found: dict[str, AtomicTag] = {}

    def walk(folder: Folder, path: str) -> None:
        assert len({tag.name for tag in folder.tags}) == len(folder.tags), path
        for tag in folder.tags:
            if isinstance(tag, Folder):
                walk(tag, f"{path}/{tag.name}")
            else:
                found[f"{path}/{tag.name}"] = tag

    for folder in content.tags:
        walk(folder, folder.name)
    return found


def engine_tags(what: Published, outputs: Outputs) -> dict[str, object]:
    """What MQTT Engine makes of what is published: a tag per key of a JSON payload, else the segment itself."""
    made: dict[str, object] = {"[MQTT Engine]" + what.alive.replace(".", "_"): "true"}
    for instance in what.instances:
        prediction = Prediction(instance, "", 1.0, 0.25, 3, Variant.GLOBAL, threshold=0.5)
        for leaf in outputs.messages([prediction]):
            path = "[MQTT Engine]" + leaf.topic.replace(".", "_")
            if what.profile is Profile.SCALAR:
                made[path] = leaf.payload.decode()
            else:
                made |= {f"{path}/{key}": value for key, value in json.loads(leaf.payload).items()}
    return made


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("out_root", [None, "ai/headgate"])
def test_each_leaf_has_a_tag_on_what_the_module_makes_of_it(profile: Profile, out_root: str | None) -> None:
    what = published(profile=profile, out_root=out_root)
    outputs = Outputs("solder-defect", "score", profile=profile, out_root=out_root)
    tags, made = tags_of(what), engine_tags(what, outputs)
    assert len(tags) == len(INSTANCES) * len(what.specs) + 1
    for tag in tags.values():
        assert tag.sourceTagPath in made
    kinds = {bool: "Boolean", int: "Int4", float: "Float8", str: "String"}
    if profile is not Profile.SCALAR:
        for path, tag in tags.items():
            if not path.endswith("alive"):
                assert tag.dataType == kinds[type(made[tag.sourceTagPath])], path
    assert "solder-defect/acme/Werk Köln_2/smt/line 2/score" in tags


def test_units_bounds_and_alarms() -> None:
    tags = tags_of(published(ENGINES))
    value = tags["turbofan/acme/Werk Köln_2/smt/line1/remaining_cycles"]
    assert (value.engUnit, value.engLow, value.engHigh) == ("h", 0, 125)
    score = tags_of(published(BOARDS))["solder-defect/acme/Werk Köln_2/smt/line1/score"]
    assert (score.engUnit, score.engLow, score.engHigh) == ("", 0, 1)
    (gone,) = tags["turbofan/berlin alive"].alarms
    assert (gone.setpointA, gone.priority) == (0, "Medium")


def test_the_decision_is_what_the_plant_alarms_on() -> None:
    alarms = {path: tag.alarms for path, tag in tags_of(published(alarm=RULE)).items() if tag.alarms}
    assert sorted(path.rpartition("/")[2] for path in alarms) == ["alarm", "alarm", "berlin alive"]
    (alarm,) = alarms["solder-defect/acme/Werk Köln_2/smt/line1/alarm"]
    assert (alarm.name, alarm.setpointA, alarm.displayPath) == ("Solder defects", 1, INSTANCES[0])


def test_what_the_module_must_be_told() -> None:
    assert replaced(published()) == (".",)
    asked = namespaces(published())
    assert asked["String"] == (published().alive,)
    assert len(asked["JSON"]) == len(INSTANCES) * len(published().specs)
    assert set(namespaces(published(profile="scalar"))) == {"String"}


def test_instances_that_tags_cannot_tell_apart_are_refused() -> None:
    root = "acme/Werk Köln.2/smt"
    with pytest.raises(ExportError, match=r"can't tell .*smt/a&b' and .*smt/a.b' apart"):
        tag_import(published(instances=(f"{root}/a.b", f"{root}/a&b")))
