"""The store: one transaction per event with its effects, and a recovery that makes the same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator import performer, tables
from aggregator.combine import control_of, encode_state
from aggregator.config import AggregatorConfig
from aggregator.effects import Aggregate, Effect, PrepareVersion
from aggregator.events import (
    Event,
    LinkChanged,
    RoundAnnounced,
    StatisticsReceived,
    StatusSeen,
    VersionPublished,
)
from aggregator.founding import Foundation, found
from aggregator.gate import inspect
from aggregator.performer import Workshop, tidy
from aggregator.plan import PlanError, build_plan, limits
from aggregator.reducer import step
from aggregator.replay import ReplayError, replay
from aggregator.state import Phase, State, VersionRef
from aggregator.store import STATISTICS, Entry, PendingEffect, Store, StoreError
from tests.aggregator.databases import Databases
from tests.support.reducer_world import boot_of, make_status
from tests.support.tiny_template import fake_golden, tiny_contract, tiny_model, tiny_template
from uns_topics.codes import Code
from uns_topics.controls import full_bytes, split_full
from uns_topics.plan import Strategy, Tolerances
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.standardisation import Moments
from uns_topics.steps import take_step
from uns_topics.tensors import Role, vector_from_bytes, vector_sha256
from uns_topics.transfers import MAX_CHUNKS, make_manifest
from uns_topics.update import UpdateHeader, decode_update, encode_update, pack_groups


class _Here:
    databases = Databases(None)


@pytest.fixture(autouse=True)
def _each_database(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of the store runs in each kind of database."""
    monkeypatch.setattr(_Here, "databases", databases)


def url_of(folder: Path) -> str:
    """Where a store of this folder lies."""
    return _Here.databases.url(folder)


def make_config(folder: Path, **changes: object) -> AggregatorConfig:
    (folder / "model.onnx").write_bytes(tiny_model())
    data = folder / "data"
    fields = {"federation": "tiny", "model": folder / "model.onnx", "data_dir": data, "database": url_of(data)}
    plain = {"encodings": ("f32",), "downlink": None}
    (folder / "data").mkdir(exist_ok=True)
    return AggregatorConfig(**{**fields, **plain, **changes})  # type: ignore[arg-type]


class Plug(Exception):
    """The process dies here."""


class Process:
    """Core, store and work without asyncio, killed after `lives` commits: what was not committed is gone."""

    def __init__(
        self, folder: Path, commits: int | None = None, downlink: str | None = None, strategy: str = "fedavg"
    ) -> None:
        self.config = make_config(folder, strategy={"name": strategy}, training={"optimizer": "sgd"})
        self.store = Store(url_of(self.config.data_dir))
        self.base: Foundation = found(self.config, None, self.store, fake_golden, 0.0, None)
        self.state: State = self.base.state
        self.left = commits
        self.now = self.state.at
        self.done: list[int] = []
        self.workshop = Workshop(
            self.store,
            self.base.registry,
            self.base.strategy,
            ("f32",),
            self.config.data_dir,
            downlink,
            self.base.plan.control,
        )
        for pending in self.store.pending():
            self.perform(pending)

    def do(self, event: Event, attachments: dict[str, bytes] | None = None) -> None:
        if self.left == 0:
            self.store.close()
            raise Plug
        self.now += 0.001
        state, outputs = step(self.state, event, self.now)
        pending = self.store.commit([Entry(event, self.now, outputs, attachments or {})], state, self.done)
        self.done.clear()
        self.state = state
        if self.left is not None:
            self.left -= 1
        for effect in pending:
            self.perform(effect)

    def perform(self, pending: PendingEffect) -> None:
        if performer.is_due(self.state, pending.effect):
            self.work(pending.effect)
        self.done.append(pending.id)

    def work(self, effect: Effect) -> None:
        match effect.kind:
            case "announce-round":
                self.do(RoundAnnounced(round_number=effect.round_number, attempt=effect.attempt))
            case "fill-bootstrap":
                self.do(*performer.fill(self.workshop, self.state, effect))
            case "aggregate":
                self.do(*performer.aggregate(self.workshop, self.state, effect))
            case "prepare-version":
                self.do(*performer.prepare(self.workshop, self.state, effect, 2**18))
            case "publish-candidate":
                self.do(VersionPublished(version=effect.version))


