"""Text for a terminal: harmless, and to the column."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.tree import text

ANY = st.text(st.characters(codec=None), max_size=60)
"""Half surrogate pairs too: JSON can spell them."""


@given(ANY)
def test_nothing_that_a_terminal_acts_on_is_left(said: str) -> None:
    shown = text.printable(said)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("grün 21,5 °C", "grün 21,5 °C"),
        ("\x1b[2J\x1b]52;c;QQ==\a", "\\x1b[2J\\x1b]52;c;QQ==\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("21\u00a0°C", "21 °C"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_escapes(said: str, shown: str) -> None:
    assert text.printable(said) == shown


@given(ANY)
def test_json_stays_the_same_and_is_harmless(said: str) -> None:
    safe = text.json_safe(json.dumps({"topic": said}, ensure_ascii=False))
    assert safe.isprintable()
    assert json.loads(safe) == json.loads(json.dumps({"topic": said}))


@given(ANY, st.integers(0, 40))
def test_columns_are_as_wide_as_said(said: str, width: int) -> None:
    shown = text.printable(said)
    assert text.width_of(text.column(shown, width)) == width
    assert text.width_of(text.column(shown, width, right=True)) == width
    assert text.width_of(text.cut(shown, width)) <= width
    assert text.width_of(text.cut_middle(shown, width)) <= width
    lines = text.folded(shown, width)
    assert "".join(lines) == shown
    assert all(text.width_of(one) <= max(2, width) for one in lines)


def test_wide_characters_take_two_columns() -> None:
    assert text.column("温度計", 5) == "温度…"
    assert text.column("温度計", 4) == "温… "
    assert text.column("温度", 6) == "温度  "


def test_a_long_topic_loses_its_middle() -> None:
    topic = "acme/berlin/smt/line1/_inference/solder-defect/model_version"
    shown = text.cut_middle(topic, 30)
    assert len(shown) == 30
    assert shown.startswith("acme/")
    assert shown.endswith("model_version")
    assert text.cut_middle("short", 30) == "short"


@given(st.lists(st.floats(), max_size=40), st.integers(0, 40))
def test_a_sparkline_has_a_bar_per_finite_number(values: list[float], width: int) -> None:
    bars = text.sparkline(values, width)
    assert len(bars) == min(width, sum(math.isfinite(v) for v in values))
    assert set(bars) <= set(text.BARS)


def test_a_sparkline_rises_with_its_values() -> None:
    assert text.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == text.BARS
    assert text.sparkline([9, 1, 2], 2) == "▁█"
    assert text.sparkline([5, 5], 8) == "▄▄"


@given(st.floats(0, 1e12))
def test_rates_and_ages_fit_their_columns(number: float) -> None:
    assert len(text.rate(number)) <= 7
    assert len(text.age(number)) <= 5
    assert number >= 999_500 or len(text.rate(number)) <= 6
    assert number > 8e7 or len(text.age(number)) <= 4


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(12_345, "12k/s"), (1_234, "1.2k/s"), (999, "1.0k/s"), (45.6, "46/s"), (9.97, "10/s"), (5, "5.0/s"),
     (0.5, "30/min"), (1 / 60, "1/min"), (1 / 600, "6/h"), (0, "")],
)  # fmt: skip
def test_rates(per_second: float, shown: str) -> None:
    assert text.rate(per_second) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400 * 3, "3d")]
)
def test_ages(seconds: float, shown: str) -> None:
    assert text.age(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 * 1024, "300 KiB"), (2**31, "2.0 GiB")]
)
def test_sizes(number: float, shown: str) -> None:
    assert text.size(number) == shown


@pytest.mark.parametrize(
    ("written", "shown"), [("21.50", "21.50"), ("0.30000000000000004", "0.3"), ("12345678901234", "1.234568e+13")]
)
def test_numbers(written: str, shown: str) -> None:
    assert text.short_number(written, float(written)) == shown
