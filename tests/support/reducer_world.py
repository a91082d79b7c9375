"""The reducer on a fake clock, its effects performed at once by stand-ins: a federation without sockets or tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from aggregator.effects import (
    Aggregate,
    AnnounceRound,
    Effect,
    FillBootstrap,
    Output,
    PrepareVersion,
    PublishCandidate,
    effects,
)
from aggregator.events import (
    EvaluationReceived,
    Event,
    GenerationStarted,
    LinkChanged,
    RoundAnnounced,
    StatisticsReceived,
    StatusSeen,
    Tick,
    UpdateReceived,
    VersionMade,
    VersionPrepared,
    VersionPublished,
)
from aggregator.reducer import first_state, next_deadline, step
from aggregator.state import Rules, Scores, State, VersionRef
from uns_topics.plan import Tolerances, Training
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.reports import Sums

CONTRACT = "c" * 64


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_rules(*, buffer: int | None = None, **tolerances: Any) -> Rules:
    return Rules(
        federation="tiny",
        generation=1,
        contract_hash=CONTRACT,
        tolerances=Tolerances(**tolerances),
        training=Training(),
        encodings=("f32",),
        classes=2,
        heartbeat_s=10.0,
        buffer=buffer,
    )


def make_status(**changes: Any) -> ParticipantStatus:
    fields: dict[str, Any] = {
        "birth": 1,
        "state": ParticipantState.ONLINE,
        "samples": 100,
        "new_samples": 10,
        "contract_hash": CONTRACT,
        "generation": 1,
        "can_train": True,
        "encodings": ("f32",),
    }
    return ParticipantStatus(**{**fields, **changes})


def boot_of(participant: str) -> str:
    return sha(participant)[:8]


class World:
    """State, clock and everything that came out so far."""

    def __init__(self, rules: Rules | None = None, *, imported: bool = False, work: bool = True) -> None:
        self.now = 1000.0
        self.outputs: list[Output] = []
        self.work = work
        started = GenerationStarted(
            rules=rules or make_rules(), base=VersionRef(version=0, sha256=sha("v0")), imported=imported
        )
        self.state: State
        self.state, first = first_state(started, self.now)
        self.outputs += first
        self.do(LinkChanged(up=True))

    # Events -----------------------------------------------------------------------------------------------------------

    def do(self, event: Event) -> tuple[Output, ...]:
        """One event, and with `work` the answers to what it calls for."""
        self.state, outputs = step(self.state, event, self.now)
        self.outputs += outputs
        if self.work:
            for effect in effects(outputs):
                answer = self.answer(effect)
                if answer is not None:
                    outputs += self.do(answer)
        return outputs

    def answer(self, effect: Effect) -> Event | None:
        """What the shell would say when it has performed this."""
        match effect:
            case AnnounceRound():
                return RoundAnnounced(round_number=effect.round_number, attempt=effect.attempt)
            case FillBootstrap():
                made = VersionRef(version=effect.version, sha256=sha(f"filled by {effect.participants}"))
                return VersionMade(made=made)
            case Aggregate():
                assert self.state.round is not None
                current = self.state.round
                late = [(one.participant, one.asked_in, str(one.answer.sha256)) for one in current.late]
                own = [(p, current.number, str(current.answers[p].sha256)) for p in current.accepted]
                assert effect.participants == tuple(p for p, _, _ in sorted(late + own))
                parts = [sha256 for _, _, sha256 in sorted(late + own)]
                made = VersionRef(version=effect.version, sha256=sha("|".join([self.state.round.base.sha256, *parts])))
                return VersionMade(made=made)
            case PrepareVersion():
                return VersionPrepared(version=effect.version)
            case PublishCandidate():
                return VersionPublished(version=effect.version)
        return None

    def advance(self, seconds: float) -> None:
        """Let time pass; ticks come when they are due."""
        end = self.now + seconds
        while (due := next_deadline(self.state)) is not None and due <= end:
            assert due > self.state.at
            self.now = due
            self.do(Tick())
        self.now = end

    # What participants say --------------------------------------------------------------------------------------------

    def status(self, *participants: str, **changes: Any) -> tuple[Output, ...]:
        boot = changes.pop("boot", None)
        out: tuple[Output, ...] = ()
        for p in participants:
            out += self.do(StatusSeen(participant=p, boot=boot or boot_of(p), status=make_status(**changes)))
        return out

    def die(self, participant: str, **changes: Any) -> tuple[Output, ...]:
        return self.status(participant, state=ParticipantState.OFFLINE, **changes)

    def statistics(self, *participants: str, counts: tuple[int, ...] = (90, 10)) -> None:
        for p in participants:
            self.do(StatisticsReceived(participant=p, generation=1, label_counts=counts))

    def boot_up(self, *participants: str) -> None:
        """All the way through the bootstrap."""
        self.status(*participants)
        self.statistics(*participants)

    def update(self, participant: str, text: str = "", **changes: Any) -> UpdateReceived:
        """An update that fits the open round."""
        current = self.state.round
        assert current is not None
        digest = sha(f"{participant} {current.number} {text}")
        fields: dict[str, Any] = {
            "participant": participant,
            "transfer": digest[:16],
            "sha256": digest,
            "payload_bytes": 100,
            "federation": "tiny",
            "generation": 1,
            "round_number": current.number,
            "attempt": current.attempt,
            "base": current.base.sha256,
            "num_examples": 50,
            "body_sha256": sha(f"body of {participant} {text}"),
            "content_checked": True,
        }
        return UpdateReceived(**{**fields, **changes})

    def send(self, *participants: str) -> tuple[Output, ...]:
        out: tuple[Output, ...] = ()
        for p in participants:
            out += self.do(self.update(p))
        return out

    def evaluate(self, participant: str, new: float, old: float | None, n: int = 100, **changes: Any) -> None:
        """Losses of candidate and current with no spread, so that any difference is decided."""
        assert self.state.candidate is not None
        scores = Scores(
            candidate=sums(new, n),
            current=None if old is None else sums(old, n),
            difference=None if old is None else sums(new - old, n),
        )
        fields: dict[str, Any] = {
            "participant": participant,
            "generation": 1,
            "candidate": self.state.candidate.version,
            "current": self.state.current.version,
            "scores": scores,
        }
        self.do(EvaluationReceived(**{**fields, **changes}))

    def of(self, kind: type) -> list[Any]:
        """Outputs of one kind so far."""
        return [o for o in self.outputs if isinstance(o, kind)]


def sums(mean: float, n: int) -> Sums:
    return Sums(n=n, sum=mean * n, sum_squares=mean * mean * n)


def kinds(outputs: Sequence[Output]) -> list[str]:
    return [o.kind for o in outputs]
