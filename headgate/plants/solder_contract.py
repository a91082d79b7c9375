"""What the solder plants agreed on, and how each one's own topics feed it: the content of their YAML files."""

from __future__ import annotations

from typing import Any

from headgate.plants.solder import SolderPlant
from headgate.plants.solder_messages import Form, Reading, TagTopic
from headgate.plants.solder_process import Joint

__all__ = ["FEDERATION", "signal_map", "solder_contract"]

FEDERATION = "solder-defect"

_FEATURES = (
    ("paste_viscosity", "Pa.s", 80.0, 320.0, True, "solder paste in the printer, last measurement"),
    ("ambient_temperature", "degC", 10.0, 45.0, True, "in the hall, beside the printer"),
    ("ambient_humidity", "%", 5.0, 95.0, True, "relative, beside the printer"),
    ("squeegee_pressure", "N", 20.0, 130.0, False, ""),
    ("squeegee_speed", "mm/s", 10.0, 110.0, False, ""),
    ("stencil_prints", "", 0.0, 40.0, True, "since the stencil was last cleaned"),
    ("paste_volume", "%", 40.0, 160.0, False, "of the aperture, by the paste inspection"),
    ("paste_height", "um", 60.0, 180.0, False, "by the paste inspection"),
    ("paste_offset", "um", 0.0, 100.0, False, "from the pad, by the paste inspection"),
)
_CLASSES = {Joint.OK: "good", Joint.BRIDGE: "defect", Joint.OPEN: "defect"}


def solder_contract() -> dict[str, Any]:
    """The contract of the federation `solder-defect`, as its YAML file holds it."""
    features = []
    for name, unit, minimum, maximum, optional, description in _FEATURES:
        feature = {"name": name, "unit": unit, "minimum": minimum, "maximum": maximum}
        if optional:
            feature["optional"] = True
        if description:
            feature["description"] = description
        features.append(feature)
    return {
        "contract": 1,
        "federation": FEDERATION,
        "title": "Solder joint defects, from paste printing",
        "features": features,
        "label": {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"},
        "sample": {"kind": "event", "key": "board"},
        "metric": "average_precision",
    }


def signal_map(plant: SolderPlant) -> dict[str, Any]:
    """One plant's signal map, as its YAML file holds it."""
    inspection, verdicts = plant.inspection, plant.verdicts
    sources: list[dict[str, Any]] = [_tag_source(plant, tag) for tag in plant.tags]
    sources.append(
        {
            "topic": inspection.topic,
            **_flat(inspection.timestamp_key, iso8601=inspection.iso8601),
            "key": inspection.serial_key,
            "features": [_field(reading) for reading in inspection.readings],
        }
    )
    codes = {word: _CLASSES[joint] for joint, words in verdicts.words.items() for word in words}
    sources.append(
        {
            "topic": verdicts.topic,
            **_flat(verdicts.timestamp_key, iso8601=verdicts.iso8601),
            "key": verdicts.serial_key,
            "label": {"field": verdicts.verdict_key, "source": "aoi", "codes": codes},
        }
    )
    return {"signal_map": 1, "instance": plant.instance, "sources": sources}


def _tag_source(plant: SolderPlant, tag: TagTopic) -> dict[str, Any]:
    # Two and a half times the time between two messages, so that a single lost one leaves no hole.
    max_age_s = 2.5 * tag.every_boards * plant.board_interval_s
    if tag.form is Form.FLAT:
        return {
            "topic": tag.topic,
            **_flat(tag.timestamp_key, iso8601=tag.iso8601),
            "features": [_field(reading) | {"max_age_s": max_age_s} for reading in tag.readings],
        }
    (reading,) = tag.readings
    feature = {"feature": reading.feature, "unit": reading.unit, "max_age_s": max_age_s}
    source: dict[str, Any] = {"topic": tag.topic, "form": tag.form.value, "features": [feature]}
    if tag.form is Form.VQT:
        source["keys"] = {"value": tag.value_key, "quality": tag.quality_key, "timestamp": tag.timestamp_key}
        source["timestamp_format"] = _timestamp_format(iso8601=tag.iso8601)
    return source


def _flat(timestamp_key: str, *, iso8601: bool) -> dict[str, Any]:
    return {
        "form": "flat",
        "keys": {"timestamp": timestamp_key},
        "timestamp_format": _timestamp_format(iso8601=iso8601),
    }


def _timestamp_format(*, iso8601: bool) -> str:
    return "iso8601" if iso8601 else "ms"


def _field(reading: Reading) -> dict[str, Any]:
    return {"feature": reading.feature, "field": reading.field, "unit": reading.unit}
