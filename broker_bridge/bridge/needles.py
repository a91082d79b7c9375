"""A value to search for, and every run of bytes that it can be written as. Pure.

A short run stands somewhere by accident in any large model. Each pattern therefore knows how many bits say something:
its width, without the zero bytes (0xFF of negative integers) at its ends, which numbers share with padding.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import unicodedata
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
_FLOATS = (("float64", "d"), ("float32", "f"), ("float16", "e"))
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
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}
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
    for name, code in _FLOATS:
        with np.errstate(over="ignore", under="ignore"):
            rounded = float(np.dtype(code).type(float(number)))
        if not math.isfinite(rounded) or (rounded == 0) != (number == 0):  # beyond what the type holds
            continue
        for order, sign in _ORDERS:
            raw = struct.pack(sign + code, rounded)
            yield Pattern(f"{name}, {order}-endian", raw, _telling_bits(raw))


def _integers(number: Decimal) -> Iterator[Pattern]:
    if abs(number) >= 2**64 or number != int(number):
        return
    value = int(number)
    padding = b"\xff" if value < 0 else b"\0"
    for width in (64, 32, 16, 8):
        if not -(2 ** (width - 1)) <= value < 2**width:
            continue
        name = f"int{width}" if value < 2 ** (width - 1) else f"uint{width}"
        for order, _ in _ORDERS if width > 8 else _ORDERS[:1]:
            raw = value.to_bytes(width // 8, order, signed=value < 0)
            yield Pattern(f"{name}, {order}-endian" if width > 8 else name, raw, _telling_bits(raw, padding))


def _telling_bits(raw: bytes, padding: bytes = b"\0") -> int:
    return 8 * len(raw.strip(padding))
