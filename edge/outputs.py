"""What SCADA gets: inference as leaves of the plant's own tree. Pure: predictions in, messages out.

Under `<instance path>/_inference/<federation>/` (or below a root of the plant's choice) each output is one scalar leaf,
retained, in the form that the site's readers expect; the siblings of one inference share a timestamp and the value
comes last, so that whoever waits for it finds the others in place. A topic is never both leaf and parent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from edge.leaves import OUTPUT_SEGMENT, LeafSpec, leaf_specs
from uns_topics.presence import Variant


class Profile(StrEnum):
    """How a leaf says its value."""

    UMH = "umh"
    """Exactly `{"timestamp_ms", "value"}`, as the United Manufacturing Hub's historian takes it."""
    VQT = "vqt"
    """`{"value", "quality", "timestamp"}`, the time in ISO 8601 and UTC: OPC's three."""
    SCALAR = "scalar"
    """The bare value: a number, `true` or a word. The time is that of the message's arrival."""


QUALITY_GOOD = 192
QUALITY_REPLAYED = 203
QUALITY_UNCERTAIN = 256
QUALITY_BAD = 512
QUALITY_STALE = 516

LeafValue = float | int | bool | str

STALE_AFTER_S = 0.001
"""Event time between an instance's last inference and the mark that it is stale: the next sample comes later still."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One inference of one instance.

    Attributes:
        time_s: event time of the sample. key: its key, as the plant wrote it. value: in the output's unit.
        flagged: the decision on this sample alone. alarm: the instance's, with hysteresis.
        threshold: what both were decided by; None where there is none yet.
        context: the declared context's value; None where the contract has none, or the sample an unknown one.
    """

    instance: str
    key: str
    time_s: float
    value: float
    version: int
    variant: Variant
    quality: int = QUALITY_GOOD
    flagged: bool = False
    alarm: bool = False
    threshold: float | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One message to publish into the plant's tree."""

    topic: str
    payload: bytes
    retain: bool = True


def number(value: float) -> str:
    """A JSON number that always carries a decimal point: Ignition types a tag by the first literal that it sees."""
    text = f"{value:.6g}"
    if "e" in text:
        text = f"{value:.12f}".rstrip("0") if abs(value) < 1 else f"{value:.1f}"
        return text + "0" if text.endswith(".") else text
    return text if "." in text else text + ".0"


def instance_root(instance: str, federation: str, out_root: str | None = None) -> str:
    """Where an instance's leaves stand; the plant's own path is echoed byte for byte.

    Args: out_root: stands before the path, where the plant wants inference apart from its own tags.
    """
    path = f"{instance}{OUTPUT_SEGMENT}{federation}"
    return path if out_root is None else f"{out_root}/{path}"


def alive_topic(home: str, federation: str, participant: str) -> str:
    """The one leaf per edge: a bare true or false, and the will of the session that publishes inference."""
    return f"{instance_root(home, federation)}/_edge/{participant}/alive"


def common_home(instances: Sequence[str]) -> str:
    """The longest common path of all instances: where the edge's own leaf stands unless configured."""
    split = [path.split("/") for path in instances]
    common = []
    for segments in zip(*split, strict=False):
        if len(set(segments)) > 1:
            break
        common.append(segments[0])
    return "/".join(common)


def newest_of_each(predictions: Iterable[Prediction]) -> dict[str, Prediction]:
    """By instance; of two at the same time the later one in order."""
    newest: dict[str, Prediction] = {}
    for prediction in predictions:
        known = newest.get(prediction.instance)
        if known is None or prediction.time_s >= known.time_s:
            newest[prediction.instance] = prediction
    return newest


