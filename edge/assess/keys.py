"""Which field tells one event from the next: a board's serial, by its name, and by standing in several topics. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.assess.matching import Group
from edge.assess.tags import TagSeen
from edge.assess.words import same_word, words_of
from edge.dialects import Form
from uns_topics.contract import Contract, EventSample

_NAMES = ("serial", "sn", "id", "uid", "key", "barcode", "serie", "seriennummer", "matrix", "number", "nummer", "lot")
MIN_DISTINCT = 0.5
"""Share of a field's messages with a text of their own; verdict and inspection of one board say it twice."""
MIN_SHARED = 5


@dataclass(frozen=True, slots=True)
class Keyed:
    """The key of a topic's messages."""

    field: str
    evidence: str


def find_key(group: Group, groups: Sequence[Group], contract: Contract) -> Keyed | None:
    """The key of one group's messages; None where it has none."""
    if group.seen.form not in (Form.FLAT, Form.SPARKPLUG) or not isinstance(contract.sample, EventSample):
        return None
    wanted = (*words_of(contract.sample.key), *_NAMES)
    best: tuple[int, Keyed] | None = None
    for tag in group.seen.fields.values():
        if not _may_be_key(tag):
            continue
        named = sum(any(same_word(word, other) for other in wanted) for word in words_of(tag.field))
        shared = max((_shared(tag, other) for other in groups if other is not group), default=0)
        score = 2 * named + (2 if shared >= MIN_SHARED else 0)
        if score >= 2 and (best is None or score > best[0]):
            told = f"{len(tag.texts)} different values"
            also = f", {shared} of them in another topic, too" if shared else ""
            best = (score, Keyed(tag.field, f"the key: {told}{also}"))
    return best[1] if best is not None else None


def _may_be_key(tag: TagSeen) -> bool:
    whole = all(number == int(number) for number in tag.numbers.kept[:50])
    return len(tag.texts) >= 2 and whole and len(tag.texts) >= MIN_DISTINCT * min(tag.count, 400)


def _shared(tag: TagSeen, other: Group) -> int:
    """Values that another group's field of texts has, too; whole numbers meet by chance."""
    if tag.is_numeric:
        return 0
    fields = (one for one in other.seen.fields.values() if not one.is_numeric)
    return max((len(tag.texts.keys() & one.texts.keys()) for one in fields), default=0)
