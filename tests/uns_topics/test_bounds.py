"""No number on the wire is without bounds: an integer of a thousand digits is a text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from uns_topics.model import Value
from uns_topics.payloads import PAYLOADS
from uns_topics.update import UpdateHeader

MODELS: dict[str, type[Value]] = {**{kind.name: model for kind, model in PAYLOADS.items()}, "update": UpdateHeader}


def unbounded(schema: Any, place: str = "") -> list[str]:
    """Places of integers without an upper and a lower bound, and of strings without pattern, choice or length."""
    found: list[str] = []
    if isinstance(schema, list):
        return [one for part in schema for one in unbounded(part, place)]
    if not isinstance(schema, dict):
        return found
    low = {"minimum", "exclusiveMinimum"} & set(schema)
    high = {"maximum", "exclusiveMaximum"} & set(schema)
    if schema.get("type") == "integer" and not (low and high) and not {"const", "enum"} & set(schema):
        found.append(place)
    for key, inner in schema.items():
        if key not in ("default", "description", "examples"):
            found += unbounded(inner, f"{place}.{key}")
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_integer_has_bounds(name: str) -> None:
    assert unbounded(TypeAdapter(MODELS[name]).json_schema()) == []


def test_the_walk_finds_one_that_has_none() -> None:
    class Loose(Value):
        count: tuple[int, ...]

    assert unbounded(TypeAdapter(Loose).json_schema()) == [".properties.count.items"]
