"""Making a version once more from what is stored, to see that it is what it says: `headgate model replay`. Blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aggregator.config import AggregatorConfig
from aggregator.effects import Aggregate
from aggregator.founding import meaning_in
from aggregator.performer import Workshop, make_version
from aggregator.registry import Registry
from aggregator.store import STRATEGY_STATE, Store, StoreError, has_file, url_of
from aggregator.strategies import carries_control, make_strategy
from aggregator.templates import TEMPLATES, TemplateFiles
from aggregator.vectors import VECTORS, VectorError, VectorFiles
from uns_topics.plan import Strategy
from uns_topics.steps import StepError, read_header
from uns_topics.template import Lineage, read_model_file
from uns_topics.tensors import vector_sha256


class ReplayError(Exception):
    """A version that can't be made again: it never was made by a round, or something that it came from is gone."""


@dataclass(frozen=True)
class Replayed:
    """A version as it is recorded, and as it came out now."""

    version: int
    parent: int
    round_number: int
    participants: tuple[str, ...]
    recorded: str
    made: str
    same_state: bool
    """Whether the strategy's state came out the same too, or is no longer kept."""

    @property
    def agrees(self) -> bool:
        """Whether it is the same to the bit."""
        return self.recorded == self.made and self.same_state


def replay(config: AggregatorConfig, version: int) -> Replayed:
    """Fold a version's stored updates onto its parent again. Nothing is written; the aggregator may be running.

    Raises: ReplayError, StoreError. OSError, TemplateError: the model file can't be read.
    """
    model = read_model_file(config.model.read_bytes())
    if not has_file(config):
        raise ReplayError(f"{config.data_dir}: no aggregator has run on this directory")
    store = Store(url_of(config))
    try:
        found = store.version(version)
        if found is None:
            raise ReplayError(f"version {version} is not in the store")
        lineage = Lineage.model_validate_json(store.lineage(version))
        if lineage.origin != "round" or lineage.parent is None or lineage.round_number is None:
            raise ReplayError(f"version {version} was made by no round (its origin is '{lineage.origin}')")
        parent = store.version(lineage.parent)
        if parent is None:
            raise ReplayError(f"version {lineage.parent}, which it was made from, is not in the store")
        step = store.step(version)
        meaning = meaning_in(store, store.generation(version) or 0)
        templates = TemplateFiles(config.data_dir / TEMPLATES)
        template, strategy = model.template, config.strategy
        encodings: tuple[str, ...] = config.encodings
        if meaning is not None:  # it may be of an earlier generation than the configuration
            template, encodings = templates.read(meaning["template"]), tuple(meaning["encodings"])
            strategy = Strategy.model_validate(meaning["strategy"])
        workshop = Workshop(
            store,
            Registry(template, 0, VectorFiles(config.data_dir / VECTORS), lambda *_: (math.nan,)),
            make_strategy(strategy),
            encodings,
            config.data_dir,
            read_header(step).encoding if step is not None else None,
            carries_control(strategy),
        )
        participants = tuple(one.participant for one in store.counted(lineage.round_number))
        if len(participants) != lineage.contributors:
            raise ReplayError(f"{len(participants)} updates are recorded, and {lineage.contributors} went into it")
        effect = Aggregate(
            round_number=lineage.round_number, version=version, base=lineage.parent, participants=participants
        )
        vector, attachments = make_version(workshop, effect, parent[0])
        state = store.strategy_state(version)
    except KeyError as error:
        kept = f"keep_rounds keeps the last {config.keep_rounds} rounds' updates, and the current version's"
        raise ReplayError(f"version {version} can't be made again: {error.args[0]} ({kept})") from None
    except (VectorError, StepError, ValueError) as error:
        raise ReplayError(f"version {version} can't be made again: {error}") from None
    finally:
        store.close()
    made, same_state = vector_sha256(vector), state in (None, attachments[STRATEGY_STATE])
    return Replayed(version, lineage.parent, lineage.round_number, participants, found[0], made, same_state)


__all__ = ["ReplayError", "Replayed", "StoreError", "replay"]
