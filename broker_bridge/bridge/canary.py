"""Whether a value stands in bytes that left: as text, as a number in text, in binary, inside decoded tensors. Pure.

An update that is compressed is looked through as it unpacks; its byte numbers are those of the unpacked one. Other
compressed streams are not looked into: nothing else that a plant declares is compressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

import numpy as np
import numpy.typing as npt

from broker_bridge.bridge.needles import Needle, Pattern, needle
from uns_topics.encodings import EncodingError, encoding
from uns_topics.envelope import PayloadError
from uns_topics.update import Update, decode_update, unpacked

MAX_ACCIDENTAL = 0.3
"""What would be hit by accident more often than this in the whole search is left out, unless asked for. A float32 is
still looked for in 1 GiB, where its chance is 0.25: that is the most that a ledger keeps by default."""
TOLERANCE = 1e-6
"""Relative distance at which an element of a tensor counts as the value."""

_JSON_NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?!\w)(?!\.\d)")
_WINDOW = 1000
"""How much wider the window is in which neighbours are counted, to know what hits a tensor by accident."""

_MOST_UNPACKED = 2**31
"""Bytes. What a bridge's ledger keeps was held against the plan's table before; this bounds a file from elsewhere."""
_FLOAT16_END = 65_520.0  # from here on float16 rounds to infinity


@dataclass(frozen=True, slots=True)
class Find:
    """A value that was found.

    Attributes:
        value: what was looked for, as it was given.
        how: how it is written there, for people.
        place: `byte 17`, or `element 3 of delta`: the first one.
        count: how often, at least.
        accidental: how many such finds chance alone would give in the whole search; None where that can't be said.
    """

    value: str
    how: str
    place: str
    count: int
    accidental: float | None

    @property
    def is_chance(self) -> bool:
        """No more than what chance may well have put there."""
        return self.accidental is not None and self.accidental > MAX_ACCIDENTAL and self.count < 10 * self.accidental


class Haystack:
    """A payload, made ready for any number of needles. What it is shows by its bytes, whatever it was sent as."""

    def __init__(self, payload: bytes) -> None:
        self.update = _update(payload)
        is_packed = self.update is not None and self.update.header.compression != "none"
        self.payload = unpacked(self.update) if is_packed and self.update is not None else payload

    @cached_property
    def is_text(self) -> bool:
        """Whether it is UTF-8."""
        try:
            self.payload.decode()
        except UnicodeDecodeError:
            return False
        return True

    @property
    def is_undecodable(self) -> bool:
        """Neither text nor an update: searched byte by byte, but not inside of whatever it holds."""
        return not self.is_text and (self.update is None or len(self.tensors) < len(self.update.header.groups))

    @cached_property
    def lower(self) -> bytes:
        """ASCII letters in lower case."""
        return self.payload.lower()

    @cached_property
    def numbers(self) -> JsonNumbers:
        """Of the text, or of an update's header."""
        if self.update is not None:
            return JsonNumbers(self.update.header.model_dump_json().encode(), "field of the header")
        return JsonNumbers(self.payload if self.is_text else b"", "byte")

    @cached_property
    def tensors(self) -> tuple[tuple[str, str, npt.NDArray[np.float32]], ...]:
        """Name, encoding and elements of each group that can be decoded."""
        return tuple(_tensors(self.update)) if self.update is not None else ()


class JsonNumbers:
    """All numbers of a text, wherever they stand in it: as values, and inside of strings where they stand alone."""

    def __init__(self, text: bytes, unit: str) -> None:
        found = [(m.start(), m.group()) for m in _JSON_NUMBER.finditer(text)]
        self.unit = unit
        self.places = [place for place, _ in found]
        self.texts = [written for _, written in found]
        self.values = np.fromiter(map(float, self.texts), np.float64, len(self.texts))

    def equal(self, number: Decimal) -> tuple[list[int], list[int]]:
        """Indices of those equal to it by value, and of decimals equal to it once rounded to float32."""
        value, is_whole = float(number), number == number.to_integral_value()
        near = np.flatnonzero(np.abs(self.values - value) <= max(abs(value) * 1e-6, 1e-300)).tolist()
        exact, rounded = [], []
        single = _single(value)
        for index in near:
            written = self.texts[index]
            if Decimal(written.decode()) == number or (not is_whole and float(written) == value):
                exact.append(index)
            elif set(written) & set(b".eE") and _single(float(written)) == single:  # integers are never rounded so
                rounded.append(index)
        return exact, rounded


def search(value: str, payload: bytes, *, every_width: bool = False) -> list[Find]:
    """Where and how a value stands in one payload. Raises: ValueError: nothing that can be searched for."""
    finds = look(needle(value), Haystack(payload), len(payload), every_width=every_width)
    return [find for find in finds if every_width or not find.is_chance]


