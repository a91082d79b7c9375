"""Ids of Sparkplug groups, edge nodes and devices (Sparkplug 3.0.0, section 4.1). Pure.

An id is one topic segment. An instance's path is several, so as a device id its slashes become colons, and what an id
can't hold, or a colon of the path itself, is written as `%` and two hexadecimal digits per byte of UTF-8. The way back
is exact: no two paths have one id. (A colon, because Ignition takes it in the name of a folder, and no `%`.)
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_ESCAPED = re.compile("[%:+#\x00-\x1f\x7f-\x9f]")
_ESCAPES = re.compile("(?:%[0-9A-F]{2})+")


def validate_id(text: str) -> str:
    """Raises: ValueError: it is no topic segment, or holds what readers trip over."""
    if not text or text.strip() != text or not text.isprintable() or any(mark in text for mark in "/+#"):
        raise ValueError(
            f"{text!r} is no Sparkplug id: one topic segment of printable characters without '/', '+' and '#'"
        )
    return text


SparkplugId = Annotated[str, AfterValidator(validate_id), Field(max_length=128)]
"""A group or an edge node as a configuration names it."""


def device_id(path: str) -> str:
    """The device of an instance: `acme/Werk 1/smt` is `acme:Werk 1:smt`."""
    return ":".join(_ESCAPED.sub(lambda found: _escape(found[0]), segment) for segment in path.split("/"))


def instance_path(device: str) -> str:
    """The way back from `device_id`."""
    return "/".join(
        _ESCAPES.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode(), segment)
        for segment in device.split(":")
    )


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
