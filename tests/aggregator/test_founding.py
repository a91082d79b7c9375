"""Changes of meaning: what opens a generation, and what its first version takes over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.config import AggregatorConfig
from aggregator.effects import RecordVersion
from aggregator.events import GenerationStarted, Inherited, StatisticsReceived, Tick
from aggregator.founding import Foundation, found
from aggregator.performer import Workshop, fill, tidy
from aggregator.phases import advance
from aggregator.state import Phase, State, VersionRef
from aggregator.store import STRATEGY_STATE, Entry, Store, sqlite_url
from tests.support.reducer_world import World, make_rules, sha
from tests.support.tiny_template import fake_golden, tiny_contract, tiny_model, tiny_template
from uns_topics.contract import Contract, Feature, Quality
from uns_topics.plan import Strategy
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.standardisation import Moments
from uns_topics.template import Lineage
from uns_topics.tensors import vector_sha256

HIDDEN = 5
CONTRACT = tiny_contract()
TILT = Feature(name="tilt", unit="deg", minimum=0, maximum=9)


class Place:
    """One aggregator's folder, and starts in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, contract: Contract = CONTRACT, seed: int = 0, cold: bool = False, **changes: Any) -> Foundation:
        template = tiny_template(contract, HIDDEN)
        model = self.folder / "model.onnx"
        model.write_bytes(tiny_model(template, seed))
        settings: dict[str, Any] = {"federation": "tiny", "model": model, "data_dir": self.folder, **changes}
        config = AggregatorConfig(**settings)
        store = self.store()
        try:
            return found(config, None, store, fake_golden, 10.0, None, cold_start=cold)
        finally:
            store.close()

    def store(self) -> Store:
        return Store(sqlite_url(self.folder))

    def standardised(self, founded: Foundation) -> State:
        """The generation has had its statistics: rounds may begin."""
        state = founded.state.but(phase=Phase.WAITING, bootstrap=None)
        store = self.store()
        store.commit([], state)
        store.close()
        return state

    def lineage(self, version: int) -> Lineage:
        store = self.store()
        try:
            return Lineage.model_validate_json(store.lineage(version))
        finally:
            store.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def with_features(*features: Feature) -> Contract:
    return Contract.model_validate({**CONTRACT.model_dump(), "features": [f.model_dump() for f in features]})


WIDER = with_features(*CONTRACT.features, TILT)


@pytest.mark.parametrize(
    "words",
    [
        {"title": "Solder defects"},
        {"quality": Quality(min_samples=7, max_missing=0.1)},
        {"features": tuple(f.model_copy(update={"description": "said better"}) for f in CONTRACT.features)},
    ],
)
def test_other_words_and_thresholds_go_on_with_the_generation_and_stand_in_the_plan(
    place: Place, words: dict[str, Any]
) -> None:
    first = place.start()
    changed = CONTRACT.model_copy(update=words)
    assert tiny_template(changed, HIDDEN).sha256 != first.registry.template.sha256  # a file carries its contract
    again = place.start(changed)
    assert again.state == first.state
    assert again.plan.generation == 1
    assert again.plan.contract == changed
    assert again.plan.template == first.plan.template
    assert again.registry.template.sha256 == first.registry.template.sha256


def test_a_change_of_meaning_opens_a_generation_and_says_what_changed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    before = place.standardised(place.start())
    with caplog.at_level(logging.INFO, "headgate.aggregator"):
        changed = place.start(WIDER)
    assert changed.plan.generation == 2
    assert "generation 2 begins: feature tilt added (deg, 0.0 to 9.0)" in caplog.text
    assert f"starts warm, from version {before.current.version} of generation 1" in caplog.text
    assert "standardised anew, once participants have sent statistics: tilt" in caplog.text
    assert "plants run version 0 on" in caplog.text
    assert place.lineage(changed.state.current.version) == Lineage(origin="warm-start", parent=0)


def test_what_still_means_the_same_is_taken_over(place: Place) -> None:
    first = place.start()
    old = first.registry.vector(0, first.state.current.sha256)
    place.standardised(first)
    changed = place.start(WIDER, seed=3)
    new = changed.registry.vector(1, changed.state.current.sha256)
    table = changed.registry.template.table
    for name in ("network.0.bias", "network.2.weight"):
        is_taken = np.array_equal(table.view(new, name), first.registry.template.table.view(old, name))
        assert is_taken == (name == "network.0.bias")  # of a foreign network the output's layer may be anything
    assert changed.state.bootstrap is not None
    assert changed.state.bootstrap.kept == CONTRACT.feature_names
    assert not changed.state.bootstrap.imported


def test_a_cold_start_takes_over_nothing(place: Place) -> None:
    place.standardised(place.start())
    changed = place.start(WIDER, seed=3, cold=True)
    assert place.lineage(changed.state.current.version) == Lineage(origin="new")
    assert changed.state.bootstrap is not None
    assert changed.state.bootstrap.kept == ()


