"""The dashboard: the documented shape of the classic JSON model, and queries on what the Telegraf export writes."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from edge.exports.grafana import dashboard
from edge.exports.published import Published
from tests.edge.exports.plants import BOARDS, ENGINES, RULE, published
from tests.edge.exports.test_telegraf import parsed


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DataSource(Strict):
    type: Literal["influxdb"]
    uid: Literal["${datasource}"]


class GridPos(Strict):
    x: Annotated[int, Field(ge=0, lt=24)]
    y: Annotated[int, Field(ge=0)]
    w: Annotated[int, Field(ge=1, le=24)]
    h: Annotated[int, Field(ge=1)]


class Target(Strict):
    refId: Annotated[str, Field(pattern="^[A-Z]$")]  # noqa: N815 - Grafana's names
    datasource: DataSource
    query: str
    rawQuery: Literal[True]  # noqa: N815
    resultFormat: Literal["time_series"]  # noqa: N815
    alias: str


class Panel(Strict):
    id: int
    type: Literal["timeseries", "state-timeline", "stat"]
    title: str
    description: str = ""
    datasource: DataSource
    gridPos: GridPos  # noqa: N815
    fieldConfig: dict[Literal["defaults", "overrides"], Any]  # noqa: N815
    options: dict[str, Any]
    targets: Annotated[list[Target], Field(min_length=1)]


class Variable(Strict):
    name: str
    label: str
    type: Literal["datasource", "query"]
    query: str
    definition: str = ""
    datasource: DataSource | None = None
    current: dict[str, str]
    hide: Literal[0]
    includeAll: bool  # noqa: N815
    multi: bool
    options: list[Any]
    refresh: Literal[1, 2]
    regex: str
    sort: int = 0


class Dashboard(Strict):
    """https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/, classic."""

    id: None
    uid: None
    title: str
    tags: list[str]
    timezone: Literal["browser"]
    editable: bool
    graphTooltip: Literal[0, 1, 2]  # noqa: N815
    schemaVersion: Annotated[int, Field(ge=36)]  # noqa: N815
    version: int
    refresh: str
    time: dict[Literal["from", "to"], str]
    timepicker: dict[str, Any]
    annotations: dict[Literal["list"], list[Any]]
    links: list[Any]
    templating: dict[Literal["list"], list[Variable]]
    panels: list[Panel]


def made(what: Published) -> Dashboard:
    return TypeAdapter(Dashboard).validate_json(json.dumps(dashboard(what)))


def shown(board: Dashboard) -> dict[str, list[str]]:
    """Fields that each panel asks for, by its title."""
    return {
        panel.title: [re.findall(r'last\("(\w+)"\)', target.query)[0] for target in panel.targets]
        for panel in board.panels
    }


def test_every_leaf_has_its_place() -> None:
    assert shown(made(published())) == {
        "score": ["score"], "quality": ["quality"], "model_version": ["model_version"], "variant": ["variant"],
        "alive": ["alive"],
    }  # fmt: skip
    ruled = published(alarm=RULE)
    assert shown(made(ruled))["score"] == ["threshold", "score"]
    assert shown(made(ruled))["alarm"] == ["alarm"]


@pytest.mark.parametrize("contract", [BOARDS, ENGINES])
def test_panels_ask_for_what_telegraf_writes(contract: dict[str, Any]) -> None:
    what = published(contract)
    inputs = parsed(what)["inputs"]["mqtt_consumer"]
    measurements = {block["name_override"] for block in inputs}
    tags = {"instance", *(key for block in inputs for key in block["tags"])}
    for panel in made(what).panels:
        for target in panel.targets:
            assert set(re.findall(r'FROM "(\w+)"', target.query)) <= measurements
            named = set(re.findall(r'"(\w+)"', target.query))
            fields = {spec.name for spec in what.specs} | {"alive"}
            assert named <= measurements | tags | fields
            assert named & fields


def test_panels_do_not_overlap_and_ids_and_letters_are_unique() -> None:
    panels = made(published(alarm=RULE)).panels
    assert len({panel.id for panel in panels}) == len(panels)
    bottom = 0
    for panel in panels:
        assert panel.gridPos.y == bottom
        bottom += panel.gridPos.h
        assert len({target.refId for target in panel.targets}) == len(panel.targets)
