"""What a participant does about what the aggregator says. A pure core: calls in, effects out, time passed in.

It follows plan, versions and rounds; decides what to fetch, when to train and when to evaluate; and knows what to say
of itself. It holds no model bytes longer than it needs to hand them on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker_bridge.downloads import Downloads, Fetched, Subscribe, Unsubscribe
from edge.participation_effects import (
    AskAgain,
    CheckTemplate,
    Effect,
    Evaluate,
    FinalFigures,
    PublishStatistics,
    PublishStatus,
    Swap,
    Train,
    VerifyVersion,
    Warn,
)
from uns_topics.codes import Reason
from uns_topics.contract import Contract
from uns_topics.encodings import ENCODINGS
from uns_topics.plan import Plan
from uns_topics.presence import (
    MAX_MISSING,
    AggregatorStatus,
    ParticipantState,
    ParticipantStatus,
    Route,
    Serves,
    Variant,
    Want,
)
from uns_topics.rounds import RoundAnnouncement, VersionManifest
from uns_topics.transfers import Chunk, TransferManifest


@dataclass(frozen=True, slots=True)
class Counts:
    """What the sample store holds."""

    samples: int = 0
    matured: int = 0
    new: int = 0
    trainable: int = 0
    """Matured samples in the training part."""


class Participation:
    """One participant in one federation.

    Args:
        participant, federation: who and where.
        approved: hash of the approved contract, or None to approve any (`approve: any`).
        covers: says why the signal map can't feed a contract, or None where it can.
        missing: names the contract's features that it lacks.
    """

    def __init__(
        self,
        participant: str,
        federation: str,
        *,
        approved: str | None,
        covers: Callable[[Contract], str | None],
        missing: Callable[[Contract], Sequence[str]] = lambda _: (),
    ) -> None:
        self._participant = participant
        self._approved = approved
        self._covers = covers
        self._missing_in = missing
        self.missing: tuple[str, ...] = ()
        """Features of the plan's contract that nothing feeds here."""
        self.behind: str | None = None
        """Why the plan can't be followed, for this plant's own people; None where it is."""
        self.downloads = Downloads(federation)
        self.restored: VersionManifest | None = None
        """What the disk still had at the start, proven: it need not be fetched again."""
        self.plan: Plan | None = None
        self.counts = Counts()
        self.held: dict[int, VersionManifest] = {}
        """Versions held here, verified, of the plan's generation."""
        self.serves: Serves | None = None
        self.trainer_reason: Reason | None = Reason.NO_TRAINER
        """Why training is not possible now; None where it is."""
        self.data_reason: Reason | None = None
        """The data-quality gate's word; None where it passes."""
        self.swap_held = False
        self.paused = False
        self.route: Route | None = None
        """The bridges between this participant and its aggregator; None where there are none."""
        self._current: VersionManifest | None = None
        self._candidate: VersionManifest | None = None
        self._said_current: VersionManifest | None = None
        self._said_candidate: VersionManifest | None = None
        self._said_round: RoundAnnouncement | None = None
        self._template: str | None = None
        self._plan_reason: Reason | None = Reason.NO_PLAN
        self._round: RoundAnnouncement | None = None
        self._answered: tuple[int, str] | None = None
        self._training: RoundAnnouncement | None = None
        self._is_sending = False
        self._asked_for: tuple[int, str] | None = None
        """The round for which the answer to the update under way was asked again."""
        self._evaluated: str | None = None
        self._finished: int | None = None
        self._swapped: tuple[int, str] | None = None
        """The current version that was last handed on to run; what runs may be another model."""
        self._statistics_of: int | None = None
        self._epoch = 0
        self._plan_epoch = 0
        self._verifying: set[str] = set()
        self._refused: set[str] = set()
        self._whole: set[str] = set()
        """Hashes of versions whose step was of no use: they are fetched whole."""

    # What comes in ---------------------------------------------------------------------------------------------------

    def on_aggregator(self, status: AggregatorStatus) -> list[Effect]:
        """Presence of the aggregator."""
        if status.epoch >= self._epoch:
            self._meet(status.epoch)
        return []

    def on_route(self, route: Route | None) -> list[Effect]:
        """`down/to/<participant>/via` came; None where it was cleared."""
        changed, self.route = self.route != route, route
        return [PublishStatus()] if changed else []

    def on_disconnected(self) -> None:
        """What is said in the next session may be another aggregator's."""
        self._plan_epoch = 0

    def plan_problem(self, plan: Plan) -> str | None:
        """Why this plan can't follow the known one; None where it can.

        A change of meaning is a new generation. Only one who took over (a higher epoch, and maybe an empty store) may
        count generations from the start again.
        """
        known = self.plan
        if known is None or self._epoch > self._plan_epoch:
            return None
        if plan.generation < known.generation:
            return f"it is of generation {plan.generation}, and {known.generation} is known"
        if plan.generation == known.generation and _meaning(plan) != _meaning(known):
            return f"it gives generation {plan.generation} another meaning"
        return None

    def on_plan(self, plan: Plan, now: float, known_skeletons: frozenset[str] = frozenset()) -> list[Effect]:
        """A plan came, new or again; `known_skeletons` are hashes of those on disk."""
        if (problem := self.plan_problem(plan)) is not None:
            return [Warn(f"ignored a plan: {problem}")]
        is_new = self.plan is None or _meaning(plan) != _meaning(self.plan)
        is_other_contract = self.plan is not None and plan.contract_hash != self.plan.contract_hash
        if self.plan is None or plan.generation != self.plan.generation or is_new:
            self.held, self._current, self._candidate, self._answered = {}, None, None, None
            self._evaluated = self._finished = self._statistics_of = None
            if self.restored is not None and self.restored.generation == plan.generation:
                self.held = {self.restored.version: self.restored}
        self.plan = plan
        self._plan_epoch = max(self._plan_epoch, self._epoch)
        effects: list[Effect] = []
        self._plan_reason = self._reason_against(plan)
        if is_other_contract and self._plan_reason is None:
            self.counts = Counts()  # known ones are of samples of the former contract
        if self.behind is not None:
            effects.append(Warn(f"generation {plan.generation}: {self.behind}"))
        elif self._template != plan.template.sha256 and plan.template.sha256 not in known_skeletons:
            effects += self._fetch(plan.template.skeleton, now)
        # Retained copies come in any order: what was said before the plan is read again in its light.
        effects += self.on_current(self._said_current, now)
        effects += self.on_candidate(self._said_candidate, now)
        if self._said_round is not None:
            effects += self.on_round(self._said_round)
        return [*effects, *self._statistics(), PublishStatus()]

    def _reason_against(self, plan: Plan) -> Reason | None:
        """Why this plan can't be followed here; None where it can. What runs on the tags goes on either way."""
        self.behind, self.missing = None, ()
        if self._approved is not None and plan.contract_hash != self._approved:
            self.behind = f"the plan's contract {plan.contract_hash[:12]} is not the approved {self._approved[:12]}"
            return Reason.CONTRACT_NOT_APPROVED
        if (gap := self._covers(plan.contract)) is not None:
            self.behind = f"the signal map doesn't cover the plan's contract: {gap}"
            self.missing = tuple(self._missing_in(plan.contract))[:MAX_MISSING]
            return Reason.CONTRACT_NOT_COVERED
        return None

    def on_template(self, sha256: str, problem: str | None, now: float) -> list[Effect]:
        """The answer to `CheckTemplate`; also for a skeleton that was on disk."""
        if self.plan is None or sha256 != self.plan.template.sha256:
            return []
        if problem is not None:
            self._plan_reason = Reason.TEMPLATE_REFUSED
            return [Warn(f"the plan's template was refused: {problem}"), PublishStatus()]
        self._template = sha256
        return [*self._follow_versions(now), *self._try_train(), PublishStatus()]

    def on_current(self, manifest: VersionManifest | None, now: float) -> list[Effect]:
        """`down/model/current` came; None where it was cleared."""
        self._said_current = manifest
        if manifest is None or not self._is_fresh(manifest):
            return []
        self._current = manifest
        if self._candidate is not None and self._candidate.version == manifest.version:
            self._candidate = None
        return self._follow_versions(now)

    def on_candidate(self, manifest: VersionManifest | None, now: float) -> list[Effect]:
        """`down/model/candidate` came; None where it was cleared: promoted or refused."""
        self._said_candidate = manifest
        if manifest is not None and not self._is_fresh(manifest):
            return []
        self._candidate = manifest
        return self._follow_versions(now)

    def on_chunk(self, chunk: Chunk, now: float) -> list[Effect]:
        """A chunk of something that is being fetched. Raises: IntegrityError."""
        before = len(self._whole)
        effects = self._fetched(self.downloads.on_chunk(chunk, now))
        return [*effects, *self._follow_versions(now)] if len(self._whole) > before else effects

    def on_verified(
        self, manifest: VersionManifest, problem: str | None, now: float, *, by_step: bool = False
    ) -> list[Effect]:
        """The answer to `VerifyVersion`. A step that leads elsewhere says nothing against the version itself."""
        self._verifying.discard(manifest.sha256)
        if self.plan is None or manifest.generation != self.plan.generation:
            return []
        if problem is not None and by_step:
            self._whole.add(manifest.sha256)
            warning = Warn(f"version {manifest.version} is fetched whole, its step doesn't lead there: {problem}")
            return [warning, *self._follow_versions(now), PublishStatus()]
        if problem is not None:
            self._refused.add(manifest.sha256)
            warning = Warn(f"version {manifest.version} was refused: {problem}")
            return [warning, *self._follow_versions(now), PublishStatus()]
        self.held[manifest.version] = manifest
        return [*self._follow_versions(now), *self._try_train(), PublishStatus()]

    def on_swapped(self, version: int, variant: Variant, *, held: bool = False) -> list[Effect]:
        """What runs on the tags from now on: the answer to `Swap`, and the outcome of a review.

        Args: held: the current version would change the alarm rate too much, and waits for a person.
        """
        self.serves, self.swap_held = Serves(version=version, variant=variant), held
        return [PublishStatus()]

    def on_round(self, announcement: RoundAnnouncement) -> list[Effect]:
        """`down/round` came."""
        self._said_round = announcement
        if announcement.epoch < self._epoch or self.plan is None or announcement.generation != self.plan.generation:
            return []
        self._meet(announcement.epoch)
        self._round = announcement if announcement.state == "open" else None
        return self._try_train()

    def on_trained(self, reason: Reason | None) -> list[Effect]:
        """The answer to `Train`: the update is on its way, or why there is none (the round goes on without us)."""
        self._training = None
        if reason is not None:
            self.trainer_reason = reason if reason is not Reason.TRAINING_DIVERGED else self.trainer_reason
        return [*self._try_train(), PublishStatus()]

    def on_sending(self) -> None:
        """An update is under way, or one of an earlier process may be."""
        self._is_sending = True

    def on_answered(self, before: tuple[int, str] | None = None) -> list[Effect]:
        """It was answered, or there was none.

        Args: before: round and base of what was answered last, before a restart.
        """
        self._is_sending = False
        self._answered = self._answered or before
        return self._try_train()

    def on_trainer(self, reason: Reason | None) -> list[Effect]:
        """Whether training is possible."""
        changed, self.trainer_reason = self.trainer_reason != reason, reason
        return [*self._try_train(), PublishStatus()] if changed else []

    def on_counts(self, counts: Counts, data_reason: Reason | None = None) -> list[Effect]:
        """The store grew, or the quality gate spoke."""
        before = (self.counts, self.data_reason)
        self.counts, self.data_reason = counts, data_reason
        effects: list[Effect] = [*self._statistics(), *self._try_train()]
        if before != (counts, data_reason):
            effects.append(PublishStatus())
        return effects

    def on_connected(self, now: float) -> list[Effect]:
        """A new session: subscribe again to what is being fetched."""
        return self._fetched(self.downloads.on_connected(now))

    def on_time(self, now: float) -> list[Effect]:
        """The downloads' deadline passed. A step that stalls gives way to the whole vector, which can be asked for."""
        effects = self._fetched(self.downloads.on_time(now))
        stalled = self.downloads.stalled
        late = {m.sha256 for m in self._announced() if m.delta is not None and m.delta.id in stalled}
        if late:
            self._whole |= late
            effects += self._follow_versions(now)
        return [*effects, PublishStatus()]

    # What goes out ---------------------------------------------------------------------------------------------------

    @property
    def reason(self) -> Reason | None:
        """Why this participant doesn't take part in full; None where it does."""
        if self.paused:
            return Reason.PAUSED
        held = Reason.SWAP_HELD if self.swap_held else None
        for reason in (self._plan_reason, self._refusal, held, self.trainer_reason, self.data_reason):
            if reason is not None:
                return reason
        if self._too_few:
            return Reason.TOO_FEW_SAMPLES
        if self._current is not None and not self._holds(self._current):
            return Reason.FETCHING_MODEL
        return Reason.NO_MODEL if not self.held else None

    def status(self, birth: int) -> ParticipantStatus:
        """What to say of ourselves."""
        reason = self.reason
        state = ParticipantState.ONLINE
        if self.paused:
            state = ParticipantState.PAUSED
        elif self._training is not None:
            state = ParticipantState.TRAINING
        elif self._plan_reason not in (None, Reason.NO_PLAN) or self.data_reason is not None:
            state = ParticipantState.HOLD
        can_train = (
            self._plan_reason is None
            and self.trainer_reason is None
            and self.data_reason is None
            and not self._too_few
            and not self.paused
            and self._has_template
        )
        approved = self.plan is not None and self._plan_reason not in (Reason.CONTRACT_NOT_APPROVED, Reason.NO_PLAN)
        return ParticipantStatus(
            birth=birth,
            state=state,
            samples=self.counts.samples,
            new_samples=self.counts.new,
            holds_version=max(self.held, default=None),
            serves=self.serves,
            contract_hash=self.plan.contract_hash if self.plan is not None and approved else self._approved,
            generation=self.plan.generation if self.plan is not None else None,
            can_train=can_train,
            encodings=tuple(ENCODINGS),
            wants=self._wants(),
            via=self.route.bridges if self.route is not None else (),
            reason=reason,
            missing=self.missing,
        )

    # Decisions -------------------------------------------------------------------------------------------------------

    @property
    def _has_template(self) -> bool:
        """Whether the plan's template was checked; one of an earlier plan proves no version of this one."""
        return self.plan is not None and self._template == self.plan.template.sha256

    @property
    def _too_few(self) -> bool:
        return self.plan is not None and self.counts.trainable < self.plan.contract.quality.min_samples

    @property
    def _refusal(self) -> Reason | None:
        """Whether a version that is announced now was refused here."""
        announced = {m.sha256 for m in self._announced()}
        return Reason.MODEL_REFUSED if announced & self._refused else None

    def _holds(self, manifest: VersionManifest) -> bool:
        """Whether these very bytes are here: a number alone may be claimed by others."""
        known = self.held.get(manifest.version)
        return known is not None and (known.sha256, known.control) == (manifest.sha256, manifest.control)

    def _is_fresh(self, manifest: VersionManifest) -> bool:
        if self.plan is None or manifest.generation != self.plan.generation or manifest.epoch < self._epoch:
            return False
        self._meet(manifest.epoch)
        return True

    def _meet(self, epoch: int) -> None:
        """An epoch that is no lower than any before. A raised one is another store's, maybe restored from a backup: it
        may know nothing of what was answered here, and opens a round of the same number again, or makes the very same
        version once more."""
        if 0 < self._epoch < epoch:
            self._answered = self._evaluated = self._candidate = None
        self._epoch = epoch

    def _statistics(self) -> list[Effect]:
        if self.plan is None or self._plan_reason is not None or self._too_few or self.data_reason is not None:
            return []
        if self._statistics_of == self.plan.generation:
            return []
        self._statistics_of = self.plan.generation
        return [PublishStatistics(self.plan.generation)]

    def _follow_versions(self, now: float) -> list[Effect]:
        """Fetch, serve and evaluate whatever current and candidate now call for."""
        if not self._has_template or self._plan_reason is not None:
            return []
        wanted = self._announced()
        self._whole &= {m.sha256 for m in wanted}
        sources = {m.sha256: self._source(m) for m in wanted}
        keep = {source.id for source in sources.values() if source is not None}
        effects: list[Effect] = list(self._fetched(self.downloads.only(keep)))
        for manifest in wanted:
            if self._holds(manifest):
                self.held[manifest.version] = manifest
            elif manifest.sha256 not in self._verifying | self._refused:
                source = sources[manifest.sha256]
                effects += self._fetch(source, now) if source is not None else []
        effects += self._serve_current()
        candidate = self._candidate
        if candidate is not None and self._holds(candidate) and self._evaluated != candidate.sha256:
            self._evaluated = candidate.sha256
            current = self._current if self._current is not None and self._holds(self._current) else None
            effects.append(Evaluate(candidate, current))
        newest = {m.version for m in wanted} | ({self.serves.version} if self.serves else set())
        newest |= {m.lineage.parent for m in wanted if m.lineage.parent is not None and not self._holds(m)}
        self.held = {v: m for v, m in self.held.items() if v in newest}
        return effects

    def _announced(self) -> list[VersionManifest]:
        return [m for m in (self._current, self._candidate) if m is not None]

    def _parent(self, manifest: VersionManifest) -> VersionManifest | None:
        """The version that its step starts from, where it is held here."""
        return self.held.get(manifest.lineage.parent) if manifest.lineage.parent is not None else None

    def _source(self, manifest: VersionManifest) -> TransferManifest | None:
        """What to fetch for a version: the step where its parent is held, else the whole vector.

        None while the parent is on its way: the step will do then.
        """
        step = manifest.delta
        if step is None or manifest.sha256 in self._whole or manifest.full.id in self.downloads.active:
            return manifest.full
        if self._parent(manifest) is not None:
            return step
        current = self._current
        if current is None or current is manifest or current.version != manifest.lineage.parent:
            return manifest.full
        return manifest.full if current.sha256 in self._refused else None

    def _serve_current(self) -> list[Effect]:
        current = self._current
        if current is None or not self._holds(current):
            return []
        effects: list[Effect] = []
        if self._swapped != (current.version, current.sha256):
            self._swapped = (current.version, current.sha256)
            effects.append(Swap(current))
        if current.final and self._finished != current.version:
            self._finished = current.version
            effects.append(FinalFigures(current))
        return effects

    def _try_train(self) -> list[Effect]:
        announcement = self._round
        if announcement is None or self._training is not None or self._participant not in announcement.cohort:
            return []
        mark = (announcement.round_number, announcement.base_sha256)
        if self._answered == mark:
            return []
        if self._is_sending:  # its answer says whether it counts; were it taken for lost, it could count twice
            if self._asked_for == mark:
                return []
            self._asked_for = mark
            return [AskAgain()]
        base = self.held.get(announcement.base)
        if base is None or base.sha256 != announcement.base_sha256:
            return []
        if self.trainer_reason or self.data_reason or self._plan_reason or self._too_few or self.paused:
            return []
        self._training = announcement
        self._answered = mark
        return [Train(announcement), PublishStatus()]

    def _fetch(self, manifest: TransferManifest, now: float) -> list[Effect]:
        """Fetch a transfer; what is fetched is part of the status where bridges are on the way."""
        effects = self._fetched(self.downloads.want(manifest, now))
        return [*effects, PublishStatus()] if effects and self.route is not None else effects

    def _fetched(self, effects: Sequence[Subscribe | Unsubscribe | Fetched]) -> list[Effect]:
        """Pass subscriptions on; turn whole transfers into checks."""
        out: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Fetched):
                out.append(effect)
            elif effect.manifest.kind == "skeleton":
                if self.plan is not None and effect.manifest.sha256 == self.plan.template.sha256:
                    out.append(CheckTemplate(self.plan, effect.content))
            else:
                for manifest in self._announced():  # two versions may have the very same bytes
                    if self._holds(manifest):
                        continue
                    if manifest.full.id == effect.manifest.id:
                        self._verifying.add(manifest.sha256)
                        out.append(VerifyVersion(manifest, effect.content))
                    elif manifest.delta is not None and manifest.delta.id == effect.manifest.id:
                        parent = self._parent(manifest)
                        if parent is None:  # replaced meanwhile
                            self._whole.add(manifest.sha256)
                            continue
                        self._verifying.add(manifest.sha256)
                        out.append(VerifyVersion(manifest, effect.content, parent))
        return out

    def _wants(self) -> tuple[Want, ...]:
        """What the broker doesn't have: it stalls, or a bridge fetches full models only where they are wanted."""
        stalled = self.downloads.stalled if self.route is None else self.downloads.active
        sources = (
            (Want.SKELETON, self.plan.template.skeleton if self.plan else None),
            (Want.CURRENT, self._current.full if self._current else None),
            (Want.CANDIDATE, self._candidate.full if self._candidate else None),
        )
        return tuple(want for want, manifest in sources if manifest is not None and manifest.id in stalled)


def _meaning(plan: Plan) -> tuple[str, str, bool]:
    """What can't change within a generation."""
    return plan.contract_hash, plan.template.sha256, plan.control