def look(wanted: Needle, haystack: Haystack, searched_bytes: int, *, every_width: bool = False) -> list[Find]:
    """Where and how a value stands in a payload; elements of tensors also where it `is_chance`.

    Args:
        searched_bytes: of the whole search that this is a part of, for what chance alone would hit.
        every_width: also what chance alone hits more than MAX_ACCIDENTAL times.
    """
    limit = float("inf") if every_width else MAX_ACCIDENTAL
    places = max(searched_bytes, len(haystack.payload))
    finds = [
        find
        for pattern in wanted.patterns
        if places * 2.0**-pattern.bits <= limit or (pattern.is_plain and haystack.is_text)
        if (find := _find(wanted, pattern, haystack, places)) is not None
    ]
    if wanted.number is not None:
        finds += _in_numbers(wanted, haystack.numbers)
        scale = places / max(1, len(haystack.payload))
        finds += _in_tensors(wanted, haystack, scale)
    return _merged(finds)


def left_out(wanted: Needle, searched_bytes: int) -> dict[str, float]:
    """What `look` doesn't look for in that much, and how often chance alone would hit it."""
    expected = [
        (f"{p.how}, outside of text" if p.is_plain else p.how, searched_bytes * 2.0**-p.bits) for p in wanted.patterns
    ]
    return {how: hits for how, hits in sorted(expected) if hits > MAX_ACCIDENTAL}


def _find(wanted: Needle, pattern: Pattern, haystack: Haystack, places: int) -> Find | None:
    raw = haystack.payload if pattern.reading == "bytes" else haystack.lower
    at = raw.find(pattern.raw)
    while at >= 0 and not _is_it(wanted, pattern, haystack.payload, at):
        at = raw.find(pattern.raw, at + 1)
    if at < 0:
        return None
    count = raw.count(pattern.raw, at)
    # Words don't stand in text by the chance of bits.
    accidental = None if pattern.is_plain and haystack.is_text else places * 2.0**-pattern.bits
    return Find(wanted.text, pattern.how, f"byte {at}", count, accidental)


def _is_it(wanted: Needle, pattern: Pattern, payload: bytes, at: int) -> bool:
    """Lower case was made byte by byte, and digits can be the middle of a longer number: look again."""
    if pattern.reading != "text":
        return True
    end = at + len(pattern.raw)
    if payload[at:end].decode(pattern.codec, "replace").lower() != pattern.text.lower():
        return False
    if wanted.number is None or pattern.codec != "utf-8":
        return True
    around = payload[max(0, at - 1) : at] + payload[end : end + 1]
    return not any(byte in b"0123456789." for byte in around)


def _in_numbers(wanted: Needle, numbers: JsonNumbers) -> Iterator[Find]:
    assert wanted.number is not None
    exact, rounded = numbers.equal(wanted.number)
    for indices, how in ((exact, "number in text"), (rounded, "number in text, rounded to float32")):
        if indices:
            first = indices[0]
            place = f"byte {numbers.places[first]}" if numbers.unit == "byte" else numbers.unit
            yield Find(wanted.text, how, place, len(indices), None)


def _in_tensors(wanted: Needle, haystack: Haystack, scale: float) -> Iterator[Find]:
    """Elements near the value, or equal to it as float16; neighbours say how many chance alone would give."""
    assert wanted.number is not None
    value = float(wanted.number)
    for name, code, elements in haystack.tensors:
        distance = np.abs(elements.astype(np.float64) - value)
        near = distance <= abs(value) * TOLERANCE
        how, width = f"tensor in {code}, within {TOLERANCE:g}", abs(value) * TOLERANCE * _WINDOW
        share = _WINDOW
        if exact := int(np.count_nonzero(elements[near] == _single(value))):
            how = f"tensor in {code}, exact" if exact == near.sum() else f"tensor in {code}, {exact} of them exact"
        elif code == "f16" and not near.any() and abs(value) < _FLOAT16_END:
            near = elements == np.float32(np.float16(value))
            # 2^-5 to both sides of a value are 64 steps of float16, or up to twice as many
            how, width, share = "tensor in f16, rounded", abs(value) * 2.0**-5, 64
        count = int(np.count_nonzero(near))
        if count:
            neighbours = np.count_nonzero(distance <= width) - count if value else share * count  # zeros are no find
            place = f"element {int(np.argmax(near))} of {name}"
            yield Find(wanted.text, how, place, count, scale * float(neighbours) / share)


def _single(value: float) -> np.float32 | None:
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return single if np.isfinite(single) else None


def _merged(finds: list[Find]) -> list[Find]:
    """One find for each way: the same text in several cases is one."""
    merged: dict[str, Find] = {}
    for find in finds:
        known = merged.get(find.how)
        merged[find.how] = find if known is None else replace(known, count=known.count + find.count)
    return list(merged.values())


def _update(payload: bytes) -> Update | None:
    try:
        return decode_update(payload, max(len(payload), _MOST_UNPACKED))
    except PayloadError:
        return None


def _tensors(update: Update) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    for group, raw in update.parts():
        with suppress(EncodingError):
            yield group.name, group.encoding, encoding(group.encoding).decode(raw, group.elements)
