"""What comes down to a plant: the federation's retained topics, mirrored as they came; model bytes only while somebody
behind the bridge wants them. A pure core, one per federation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker_bridge.bridge.custody import Mirrored, mirror_name
from broker_bridge.downloads import Downloads, Fetched, Subscribe, Unsubscribe
from uns_topics.controls import full_bytes
from uns_topics.model import Value
from uns_topics.plan import Plan
from uns_topics.presence import Want
from uns_topics.rounds import VersionManifest
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import Chunk, TransferManifest

MIRRORED = (
    Kind.AGGREGATOR_STATUS,
    Kind.PLAN,
    Kind.ROUND,
    Kind.MODEL_CURRENT,
    Kind.MODEL_CANDIDATE,
    Kind.REFERENCE,
    Kind.HISTORY,
)
"""JSON that every plant of the federation gets; `receipt` and `to` go to the one that they name."""

LINGER_S = 5.0
"""A promoted candidate is cleared from one topic and announced on another: what nobody needs in between stays."""

_VERSIONS = {Kind.MODEL_CURRENT: Want.CURRENT, Kind.MODEL_CANDIDATE: Want.CANDIDATE}


@dataclass(frozen=True, slots=True)
class Mirror:
    """Put this on the plant's broker, retained; empty clears the topic."""

    topic: FlTopic
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keep:
    """A transfer is whole: keep it durably, then put its chunks on the plant's broker; answer with `on_kept`."""

    manifest: TransferManifest
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rechunk:
    """The same bytes stand in other chunks now."""

    old: TransferManifest
    new: TransferManifest


@dataclass(frozen=True, slots=True)
class Drop:
    """Nobody needs this transfer any more: clear its chunks from the plant's broker and forget it."""

    manifest: TransferManifest


@dataclass(frozen=True, slots=True)
class PlanCame:
    """The plan by which updates are judged from now on."""

    plan: Plan
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WantsChanged:
    """What the next broker lacks has changed: the bridge's presence says it."""


Effect = Mirror | Keep | Rechunk | Drop | PlanCame | WantsChanged | Subscribe | Unsubscribe


class Downward:
    """One federation's way down.

    Args:
        plan: as it was kept.
        mirrored: transfers that are on the plant's broker, or were being cleared.
    """

    def __init__(self, federation: str, plan: Plan | None, mirrored: Iterable[Mirrored]) -> None:
        self._federation = federation
        self._downloads = Downloads(federation)
        self._plan = plan
        self._versions: dict[Kind, VersionManifest] = {}
        self._wants: dict[str, frozenset[Want]] = {}
        self._held: dict[str, TransferManifest] = {}
        self._leftovers: list[TransferManifest] = []
        for one in mirrored:
            if one.content is not None:
                self._held[one.name] = one.manifest
            else:
                self._leftovers.append(one.manifest)
        self._keeping: set[str] = set()
        self._obsolete: dict[str, float] = {}
        self._seen: set[Kind] = set()
        self._said: tuple[Want, ...] = ()

    @property
    def wants(self) -> tuple[Want, ...]:
        """What the next broker should have and doesn't."""
        stalled = self._downloads.stalled
        return tuple(want for want, manifest in self._by_want.items() if manifest.id in stalled)

    def held(self, want: Want) -> TransferManifest | None:
        """What answers this want, where it is on the plant's broker already."""
        manifest = self._by_want.get(want)
        return manifest if manifest is not None and self.is_held(manifest) else None

    def is_held(self, manifest: TransferManifest) -> bool:
        """Whether this transfer is on the plant's broker, or will be."""
        name = mirror_name(manifest)
        return name in self._held or name in self._keeping

    @property
    def _by_want(self) -> dict[Want, TransferManifest]:
        """What would answer each want."""
        found = {Want.SKELETON: self._plan.template.skeleton} if self._plan is not None else {}
        return found | {_VERSIONS[kind]: version.full for kind, version in self._versions.items()}

    @property
    def deadline(self) -> float | None:
        """When to call `on_time`."""
        times = [since + LINGER_S for since in self._obsolete.values()]
        if self._downloads.deadline is not None:
            times.append(self._downloads.deadline)
        return min(times, default=None)

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk that is being waited for."""
        sizes = [m.chunk_bytes for m in self._due(with_all=True)]
        return max(sizes, default=0)

    def start(self) -> list[Effect]:
        """What an earlier life left half done."""
        leftovers, self._leftovers = self._leftovers, []
        return [Drop(manifest) for manifest in leftovers]

    def on_json(self, topic: FlTopic, payload: bytes, body: Value | None, now: float) -> list[Effect]:
        """One of the `MIRRORED` topics came; `body` is None where it was cleared."""
        self._seen.add(topic.kind)
        effects: list[Effect] = []
        if isinstance(body, Plan):  # whoever sees it at the plant may send an update at once
            self._plan = body
            effects.append(PlanCame(body, payload))
        effects.append(Mirror(topic, payload))
        if topic.kind in _VERSIONS:
            self._versions.pop(topic.kind, None)
            if isinstance(body, VersionManifest) and self._fits(body):
                self._versions[topic.kind] = body
        return [*effects, *self._follow(now)]

    def on_wants(self, participant: str, wants: Iterable[Want], now: float) -> list[Effect]:
        """A participant's status says what it is fetching."""
        self._wants[participant] = frozenset(wants)
        return self._follow(now)

    def on_chunk(self, chunk: Chunk, now: float) -> list[Effect]:
        """A chunk came. Raises: IntegrityError: it is not what its manifest lists."""
        return [*self._taken(self._downloads.on_chunk(chunk, now)), *self._said_wants()]

    def on_kept(self, manifest: TransferManifest) -> None:
        """A transfer is durable here."""
        self._keeping.discard(mirror_name(manifest))
        self._held[mirror_name(manifest)] = manifest

    def on_not_kept(self, manifest: TransferManifest) -> None:
        """It couldn't be stored; it will be fetched again when something else changes."""
        self._keeping.discard(mirror_name(manifest))

    def on_connected(self, now: float) -> list[Effect]:
        """A new session leads the way down: subscribe again to what is missing, and only to that."""
        self._seen.clear()
        return self._taken(self._downloads.on_connected(now))

    def on_time(self, now: float) -> list[Effect]:
        """The deadline passed."""
        return [*self._taken(self._downloads.on_time(now)), *self._follow(now)]

    def reconcile(self, noted: Iterable[FlTopic], now: float) -> list[Effect]:
        """Some time after a connect: what this bridge had mirrored and the next broker no longer has, was cleared.

        Only where the plan came: a broker that lost everything has cleared nothing, and hears it all again.
        """
        if Kind.PLAN not in self._seen:
            return []
        gone = [topic for topic in noted if topic.kind in MIRRORED and topic.kind not in self._seen]
        return [effect for topic in gone for effect in self.on_json(topic, b"", None, now)]

    # ------------------------------------------------------------------------------------------------------------------

    def _fits(self, version: VersionManifest) -> bool:
        """Whether a model is as large as the plan's tensors: nothing larger is fetched or stored."""
        plan = self._plan
        return plan is None or version.full.bytes == full_bytes(plan.template.table, control=plan.control)

    def _due(self, *, with_all: bool = False) -> list[TransferManifest]:
        """What should be on the plant's broker: the skeleton, deltas, and full models that are wanted."""
        wanted = frozenset[Want]().union(*self._wants.values())
        due = [self._plan.template.skeleton] if self._plan is not None else []
        for kind, version in self._versions.items():
            if version.delta is not None:
                due.append(version.delta)
            begun = mirror_name(version.full) in self._held or version.full.id in self._downloads.active
            if with_all or begun or _VERSIONS[kind] in wanted:
                due.append(version.full)
        return due

    def _follow(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        due = {mirror_name(m): m for m in self._due()}
        if self._versions:  # without any, nothing is known of what is still needed
            self._obsolete = {name: self._obsolete.get(name, now) for name in self._held if name not in due}
            dropped = [name for name, since in self._obsolete.items() if now - since >= LINGER_S]
            effects += [Drop(self._held.pop(name)) for name in dropped if self._obsolete.pop(name, None) is not None]
        effects += self._taken(self._downloads.only({m.id for m in due.values()}))
        for name, manifest in due.items():
            held = self._held.get(name)
            if held is None and name not in self._keeping:
                effects += self._taken(self._downloads.want(manifest, now))
            elif held is not None and held != manifest:
                self._held[name] = manifest
                effects.append(Rechunk(held, manifest))
        return [*effects, *self._said_wants()]

    def _taken(self, effects: Iterable[Subscribe | Unsubscribe | Fetched]) -> list[Effect]:
        out: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Fetched):
                out.append(effect)
                continue
            for manifest in self._due():
                name = mirror_name(manifest)
                if manifest.id == effect.manifest.id and name not in self._held and name not in self._keeping:
                    self._keeping.add(name)
                    out.append(Keep(manifest, effect.content))
        return out

    def _said_wants(self) -> list[Effect]:
        wants = self.wants
        if wants == self._said:
            return []
        self._said = wants
        return [WantsChanged()]
