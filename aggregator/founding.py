"""Where a run begins: the model file and the configuration against what the store holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aggregator.combine import encode_state
from aggregator.config import AggregatorConfig
from aggregator.effects import RecordVersion
from aggregator.events import GenerationStarted
from aggregator.plan import PlanError, build_plan, meaning_of, rules_of
from aggregator.reducer import first_state, step
from aggregator.registry import Golden, PrepareError, Registry
from aggregator.state import Rules, State, VersionRef
from aggregator.store import MANIFEST, STRATEGY_STATE, Entry, Store
from aggregator.strategies import make_strategy
from aggregator.strategies.base import CONTROL, Strategy
from aggregator.vectors import VectorFiles
from uns_topics.plan import Plan
from uns_topics.template import Lineage, ModelFile, TemplateError, read_model_file
from uns_topics.tensors import Role, vector_sha256

_LOG = logging.getLogger("headgate.aggregator")
_MEANING = "generation-meaning"


@dataclass(frozen=True)
class Foundation:
    """What the service runs on."""

    plan: Plan
    rules: Rules
    state: State
    registry: Registry
    strategy: Strategy


def found(
    config: AggregatorConfig,
    from_model: Path | None,
    store: Store,
    golden: Golden,
    now: float,
    chunk_limit: int | None,
) -> Foundation:
    """Go on with the store's generation, or start a new one where the meaning of the plan changed. Blocks.

    Raises: PlanError, TemplateError: with the file that is at fault. OSError: the model file can't be read.
    """
    path = from_model or config.model
    model = _read(path)
    template = model.template
    meaning = {**meaning_of(template, config), "imported": vector_sha256(model.vector) if from_model else None}
    state = store.load()
    known = store.get(_MEANING)
    is_same = state is not None and known is not None and _is_same(known, meaning)
    generation = state.rules.generation + (0 if is_same else 1) if state is not None else 1
    plan = build_plan(template, config, generation, chunk_limit)
    rules = rules_of(plan, config)
    registry = Registry(template, generation, VectorFiles(config.data_dir / "vectors"), golden)
    strategy = make_strategy(config.strategy)
    if state is None or not is_same:
        state = _start_generation(model, path, from_model is not None, plan, rules, registry, strategy, store, now)
        store.put(_MEANING, meaning)
        _LOG.info("generation %d starts from %s", generation, path)
    else:
        _LOG.info("generation %d goes on with version %d", generation, state.current.version)
    return Foundation(plan, rules, state, registry, strategy)


def _read(path: Path) -> ModelFile:
    try:
        return read_model_file(path.read_bytes())
    except TemplateError as error:
        raise PlanError(f"{path}: {error}") from None


def _is_same(known: dict[str, object], meaning: dict[str, object]) -> bool:
    """The same generation; a run without `--from` goes on with an imported one whose template it names."""
    if meaning["imported"] is None:
        return {**known, "imported": None} == meaning
    return known == meaning


def _start_generation(
    model: ModelFile,
    path: Path,
    imported: bool,
    plan: Plan,
    rules: Rules,
    registry: Registry,
    strategy: Strategy,
    store: Store,
    now: float,
) -> State:
    before = store.load()
    version = before.next_version if before is not None else 0
    origin: Callable[[], Lineage] = lambda: Lineage(origin="imported" if imported else "new")  # noqa: E731
    epoch = before.epoch if before is not None else 1
    initial = strategy.init(registry.template.table.elements(Role.WEIGHT))
    try:
        control = initial[CONTROL] if plan.control else None
        manifest = registry.prepare(version, model.vector, origin(), epoch, plan.chunk_bytes, control=control)
    except PrepareError as error:
        raise PlanError(f"{path}: {error}; was it made by `headgate model new`?") from None
    sha256 = registry.keep(version, model.vector)
    event = GenerationStarted(rules=rules, base=VersionRef(version=version, sha256=sha256), imported=imported)
    state, outputs = first_state(event, now) if before is None else step(before, event, now)
    assert any(isinstance(output, RecordVersion) for output in outputs)
    attachments = {
        MANIFEST: manifest.model_dump_json().encode(),
        STRATEGY_STATE: encode_state(initial),
    }
    store.commit([Entry(event, max(now, state.at), outputs, attachments)], state, [p.id for p in store.pending()])
    return state