def statistics_of(names: tuple[str, ...]) -> bytes:
    cells = tuple(FeatureCell(slot=0, feature=n, moments=Moments(n=100, sum=40.0, sum_squares=20.0)) for n in names)
    body = Statistics(generation=1, rows=100, label_counts=(90, 10), cells=cells)
    return body.model_dump_json().encode()


def play(process: Process) -> str:
    """A federation of two through its first round, whatever was done before; returns the version's SHA-256."""
    plan = process.base.plan
    if process.state.link_since is None:
        process.do(LinkChanged(up=True))
    for name in ("a", "b"):
        status = make_status(contract_hash=plan.contract_hash)
        if name not in process.state.presence:
            process.do(StatusSeen(participant=name, boot=boot_of(name), status=status))
        bootstrap = process.state.bootstrap
        if bootstrap is not None and name not in bootstrap.label_counts and not bootstrap.filling:
            event = StatisticsReceived(participant=name, generation=1, label_counts=(90, 10))
            process.do(event, {STATISTICS: statistics_of(plan.contract.feature_names)})
    for i, name in enumerate(("b", "a")):
        current = process.state.open_round
        if current is None or current.number != 1 or name in current.answers:
            continue
        delta = np.full(plan.template.table.size, 0.1 + i, np.float32)
        control = np.full(plan.template.table.elements(Role.WEIGHT), 0.3 - i, np.float32) if plan.control else None
        groups, body = pack_groups(delta, plan.template.table, "f32", control)
        header = UpdateHeader(
            federation="tiny",
            participant=name,
            round_number=1,
            attempt=1,
            base=current.base.sha256,
            generation=1,
            num_examples=10 + i,
            num_steps=1,
            groups=groups,
        )
        raw = encode_update(header, body)
        manifest = make_manifest(raw, "update", base=header.base, round_number=1, attempt=1)
        event = inspect(raw, name, "tiny", manifest, limits(process.base.registry.template, process.config))
        process.do(event, {manifest.sha256: raw})
    assert process.state.phase is Phase.EVALUATING
    assert process.state.candidate is not None
    assert process.state.candidate.version == 2
    return str(process.state.candidate.sha256)


