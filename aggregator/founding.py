"""Where a run begins: the model file and the configuration against what the store holds.

A change of meaning opens the next generation. It starts warm, from what of the last version still means the same,
unless somebody names another model or wants it cold. Everything that it needs lies on disk before the one transaction
that makes it so: whatever is lost before that is made again at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aggregator.combine import encode_state
from aggregator.config import AggregatorConfig
from aggregator.effects import RecordVersion
from aggregator.events import GenerationStarted, Inherited
from aggregator.plan import PlanError, build_plan, meaning_of, rules_of
from aggregator.reducer import first_lineage, first_state, step
from aggregator.registry import Golden, PrepareError, Registry
from aggregator.state import Phase, Rules, State, VersionRef
from aggregator.store import MANIFEST, STRATEGY_STATE, Entry, Store
from aggregator.strategies import make_strategy
from aggregator.strategies.base import CONTROL, Strategy
from aggregator.templates import TEMPLATES, TemplateFiles
from aggregator.vectors import VECTORS, VectorFiles
from uns_topics.meaning import changes
from uns_topics.plan import Plan
from uns_topics.template import ModelFile, Template, TemplateError, read_model_file
from uns_topics.tensors import Role, Vector, vector_sha256
from uns_topics.warm_start import WarmStart, take_over

_LOG = logging.getLogger("headgate.aggregator")


@dataclass(frozen=True)
class Foundation:
    """What the service runs on."""

    plan: Plan
    rules: Rules
    state: State
    registry: Registry
    strategy: Strategy


@dataclass(frozen=True)
class _Former:
    """A version that a new generation can start from."""

    ref: VersionRef
    generation: int
    template: Template
    vector: Vector


def found(
    config: AggregatorConfig,
    from_model: Path | None,
    store: Store,
    golden: Golden,
    now: float,
    chunk_limit: int | None,
    *,
    cold_start: bool = False,
) -> Foundation:
    """Go on with the store's generation, or start a new one where the meaning of the plan changed. Blocks.

    Args: cold_start: a new generation begins with the model file's own parameters.
    Raises: PlanError, TemplateError: with the file that is at fault. VectorError: the last version's vector is gone.
        OSError: the model file can't be read.
    """
    path = from_model or config.model
    model = _read(path)
    templates = TemplateFiles(config.data_dir / TEMPLATES)
    vectors = VectorFiles(config.data_dir / VECTORS)
    state = store.load()
    known = meaning_in(store, state.rules.generation) if state is not None else None
    kept = templates.read(known["template"]) if known is not None else None
    template = kept if kept is not None and kept.means_the_same(model.template) else model.template
    meaning = {**meaning_of(template, config), "imported": vector_sha256(model.vector) if from_model else None}
    is_same = state is not None and known is not None and _is_same(known, meaning)
    generation = state.rules.generation + (0 if is_same else 1) if state is not None else 1
    plan = build_plan(template, config, generation, chunk_limit, contract=model.template.contract)
    rules = rules_of(plan, config)
    registry = Registry(template, generation, vectors, golden)
    strategy = make_strategy(config.strategy)
    if state is not None and is_same:
        _LOG.info("generation %d goes on with version %d", generation, state.current.version)
        return Foundation(plan, rules, state, registry, strategy)
    if known is not None and kept is not None:
        for line in _what_changed(known, meaning, kept, template):
            _LOG.warning("generation %d begins: %s", generation, line)
    warm = None
    if state is not None and from_model is None and not cold_start:
        former = _former(state, store, templates, vectors)
        if former is not None:
            warm = former, take_over(former.template.info, former.vector, template.info, model.vector)
    templates.keep(template)
    store.put(_meaning_key(generation), meaning)  # nothing reads it before the generation has begun
    start = _Start(state, replace(model, template=template), path, from_model is not None, warm)
    state = start.commit(plan, rules, registry, strategy, store, now)
    for line in start.lines(generation):
        _LOG.info("%s", line)
    return Foundation(plan, rules, state, registry, strategy)


def meaning_in(store: Store, generation: int) -> dict[str, Any] | None:
    """What made a generation; None where this store didn't see it begin."""
    known: dict[str, Any] | None = store.get(_meaning_key(generation))
    return known


def _meaning_key(generation: int) -> str:
    return f"generation-meaning-{generation}"


def _read(path: Path) -> ModelFile:
    try:
        return read_model_file(path.read_bytes())
    except TemplateError as error:
        raise PlanError(f"{path}: {error}") from None


def _is_same(known: Mapping[str, object], meaning: Mapping[str, object]) -> bool:
    """The same generation; a run without `--from` goes on with an imported one whose template it names."""
    if meaning["imported"] is None:
        return {**known, "imported": None} == meaning
    return known == meaning


