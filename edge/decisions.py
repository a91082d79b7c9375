"""Deciding in a plant: each model's calibration and threshold before it runs, and swaps that wait for a person.

A swap that changes how often the alarm comes on, on the very same samples, is held: operators would meet another plant
after a night. What ran before runs on until a later version passes, or until somebody releases the swap.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker_bridge.durable import write_whole
from edge.calibration import neutral
from edge.dataset import Dataset
from edge.decision import Decision, RateChange, decide
from edge.models import Model, with_calibration
from edge.probation import evidence
from edge.rules import AlarmRule, Probation
from edge.scoring import Snapshot, outputs_of
from edge.store import SampleStore
from edge.variants import Served
from uns_topics.contract import Contract
from uns_topics.presence import Variant
from uns_topics.tensors import vector_sha256

log = logging.getLogger("headgate.edge")

RECENT = 1000
"""Newest matured samples that a swap's alarms are counted on; their labels are not looked at."""
DECISION_KEY = "decision"
HELD_FILE = "held-swap.json"
"""In the edge's data directory while a swap is held, for `headgate edge release`."""
RELEASED_FILE = "released-swap.json"
"""What that command leaves there: which swap may go on."""


@dataclass(frozen=True)
class Samples:
    """Matured samples and what else a decision is made by.

    Attributes: instances: path of each instance's number; predicted: see `edge.probation`.
    """

    dataset: Dataset
    contract: Contract
    instances: Sequence[str]
    predicted: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Samples:
        """Those of a round."""
        return cls(snapshot.dataset, snapshot.contract, snapshot.instances)


@dataclass(frozen=True)
class HeldSwap:
    """Attributes: served: what would run, ready to; change: of the alarms."""

    served: Served
    change: RateChange

    def is_of(self, served: Served) -> bool:
        """Whether it is the same swap again."""
        return (self.served.version, self.served.variant) == (served.version, served.variant)


