"""The participation core: what an edge does about what the aggregator says, in any order it is said."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from broker_bridge.downloads import STALLED_S, Subscribe, Unsubscribe
from edge.participation import Counts, Participation
from edge.participation_effects import (
    CheckTemplate,
    Effect,
    Evaluate,
    FinalFigures,
    PublishStatistics,
    PublishStatus,
    Swap,
    Train,
    VerifyVersion,
)
from tests.edge.versions import template_manifest
from uns_topics.codes import Reason
from uns_topics.contract import Contract
from uns_topics.plan import Plan, Strategy, Tolerances, Training
from uns_topics.presence import AggregatorStatus, ParticipantState, Route, Serves, Variant, Want
from uns_topics.rounds import ClientConfig, RoundAnnouncement, VersionManifest
from uns_topics.template import Lineage, Network, Template, TemplateInfo, make_template
from uns_topics.tensors import Role, Tensor, TensorTable, vector_bytes, vector_sha256
from uns_topics.transfers import KIB, chunk_of, make_manifest

CONTRACT = Contract.model_validate(
    {
        "federation": "solder-defect",
        "features": [{"name": "volume", "unit": "%", "minimum": 0, "maximum": 200}],
        "label": {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"},
        "sample": {"kind": "event", "key": "board"},
        "metric": "average_precision",
        "quality": {"min_samples": 50},
    }
)
TABLE = TensorTable(
    tensors=(Tensor(name="network.weight", shape=(4000,), role=Role.WEIGHT, offset=0, file_offset=100),)
)
ENOUGH = Counts(samples=200, matured=180, new=180, trainable=100)


def template() -> Template:
    graph = bytes([7 << 3 | 2, 0x90, 0x7D + 0]) + bytes(0x7D * 128 + 0x10)  # field 7, one long run of bytes
    network = Network(kind="mlp", hidden=(4,))
    return make_template(graph, TemplateInfo(network=network, contract=CONTRACT, output="score", table=TABLE))


TEMPLATE = template()


def plan(generation: int = 1) -> Plan:
    return Plan(
        generation=generation,
        contract=CONTRACT,
        contract_hash=CONTRACT.meaning_sha256,
        template=template_manifest(TEMPLATE),
        strategy=Strategy(),
        training=Training(),
        encodings=("f32",),
        tolerances=Tolerances(),
    )


def vector(version: int) -> np.ndarray:
    return np.full(TABLE.size, version, np.float32)


def version(number: int, epoch: int = 1, *, final: bool = False) -> VersionManifest:
    return VersionManifest(
        version=number,
        sha256=vector_sha256(vector(number)),
        generation=1,
        epoch=epoch,
        lineage=Lineage(origin="round", parent=number - 1),
        full=make_manifest(vector_bytes(vector(number)), "model", 15 * KIB, version=number),
        golden=(0.5,),
        final=final,
    )


def step(number: int) -> bytes:
    return b"step to version %d" % number


def stepped(number: int) -> VersionManifest:
    """A version that goes down as a step too."""
    delta = make_manifest(step(number), "delta", 15 * KIB, version=number)
    return version(number).model_copy(update={"delta": delta})


def announcement(number: int, base: int, cohort: tuple[str, ...] = ("berlin",), epoch: int = 1) -> RoundAnnouncement:
    return RoundAnnouncement(
        round_number=number,
        attempt=1,
        epoch=epoch,
        state="open",
        base=base,
        base_sha256=vector_sha256(vector(base)),
        generation=1,
        cohort=cohort,
        client=ClientConfig(training=Training(), encoding="f32"),
        seed=1,
        seconds_left=60,
    )


@dataclass
class Edge:
    """The core with a shell that answers every effect at once."""

    core: Participation = field(
        default_factory=lambda: Participation(
            "berlin", "solder-defect", approved=CONTRACT.meaning_sha256, covers=lambda _: None
        )
    )
    now: float = 0.0
    log: list[Effect] = field(default_factory=list)
    subscribed: set[str] = field(default_factory=set)
    refuse: str | None = None
    refuse_step: str | None = None

    def do(self, effects: list[Effect]) -> list[Effect]:
        self.log += effects
        for effect in effects:
            match effect:
                case Subscribe(topics):
                    self.subscribed |= set(topics)
                case Unsubscribe(topics):
                    self.subscribed -= set(topics)
                case CheckTemplate(the_plan, _):
                    self.do(self.core.on_template(the_plan.template.sha256, self.refuse, self.now))
                case VerifyVersion(manifest, content, None):
                    assert hashlib.sha256(content).hexdigest() == manifest.sha256
                    self.do(self.core.on_verified(manifest, self.refuse, self.now))
                case VerifyVersion(manifest, content, parent):
                    assert content == step(manifest.version)
                    assert parent in self.core.held.values()
                    self.do(self.core.on_verified(manifest, self.refuse_step, self.now, by_step=True))
                case Swap(manifest):
                    self.do(self.core.on_swapped(manifest.version, Variant.GLOBAL))
        return effects

    def deliver(self, content: bytes, manifest) -> None:  # type: ignore[no-untyped-def]
        for index in range(len(manifest.chunks)):
            self.do(self.core.on_chunk(chunk_of(content, manifest, index), 0.0))

    def of(self, kind: type) -> list[Effect]:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def ready(self, current: int = 1) -> Edge:
        """Plan, template, samples, trainer and the current version are all there."""
        self.do(self.core.on_counts(ENOUGH))
        self.do(self.core.on_trainer(None))
        self.do(self.core.on_plan(plan(), self.now))
        self.deliver(TEMPLATE.skeleton, plan().template.skeleton)
        self.serve(current)
        return self

    def serve(self, number: int, *, final: bool = False) -> None:
        manifest = version(number, final=final)
        self.do(self.core.on_current(manifest, self.now))
        self.deliver(vector_bytes(vector(number)), manifest.full)


def test_plan_skeleton_and_current_lead_to_serving() -> None:
    edge = Edge().ready()
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)
    status = edge.core.status(birth=1)
    assert (status.state, status.holds_version, status.can_train, status.reason) == (
        ParticipantState.ONLINE,
        1,
        True,
        None,
    )
    assert edge.subscribed == set()  # nothing is subscribed to once it is whole
    assert edge.of(PublishStatistics) == [PublishStatistics(1)]


def test_retained_messages_in_the_opposite_order_lead_to_the_same() -> None:
    edge = Edge()
    edge.do(edge.core.on_round(announcement(1, 1)))
    edge.do(edge.core.on_current(version(1), 0.0))
    edge.do(edge.core.on_plan(plan(), 0.0))
    edge.do(edge.core.on_counts(ENOUGH))
    edge.do(edge.core.on_trainer(None))
    edge.deliver(TEMPLATE.skeleton, plan().template.skeleton)
    edge.deliver(vector_bytes(vector(1)), version(1).full)
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)
    assert edge.of(Train) == [Train(announcement(1, 1))]


def test_a_round_is_trained_once_however_often_it_is_announced() -> None:
    edge = Edge().ready()
    for _ in range(3):
        edge.do(edge.core.on_round(announcement(1, 1)))
    assert len(edge.of(Train)) == 1
    assert edge.core.status(1).state is ParticipantState.TRAINING
    edge.do(edge.core.on_trained(None))
    edge.do(edge.core.on_round(announcement(1, 1)))
    assert len(edge.of(Train)) == 1
    edge.do(edge.core.on_round(announcement(2, 1)))
    assert len(edge.of(Train)) == 2


def test_a_round_for_others_is_not_trained() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_round(announcement(1, 1, cohort=("lyon",))))
    assert edge.of(Train) == []


def test_training_waits_for_the_base() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_round(announcement(2, 2)))
    assert edge.of(Train) == []
    edge.serve(2)
    assert edge.of(Train) == [Train(announcement(2, 2))]


def test_a_lower_epoch_is_ignored_from_then_on() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_round(announcement(1, 1, epoch=3)))
    edge.do(edge.core.on_trained(None))
    edge.do(edge.core.on_round(announcement(2, 1, epoch=2)))
    edge.do(edge.core.on_current(version(5, epoch=2), 0.0))
    assert len(edge.of(Train)) == 1
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)


def test_a_raised_epoch_asks_again_for_what_a_lost_store_had() -> None:
    """An aggregator that was restored from a backup opens the same round again, and makes the same version."""
    edge = Edge().ready()
    edge.do(edge.core.on_round(announcement(1, 1)))
    edge.do(edge.core.on_trained(None))
    edge.do(edge.core.on_candidate(version(2), 0.0))
    edge.deliver(vector_bytes(vector(2)), version(2).full)
    edge.do(edge.core.on_aggregator(AggregatorStatus(birth=1, state="online", epoch=2)))
    edge.do(edge.core.on_current(version(1, epoch=2), 0.0))
    edge.do(edge.core.on_round(announcement(1, 1, epoch=2)))
    edge.do(edge.core.on_trained(None))
    edge.do(edge.core.on_candidate(version(2, epoch=2), 0.0))
    edge.deliver(vector_bytes(vector(2)), version(2).full)
    assert len(edge.of(Train)) == 2
    assert edge.of(Evaluate) == [Evaluate(version(2), version(1)), Evaluate(version(2, epoch=2), version(1, epoch=2))]


def test_candidate_and_current_are_compared_once() -> None:
    edge = Edge().ready()
    for _ in range(2):
        edge.do(edge.core.on_candidate(version(2), 0.0))
        edge.deliver(vector_bytes(vector(2)), version(2).full)
    assert edge.of(Evaluate) == [Evaluate(version(2), version(1))]
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)
    edge.do(edge.core.on_current(version(2), 0.0))
    edge.do(edge.core.on_candidate(None, 0.0))
    assert edge.core.serves == Serves(version=2, variant=Variant.GLOBAL)


def test_a_promoted_candidate_is_not_fetched_again() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_candidate(version(2), 0.0))
    edge.deliver(vector_bytes(vector(2)), version(2).full)
    before = len(edge.of(Subscribe))
    edge.do(edge.core.on_current(version(2), 0.0))
    assert len(edge.of(Subscribe)) == before


def test_the_last_version_brings_the_final_figures_once() -> None:
    edge = Edge().ready()
    for _ in range(2):
        edge.do(edge.core.on_current(version(1, final=True), 0.0))
    assert edge.of(FinalFigures) == [FinalFigures(version(1, final=True))]


def test_a_contract_that_was_not_approved_puts_it_on_hold() -> None:
    edge = Edge(Participation("berlin", "solder-defect", approved="f" * 64, covers=lambda _: None))
    edge.do(edge.core.on_counts(ENOUGH))
    edge.do(edge.core.on_trainer(None))
    edge.do(edge.core.on_plan(plan(), 0.0))
    status = edge.core.status(1)
    assert (status.state, status.reason, status.can_train) == (
        ParticipantState.HOLD,
        Reason.CONTRACT_NOT_APPROVED,
        False,
    )
    assert status.contract_hash == "f" * 64
    assert edge.subscribed == set()
    assert edge.of(PublishStatistics) == []


def test_a_map_that_does_not_cover_the_contract_is_said() -> None:
    edge = Edge(Participation("berlin", "solder-defect", approved=None, covers=lambda _: "no source for volume"))
    edge.do(edge.core.on_plan(plan(), 0.0))
    assert edge.core.status(1).reason is Reason.CONTRACT_NOT_COVERED


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda core: core.on_trainer(Reason.TRAINER_OUT_OF_MEMORY), Reason.TRAINER_OUT_OF_MEMORY),
        (lambda core: core.on_counts(Counts(samples=60, matured=50, new=50, trainable=49)), Reason.TOO_FEW_SAMPLES),
        (lambda core: core.on_counts(ENOUGH, Reason.DATA_QUALITY), Reason.DATA_QUALITY),
    ],
)
def test_why_it_cannot_train_is_said_and_inference_goes_on(prepare, reason: Reason) -> None:  # type: ignore[no-untyped-def]
    edge = Edge().ready()
    edge.do(prepare(edge.core))
    edge.do(edge.core.on_round(announcement(1, 1)))
    status = edge.core.status(1)
    assert (status.can_train, status.reason, status.serves) == (
        False,
        reason,
        Serves(version=1, variant=Variant.GLOBAL),
    )
    assert edge.of(Train) == []


def test_a_failed_training_leaves_the_round_to_the_others() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_round(announcement(1, 1)))
    edge.do(edge.core.on_trained(Reason.TRAINER_FAILED))
    assert edge.core.status(1).reason is Reason.TRAINER_FAILED
    edge.do(edge.core.on_trainer(None))
    assert len(edge.of(Train)) == 1
    edge.do(edge.core.on_round(announcement(2, 1)))
    assert len(edge.of(Train)) == 2


def test_a_refused_version_is_not_served_and_not_fetched_again() -> None:
    edge = Edge().ready()
    edge.refuse = "golden outputs differ"
    edge.serve(2)
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)
    assert edge.core.status(1).reason is Reason.MODEL_REFUSED
    before = len(edge.of(Subscribe))
    edge.do(edge.core.on_current(version(2), 0.0))
    assert len(edge.of(Subscribe)) == before


def test_a_reconnect_asks_only_for_what_is_missing() -> None:
    edge = Edge()
    edge.do(edge.core.on_plan(plan(), 0.0))
    manifest = plan().template.skeleton
    edge.do(edge.core.on_chunk(chunk_of(TEMPLATE.skeleton, manifest, 0), 0.0))
    (subscribe,) = edge.do(edge.core.on_connected(1.0))
    assert isinstance(subscribe, Subscribe)
    assert [t.rpartition("/")[2] for t in subscribe.topics] == [str(i) for i in range(1, len(manifest.chunks))]


def test_what_stalls_is_asked_for_in_the_status() -> None:
    edge = Edge()
    edge.do(edge.core.on_plan(plan(), 0.0))
    assert edge.core.status(1).wants == ()
    assert edge.core.downloads.deadline == STALLED_S
    edge.do(edge.core.on_time(STALLED_S))
    assert edge.core.status(1).wants == (Want.SKELETON,)


def test_behind_a_bridge_it_says_at_once_what_it_fetches() -> None:
    edge = Edge()
    assert edge.core.on_route(Route(bridges=("gate", "dmz"))) == [PublishStatus()]
    assert edge.core.on_route(Route(bridges=("gate", "dmz"))) == []
    assert PublishStatus() in edge.do(edge.core.on_plan(plan(), 0.0))
    status = edge.core.status(1)
    assert (status.via, status.wants) == (("gate", "dmz"), (Want.SKELETON,))
    edge.deliver(TEMPLATE.skeleton, plan().template.skeleton)
    edge.log.clear()
    edge.do(edge.core.on_current(version(1), 0.0))
    assert PublishStatus() in edge.log
    assert edge.core.status(1).wants == (Want.CURRENT,)
    edge.deliver(vector_bytes(vector(1)), version(1).full)
    assert edge.core.status(1).wants == ()
    edge.do(edge.core.on_route(None))
    assert edge.core.status(1).via == ()


def test_a_plan_in_other_chunks_replaces_the_open_fetch() -> None:
    edge = Edge()
    edge.do(edge.core.on_plan(plan(), 0.0))
    skeleton = make_manifest(TEMPLATE.skeleton, "skeleton", 20 * KIB)
    rechunked = plan().model_copy(update={"template": plan().template.model_copy(update={"skeleton": skeleton})})
    edge.do(edge.core.on_plan(rechunked, 0.0))
    assert len(edge.subscribed) == len(skeleton.chunks)
    edge.deliver(TEMPLATE.skeleton, skeleton)
    assert edge.of(CheckTemplate)


def fake(number: int, of: int) -> VersionManifest:
    """A version with a number that another one has, too."""
    content = vector_bytes(vector(of))
    full = make_manifest(content, "model", 15 * KIB, version=number)
    return version(number).model_copy(update={"sha256": full.sha256, "full": full})


def test_two_versions_with_the_very_same_bytes_are_both_held() -> None:
    """A step that rounding swallows: fetched once, checked under each number."""
    edge = Edge().ready()
    candidate = fake(2, of=1)
    edge.do(edge.core.on_candidate(candidate, edge.now))
    edge.deliver(vector_bytes(vector(1)), candidate.full)
    assert edge.of(Evaluate) == [Evaluate(candidate, version(1))]
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)
    assert edge.core.downloads.active == frozenset()
    edge.do(edge.core.on_current(candidate, edge.now))
    assert edge.core.serves == Serves(version=2, variant=Variant.GLOBAL)


def test_two_versions_of_one_number_are_told_apart_by_their_bytes() -> None:
    edge = Edge().ready()
    made_up = fake(2, of=77)
    edge.do(edge.core.on_candidate(made_up, edge.now))
    edge.deliver(vector_bytes(vector(77)), made_up.full)
    assert edge.core.status(1).holds_version == 2
    edge.do(edge.core.on_current(version(2), edge.now))
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)  # these bytes are not here yet
    assert edge.core.reason is Reason.FETCHING_MODEL
    edge.deliver(vector_bytes(vector(2)), version(2).full)
    assert edge.core.serves == Serves(version=2, variant=Variant.GLOBAL)


def test_a_refused_version_does_not_stand_in_the_way_of_the_right_one() -> None:
    edge = Edge().ready()
    made_up = fake(2, of=77)
    edge.do(edge.core.on_candidate(made_up, edge.now))
    effects: list[Effect] = []
    for index in range(len(made_up.full.chunks)):
        effects += edge.core.on_chunk(chunk_of(vector_bytes(vector(77)), made_up.full, index), 0.0)
    (check,) = [e for e in effects if isinstance(e, VerifyVersion)]
    edge.do(edge.core.on_candidate(version(2), edge.now))  # while the other one is being checked
    edge.do(edge.core.on_verified(check.manifest, "other outputs", edge.now))
    assert edge.core.reason is None  # nothing that is announced now was refused
    edge.deliver(vector_bytes(vector(2)), version(2).full)
    assert edge.of(Evaluate) == [Evaluate(version(2), version(1))]


def test_a_version_of_an_older_plan_that_was_being_checked_is_not_held() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_plan(plan(generation=2), edge.now))
    edge.do(edge.core.on_verified(version(5), None, edge.now))
    assert edge.core.held == {}
    assert edge.core.status(1).holds_version is None


def other_plan(generation: int) -> Plan:
    features = ({"name": "height", "unit": "um", "minimum": 0, "maximum": 300},)
    contract = Contract.model_validate(CONTRACT.model_dump() | {"features": features})
    return plan(generation).model_copy(update={"contract": contract, "contract_hash": contract.meaning_sha256})


def test_a_generation_keeps_its_meaning_unless_somebody_took_over() -> None:
    edge = Edge()
    edge.do(edge.core.on_aggregator(AggregatorStatus(birth=1, state="online", epoch=1)))
    edge.ready()
    edge.do(edge.core.on_plan(other_plan(1), edge.now))
    assert edge.core.plan == plan()
    assert edge.core.status(1).state is ParticipantState.ONLINE
    edge.do(edge.core.on_plan(plan().model_copy(update={"chunk_bytes": 20 * KIB}), edge.now))
    assert edge.core.plan.chunk_bytes == 20 * KIB  # the same meaning in other chunks
    edge.do(edge.core.on_aggregator(AggregatorStatus(birth=1, state="online", epoch=2)))
    edge.do(edge.core.on_plan(other_plan(1), edge.now))
    assert edge.core.plan == other_plan(1)
    assert edge.core.reason is Reason.CONTRACT_NOT_APPROVED


def test_a_lower_epoch_says_nothing_any_more() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_aggregator(AggregatorStatus(birth=1, state="online", epoch=3)))
    edge.do(edge.core.on_candidate(version(2, epoch=2), edge.now))
    edge.do(edge.core.on_current(version(9, epoch=1), edge.now))
    edge.do(edge.core.on_round(announcement(1, 1, epoch=2)))
    assert edge.core.downloads.active == frozenset()
    assert edge.of(Train) == []
    edge.do(edge.core.on_round(announcement(1, 1, epoch=3)))
    assert len(edge.of(Train)) == 1


def test_what_the_disk_still_has_is_not_fetched_again() -> None:
    edge = Edge()
    edge.core.restored = version(1)
    edge.do(edge.core.on_swapped(1, Variant.LAST_GOOD))
    edge.do(edge.core.on_plan(plan(), 0.0, frozenset({TEMPLATE.sha256})))
    edge.do(edge.core.on_template(TEMPLATE.sha256, None, 0.0))
    edge.do(edge.core.on_current(version(1), 0.0))
    assert edge.of(Subscribe) == []
    assert edge.core.serves == Serves(version=1, variant=Variant.GLOBAL)


def test_on_hold_it_follows_versions_and_does_not_train() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_counts(ENOUGH, Reason.DATA_QUALITY))
    status = edge.core.status(1)
    assert (status.state, status.can_train, status.reason) == (ParticipantState.HOLD, False, Reason.DATA_QUALITY)
    edge.do(edge.core.on_round(announcement(1, 1)))
    edge.serve(2)
    assert edge.core.serves == Serves(version=2, variant=Variant.GLOBAL)
    assert edge.of(Train) == []
    edge.do(edge.core.on_round(announcement(2, 2)))
    edge.do(edge.core.on_counts(ENOUGH, None))  # the data is good again: the open round is joined
    assert len(edge.of(Train)) == 1


def topics_of(edge: Edge) -> set[str]:
    return {topic.split("/")[4] for topic in edge.subscribed}


def test_who_holds_the_parent_takes_the_step() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    assert edge.subscribed == {"fl/v1/solder-defect/down/delta/2/0"}
    edge.deliver(step(2), stepped(2).delta)
    assert edge.of(VerifyVersion)[-1] == VerifyVersion(stepped(2), step(2), version(1))
    assert [e.candidate.version for e in edge.of(Evaluate)] == [2]  # type: ignore[attr-defined]
    edge.do(edge.core.on_current(stepped(2), 0.0))
    edge.do(edge.core.on_candidate(None, 0.0))
    assert edge.core.serves == Serves(version=2, variant=Variant.GLOBAL)
    edge.do(edge.core.on_candidate(stepped(3), 0.0))
    assert edge.subscribed == {"fl/v1/solder-defect/down/delta/3/0"}


def test_who_does_not_hold_the_parent_takes_the_whole_vector() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_current(stepped(5), 0.0))
    assert topics_of(edge) == {"model"}
    edge.deliver(vector_bytes(vector(5)), stepped(5).full)
    assert edge.core.serves == Serves(version=5, variant=Variant.GLOBAL)


def test_a_newcomer_fetches_one_whole_vector_and_the_candidate_s_step() -> None:
    edge = Edge()
    edge.do(edge.core.on_plan(plan(), 0.0))
    edge.deliver(TEMPLATE.skeleton, plan().template.skeleton)
    edge.do(edge.core.on_current(stepped(4), 0.0))
    edge.do(edge.core.on_candidate(stepped(5), 0.0))
    assert {topic.rsplit("/", 1)[0] for topic in edge.subscribed} == {"fl/v1/solder-defect/down/model/4"}
    edge.deliver(vector_bytes(vector(4)), stepped(4).full)
    assert edge.subscribed == {"fl/v1/solder-defect/down/delta/5/0"}


def test_a_step_that_leads_elsewhere_brings_the_whole_vector() -> None:
    edge = Edge().ready()
    edge.refuse_step = "another hash"
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    edge.deliver(step(2), stepped(2).delta)
    assert topics_of(edge) == {"model"}
    assert edge.core.status(1).reason is None  # the version itself was not refused
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    assert topics_of(edge) == {"model"}
    edge.deliver(vector_bytes(vector(2)), stepped(2).full)
    assert len(edge.of(Evaluate)) == 1
    assert edge.subscribed == set()


def test_a_step_that_stalls_gives_way_to_the_whole_vector() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    edge.do(edge.core.on_time(10.5))
    assert topics_of(edge) == {"model"}
    edge.deliver(vector_bytes(vector(2)), stepped(2).full)
    assert len(edge.of(Evaluate)) == 1


def test_behind_a_bridge_no_whole_model_is_wanted_where_a_step_does() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_route(Route(bridges=("gate",))))
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    assert edge.core.status(1).wants == ()
    edge.refuse_step = "another hash"
    edge.deliver(step(2), stepped(2).delta)
    assert edge.core.status(1).wants == (Want.CANDIDATE,)


def test_a_parent_that_is_replaced_meanwhile_brings_the_whole_vector() -> None:
    edge = Edge().ready()
    edge.do(edge.core.on_candidate(stepped(2), 0.0))
    edge.core.held.clear()
    edge.deliver(step(2), stepped(2).delta)
    assert topics_of(edge) == {"model"}


# A change of meaning --------------------------------------------------------------------------------------------------


def any_edge(**options: object) -> Edge:
    """An edge that takes part under whatever contract comes."""
    edge = Edge()
    edge.core = Participation("berlin", "solder-defect", approved=None, **{"covers": lambda _: None, **options})  # type: ignore[arg-type] # the test's own
    return edge.ready()


def test_what_runs_goes_on_when_a_plan_is_not_covered_and_the_missing_feature_is_named() -> None:
    wanted = other_plan(2).contract
    edge = any_edge(
        covers=lambda contract: "nothing feeds 'height'" if contract == wanted else None,
        missing=lambda contract: ("height",),
    )
    edge.do(edge.core.on_swapped(1, Variant.GLOBAL))
    edge.do(edge.core.on_plan(other_plan(2), edge.now))
    status = edge.core.status(1)
    assert (status.state, status.reason) == (ParticipantState.HOLD, Reason.CONTRACT_NOT_COVERED)
    assert status.missing == ("height",)
    assert status.serves == Serves(version=1, variant=Variant.GLOBAL)
    assert edge.core.behind is not None
    assert "height" in edge.core.behind
    edge.do(edge.core.on_plan(plan(3), edge.now))
    assert edge.core.status(1).missing == ()
    assert edge.core.behind is None


def test_samples_of_the_former_contract_are_no_samples_of_the_new_one() -> None:
    edge = any_edge()
    edge.do(edge.core.on_counts(Counts(500, 400, 300, 240)))
    edge.log.clear()
    edge.do(edge.core.on_plan(other_plan(2), edge.now))
    assert edge.core.counts == Counts()
    assert edge.of(PublishStatistics) == []
    edge.do(edge.core.on_counts(Counts(500, 400, 300, 240)))
    assert edge.of(PublishStatistics) == [PublishStatistics(2)]


def test_a_version_of_a_new_generation_waits_for_its_template() -> None:
    edge = any_edge()
    new = other_plan(2)
    skeleton = new.template.skeleton.model_copy(update={"sha256": "5" * 64, "id": "5" * 16})
    template = new.template.model_copy(update={"sha256": "5" * 64, "skeleton": skeleton})
    edge.do(edge.core.on_plan(new.model_copy(update={"template": template}), edge.now))
    fresh = version(7).model_copy(update={"generation": 2})
    edge.do(edge.core.on_current(fresh, edge.now))
    assert fresh.full.id not in edge.core.downloads.active
    assert not edge.core.status(1).can_train
    edge.do(edge.core.on_template("5" * 64, None, edge.now))
    assert fresh.full.id in edge.core.downloads.active
