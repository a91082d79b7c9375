"""A value to search for, and every run of bytes that it can be written as. Pure.

A short run stands somewhere by accident in any large model. Each pattern therefore knows how many bits say something:
its width, without the zero and 0xFF bytes at its ends, which numbers share with padding and with each other.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

import numpy as np

_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?")
_MAX_DIGITS = 60
_MAX_NEEDLE = 4096
_HEX = frozenset("0123456789abcdefABCDEF")
_TEXT_CODECS = (("UTF-16LE", "utf-16-le"), ("UTF-16BE", "utf-16-be"))
_ORDERS: tuple[tuple[Literal["little", "big"], str], ...] = (("little", "<"), ("big", ">"))

Reading = Literal["bytes", "folded", "text"]
"""Compared byte by byte; letters of any case, as ASCII; or letters of any case of what the bytes decode to."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A run of bytes that a needle can be written as.

    Attributes:
        how: in words for people, such as `float32, little-endian`.
        raw: the bytes; in lower case where `reading` is not `bytes`.
        bits: how many of its bits say something: it stands by accident at one of 2^bits places.
        text: what they decode to by `codec`, where `reading` is `text`.
        is_plain: the text itself, which is always looked for where a payload is text.
    """

    how: str
    raw: bytes
    bits: int
    reading: Reading = "bytes"
    text: str = ""
    codec: str = "utf-8"
    is_plain: bool = False


@dataclass(frozen=True, slots=True)
class Needle:
    """A value to search for. `number`: what it is worth, where it is a number; a comma is a decimal comma."""

    text: str
    number: Decimal | None
    patterns: tuple[Pattern, ...] = field(repr=False)


@lru_cache(maxsize=1024)
def needle(text: str) -> Needle:
    """Everything to look for. Raises: ValueError: empty, too long, or no Unicode text."""
    if not text.strip() or len(text) > _MAX_NEEDLE:
        raise ValueError(f"a value to search for has 1 to {_MAX_NEEDLE} characters")
    number = _number(text.strip())
    patterns = [*_texts(text, is_number=number is not None)]
    if number is not None:
        patterns += [*_floats(number), *_integers(number)]
    unique = {(p.how, p.raw): p for p in patterns}
    return Needle(text, number, tuple(unique.values()))


def _number(text: str) -> Decimal | None:
    if not _NUMBER.fullmatch(text) or len(text) > _MAX_DIGITS:
        return None
    number = Decimal(text.replace(",", "."))
    return number if math.isfinite(float(number)) else None


def _texts(text: str, *, is_number: bool) -> Iterator[Pattern]:
    # Composed and decomposed umlauts look alike; letters beyond ASCII are folded by writing them in each case.
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    cases = sorted({case for form in forms for case in (form, form.lower(), form.upper())})
    for case in cases:
        raw = case.encode("utf-8")
        yield Pattern("text", raw.lower(), _text_bits(case), "text", case, is_plain=not is_number)
        for name, codec in _TEXT_CODECS:
            yield Pattern(f"text, {name}", case.encode(codec).lower(), 8 * len(case), "text", case, codec)
        yield Pattern("text, in hex", raw.hex().encode(), _text_bits(raw.hex()), "folded")
        escaped = json.dumps(case)[1:-1]
        for writing in {escaped, escaped.replace("/", "\\/"), _all_escaped(case)} - {case}:
            yield Pattern("text, JSON-escaped", writing.encode().lower(), 8 * len(raw), "folded")
        for writing in {quote(case, safe=""), "".join(f"%{b:02x}" for b in raw)} - {case}:
            yield Pattern("text, percent-encoded", writing.encode().lower(), 8 * len(raw), "folded")
        yield from _base64(raw)


def _text_bits(text: str) -> int:
    """Numbers are full of digits, and hashes of hex digits: those are hit by accident more often."""
    each = 3 if text.isdigit() and text.isascii() else 4 if set(text) <= _HEX else 8
    return each * len(text.encode())


def _all_escaped(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _base64(raw: bytes) -> Iterator[Pattern]:
    """At each of the three places that it can have in a group, without the characters that share bits with others."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        start = -(-8 * before // 6)
        end = 8 * (before + len(raw)) // 6
        kept = encoded[start:end]
        for variant in {kept, kept.replace(b"+", b"-").replace(b"/", b"_")} - {b""}:
            yield Pattern("text, in base64", variant, 6 * len(kept))


def _floats(number: Decimal) -> Iterator[Pattern]:
    value = float(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # beyond the type's range: left out below
        rounded = [(name, np.dtype(code).type(value)) for name, code in _FLOATS]
    for name, as_type in rounded:
        if not math.isfinite(as_type) or (as_type == 0) != (number == 0):
            continue
        for order, sign in _ORDERS:
            raw = struct.pack(f"{sign}{_FORMATS[name]}", float(as_type))
            yield Pattern(f"{name}, {order}-endian", raw, _telling_bits(raw))


_FLOATS = (("float64", "f8"), ("float32", "f4"), ("float16", "f2"))
_FORMATS = {"float64": "d", "float32": "f", "float16": "e"}


def _integers(number: Decimal) -> Iterator[Pattern]:
    if abs(number) >= 2**64 or number != int(number):
        return
    value = int(number)
    for width in (64, 32, 16, 8):
        if not -(2 ** (width - 1)) <= value < 2**width:
            continue
        name = f"int{width}" if value < 2 ** (width - 1) else f"uint{width}"
        for order, _ in _ORDERS if width > 8 else _ORDERS[:1]:
            raw = value.to_bytes(width // 8, order, signed=value < 0)
            yield Pattern(f"{name}, {order}-endian" if width > 8 else name, raw, _telling_bits(raw))


def _telling_bits(raw: bytes) -> int:
    return 8 * min(len(raw.strip(b"\0")), len(raw.strip(b"\xff")))