class Outputs:
    """Turns predictions into leaves; state leaves never go back in event time.

    Args:
        alarms: the site has a rule, so there are the leaves `threshold` and `alarm`.
        unit: of the model's output; '' for a pure number.
    """

    def __init__(
        self,
        federation: str,
        output: str,
        *,
        profile: Profile = Profile.UMH,
        out_root: str | None = None,
        alarms: bool = False,
        unit: str = "",
    ) -> None:
        self.unit = unit
        self._alarms = alarms
        self._federation = federation
        self._output = output
        self._profile = profile
        self._out_root = out_root
        self._newest: dict[str, float] = {}

    def messages(self, predictions: Sequence[Prediction]) -> list[Leaf]:
        """Events for all, state leaves for the newest of each instance (the others would be overwritten unseen)."""
        newest = newest_of_each(predictions)
        leaves = [self._event(p) for p in predictions if p.key and math.isfinite(p.value)]
        for prediction in newest.values():
            if prediction.time_s >= self._newest.get(prediction.instance, float("-inf")):
                self._newest[prediction.instance] = prediction.time_s
                leaves += self._state(prediction)
        return leaves

    def restore(self, instance: str, time_s: float) -> None:
        """What an earlier process published last: state leaves don't go behind it. Args: time_s: event time."""
        self._newest[instance] = time_s

    def published_s(self, instance: str) -> float | None:
        """Event time of an instance's state leaves; None where there are none."""
        return self._newest.get(instance)

    def stale(self, instance: str) -> list[Leaf]:
        """What says that an instance's inputs have stopped; its last value is left as it is."""
        newest = self._newest.get(instance)
        if newest is None:
            return []
        self._newest[instance] = newest + STALE_AFTER_S
        payload = self._payload(str(QUALITY_STALE), QUALITY_GOOD, newest + STALE_AFTER_S)
        return [Leaf(f"{self._root(instance)}/quality", payload)]

    @property
    def output(self) -> str:
        """The name of the leaf that holds the model's output."""
        return self._output

    @property
    def specs(self) -> tuple[LeafSpec, ...]:
        """The retained leaves that each instance has, in the order of their publication."""
        return leaf_specs(self._output, alarms=self._alarms)

    @property
    def profile(self) -> Profile:
        """How a leaf says its value."""
        return self._profile

    def topics(self, instance: str) -> tuple[str, ...]:
        """Every retained leaf of an instance: what has to be cleared when it leaves."""
        root = self._root(instance)
        return tuple(f"{root}/{spec.name}" for spec in self.specs)

    def instance_of(self, topic: str) -> str | None:
        """The instance that a retained leaf belongs to; None where it is none that is published here."""
        path, mark, _ = topic.rpartition(f"{OUTPUT_SEGMENT}{self._federation}/")
        prefix = "" if self._out_root is None else f"{self._out_root}/"
        if not mark or not path.startswith(prefix):
            return None
        instance = path.removeprefix(prefix)
        return instance if topic in self.topics(instance) else None

    def _root(self, instance: str) -> str:
        return instance_root(instance, self._federation, self._out_root)

    def values(self, p: Prediction) -> dict[str, LeafValue]:
        """What the state leaves of an inference say, by name in their order; what it doesn't say is left out.

        Where the model gave no number the last value and decision stand, and the quality says that it isn't good.
        """
        is_number = math.isfinite(p.value)
        values: dict[str, LeafValue] = {
            "quality": p.quality if is_number else QUALITY_BAD,
            "model_version": p.version,
            "variant": p.variant.value,
        }
        if self._alarms:
            if p.threshold is not None:
                values["threshold"] = p.threshold
            if is_number:
                values["alarm"] = p.alarm
        if is_number:
            values[self._output] = p.value
        return values

    def _state(self, p: Prediction) -> list[Leaf]:
        values = self.values(p)
        quality = int(values["quality"])
        root = self._root(p.instance)
        return [
            Leaf(
                f"{root}/{name}",
                self._payload(_literal(value), quality if name == self._output else QUALITY_GOOD, p.time_s),
            )
            for name, value in values.items()
        ]

    def _payload(self, value: str, quality: int, time_s: float) -> bytes:
        """A leaf's bytes. Args: value: as JSON; quality: of this leaf, where the profile says it."""
        stamp = round(time_s * 1000)
        match self._profile:
            case Profile.UMH:
                text = f'{{"timestamp_ms":{stamp},"value":{value}}}'
            case Profile.VQT:
                text = f'{{"value":{value},"quality":{quality},"timestamp":"{_iso(stamp)}"}}'
            case Profile.SCALAR:
                text = value.strip('"')
        return text.encode()

    def _event(self, p: Prediction) -> Leaf:
        decided = f'"alarm":{_boolean(p.flagged)},' if self._alarms else ""
        if self._alarms and p.threshold is not None:
            decided += f'"threshold":{number(p.threshold)},'
        body = (
            f'{{"timestamp_ms":{round(p.time_s * 1000)},"key":{json.dumps(p.key, ensure_ascii=False)},'
            f'"context":{json.dumps(p.context, ensure_ascii=False)},'
            f'"{self._output}":{number(p.value)},{decided}"quality":{p.quality},"model_version":{p.version},'
            f'"variant":"{p.variant.value}"}}'
        )
        return Leaf(f"{self._root(p.instance)}/event", body.encode(), retain=False)


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _literal(value: LeafValue) -> str:
    """A leaf's value as JSON."""
    if isinstance(value, bool):
        return _boolean(value)
    return number(value) if isinstance(value, float) else json.dumps(value)


def _iso(stamp_ms: int) -> str:
    """UTC with milliseconds, as `2026-11-25T14:38:38.000Z`."""
    return datetime.fromtimestamp(stamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
