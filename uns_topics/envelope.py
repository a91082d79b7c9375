"""The envelope of every JSON message: who says it, in which life of that process, and as its how-manyth message.

A message reads `{"v":1,"federation":"f","sender":"s","boot":"0a1b2c3d","sequence":7,<body>}` and may end with
`,"signature":"..."}`. Envelope and signature are byte prefix and suffix: the signature covers topic, a zero byte and
the payload bytes before the suffix, so that nothing has to be brought into a canonical form and people can read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from uns_topics.model import FileValue, Value

WIRE_VERSION = 1
"""The schema of everything said on the fl tree. Unknown fields are refused, so a new field is a new number."""
MAX_JSON_BYTES = 256 * 1024
"""No JSON message of ours comes near it; a larger payload is refused before it is parsed."""

_PREFIX = re.compile(
    rb'\s*\{\s*"v"\s*:\s*(\d{1,9})\s*,\s*"federation"\s*:\s*"([a-z0-9-]{1,64})"\s*,\s*"sender"\s*:\s*"([a-z0-9-]{1,64})"\s*,'
    rb'\s*"boot"\s*:\s*"([0-9a-f]{8})"\s*,\s*"sequence"\s*:\s*(\d{1,15})\s*(?=[,}])'
)
_SUFFIX = re.compile(rb',"signature":"([A-Za-z0-9+/=_-]{1,200})"\}$')

Body = TypeVar("Body", bound=Value)


class PayloadError(ValueError):
    """A payload that is not what its topic declares. The text names the field and never repeats the content."""


class UnknownWireVersion(PayloadError):
    """The message is of another wire schema than ours."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who says it: `boot` is drawn at process start, `sequence` counts up within it."""

    federation: str
    sender: str
    boot: str
    sequence: int
    v: int = WIRE_VERSION


def seal(envelope: Envelope, body: Value) -> bytes:
    """The bytes of one JSON message."""
    head = (
        f'{{"v":{envelope.v},"federation":"{envelope.federation}","sender":"{envelope.sender}",'
        f'"boot":"{envelope.boot}","sequence":{envelope.sequence}'
    )
    rest = body.model_dump_json().removeprefix("{")
    return f"{head}{'' if rest == '}' else ','}{rest}".encode()


def unseal(payload: bytes, body: type[Body]) -> tuple[Envelope, Body]:
    """Read one JSON message. Raises: UnknownWireVersion; PayloadError: too large, no envelope, or another body."""
    if len(payload) > MAX_JSON_BYTES:
        raise PayloadError(f"{len(payload)} bytes of JSON, more than {MAX_JSON_BYTES}")
    unsigned, _ = split_signature(payload)
    found = _PREFIX.match(unsigned)
    if found is None:
        raise PayloadError('no envelope: a message starts with "v", "federation", "sender", "boot", "sequence"')
    v, federation, sender, boot, sequence = found.groups()
    if int(v) != WIRE_VERSION:
        raise UnknownWireVersion(f"wire version {int(v)}; this side speaks {WIRE_VERSION}")
    rest = unsigned[found.end() :].lstrip(b",")
    try:
        content = body.model_validate_json(b"{" + rest)
    except ValidationError as error:
        raise PayloadError(describe(error)) from None
    return Envelope(federation.decode(), sender.decode(), boot.decode(), int(sequence)), content


def split_signature(payload: bytes) -> tuple[bytes, bytes | None]:
    """The signed bytes, closed with `}` so that they parse, and the signature where there is one."""
    found = _SUFFIX.search(payload[-260:])
    if found is None:
        return payload, None
    return payload[: len(payload) - len(found.group())] + b"}", found.group(1)


def describe(error: ValidationError) -> str:
    """A validation error as one line: which declared field, what is wrong; never the input, which may be anything.

    An unknown field's name, or a key of a mapping, is input as well: it shows as `…`.
    """
    declared = _declared_names()
    problems = []
    for one in error.errors(include_input=False, include_url=False)[:3]:
        place = ".".join(str(p) if isinstance(p, int) or p in declared else "…" for p in one["loc"]) or "payload"
        problems.append(f"{place}: {one['msg']}")
    more = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {more} more" if more > 0 else "")


def _declared_names() -> set[str]:
    """Every field name of every declared model."""
    names: set[str] = set()
    models: list[type[BaseModel]] = [Value, FileValue]
    while models:
        model = models.pop()
        names.update(model.model_fields)
        models += model.__subclasses__()
    return names
