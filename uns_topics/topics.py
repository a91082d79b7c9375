"""The fl tree: every topic that Headgate mints, built and parsed from one table.

The tree is apart from the plant's own namespace, so that an operator's `#` on the plant tree never pulls model bytes.
The participant sits at a fixed level, so that an access rule stays one line per participant. No topic has more than
seven slashes (the limit of AWS IoT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

ROOT = "fl/v1"

_FIELDS = {
    "participant": r"[a-z0-9-]{1,64}",
    "bridge": r"[a-z0-9-]{1,64}",
    "transfer": r"[0-9a-f]{16}",
    "version": r"0|[1-9][0-9]{0,9}",
    "index": r"0|[1-9][0-9]{0,5}",
}
_FEDERATION = re.compile(r"[a-z0-9-]{1,64}")


class TopicError(ValueError):
    """The text is not a topic of the fl tree."""


class Kind(Enum):
    """Every kind of topic: its path below `fl/v1/<federation>/`, whether it is retained, and how it is written."""

    AGGREGATOR_STATUS = ("down/status", True, "json")
    PLAN = ("down/plan", True, "json")
    SKELETON_CHUNK = ("down/skeleton/{index}", True, "binary")
    ROUND = ("down/round", True, "json")
    MODEL_CURRENT = ("down/model/current", True, "json")
    MODEL_CANDIDATE = ("down/model/candidate", True, "json")
    MODEL_CHUNK = ("down/model/{version}/{index}", True, "binary")
    DELTA_CHUNK = ("down/delta/{version}/{index}", True, "binary")
    REFERENCE = ("down/reference", True, "json")
    HISTORY = ("down/history", True, "json")
    RECEIPT = ("down/receipt/{participant}", False, "json")
    ROUTE = ("down/to/{participant}/via", True, "json")
    STATUS = ("up/{participant}/status", True, "json")
    VIA = ("up/{participant}/via/{bridge}", True, "json")
    STATISTICS = ("up/{participant}/statistics", True, "json")
    UPDATE_MANIFEST = ("up/{participant}/update/{transfer}/manifest", False, "json")
    UPDATE_CHUNK = ("up/{participant}/update/{transfer}/{index}", False, "binary")
    EVALUATION = ("up/{participant}/evaluation", True, "json")
    DATA_QUALITY = ("up/{participant}/data-quality", True, "json")
    LAST_UPDATE = ("up/{participant}/last-update", True, "json")
    JOIN = ("up/{participant}/join", False, "json")

    def __init__(self, path: str, retained: bool, form: str) -> None:
        self.path = path
        self.retained = retained
        self.form = form

    @property
    def is_down(self) -> bool:
        """From the aggregator to participants."""
        return self.path.startswith("down/")


def _pattern(kind: Kind) -> re.Pattern[str]:
    """A named group per placeholder of the path."""
    parts = re.split(r"\{(\w+)\}", kind.path)  # literal, field, literal, field, ...
    text = "".join(f"(?P<{p}>{_FIELDS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts))
    return re.compile(text)


_PATTERNS = {kind: _pattern(kind) for kind in Kind}


@dataclass(frozen=True, slots=True)
class FlTopic:
    """One topic of the fl tree as a value: `str(topic)` builds it and `FlTopic.parse` reads it."""

    federation: str
    kind: Kind
    participant: str | None = None
    bridge: str | None = None
    transfer: str | None = None
    version: int | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        """Raises: TopicError: a field that this kind needs is missing or malformed."""
        if not _FEDERATION.fullmatch(self.federation):
            raise TopicError(f"federation {self.federation!r} is not of the form [a-z0-9-]+ (64 characters at most)")
        for name, form in _FIELDS.items():
            value = getattr(self, name)
            wanted = f"{{{name}}}" in self.kind.path
            if wanted and (value is None or not re.fullmatch(form, str(value))):
                raise TopicError(f"{self.kind.path} needs {name} of the form {form}, not {value!r}")
            if not wanted and value is not None:
                raise TopicError(f"{self.kind.path} has no {name}")

    def __str__(self) -> str:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return f"{ROOT}/{self.federation}/{self.kind.path.format(**fields)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a topic. Raises: TopicError: not a topic of the fl tree."""
        if not text.startswith(ROOT + "/"):
            raise TopicError(f"{text[:200]!r} is outside {ROOT}/")
        federation, _, rest = text[len(ROOT) + 1 :].partition("/")
        for kind, pattern in _PATTERNS.items():
            if found := pattern.fullmatch(rest):
                fields: dict[str, str | int] = dict(found.groupdict())
                for number in ("version", "index"):
                    if number in fields:
                        fields[number] = int(fields[number])
                return cls(federation, kind, **fields)  # type: ignore[arg-type] # names and types follow _FIELDS
        raise TopicError(f"{text[:200]!r} is no topic of the fl tree")


SHARED = (
    Kind.AGGREGATOR_STATUS,
    Kind.PLAN,
    Kind.ROUND,
    Kind.MODEL_CURRENT,
    Kind.MODEL_CANDIDATE,
    Kind.REFERENCE,
)
"""What every participant of a federation reads."""
OWN = (Kind.RECEIPT, Kind.ROUTE)
"""What is said to one participant alone."""


def participant_filters(federation: str, participant: str) -> tuple[str, ...]:
    """What a participant subscribes to: exact topics only, so that it never fetches a model it did not ask for."""
    return (
        *(str(FlTopic(federation, kind)) for kind in SHARED),
        *(str(FlTopic(federation, kind, participant=participant)) for kind in OWN),
    )


def aggregator_filters(federation: str) -> tuple[str, ...]:
    """What the aggregator subscribes to: the whole `up` branch, and its own status (to notice another aggregator)."""
    return (f"{ROOT}/{federation}/up/#", str(FlTopic(federation, Kind.AGGREGATOR_STATUS)))


def everything_of(federation: str, participant: str) -> str:
    """The filter of all that is said under a participant's name."""
    return f"{ROOT}/{federation}/up/{participant}/#"


def owner_of(text: str) -> tuple[str, str] | None:
    """Federation and participant under whose name a topic stands, whether or not it is a declared one."""
    parts = text.split("/", 5)  # fl, v1, federation, up, participant, the rest
    if len(parts) < 6 or not text.startswith(f"{ROOT}/") or parts[3] != "up":
        return None
    return parts[2], parts[4]