def _what_changed(known: Mapping[str, Any], meaning: Mapping[str, Any], old: Template, new: Template) -> Iterator[str]:
    """One line for each thing that makes it another generation."""
    yield from changes(old.contract, new.contract)
    if old.info.network != new.info.network:
        yield f"network: {_network(old)} -> {_network(new)}"
    elif old.contract.meaning_sha256 == new.contract.meaning_sha256 and old.graph_sha256 != new.graph_sha256:
        yield "the model file's graph is another one: made by another release, or of a module that was changed"
    if known["strategy"] != meaning["strategy"]:
        yield f"strategy: {_strategy(known)} -> {_strategy(meaning)}"
    if known["encodings"] != meaning["encodings"]:
        yield f"encodings: {', '.join(known['encodings'])} -> {', '.join(meaning['encodings'])}"
    if meaning["imported"] not in (None, known["imported"]):
        yield "its model was given by --from"


def _network(template: Template) -> str:
    network = template.info.network
    return f"{network.kind} ({', '.join(map(str, network.hidden))})"


def _strategy(meaning: Mapping[str, Any]) -> str:
    strategy = meaning["strategy"]
    options = ", ".join(f"{name} {value}" for name, value in strategy["options"].items())
    return f"{strategy['name']} ({options})" if options else str(strategy["name"])


def _former(state: State, store: Store, templates: TemplateFiles, vectors: VectorFiles) -> _Former | None:
    """The last version that was standardised: one that still waits for statistics has nothing to give."""
    ref = state.former if state.phase is Phase.BOOTSTRAP else state.current
    generation = store.generation(ref.version) if ref is not None else None
    known = meaning_in(store, generation) if generation is not None else None
    if ref is None or generation is None or known is None:
        return None
    template = templates.read(known["template"])
    return _Former(ref, generation, template, vectors.read(ref.version, ref.sha256, template.table.size))


@dataclass(frozen=True)
class _Start:
    """A generation's first version.

    Attributes:
        before: what it goes on from; None for the store's first generation.
        model: with the generation's template; imported: given by `--from`.
    """

    before: State | None
    model: ModelFile
    path: Path
    imported: bool
    warm: tuple[_Former, WarmStart] | None

    def commit(
        self, plan: Plan, rules: Rules, registry: Registry, strategy: Strategy, store: Store, now: float
    ) -> State:
        """Make it durable: the vector first, then everything else in one transaction."""
        before = self.before
        version = before.next_version if before is not None else 0
        vector = self.warm[1].vector if self.warm is not None else self.model.vector
        base = VersionRef(version=version, sha256=vector_sha256(vector))
        event = GenerationStarted(rules=rules, base=base, imported=self.imported, inherited=self._inherited())
        epoch = before.epoch if before is not None else 1
        initial = strategy.init(registry.template.table.elements(Role.WEIGHT))
        control = initial[CONTROL] if plan.control else None
        try:
            manifest = registry.prepare(version, vector, first_lineage(event), epoch, plan.chunk_bytes, control=control)
        except PrepareError as error:
            raise PlanError(f"{self.path}: {error}; was it made by `headgate model new`?") from None
        registry.keep(version, vector)
        state, outputs = first_state(event, now) if before is None else step(before, event, now)
        assert any(isinstance(output, RecordVersion) for output in outputs)
        attachments = {MANIFEST: manifest.model_dump_json().encode(), STRATEGY_STATE: encode_state(initial)}
        store.commit([Entry(event, max(now, state.at), outputs, attachments)], state, [p.id for p in store.pending()])
        return state

    def _inherited(self) -> Inherited | None:
        if self.warm is None:
            return None
        former, made = self.warm
        is_complete = set(made.standardised) == set(self.model.template.contract.feature_names)
        return Inherited(version=former.ref, features=made.standardised, complete=is_complete)

    def lines(self, generation: int) -> Iterator[str]:
        """What people read of it."""
        if self.warm is None:
            yield f"generation {generation} starts from {self.path}"
            return
        former, made = self.warm
        yield (
            f"generation {generation} starts warm, from version {former.ref.version} of generation "
            f"{former.generation}: {len(made.whole)} tensors as they are"
        )
        if made.part:
            yield f"taken over in part, by feature: {', '.join(made.part)}"
        if made.fresh:
            yield f"as in {self.path}: {', '.join(made.fresh)}"
        names = self.model.template.contract.feature_names
        if anew := [name for name in names if name not in made.standardised]:
            yield f"standardised anew, once participants have sent statistics: {', '.join(anew)}"
        yield (
            f"plants run version {former.ref.version} on, until a round of generation {generation} has made a version "
            "and they have evaluated it on their own data"
        )
