"""A Grafana dashboard on what the Telegraf export writes, asked in InfluxQL; the data source is a variable.

Source: Grafana's "Dashboard JSON model", the classic schema, which every release from 10 on imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.exports.published import Published
from edge.exports.telegraf import EDGE_MEASUREMENT, MEASUREMENT
from edge.leaves import LeafSpec, ValueKind

SCHEMA_VERSION = 38
SOURCE = {"type": "influxdb", "uid": "${datasource}"}
QUALITIES = ((0, 191, "not good", "red"), (192, 255, "good", "green"), (256, 511, "uncertain", "yellow"))
_WIDTH = 24


def dashboard(published: Published) -> dict[str, Any]:
    """The dashboard's JSON."""
    panels = [_value(published), *(_leaf(published, spec) for spec in _others(published)), _alive(published)]
    top = 0
    for number, panel in enumerate(panels, start=1):
        height = 9 if number == 1 else 5
        panel |= {"id": number, "datasource": SOURCE, "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": height}}
        top += height
    return {
        "id": None,
        "uid": None,
        "title": f"{published.title}: {published.participant}",
        "tags": ["headgate", published.federation],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "version": 0,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource(), _instance(published)]},
        "panels": panels,
    }


def _others(published: Published) -> list[LeafSpec]:
    return [spec for spec in published.specs if spec.name not in (published.output, "threshold")]


def _value(published: Published) -> dict[str, Any]:
    """The value, and what the alarm is decided by in the same picture."""
    shown = [s for s in published.specs if s.name in (published.output, "threshold")]
    defaults: dict[str, Any] = {"unit": f"suffix: {published.unit}" if published.unit else "short"}
    if published.low is not None:
        defaults["min"] = published.low
    if published.high is not None:
        defaults["max"] = published.high
    return _panel("timeseries", published.output, defaults, [_by_instance(published, spec) for spec in shown])


def _leaf(published: Published, spec: LeafSpec) -> dict[str, Any]:
    """Flags, codes and words as bands over time; numbers as they stand."""
    target = [_by_instance(published, spec)]
    if spec.name == "quality":
        panel = _panel("state-timeline", spec.name, {"mappings": _quality_mappings()}, target)
    elif spec.kind is ValueKind.BOOLEAN:
        panel = _panel("state-timeline", spec.name, {"mappings": _flag_mappings("red", "green")}, target)
    elif spec.kind is ValueKind.TEXT:
        panel = _panel("state-timeline", spec.name, {}, target)
    else:
        panel = _panel("stat", spec.name, {"decimals": 0}, target)
    panel["description"] = spec.about
    return panel


def _alive(published: Published) -> dict[str, Any]:
    query = f'SELECT last("alive") FROM "{EDGE_MEASUREMENT}" WHERE {_where(published)} AND $timeFilter'  # noqa: S608 - for Grafana, of slugs
    target = _target("A", query, published.participant)
    return _panel("stat", "alive", {"mappings": _flag_mappings("green", "red")}, [target])


def _by_instance(published: Published, spec: LeafSpec) -> dict[str, Any]:
    where = f'{_where(published)} AND "instance" =~ /^${{instance:regex}}$/ AND $timeFilter'
    query = (
        f'SELECT last("{spec.name}") FROM "{MEASUREMENT}" WHERE {where} '  # noqa: S608 - as above
        'GROUP BY time($__interval), "instance" fill(none)'
    )
    if spec.name == "threshold":
        return _target("B", query, "$tag_instance threshold")
    return _target("A", query, "$tag_instance")


def _where(published: Published) -> str:
    return f"\"federation\" = '{published.federation}' AND \"participant\" = '{published.participant}'"


def _target(ref: str, query: str, alias: str) -> dict[str, Any]:
    return {"refId": ref, "query": query, "rawQuery": True, "resultFormat": "time_series", "alias": alias}


def _panel(kind: str, title: str, defaults: dict[str, Any], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": [{**target, "datasource": SOURCE} for target in targets],
    }


def _flag_mappings(true_colour: str, false_colour: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "value",
            "options": {
                "true": {"text": "true", "color": true_colour, "index": 0},
                "false": {"text": "false", "color": false_colour, "index": 1},
            },
        }
    ]


def _quality_mappings() -> list[dict[str, Any]]:
    ranges = (*QUALITIES, (512, None, "bad", "red"))
    return [
        {"type": "range", "options": {"from": low, "to": high, "result": {"text": text, "color": colour, "index": i}}}
        for i, (low, high, text, colour) in enumerate(ranges)
    ]


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "influxdb",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }


def _instance(published: Published) -> dict[str, Any]:
    query = f'SHOW TAG VALUES FROM "{MEASUREMENT}" WITH KEY = "instance" WHERE {_where(published)}'
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "definition": query,
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }
