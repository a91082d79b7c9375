"""The real federation shell of an edge as a process of the simulation, around a workshop that trains by dice.

Participation, downloads, uploads, outbox and residual are the product's; only models and samples are stand-ins.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from edge.federation import Federation
from edge.outbox import Outbox, Waiting
from edge.participation import Counts, Participation
from edge.review import Review
from edge.trainer_client import Trained
from edge.updates import TrainedUpdate, Updates
from edge.variants import Served
from tests.faults.broker import FaultyBroker
from tests.faults.process import Mortal
from uns_topics.codes import Reason
from uns_topics.contract import Metric
from uns_topics.controls import split_full
from uns_topics.plan import Plan
from uns_topics.presence import Variant
from uns_topics.reports import Evaluation, FeatureCell, Figure, ModelScores, PartScores, Statistics, Sums
from uns_topics.rounds import RoundAnnouncement, VersionManifest
from uns_topics.standardisation import Moments
from uns_topics.steps import take_step
from uns_topics.template import Lineage, Template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes, vector_sha256

DELTA_NORM = 0.2
"""Of every delta: none is beyond the growth that a residual may have, which would leave a part of it out."""
TRAIN_S = 20.0
ROWS = 50
_UPDATE = "update-under-way"


@dataclass(frozen=True)
class Held:
    """A version as the workshop's callers use it."""

    template: Template
    vector: Vector
    lineage: Lineage
    control: None = None


@dataclass
class Disk:
    """What outlives a process: each write is whole or not there.

    Attributes:
        fate: may raise `Killed`, before a write and behind it.
        trained: the delta of each update that was ever kept to be sent, by its transfer; it outlives the disk.
    """

    fate: Callable[[], None]
    trained: dict[str, Vector]
    values: dict[str, bytes] = field(default_factory=dict)
    versions: dict[int, tuple[VersionManifest, Vector]] = field(default_factory=dict)
    served: int | None = None
    skeletons: set[str] = field(default_factory=set)

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put_all(self, changes: Mapping[str, bytes | None]) -> None:
        self.fate()
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        if (raw := changes.get(_UPDATE)) is not None:
            head, _, rest = raw.partition(b"\n")
            waiting = Waiting.model_validate_json(head)
            self.trained[waiting.transfer] = vector_from_bytes(rest[: 4 * waiting.elements], waiting.elements)
        self.fate()

    def mark(self, name: str, count: int) -> None:
        self.fate()


class DiceWorkshop:
    """Stands in for `edge.workshop.Workshop`: what it does takes a while and depends on names and hashes alone.

    Args: samples: which ones it learns from: other ones once its disk is another one.
    """

    def __init__(self, name: str, template: Template, disk: Disk, rng: random.Random, samples: int) -> None:
        self.updates = Updates(name, disk, None, None)  # type: ignore[arg-type] # a disk of ours, and no threads
        self.plan: Plan | None = None
        self._name = name
        self._samples = samples
        self._template = template
        self._disk = disk
        self._rng = rng
        self._held: dict[str, Held] = {}

    def follow(self, plan: Plan) -> bool:
        self.plan = plan
        self.updates.follow(plan)
        return plan.template.sha256 in self._disk.skeletons

    async def check_template(self, plan: Plan, skeleton: bytes) -> str | None:
        assert skeleton == self._template.skeleton
        self._disk.skeletons.add(plan.template.sha256)
        return None

    async def verify(
        self, manifest: VersionManifest, content: bytes, parent: VersionManifest | None = None
    ) -> str | None:
        table = self._template.table
        if parent is None:
            vector, _ = split_full(content, table, control=False)
        elif parent.sha256 not in self._held:
            return "its parent is gone"
        else:
            vector, _ = take_step(self._held[parent.sha256].vector, content, table)
        if vector_sha256(vector) != manifest.sha256:
            return "another vector"
        self._held[manifest.sha256] = Held(self._template, vector, manifest.lineage)
        return None

    async def keep(self, manifest: VersionManifest, held: Mapping[int, VersionManifest]) -> None:
        self._disk.fate()
        self._disk.versions[manifest.version] = (manifest, self._held[manifest.sha256].vector)
        kept = {*held, self._disk.served}
        self._disk.versions = {v: entry for v, entry in self._disk.versions.items() if v in kept}

    def restore(self) -> VersionManifest | None:
        found = self._disk.versions.get(self._disk.served) if self._disk.served is not None else None
        if found is None:
            return None
        manifest, vector = found
        assert vector_sha256(vector) == manifest.sha256, "half a model lies on the disk"
        self._held[manifest.sha256] = Held(self._template, vector, manifest.lineage)
        return manifest

    decisions = SimpleNamespace(held=None)

    def is_succession(self, manifest: VersionManifest) -> bool:
        """There is one generation."""
        del manifest
        return False

    async def why_not_yet(self, manifest: VersionManifest) -> None:
        """A version of the same generation takes the place of the one before at once."""
        del manifest

    async def enter(self, manifest: VersionManifest) -> Served:
        return self.offer(manifest)

    def offer(self, manifest: VersionManifest) -> Served:
        return Served(self._held[manifest.sha256], manifest.version, Variant.GLOBAL)  # type: ignore[arg-type]

    async def mark_served(self, manifest: VersionManifest) -> None:
        self._disk.fate()
        self._disk.served = manifest.version

    async def train(self, announcement: RoundAnnouncement) -> TrainedUpdate | Reason:
        await asyncio.sleep(self._rng.uniform(0.1, TRAIN_S))
        model = self._held[announcement.base_sha256]
        drawn_from = f"{self._name} {self._samples} {announcement.round_number} {announcement.base_sha256}"
        seed = hashlib.sha256(drawn_from.encode()).digest()
        table = self._template.table
        delta = np.zeros(table.size, np.float32)
        drawn = np.random.default_rng(list(seed)).normal(size=table.elements(Role.WEIGHT))
        drawn *= DELTA_NORM / np.linalg.norm(drawn)
        table.scatter(delta, Role.WEIGHT, drawn.astype(np.float32))
        trained = Trained(delta, num_steps=5, num_examples=10 + seed[0], loss=0.5)
        return await self.updates.pack(announcement, model, trained, None, 0.0, 0)  # type: ignore[arg-type]

    async def train_local(self, announcement: RoundAnnouncement) -> None:
        del announcement

    async def trainer_reason(self) -> Reason | None:
        return None

    async def statistics(self, generation: int) -> Statistics:
        names = self._template.contract.feature_names
        cells = tuple(
            FeatureCell(slot=0, feature=n, moments=Moments(n=100, sum=40.0 + len(self._name), sum_squares=25.0))
            for n in names
        )
        return Statistics(generation=generation, rows=100, label_counts=(90, 10), cells=cells)

    async def compare(self, candidate: VersionManifest, current: VersionManifest | None) -> Evaluation:
        await asyncio.sleep(self._rng.uniform(0.0, 2.0))

        def loss(manifest: VersionManifest) -> Sums:
            value = 1.0 - 0.01 * manifest.version + (0.2 if int(manifest.sha256[:2], 16) < 64 else 0.0)
            return Sums(n=ROWS, sum=ROWS * value, sum_squares=ROWS * value * value)

        figure = Figure(value=None, n=ROWS, undecided=True)
        models: dict[Any, ModelScores] = {"candidate": ModelScores(loss=loss(candidate), metric=figure)}
        difference = None
        if current is not None:
            models["current"] = ModelScores(loss=loss(current), metric=figure)
            by = loss(candidate).mean - loss(current).mean
            difference = Sums(n=ROWS, sum=ROWS * by, sum_squares=ROWS * by * by)
        return Evaluation(
            generation=candidate.generation,
            candidate=candidate.version,
            current=current.version if current is not None else None,
            metric=Metric.AVERAGE_PRECISION,
            select=PartScores(n=ROWS, models=models, candidate_minus_current=difference),
        )

    async def review(self, manifest: VersionManifest, *, final: bool) -> Review:
        del manifest, final
        return Review(None, None)


class EdgeProcess(Mortal):
    """Runs until it is stopped, however often it is killed. Attributes: runs: what is on its tags."""

    def __init__(
        self, name: str, template: Template, broker: FaultyBroker, rng: random.Random, now: Callable[[], float]
    ) -> None:
        super().__init__(f"{name}-fl", broker, rng)
        self.name = name
        self.trained: dict[str, Vector] = {}
        self.wipes = 0
        self.disk = Disk(self.write, self.trained)
        self.core: Participation | None = None
        self.runs: Served | None = None
        self._template = template
        self._now = now
        self._stopping = False
        self._federation: Federation | None = None

    async def run(self) -> None:
        """One life after the other."""
        while not self._stopping:
            await self.live(asyncio.create_task(self._live()))

    async def _live(self) -> None:
        workshop = DiceWorkshop(self.name, self._template, self.disk, self._rng, self.wipes)
        core = Participation(self.name, "tiny", approved=None, covers=lambda _: None)
        restored = workshop.restore()
        if restored is not None:
            core.restored = restored
            core.on_swapped(restored.version, Variant.LAST_GOOD)
            self.runs = workshop.offer(restored)
        federation = Federation(
            self._broker.connector(),
            "tiny",
            core,
            workshop,  # type: ignore[arg-type]
            participant=self.name,
            boot=f"{self._rng.getrandbits(32):08x}",
            chunk_bytes=None,
            serve=self._serve,
            on_plan=lambda _: None,
            on_reference=lambda _: None,
            traffic=dict,
            rng=self._rng,
            clock=self._now,
        )
        self.core, self._federation = core, federation
        core.on_counts(Counts(samples=100, matured=100, new=100, trainable=60))
        core.on_trainer(None)
        await federation.run()

    @property
    def failed(self) -> dict[str, int]:
        """Effects of this life that came to nothing: a bug here or in the product."""
        return dict(self._federation.failed) if self._federation is not None else {}

    def wipe(self) -> None:
        """Its machine is replaced: the same name on an empty disk."""
        self.kill()
        self.wipes += 1
        self.disk = Disk(self.write, self.trained)

    async def stop(self) -> None:
        """As by SIGTERM."""
        self._stopping = True
        if self._federation is not None:
            await self._federation.close()

    def outbox(self, plan: Plan) -> Outbox:
        """What lies on the disk at the end."""
        updates = Updates(self.name, self.disk, None, None)  # type: ignore[arg-type]
        updates.follow(plan)
        return updates.outbox()

    def _serve(self, served: Served) -> None:
        self.runs = served

    def _die(self) -> None:
        super()._die()
        self.runs = None


def served_bytes(process: EdgeProcess) -> bytes:
    """The vector that runs on its tags."""
    assert process.runs is not None
    return vector_bytes(process.runs.model.vector)