@pytest.mark.parametrize(("downlink", "strategy"), [(None, "fedavg"), ("ternary", "fedavg"), ("ternary", "scaffold")])
def test_a_kill_at_any_commit_continues_to_the_same_version(
    tmp_path: Path, downlink: str | None, strategy: str
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    process = Process(whole, downlink=downlink, strategy=strategy)
    state = None
    expected = play(process)
    commits, state = process.store.count_events() - 1, process.store.strategy_state(2)  # less the generation's own
    process.store.close()
    assert commits > 10
    for after in range(commits):
        folder = tmp_path / str(after)
        folder.mkdir()
        with pytest.raises(Plug):
            play(Process(folder, after, downlink, strategy))
        survivor = Process(folder, downlink=downlink, strategy=strategy)
        assert play(survivor) == expected, f"killed after {after} commits"
        assert survivor.store.strategy_state(2) == state
        survivor.store.close()


def test_a_kill_between_commit_and_effect_performs_the_effect(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.work = lambda effect: None  # type: ignore[method-assign]
    process.do(LinkChanged(up=True))
    plan = process.base.plan
    for name in ("a", "b"):
        status = make_status(contract_hash=plan.contract_hash)
        process.do(StatusSeen(participant=name, boot=boot_of(name), status=status))
        event = StatisticsReceived(participant=name, generation=1, label_counts=(90, 10))
        process.do(event, {STATISTICS: statistics_of(plan.contract.feature_names)})
    process.store.close()
    store = Store(url_of(process.config.data_dir))
    assert "fill-bootstrap" in [p.effect.kind for p in store.pending()]
    store.close()
    survivor = Process(tmp_path)
    assert survivor.state.current.version == 1
    survivor.store.close()


def test_effects_are_pending_until_they_are_done(tmp_path: Path) -> None:
    store = Store(url_of(tmp_path))
    state = found(make_config(tmp_path), None, store, fake_golden, 0.0, None).state
    before = store.pending()
    effect = PrepareVersion(version=3)
    first = store.commit([Entry(LinkChanged(up=True), 1.0, (effect,))], state)
    assert store.pending() == [*before, *first]
    store.commit([], state, [p.id for p in before])
    assert store.pending() == first
    store.close()
    again = Store(url_of(tmp_path))
    assert again.pending() == first
    assert again.load() == state
    more = again.commit([Entry(LinkChanged(up=True), 1.0, (effect,))], state)
    assert more[0].id > first[0].id
    again.close()


def test_a_transaction_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(url_of(tmp_path))
    state = found(make_config(tmp_path), None, store, fake_golden, 0.0, None).state
    events, pending = store.count_events(), store.pending()
    work = Aggregate(round_number=1, version=2, base=1, participants=("a",))
    from aggregator.effects import RecordStatistics

    broken = Entry(LinkChanged(up=True), 1.0, (work, RecordStatistics(participant="a", generation=1)))  # no attachment
    with pytest.raises(KeyError):
        store.commit([broken], state.but(epoch=9))
    assert (store.count_events(), store.pending(), store.load()) == (events, pending, state)
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(url_of(tmp_path))
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.pending()


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    store = Store(url_of(tmp_path))
    store.put("schema", 99)
    store.close()
    with pytest.raises(StoreError, match="schema 99"):
        Store(url_of(tmp_path))


def test_old_updates_are_let_go(tmp_path: Path) -> None:
    process = Process(tmp_path)
    play(process)
    assert process.store.update_bytes("a", 1)
    process.store.prune(2, 0)
    assert process.store.update_bytes("a", 1)
    assert process.store.strategy_state(1)
    process.store.prune(3, 2)
    assert process.store.strategy_state(1) is None
    assert process.store.strategy_state(2)
    with pytest.raises(KeyError):
        process.store.update_bytes("a", 1)
    assert [(u.participant, u.num_examples) for u in process.store.counted(1)] == [("a", 11), ("b", 10)]
    process.store.close()


def test_what_is_current_can_be_made_again_however_many_rounds_came_to_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path)
    play(process)
    current, sha256 = process.store.newest_versions(1)[0]
    promoted = VersionRef(version=current, sha256=sha256)
    tidy(process.workshop, process.state.but(current=promoted, last_round=50))
    process.store.close()
    assert replay(process.config, current).agrees


def test_as_many_rounds_are_kept_as_the_configuration_says(tmp_path: Path) -> None:
    process = Process(tmp_path)
    play(process)
    tidy(replace(process.workshop, keep_rounds=4), process.state.but(last_round=4))
    assert process.store.update_bytes("a", 1)
    tidy(replace(process.workshop, keep_rounds=3), process.state.but(last_round=4))
    with pytest.raises(KeyError):
        process.store.update_bytes("a", 1)
    process.store.close()


def test_a_store_from_before_goes_on(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = Store(url_of(config.data_dir))
    with store._transaction() as connection:  # as it was when an update's row named the version that it went into
        connection.exec_driver_sql("ALTER TABLE updates ADD COLUMN version INTEGER")
    store.close()
    process = Process(tmp_path)
    play(process)
    assert process.store.update_bytes("a", 1)
    process.store.close()


def test_every_commit_is_on_disk(tmp_path: Path, databases: Databases) -> None:
    if not databases.is_sqlite:
        pytest.skip("PostgreSQL says so by itself: synchronous_commit is on by default")
    store = Store(url_of(tmp_path))
    with store._transaction() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        assert connection.exec_driver_sql("PRAGMA page_size").scalar() == 16 * 1024
    assert modes == ["wal", 2]
    store.close()


def test_a_step_is_recorded_with_what_it_left_and_let_go_with_its_version(tmp_path: Path) -> None:
    process = Process(tmp_path, downlink="ternary")
    sha256 = play(process)
    content, left = process.store.step(2), process.store.step_residual(2)
    assert content is not None
    assert left is not None
    table = process.base.registry.template.table
    parent = process.base.registry.vector(1, process.state.current.sha256)
    assert vector_sha256(take_step(parent, content, table)[0]) == sha256
    assert process.store.step(1) is None
    (tmp_path / "exact").mkdir()
    exact = Process(tmp_path / "exact")
    whole = exact.base.registry.vector(2, play(exact))
    exact.store.close()
    sent, _ = take_step(parent, content, table)
    residual = vector_from_bytes(left, table.elements(Role.WEIGHT))
    np.testing.assert_allclose(table.gather(sent, Role.WEIGHT) + residual, table.gather(whole, Role.WEIGHT), atol=1e-6)
    process.store.prune(2, 2)
    assert process.store.step(2) == content
    process.store.prune(2, 3)
    assert process.store.step(2) is None
    process.store.close()


@pytest.mark.parametrize("downlink", [None, "ternary"])
def test_a_version_with_its_control_is_made_again_from_what_is_stored(tmp_path: Path, downlink: str | None) -> None:
    process = Process(tmp_path, downlink=downlink, strategy="scaffold")
    sha256 = play(process)
    found = replay(process.config, 2)
    assert (found.agrees, found.same_state, found.made) == (True, True, sha256)
    control = control_of(process.store.strategy_state(2))
    np.testing.assert_allclose(control, 0.2 * (0.3 - 0.7) / 2, rtol=1e-6)  # 2 of 10 participants moved it
    with process.store._transaction() as connection:  # somebody changes what goes down beside the vector
        changed = encode_state({"control": control + np.float32(1e-6)})
        connection.execute(
            tables.strategy_state.update().where(tables.strategy_state.c.version == 2), {"body": changed}
        )
    again = replay(process.config, 2)
    assert (again.agrees, again.same_state, again.made) == (False, False, again.recorded)
    process.store.close()


def test_a_control_variate_goes_down_behind_the_vector_and_in_the_step(tmp_path: Path) -> None:
    process = Process(tmp_path, downlink="ternary", strategy="scaffold")
    play(process)
    store, registry, table = process.store, process.base.registry, process.base.plan.template.table
    assert process.base.plan.control
    held = []
    for version in (0, 1, 2):
        found = store.version(version)
        assert found is not None
        assert found[1] is not None
        control = control_of(store.strategy_state(version))
        assert found[1].control == vector_sha256(control)
        assert control.any() == (version == 2), "c is zero until a round moved it"
        for chunk_bytes in (found[1].full.chunk_bytes, 2**14):  # as it is stored, and rechunked
            made = registry.hold(found[1], chunk_bytes, store.step(version), control)
            assert made.manifest.full.bytes == len(made.content) == full_bytes(table, control=True)
            assert made.manifest.full.sha256 != made.manifest.sha256 == found[0]
        vector, beside = split_full(made.content, table, control=True)
        held.append(vector)
        assert beside is not None
        assert beside.tobytes() == control.tobytes()
    step = store.step(2)
    assert step is not None
    vector, beside = take_step(held[1], step, table, control=True)
    assert vector.tobytes() == held[2].tobytes()
    assert beside is not None
    assert beside.tobytes() == control.tobytes()
    store.close()


@pytest.mark.parametrize("downlink", [None, "topk-sign"])
def test_a_version_is_made_again_from_what_is_stored(tmp_path: Path, downlink: str | None) -> None:
    process = Process(tmp_path, downlink=downlink)
    sha256 = play(process)
    found = replay(process.config, 2)  # while the other one is running
    assert found.agrees
    assert (found.parent, found.round_number, found.participants, found.made) == (1, 1, ("a", "b"), sha256)
    with pytest.raises(ReplayError, match="origin is 'statistics'"):
        replay(process.config, 1)
    with pytest.raises(ReplayError, match="not in the store"):
        replay(process.config, 9)
    table = process.base.registry.template.table
    other, body = pack_groups(np.full(table.size, 0.5, np.float32), table, "f32")
    header = decode_update(process.store.update_bytes("a", 1), 2**20).header
    changed = encode_update(header.model_copy(update={"groups": other}), body)
    with process.store._transaction() as connection:  # somebody changes what a participant sent
        connection.execute(tables.updates.update().where(tables.updates.c.participant == "a").values(body=changed))
    assert not replay(process.config, 2).agrees
    process.store.prune(3)
    with pytest.raises(ReplayError, match="no update of a is kept for round 1"):
        replay(process.config, 2)
    process.store.close()


def test_a_replay_where_nothing_ever_ran(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="no aggregator has run"):
        replay(make_config(tmp_path, database=None), 2)
    assert not list((tmp_path / "data").iterdir())


# Founding -------------------------------------------------------------------------------------------------------------


def start(folder: Path, now: float = 0.0, from_model: Path | None = None, **changes: object) -> Foundation:
    config = make_config(folder, **changes)
    store = Store(url_of(config.data_dir))
    try:
        return found(config, from_model, store, fake_golden, now, None)
    finally:
        store.close()


def test_the_same_meaning_is_the_same_generation(tmp_path: Path) -> None:
    first = start(tmp_path)
    again = start(tmp_path, 5.0, tolerances=Tolerances(quorum=3))
    assert first.state == again.state
    assert again.rules.generation == 1
    assert again.rules.tolerances.quorum == 3


@pytest.mark.parametrize("change", [{"strategy": Strategy(options={"weighting": "uniform"})}, {"encodings": ("f16",)}])
def test_another_meaning_is_a_new_generation_with_new_numbers(tmp_path: Path, change: dict[str, object]) -> None:
    start(tmp_path)
    changed = start(tmp_path, 5.0, **change)
    assert changed.rules.generation == 2
    assert changed.state.current.version == 1
    assert changed.state.phase is Phase.BOOTSTRAP
    assert changed.state.last_round == 0


def test_an_imported_model_starts_a_generation_once(tmp_path: Path) -> None:
    start(tmp_path)
    imported = tmp_path / "old.onnx"
    imported.write_bytes(tiny_model(seed=9))
    first = start(tmp_path, 1.0, imported)
    assert first.rules.generation == 2
    assert first.state.bootstrap is not None
    assert first.state.bootstrap.imported
    assert start(tmp_path, 2.0, imported).rules.generation == 2
    assert start(tmp_path, 3.0).rules.generation == 2


def test_a_plan_is_refused_with_every_reason(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        federation="other",
        strategy=Strategy(name="fedmagic"),
        tolerances=Tolerances(quorum=5, max_cohort=3),
        participants=("a",),
    )
    with pytest.raises(PlanError) as refused:
        build_plan(tiny_template(), config, 1)
    text = str(refused.value)
    for reason in ("federation", "fedmagic", "participants", "max_cohort"):
        assert reason in text
    assert len(text.splitlines()) == 4


def test_a_plan_with_control_variates(tmp_path: Path) -> None:
    strategy = {"name": "scaffold", "options": {"population": 4}}
    with pytest.raises(PlanError, match=r"set training\.optimizer: sgd"):
        build_plan(tiny_template(), make_config(tmp_path, strategy=strategy), 1)
    config = make_config(tmp_path, strategy=strategy, training={"optimizer": "sgd", "steps": 50, "learning_rate": 0.02})
    plan = build_plan(tiny_template(), config, 1)
    assert (plan.control, plan.training.momentum) == (True, 0.0)
    assert limits(tiny_template(), config).max_control_norm == pytest.approx(2 * 1e4 / (50 * 0.02))
    assert limits(tiny_template(), make_config(tmp_path)).max_control_norm is None
    large, small = tiny_template(tiny_contract(features=2), hidden=700_000), {"chunk_bytes": 15 * 1024}
    plain, wider = (
        build_plan(large, made.model_copy(update=small), 1).chunk_bytes for made in (make_config(tmp_path), config)
    )
    assert wider > 1.9 * plain
    assert full_bytes(large.table, control=True) <= MAX_CHUNKS * wider


def test_unknown_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="f64"):
        build_plan(tiny_template(), make_config(tmp_path, encodings=("f64",)), 1)


def test_chunks_grow_until_a_manifest_can_list_them(tmp_path: Path) -> None:
    config = make_config(tmp_path, chunk_bytes=15 * 1024)
    template = tiny_template(tiny_contract(features=2), hidden=700_000)  # 11 MB
    plan = build_plan(template, config, 1)
    assert plan.chunk_bytes > 15 * 1024
    with pytest.raises(PlanError, match="raise the broker's limit"):
        build_plan(template, config, 1, 15 * 1024)
    assert build_plan(tiny_template(), make_config(tmp_path), 1, 20_000).chunk_bytes == 20_000


def test_receipts_are_found_again(tmp_path: Path) -> None:
    process = Process(tmp_path)
    play(process)
    rows = [a.transfer for a in process.state.round.answers.values()] if process.state.round else []
    assert len(rows) == 2
    for name, answer in process.state.round.answers.items():  # type: ignore[union-attr]
        receipt = process.store.receipt(name, answer.transfer)
        assert receipt is not None
        assert receipt.result == "accepted"
    assert process.store.receipt("a", "0" * 16) is None
    assert Code.LATE not in {a.code for a in process.state.round.answers.values()}  # type: ignore[union-attr]
    process.store.close()
