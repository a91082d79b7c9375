"""What a participant's core asks its shell to do: frozen values, each with the call that it is answered by."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_bridge.downloads import Subscribe, Unsubscribe
from uns_topics.plan import Plan
from uns_topics.rounds import RoundAnnouncement, VersionManifest


@dataclass(frozen=True, slots=True)
class CheckTemplate:
    """Check this skeleton against the plan; answer with `on_template`."""

    plan: Plan
    skeleton: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifyVersion:
    """Build and check this version; answer with `on_verified`."""

    manifest: VersionManifest
    content: bytes = field(repr=False)
    parent: VersionManifest | None = None
    """The content is the step from this version; None: the whole vector."""


@dataclass(frozen=True, slots=True)
class Swap:
    """This version is current: run it, or what was chosen in its place; answer with `on_swapped`."""

    manifest: VersionManifest


@dataclass(frozen=True, slots=True)
class Train:
    """Train for this round on a snapshot taken now; answer with `on_trained`."""

    announcement: RoundAnnouncement


@dataclass(frozen=True, slots=True)
class AskAgain:
    """A newer round waits for the answer to the update under way: ask for it now."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Score candidate and current on the round's snapshot and publish."""

    candidate: VersionManifest
    current: VersionManifest | None


@dataclass(frozen=True, slots=True)
class FinalFigures:
    """The plan's last round is done and this is the model: publish the final figures."""

    current: VersionManifest


@dataclass(frozen=True, slots=True)
class PublishStatistics:
    """Publish this generation's statistics."""

    generation: int


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """What is said of this participant changed."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a person should read once."""

    text: str


Effect = (
    Subscribe
    | Unsubscribe
    | CheckTemplate
    | VerifyVersion
    | Swap
    | Train
    | AskAgain
    | Evaluate
    | FinalFigures
    | PublishStatistics
    | PublishStatus
    | Warn
)
