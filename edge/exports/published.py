"""What one edge publishes, as its readers need to know it. Every export is made from this, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.config import EdgeConfig
from edge.leaves import LeafSpec
from edge.outputs import Profile, alive_topic, instance_root
from edge.signal_map import SignalMap
from uns_topics.contract import Contract, RunToFailureLabel
from uns_topics.filters import TopicPattern

EVENT = "event"
"""The leaf beside the retained ones that says each inference as one object, for MES."""


class ExportError(ValueError):
    """Nothing can be exported as asked; the text is a sentence for people."""


@dataclass(frozen=True)
class Published:
    """One edge's inference in the plant's tree.

    Attributes:
        output: the value's leaf. unit, low, high: what it is in; None where the contract sets no bound.
        pattern: an instance's path, captured segments by name.
        out_root: stands before the path.
        instances: paths, sorted.
        alive: topic of the one leaf per edge, a bare `true` or `false` in every profile.
    """

    federation: str
    participant: str
    title: str
    output: str
    unit: str
    low: float | None
    high: float | None
    profile: Profile
    specs: tuple[LeafSpec, ...]
    pattern: TopicPattern
    out_root: str | None
    instances: tuple[str, ...]
    alive: str

    def root(self, instance: str) -> str:
        """The path of an instance's leaves."""
        return instance_root(instance, self.federation, self.out_root)

    def topic(self, instance: str, spec: LeafSpec) -> str:
        """Where a leaf is published."""
        return f"{self.root(instance)}/{spec.name}"


def describe(config: EdgeConfig, contract: Contract, signal_map: SignalMap, instances: Sequence[str]) -> Published:
    """What this edge publishes for these instances.

    Raises: ExportError: no instance, or one that the signal map doesn't make.
    """
    pattern = TopicPattern(signal_map.instance)
    known = tuple(sorted({*instances, *(() if pattern.names else (signal_map.instance,))}))
    if strange := [path for path in known if pattern.match(path) is None]:
        raise ExportError(f"{strange[0]!r} is no instance of {signal_map.instance!r}, which the signal map names")
    if not known:
        raise ExportError(
            f"no instance of {signal_map.instance!r} is known yet: run the edge until it has a sample, or name them "
            "with --instance"
        )
    label, inference = contract.label, config.inference
    return Published(
        federation=config.federation,
        participant=config.participant,
        title=contract.title or config.federation,
        output=contract.output_name,
        unit=contract.output_unit,
        low=None if label.kind == "none" else 0.0,
        high=label.cap if isinstance(label, RunToFailureLabel) else (None if label.kind == "none" else 1.0),
        profile=inference.profile,
        specs=inference.outputs(config.federation, contract).specs,
        pattern=pattern,
        out_root=inference.out_root,
        instances=known,
        alive=alive_topic(inference.home_of(signal_map.instance_prefixes()), config.federation, config.participant),
    )
