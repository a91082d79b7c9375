"""Which contracts a signal map covers: it may feed more than one asks for. Pure.

A map is written for a contract, and is strict about it when the edge starts. But contracts change: while the next
generation is learnt the last one still serves, and one map has to feed both. What it feeds besides is no problem then.
"""

from __future__ import annotations

from edge.binding import BoundMap, MapError, bind
from edge.signal_map import ContextField, LabelField, SignalMap, Source
from edge.units import UnitError, linear_conversion
from uns_topics.contract import ClassLabel, Contract, DeclaredContext, EventSample


def bind_what_fits(signal_map: SignalMap, contract: Contract, *, labels: bool = True) -> BoundMap:
    """Bind the part of a map that a contract asks for.

    Args: labels: False where samples are only inferred on.
    Raises: MapError: a required feature that nothing feeds, a unit, a kind of source that the sample rule can't use.
    """
    return bind(narrowed(signal_map, contract, labels=labels), contract)


def why_not_covered(signal_map: SignalMap, contract: Contract) -> str | None:
    """Why a map can't feed a contract, in words for the plant's own people; None where it can."""
    try:
        bind_what_fits(signal_map, contract)
    except MapError as error:
        return str(error)
    return None


def missing_features(signal_map: SignalMap, contract: Contract) -> tuple[str, ...]:
    """Required features that nothing feeds, or only in a unit that can't be converted; in the contract's order."""
    fed = {
        field.feature
        for source in signal_map.sources
        for field in source.features
        if _converts(field.unit, field.feature, contract)
    }
    return tuple(f.name for f in contract.features if not f.optional and f.name not in fed)


def narrowed(signal_map: SignalMap, contract: Contract, *, labels: bool = True) -> SignalMap:
    """The part of a map that a contract asks for. Args: labels: False: without what only says labels."""
    sources = (_source(source, contract, labels) for source in signal_map.sources)
    kept = tuple(source for source in sources if _feeds(source))
    return signal_map.model_copy(update={"sources": kept or signal_map.sources})


def _source(source: Source, contract: Contract, labels: bool) -> Source:
    names = set(contract.feature_names)
    has_runs = not isinstance(contract.sample, EventSample)
    return source.model_copy(
        update={
            "features": tuple(field for field in source.features if field.feature in names),
            "context": _context(source.context, contract),
            "label": _label(source.label, contract) if labels else None,
            "end_of_run": source.end_of_run if has_runs else None,
        }
    )


def _context(field: ContextField | None, contract: Contract) -> ContextField | None:
    if field is None or not isinstance(contract.context, DeclaredContext):
        return None
    values = contract.context.values
    return field.model_copy(update={"codes": {code: v for code, v in field.codes.items() if v in values}})


def _label(field: LabelField | None, contract: Contract) -> LabelField | None:
    if field is None or not isinstance(contract.label, ClassLabel):
        return None
    codes = {code: name for code, name in field.codes.items() if name in contract.label.classes}
    return field.model_copy(update={"codes": codes}) if codes else None


def _feeds(source: Source) -> bool:
    return bool(source.features or source.key or source.group or source.context or source.label or source.end_of_run)


def _converts(unit: str, name: str, contract: Contract) -> bool:
    feature = next((feature for feature in contract.features if feature.name == name), None)
    if feature is None:
        return False
    try:
        linear_conversion(unit, feature.unit)
    except UnitError:
        return False
    return True