class Decisions:
    """One edge's decisions.

    Args:
        rule: when the site wants an alarm; None: never, and there is no leaf for it.
        needs: what ends a probation.
        max_rate_change: factor of the alarm rate from which on a swap is held; None: never.
        folder: the edge's data directory.
    """

    def __init__(
        self, rule: AlarmRule | None, needs: Probation, max_rate_change: float | None, store: SampleStore, folder: Path
    ) -> None:
        self._rule = rule
        self._needs = needs
        self._max_rate_change = max_rate_change
        self._store = store
        self._held_file = folder / HELD_FILE
        self._released_file = folder / RELEASED_FILE
        self.held: HeldSwap | None = None

    # Before a swap ---------------------------------------------------------------------------------------------------

    def admit(self, served: Served, running: Served | None, samples: Samples | None) -> Served:
        """Make a model ready to run. Called on the thread that models run on.

        Returns: it, with its decision; or what runs on in its place, as the last good one, where the swap is held.
        """
        ready = self.fit(served, samples)
        most = self._max_rate_change
        if running is None or most is None or running.is_same(ready):
            self.pass_on()
            return ready
        change = self._change(running, ready, samples)
        is_undecided = ready.decision.problem is not None
        if change is None or not (change.exceeds(most) or is_undecided):
            self.pass_on()
            return ready
        if self.is_released(ready):
            log.info("the swap to version %d was released", ready.version)
            self.pass_on()
            return ready
        self._hold(HeldSwap(ready, change), running, most)
        return replace(running, variant=Variant.LAST_GOOD) if running.variant is Variant.GLOBAL else running

    def fit(self, served: Served, samples: Samples | None) -> Served:
        """A model with the decision that these samples give it."""
        if samples is None:
            return replace(served, decision=Decision(problem="no samples can be read"), calibrated=None)
        stood_in = served.variant in (Variant.GLOBAL, Variant.LAST_GOOD)
        predicted = samples.predicted if stood_in else None  # own models may have been trained on them
        found = evidence(samples.dataset, samples.contract, self._needs, predicted)
        outputs = outputs_of({0: served.model}, samples.dataset, found.index)[0].astype(np.float64)
        decided = decide(outputs, found, samples.dataset, samples.instances, samples.contract, self._rule)
        decided, calibrated = _calibrated(served.model, decided)
        ready = replace(served, decision=decided, calibrated=calibrated)
        _tell(ready)
        return ready

    def is_enough(self, samples: Samples) -> bool:
        """Whether the select part alone ends a probation."""
        return evidence(samples.dataset, samples.contract, self._needs).problem is None

    def _change(self, running: Served, ready: Served, samples: Samples | None) -> RateChange | None:
        """How the alarms change; None where they can't be compared."""
        before, after = running.decision, ready.decision
        is_other = running.model.template.sha256 != ready.model.template.sha256
        if samples is None or before.problem is not None or before.trip is None or is_other:
            return None
        newest = np.argsort(samples.dataset.times, kind="stable")[-RECENT:]
        paths = [samples.instances[number] for number in samples.dataset.instances[newest].tolist()]
        outputs = outputs_of({"before": running.runs, "after": ready.runs}, samples.dataset, newest)
        return RateChange(
            len(newest),
            before.flagged(outputs["before"].astype(np.float64), paths),
            after.flagged(outputs["after"].astype(np.float64), paths),
        )

    # Held swaps ------------------------------------------------------------------------------------------------------

    def _hold(self, held: HeldSwap, running: Served, most: float) -> None:
        problem = held.served.decision.problem
        if self.held is not None and self.held.is_of(held.served):
            pass  # it was said
        elif problem is not None:
            log.warning(
                "swap-held: version %d would be on probation (%s) where version %d decides; that one runs on until a"
                " later one or more labels pass, or `headgate edge release`",
                held.served.version, problem, running.version,
            )  # fmt: skip
        else:
            log.warning(
                "swap-held: version %d would raise %d alarms on the last %d samples where version %d raises %d, more"
                " than %g times more or fewer; version %d runs on until a later one passes or `headgate edge release`",
                held.served.version, held.change.after, held.change.rows, running.version, held.change.before, most,
                running.version,
            )  # fmt: skip
        self.held = held
        change = held.change
        record = {**_name(held.served), "runs": running.version, "rows": change.rows}
        self._write(self._held_file, {**record, "before": change.before, "after": change.after})

    def pass_on(self) -> None:
        """Another swap passed, or this one did: nothing is held any more, and no leave of a person stands."""
        self.held = None
        for path in (self._held_file, self._released_file):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def is_released(self, served: Served) -> bool:
        """Whether a person let this swap pass. Only a small file is read: any thread may ask."""
        try:
            found = json.loads(self._released_file.read_bytes())
        except (OSError, ValueError):
            return False
        return bool(found == _name(served))

    def _write(self, path: Path, content: dict[str, object]) -> None:
        try:
            write_whole(path, json.dumps(content).encode())
        except OSError as error:
            log.error("%s can't be written: %s", path, error.strerror)  # noqa: TRY400 - a sentence for people

    # Over a restart --------------------------------------------------------------------------------------------------

    def remember(self, served: Served) -> None:
        """Keep what runs. Called on the store's thread. Raises: sqlite3.Error."""
        record = {**self._belongs(served.model), "decision": served.decision.dump()}
        self._store.put(DECISION_KEY, json.dumps(record).encode())

    def restore(self, served: Served) -> Served:
        """The decision that this very model had under the same rule; without one it starts on probation."""
        kept = self._store.get(DECISION_KEY)
        try:
            found = json.loads(kept) if kept is not None else {}
            if {name: found.get(name) for name in ("model", "rule")} != self._belongs(served.model):
                return served
            decided, calibrated = _calibrated(served.model, Decision.load(found["decision"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return served
        return replace(served, decision=decided, calibrated=calibrated)

    def _belongs(self, model: Model) -> dict[str, object]:
        rule = self._rule.model_dump(mode="json") if self._rule is not None else None
        return {"model": vector_sha256(model.vector), "rule": [rule, self._needs.model_dump(mode="json")]}


class NothingHeld(Exception):
    """No swap waits for a person."""


def release(folder: Path) -> dict[str, object]:
    """Let the swap pass that an edge holds; the edge looks for it once a second, or when it starts.

    Args: folder: the edge's data directory.
    Returns: version, variant, runs, rows, before, after. Raises: NothingHeld; OSError: it can't be written.
    """
    try:
        found = json.loads((folder / HELD_FILE).read_bytes())
        record = {name: found[name] for name in ("version", "variant", "runs", "rows", "before", "after")}
    except FileNotFoundError:
        raise NothingHeld(f"{folder}: no swap is held") from None
    except (ValueError, KeyError, TypeError):
        raise NothingHeld(f"{folder / HELD_FILE} can't be read; the edge writes it anew when it starts") from None
    write_whole(folder / RELEASED_FILE, json.dumps({name: record[name] for name in ("version", "variant")}).encode())
    return record


def _name(served: Served) -> dict[str, object]:
    return {"version": served.version, "variant": served.variant.value}


def _calibrated(model: Model, decided: Decision) -> tuple[Decision, Model | None]:
    """The model with its calibration; without where the template has no place for one."""
    fitted = decided.calibration
    if fitted.reason is not None:
        return decided, None
    calibrated = with_calibration(model, fitted.scale, fitted.bias)
    if calibrated is None:
        return replace(decided, calibration=neutral("the model has no place for a calibration")), None
    return decided, calibrated


def _tell(ready: Served) -> None:
    decided, fitted = ready.decision, ready.decision.calibration
    if decided.problem is not None:
        log.info("version %d is on probation: %s", ready.version, decided.problem)
        return
    how = f"scale {fitted.scale:.3g}, bias {fitted.bias:.3g}" if fitted.reason is None else f"none: {fitted.reason}"
    at = f"; threshold {decided.trip.threshold:g}" if decided.trip is not None else ""
    log.info("version %d, by %d evaluated samples: calibration %s%s", ready.version, decided.rows, how, at)
