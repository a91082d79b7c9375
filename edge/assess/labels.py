"""Which field says whether a sample was good, and which says what was made. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from edge.assess.matching import Group
from edge.assess.tags import TagSeen
from edge.assess.words import same_word, verdict_of, words_of
from uns_topics.contract import ClassLabel, Contract, DeclaredContext

MAX_CODES = 30
_NAMES = (
    *("verdict", "result", "label", "judgement", "judgment", "outcome", "decision", "resultat", "ergebnis", "urteil"),
    *("veredicto", "resultado", "classification", "class", "defect", "anomaly", "passed"),
)


@dataclass(frozen=True, slots=True)
class LabelGuess:
    """A verdict. `codes`: plant's text -> class; `unknown`: texts that no list knows, with their counts."""

    field: str
    source: str
    codes: dict[str, str]
    unknown: tuple[tuple[str, int], ...]
    evidence: str


def find_label(group: Group, contract: Contract, used: Collection[str]) -> LabelGuess | None:
    """The field of a group that says a sample's class; None where none does, or the contract has no classes."""
    label = contract.label
    if not isinstance(label, ClassLabel):
        return None
    best: tuple[float, LabelGuess] | None = None
    for tag in group.seen.fields.values():
        if tag.field in used or not 1 <= len(tag.texts) <= MAX_CODES or len(tag.texts) > max(3, tag.count / 3):
            continue
        codes = {code: name for code in tag.texts if (name := _class_of(code, label)) is not None}
        names = [*words_of(tag.field), *words_of(group.pattern[-1])]
        named = any(same_word(word, other) for word in names for other in (*_NAMES, *words_of(label.name)))
        known = sum(tag.texts[code] for code in codes) / max(1, sum(tag.texts.values()))
        score = known + (0.5 if named else 0.0)
        if codes and score >= 0.8 and (best is None or score > best[0]):
            best = (score, _guess(group, tag, codes, known))
    return best[1] if best is not None else None


def _guess(group: Group, tag: TagSeen, codes: dict[str, str], known: float) -> LabelGuess:
    unknown = tuple((code, count) for code, count in tag.texts.most_common() if code not in codes)
    evidence = f"a verdict: {len(tag.texts)} codes, of {known:.0%} of the messages a class is guessed; CHECK EACH"
    return LabelGuess(tag.field, _source_of(group), codes, unknown, evidence)


def _class_of(code: str, label: ClassLabel) -> str | None:
    """A class by its own name, or by what its code and the classes sound like."""
    same = next((name for name in label.classes if name.lower() == code.strip().lower()), None)
    if same is not None:
        return same
    good = verdict_of(code)
    other = next(name for name in label.classes if name != label.positive)
    positive_is_bad = verdict_of(label.positive) is not True
    if good is None:
        return None
    return other if good == positive_is_bad else label.positive


def _source_of(group: Group) -> str:
    """A slug for who says so, by the topic."""
    segments = [s for s in group.pattern if not s.startswith("{") and s != "+"]
    for segment in reversed(segments):
        slug = "-".join(words_of(segment))
        is_general = any(same_word(word, other) for word in words_of(segment) for other in _NAMES)
        if slug and not is_general:
            return re.sub(r"[^a-z0-9-]", "", slug)[:64] or "inspection"
    return "inspection"


def find_context(group: Group, contract: Contract, used: Collection[str]) -> str | None:
    """The field whose texts are values of the contract's context."""
    context = contract.context
    if not isinstance(context, DeclaredContext):
        return None
    for tag in group.seen.fields.values():
        if (
            tag.field not in used
            and tag.texts
            and sum(text in context.values for text in tag.texts) * 2 >= len(tag.texts)
        ):
            return tag.field
    return None
