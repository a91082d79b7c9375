"""What a federation of two plants says, message by message, for tests of whoever watches it."""

from __future__ import annotations

import json
from typing import Any

from broker_bridge.session import Message
from headgate.demo.scenario import PlantScript, Scenario
from headgate.demo.watch import View
from tests.support.tiny_template import tiny_template
from uns_topics.codes import Code
from uns_topics.contract import Metric
from uns_topics.model import Value
from uns_topics.payloads import Writer
from uns_topics.plan import Plan, Strategy, TemplateManifest, Tolerances, Training
from uns_topics.presence import ParticipantState, ParticipantStatus, Serves, Variant
from uns_topics.reports import Evaluation, Figure, LastUpdate, ModelScores, PartScores, Sums
from uns_topics.rounds import (
    ClientConfig,
    History,
    ParticipantOutcome,
    RoundAnnouncement,
    RoundSummary,
    VersionManifest,
)
from uns_topics.template import Lineage
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest

FEDERATION = "tiny"
ROUNDS = 2
SHA = "ab" * 32
LEAVES = ("quality", "model_version", "variant", "score")
SCENARIO = Scenario(
    name="tiny",
    title="Tiny plants",
    contract={"federation": FEDERATION, "label": {"kind": "classes"}, "metric": "average_precision"},
    network=("mlp", "3"),
    training={},
    tolerances={},
    rounds=ROUNDS,
    plants=(
        PlantScript("berlin", ("acme/berlin/smt/line1",), {}, lambda: iter(())),
        PlantScript("lyon", ("acme/lyon/atelier CMS/ligne 1",), {}, lambda: iter(()), remark="another paste"),
    ),
)


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def new_view() -> View:
    return View(FEDERATION, "score", started=100.0, clock=Clock())


def say(view: View, kind: Kind, body: Value, participant: str | None = None, *, retain: bool = False) -> None:
    """One message of the fl tree."""
    sender = participant or "aggregator"
    topic = str(FlTopic(FEDERATION, kind, participant=participant))
    view.on_message(Message(topic, Writer(FEDERATION, sender, "0a1b2c3d").seal(body), retain=retain))


def infer(view: View, path: str, leaves: tuple[str, ...] = LEAVES, value: float = 0.25, version: int = 3) -> None:
    """One inference of an instance."""
    values = {"quality": 192, "model_version": version, "variant": "global", "score": value}
    for name in leaves:
        payload = json.dumps({"timestamp_ms": 1, "value": values[name]}).encode()
        view.on_message(Message(f"{path}/_inference/{FEDERATION}/{name}", payload, retain=True))


def transfer(version: int, size: int = 4096) -> TransferManifest:
    return TransferManifest(
        id=SHA[:16], kind="model", bytes=size, chunk_bytes=size, sha256=SHA, chunks=(SHA,), version=version
    )


def plan(rounds: int = ROUNDS) -> Plan:
    template = tiny_template()
    skeleton = TransferManifest(
        id=template.sha256[:16], kind="skeleton", bytes=10, chunk_bytes=10, sha256=template.sha256, chunks=(SHA,)
    )
    return Plan(
        generation=1,
        contract=template.contract,
        contract_hash=template.contract.meaning_sha256,
        template=TemplateManifest(
            sha256=template.sha256, network=template.info.network, table=template.table, skeleton=skeleton
        ),
        strategy=Strategy(),
        training=Training(),
        encodings=("f32",),
        tolerances=Tolerances(rounds=rounds),
    )


def manifest(version: int = 3, round_number: int = 2, *, final: bool = True) -> VersionManifest:
    lineage = Lineage(origin="round", parent=version - 1, round_number=round_number)
    return VersionManifest(
        version=version,
        sha256=SHA,
        generation=1,
        epoch=1,
        lineage=lineage,
        full=transfer(version),
        golden=(0.5,),
        final=final,
    )


def announcement(round_number: int = 1, cohort: tuple[str, ...] = ("berlin", "lyon")) -> RoundAnnouncement:
    client = ClientConfig(training=Training(), encoding="f32")
    return RoundAnnouncement(
        round_number=round_number, attempt=1, epoch=1, state="open", base=1, base_sha256=SHA, generation=1,
        cohort=cohort, client=client, seed=1, seconds_left=60.0,
    )  # fmt: skip


def summary(round_number: int, result: str = "promoted", **changes: Any) -> RoundSummary:
    fields: dict[str, Any] = {
        "version": round_number + 1,
        "attempt": 1,
        "seconds": 1.5,
        "participants": (
            ParticipantOutcome(participant="berlin", outcome="accepted"),
            ParticipantOutcome(participant="lyon", outcome="rejected", code=Code.LATE),
        ),
        "candidate_loss": 0.5,
        "current_loss": 0.75,
    }
    return RoundSummary(round_number=round_number, result=result, **{**fields, **changes})


def history(*results: str, resting: bool = True) -> History:
    rounds = tuple(summary(number, result) for number, result in enumerate(results, 1))
    return History(rounds=rounds, current=3, resting=resting)


def status(**changes: Any) -> ParticipantStatus:
    fields: dict[str, Any] = {
        "birth": 1,
        "state": ParticipantState.ONLINE,
        "samples": 1234,
        "instances": 1,
        "holds_version": 3,
        "serves": Serves(version=3, variant=Variant.GLOBAL),
        "bytes_up": 2048,
        "bytes_down": 4096,
        "bytes_kept": 1000,
    }
    return ParticipantStatus(**{**fields, **changes})


def update(round_number: int, **changes: Any) -> LastUpdate:
    fields: dict[str, Any] = {"result": "accepted", "num_examples": 5, "num_steps": 3, "payload_bytes": 9}
    return LastUpdate(id=SHA[:16], round_number=round_number, base=SHA, train_seconds=0.5, **{**fields, **changes})


def scores(difference: Figure | None, n: int = 50, values: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)) -> PartScores:
    names = ("constant", "linear", "local_only", "current")
    loss = Sums(n=n, sum=1.0, sum_squares=1.0)
    models = {name: ModelScores(loss=loss, metric=Figure(value=v, n=n)) for name, v in zip(names, values, strict=True)}
    return PartScores(n=n, models=models, current_minus_local=difference)  # type: ignore[arg-type]


def difference(low: float | None, high: float | None, *, undecided: bool = False) -> Figure:
    middle = None if low is None or high is None else (low + high) / 2
    return Figure(value=middle, low=low, high=high, n=50, undecided=undecided)


def evaluation(*, final: bool = True, version: int = 3, gain: Figure | None = None, report: bool = True) -> Evaluation:
    part = scores(gain or difference(0.05, 0.2))
    return Evaluation(
        generation=1, candidate=None, current=version, metric=Metric.AVERAGE_PRECISION, final=final,
        select=scores(None, n=20), report=part if report else None,
    )  # fmt: skip


def success() -> View:
    """Everything that a success needs has been said."""
    view = new_view()
    say(view, Kind.PLAN, plan())
    say(view, Kind.MODEL_CURRENT, manifest())
    say(view, Kind.HISTORY, history("promoted", "refused"))
    for plant in SCENARIO.plants:
        say(view, Kind.STATUS, status(), plant.participant)
        say(view, Kind.LAST_UPDATE, update(2), plant.participant)
        say(view, Kind.EVALUATION, evaluation(), plant.participant)
        for path in plant.instances:
            infer(view, path)
    return view