def test_where_every_input_stayed_no_statistics_standardise_again(place: Place) -> None:
    first = place.standardised(place.start())
    changed = place.start(strategy=Strategy(options={"weighting": "uniform"}))
    assert changed.state.bootstrap is not None
    assert changed.state.bootstrap.imported
    assert changed.state.current.sha256 == first.current.sha256
    assert place.lineage(1) == Lineage(origin="warm-start", parent=0)


def test_a_generation_that_was_never_standardised_gives_nothing(place: Place) -> None:
    place.start()
    changed = place.start(WIDER)
    assert place.lineage(changed.state.current.version) == Lineage(origin="new")


def test_a_second_change_before_any_statistics_starts_from_what_plants_still_run(place: Place) -> None:
    first = place.standardised(place.start())
    place.start(WIDER)
    third = place.start(with_features(CONTRACT.features[1]))
    assert third.plan.generation == 3
    assert place.lineage(2) == Lineage(origin="warm-start", parent=0)
    assert third.state.former == first.current


def test_a_start_that_was_cut_off_begins_the_same_generation_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.standardised(place.start())
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place.start(WIDER)
    once = place.start(WIDER)
    assert once.plan.generation == 2
    assert place.start(WIDER).state == once.state


def test_statistics_fill_only_what_was_not_taken_over(place: Place) -> None:
    first = place.start()
    table = first.registry.template.table
    vector = first.registry.vector(0, first.state.current.sha256)
    table.view(vector, "standardise.mean")[...] = 0.125
    ref = VersionRef(version=0, sha256=first.registry.keep(0, vector))
    place.standardised(
        Foundation(first.plan, first.rules, first.state.but(current=ref), first.registry, first.strategy)
    )
    changed = place.start(WIDER)
    moments = Moments(n=100, sum=75.0, sum_squares=60.0)
    cells = tuple(FeatureCell(slot=0, feature=name, moments=moments) for name in WIDER.feature_names)
    said = Statistics(generation=2, rows=100, label_counts=(90, 10), cells=cells)
    state = changed.state.but(link_since=0.0)
    assert state.bootstrap is not None
    state = state.but(bootstrap=state.bootstrap.but(label_counts={"a": (90, 10), "b": (90, 10)}, quorum_since=0.0))
    _, outputs = advance(state, 1000.0)
    (effect,) = outputs
    workshop = Workshop(_Said(said), changed.registry, changed.strategy, ("f32",), place.folder)  # type: ignore[arg-type] # all that is asked of it
    fill(workshop, state, effect)  # type: ignore[arg-type] # the one effect of a bootstrap
    (path,) = (place.folder / "vectors").glob("2-*.f32")
    filled = np.fromfile(path, "<f4")
    assert changed.registry.template.table.view(filled, "standardise.mean")[0].tolist() == [0.125, 0.125, 0.75]


class _Said:
    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def statistics(self, participant: str, generation: int) -> Statistics:
        del participant, generation
        return self._statistics


def test_the_former_version_stays_on_disk_until_a_round_made_one(place: Place) -> None:
    first = place.start()
    old = place.standardised(first).current
    changed = place.start(WIDER)
    state = changed.state
    assert state.former == old
    store = place.store()
    workshop = Workshop(store, changed.registry, changed.strategy, ("f32",), place.folder)
    vector = changed.registry.vector(1, state.current.sha256)
    for version in range(2, 40):  # many that came to nothing
        sha256 = changed.registry.keep(version, vector)
        refused = RecordVersion(
            version=version, sha256=sha256, generation=2, lineage=Lineage(origin="round", parent=1), status="refused"
        )
        store.commit([Entry(Tick(), 20.0, (refused,), {STRATEGY_STATE: b""})], state)
    tidy(workshop, state)
    path = place.folder / "vectors" / f"0-{old.sha256[:16]}.f32"
    assert path.exists()
    assert vector_sha256(first.registry.vector(0, old.sha256)) == old.sha256
    tidy(workshop, state.but(former=None, current=VersionRef(version=39, sha256=sha256)))
    assert not path.exists()
    store.close()


def test_a_round_of_the_new_generation_makes_the_former_version_dispensable() -> None:
    world = World()
    world.boot_up("a", "b")
    old = world.state.current
    rules = make_rules().model_copy(update={"generation": 2})
    inherited = Inherited(version=old, features=("x0", "x1"), complete=True)
    base = VersionRef(version=world.state.next_version, sha256=sha("warm"))
    world.do(GenerationStarted(rules=rules, base=base, imported=False, inherited=inherited))
    assert (world.state.current, world.state.former) == (base, old)
    assert world.state.round is None
    world.status("a", "b", generation=2)
    for participant in ("a", "b"):
        world.do(StatisticsReceived(participant=participant, generation=2, label_counts=(90, 10)))
    assert world.state.current == base  # all of it was inherited: no statistics are filled in
    assert world.state.phase is Phase.COLLECTING
    for participant in ("a", "b"):
        world.do(world.update(participant, generation=2))
    assert world.state.former == old
    for participant in ("a", "b"):
        world.evaluate(participant, 0.5, 1.0, generation=2)
    assert world.state.current.version == base.version + 1
    assert world.state.former is None
