"""Searching for a value: every way of writing it is found, and chance is told apart from a find."""

from __future__ import annotations

import base64
import json
import struct
import time
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker_bridge.bridge.canary import MAX_ACCIDENTAL, Find, Haystack, left_out, look, search
from broker_bridge.bridge.needles import needle
from tests.contracts.examples import UPDATE
from uns_topics.compression import compress
from uns_topics.encodings import encoding
from uns_topics.update import TensorGroup, UpdateHeader, decode_update, encode_update

RNG = np.random.default_rng(7)
NOISE = RNG.bytes(5_001)
TEXT = "LOT-4711/Ofen Süd"


def ways(value: str, payload: bytes, *, every_width: bool = False) -> dict[str, Find]:
    return {find.how: find for find in search(value, payload, every_width=every_width)}


def at(raw: bytes, offset: int) -> bytes:
    """Noise with something planted in it."""
    return NOISE[:offset] + raw + NOISE[offset:]


def update(values: np.ndarray, code: str = "f32", **header: object) -> bytes:
    body = encoding(code).encode(values.astype(np.float32))
    groups = (TensorGroup(name="delta", encoding=code, elements=values.size, bytes=len(body)),)
    fields: dict[str, object] = {
        "federation": "solder", "participant": "berlin", "round_number": 1, "attempt": 1, "base": "a" * 64,
        "generation": 1, "num_examples": 731_942, "num_steps": 100, "groups": groups, **header,
    }  # fmt: skip
    return encode_update(UpdateHeader(**fields), body)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5_001])
@pytest.mark.parametrize(
    ("how", "raw"),
    [
        ("text", TEXT.encode()),
        ("text", TEXT.upper().encode()),
        ("text", "lot-4711/ofen sÜd".encode()),
        ("text", "LOT-4711/Ofen Su\u0308d".encode()),
        ("text, UTF-16LE", TEXT.encode("utf-16-le")),
        ("text, UTF-16BE", TEXT.lower().encode("utf-16-be")),
        ("text, JSON-escaped", json.dumps(TEXT)[1:-1].encode()),
        ("text, JSON-escaped", json.dumps(TEXT)[1:-1].replace("/", "\\/").replace("fc", "FC").encode()),
        ("text, JSON-escaped", "".join(f"\\u{ord(c):04x}" for c in TEXT).encode()),
        ("text, in hex", TEXT.encode().hex().encode()),
        ("text, in hex", TEXT.encode().hex().upper().encode()),
        ("text, percent-encoded", b"LOT-4711%2FOfen%20S%C3%BCd"),
        ("text, percent-encoded", b"".join(b"%%%02x" % b for b in TEXT.encode())),
        ("text, in base64", base64.b64encode(b"x" * 6 + TEXT.encode() + b"y")),
        ("text, in base64", base64.b64encode(b"x" * 7 + TEXT.encode() + b"yy")),
        ("text, in base64", base64.urlsafe_b64encode(b"x" * 8 + TEXT.encode() + b"yyy")),
    ],
)
def test_text_is_found_in_every_writing(how: str, raw: bytes, offset: int) -> None:
    found = ways(TEXT, at(raw, offset))
    assert how in found
    assert ways(TEXT, NOISE) == {}
    if "base64" not in how:
        assert found[how].place == f"byte {offset}"


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("length", range(4, 9))
def test_base64_is_found_at_every_alignment_whatever_stands_around_it(before: int, length: int) -> None:
    text = "canaries"[:length]
    for _ in range(20):
        written = base64.b64encode(RNG.bytes(before) + text.encode() + RNG.bytes(5))
        assert "text, in base64" in ways(text, b'{"x":"' + written + b'"}')


def test_letters_that_only_look_folded_are_no_find() -> None:
    # Byte by byte, U+4E61 and U+6E61 become alike in lower case.
    assert ways("乡乡乡乡", "湡湡湡湡".encode("utf-16-le")) == {}
    assert "text, UTF-16LE" in ways("乡乡乡乡", "乡乡乡乡".encode("utf-16-le"))


@pytest.mark.parametrize("value", ["3.14", "3,14", "+3.140", "314e-2", ".0314e2", "3.14 "])
@pytest.mark.parametrize("written", ["3.14", "3.1400", "314e-2", "0.314E+1", "3.14e0", "31400000e-7"])
def test_numbers_in_text_are_found_by_value(value: str, written: str) -> None:
    found = ways(value, f'{{"a":[1,{written}],"b":2}}'.encode())
    assert found["number in text"].place == "byte 8"
    assert found["number in text"].count == 1


@pytest.mark.parametrize(
    "written", ["13.14", "3.141", "3.14e1", "-3.14", "3", "3.14.15", "a3.14", "0x3.14", "3.1399999"]
)
def test_other_numbers_are_not(written: str) -> None:
    assert "number in text" not in ways("3.14", f'{{"a":"{written}"}}'.encode())


def test_numbers_inside_strings_negative_numbers_and_float32_writings() -> None:
    assert "number in text" in ways("-3.14", b'{"note":"read -3.140 mm"}')
    assert "number in text, rounded to float32" in ways("3.14", json.dumps({"a": float(np.float32(3.14))}).encode())
    assert "number in text" in ways("0.1", b"[0.1000000000000000055511151231257827]")  # the same double


def test_integers_of_text_are_never_rounded() -> None:
    assert ways("1764072154123", b'{"timestamp_ms":1764072154124,"value":1764072154100}') == {}
    assert "number in text" in ways("1764072154123", b'{"timestamp_ms":1764072154123}')
    assert "number in text" in ways("1764072154123", b"[1.764072154123e12]")


def test_a_number_is_not_found_in_digits_of_a_longer_one() -> None:
    assert ways("734.25", b'{"a":1734.25,"b":734.251,"c":"734.25.1"}') == {}
    assert "text" in ways("734.25", b"volume=x734.25mm")


FORMATS = [("float64", "d"), ("float32", "f"), ("float16", "e")]


@pytest.mark.parametrize("offset", [0, 1, 3, 1_000, 5_001])
@pytest.mark.parametrize(("order", "sign"), [("little", "<"), ("big", ">")])
@pytest.mark.parametrize(("name", "code"), FORMATS)
def test_floats_are_found_at_every_offset(name: str, code: str, order: str, sign: str, offset: int) -> None:
    payload = at(struct.pack(sign + code, 271.8281), offset)
    found = ways("271.8281", payload, every_width=True)
    assert int(found[f"{name}, {order}-endian"].place.removeprefix("byte ")) <= offset
    if name != "float16":
        assert found[f"{name}, {order}-endian"].place == f"byte {offset}"


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("value", [-1_234_567_890, 4_111_222_333, 1_234_567_890_123_456_789, -9_000_111_222_333_444_555,
                                   18_000_111_222_333_444_555, -77, 200, 60_123])  # fmt: skip
def test_integers_are_found_in_every_width_that_holds_them(value: int, order: str) -> None:
    for width in (8, 16, 32, 64):
        for signed in (True, False):
            try:
                raw = value.to_bytes(width // 8, order, signed=signed)  # type: ignore[arg-type]
            except OverflowError:
                continue
            name = f"int{width}" if value < 2 ** (width - 1) else f"uint{width}"
            how = name if width == 8 else f"{name}, {order}-endian"
            assert how in ways(str(value), at(raw, 333), every_width=True)
            assert how in ways(f"{value}.0", at(raw, 333), every_width=True)


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.binary(max_size=200), st.binary(max_size=200), st.booleans()
)
def test_a_random_double_in_random_bytes_is_found(value: float, before: bytes, after: bytes, big: bool) -> None:
    raw = struct.pack(">d" if big else "<d", value)
    assume(len(repr(value)) <= 60)
    found = ways(repr(value), before + raw + after, every_width=True)
    assert value == 0 or f"float64, {'big' if big else 'little'}-endian" in found


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.binary(max_size=200), st.binary(max_size=200))
def test_a_random_float32_in_random_bytes_is_found(value: float, before: bytes, after: bytes) -> None:
    assume(value != 0)
    assert "float32, little-endian" in ways(repr(value), before + struct.pack("<f", value) + after, every_width=True)


@given(st.text(min_size=1, max_size=20), st.binary(max_size=50), st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]))
def test_random_text_in_random_bytes_is_found(text: str, before: bytes, codec: str) -> None:
    assume(text.strip())
    try:
        raw = text.encode(codec)
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="surrogates"):
            needle(text)
        return
    how = {"utf-8": "text", "utf-16-le": "text, UTF-16LE", "utf-16-be": "text, UTF-16BE"}[codec]
    assume(needle(text).number is None)
    assert how in ways(text, before + raw, every_width=True)


@given(st.text(max_size=30), st.binary(max_size=300))
def test_any_needle_in_anything_is_searched_without_an_error(text: str, payload: bytes) -> None:
    try:
        search(text, payload, every_width=True)
    except ValueError as error:
        assert not text.strip() or "surrogates" in str(error)  # noqa: PT017


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_any_number_is_found_in_json(number: Decimal) -> None:
    assert "number in text" in ways(str(number), json.dumps({"x": [float(number)]}).encode())


@pytest.mark.parametrize("value", ["", "  ", "x" * 4097])
def test_what_cannot_be_searched_for(value: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        search(value, b"")


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 61, "1e-400", "nan", "inf", "1e9999999999"])
def test_numbers_beyond_every_width_are_searched_all_the_same(value: str) -> None:
    assert "text" in ways(value, f'{{"x":"<{value}>"}}'.encode())


# Chance ---------------------------------------------------------------------------------------------------------------


def test_chance_is_places_times_two_to_the_minus_bits() -> None:
    raw = struct.pack("<f", 271.8281)
    assert 0 not in raw
    size = 4 * 2**20
    (find,) = [f for f in look(needle("271.8281"), Haystack(at(raw, 9)), size) if f.how == "float32, little-endian"]
    assert find.accidental == size / 2**32
    lonely = left_out(needle("271.8281"), size)
    assert lonely == {"float16, little-endian": size / 2**16, "float16, big-endian": size / 2**16}


def test_zero_bytes_at_the_ends_tell_nothing() -> None:
    assert left_out(needle("1.0"), 100_000)["float64, little-endian"] == 100_000 / 2**16  # 3f f0 00 ...
    # 250 is fa 00 00 00 as a 32-bit integer, like any 250 among zeros
    assert left_out(needle("250"), 1_000)["int32, little-endian"] == 1_000 / 2**8
    assert left_out(needle("-2"), 1_000)["int64, big-endian"] == 1_000 / 2**8


def test_what_chance_hits_is_left_out_unless_asked_for() -> None:
    payload = NOISE * 20
    value = int.from_bytes(NOISE[100:102], "little")
    assert len(payload) / 2**16 > MAX_ACCIDENTAL
    assert "uint16, little-endian" not in ways(str(value), payload)
    hits = ways(str(value), payload, every_width=True)
    assert any(how.endswith("int16, little-endian") for how in hits)


def test_the_whole_search_counts_and_not_one_payload() -> None:
    payload = b"\x01\x02" + struct.pack("<H", 54_321)
    assert "uint16, little-endian" in ways("54321", payload)
    assert look(needle("54321"), Haystack(payload), 1_000_000) == []


def test_short_text_is_always_looked_for_in_text_and_not_in_a_large_binary() -> None:
    assert ways("A7", b'{"line":"A7"}')["text"].count == 1
    payload = b"\xff" + NOISE * 200
    assert "text" not in ways("Q7", payload)
    assert "text, outside of text" in left_out(needle("Q7"), len(payload))


# Tensors --------------------------------------------------------------------------------------------------------------


def test_the_golden_update_says_its_tensor_and_its_header() -> None:
    assert ways("0.0625", UPDATE)["tensor in f32, exact"].place == "element 3 of delta"
    assert ways("720", UPDATE)["number in text"].place == "field of the header"
    assert "text" in ways("berlin", UPDATE)
    assert not Haystack(UPDATE).is_undecodable


def test_an_element_close_to_the_value_is_found() -> None:
    values = RNG.normal(0, 0.01, 20_000)
    values[4321] = np.float32(271.8281) * (1 + 5e-7)
    found = ways("271.8281", update(values))
    assert set(found) == {"tensor in f32, within 1e-06"}
    assert found["tensor in f32, within 1e-06"].place == "element 4321 of delta"
    values[4321] = np.float32(271.8281) * (1 + 5e-6)
    assert ways("271.8281", update(values)) == {}


def test_a_value_is_found_as_float16_makes_it() -> None:
    values = RNG.normal(0, 0.01, 20_000)
    values[[77, 78]] = 271.8281
    found = ways("271.8281", update(values, "f16"))
    assert set(found) == {"tensor in f16, rounded"}
    assert (found["tensor in f16, rounded"].place, found["tensor in f16, rounded"].count) == ("element 77 of delta", 2)


@pytest.mark.parametrize("code", ["f32", "f16"])
def test_elements_among_their_like_are_chance(code: str) -> None:
    values = RNG.normal(0, 0.01, 3_000_000 if code == "f32" else 100_000)
    values[5] = 0.0101 * (1 + 3e-7)
    raw = update(values, code)
    assert ways("0.0101", raw) == {}
    found = [f for f in look(needle("0.0101"), Haystack(raw), len(raw)) if f.how.startswith("tensor")]
    assert all(f.is_chance for f in found)
    assert found


def test_many_equal_elements_among_their_like_are_no_chance() -> None:
    values = RNG.normal(0, 0.01, 100_000)
    values[::100] = 0.0101
    assert ways("0.0101", update(values, "f16"))["tensor in f16, rounded"].count >= 1_000


def test_zeros_not_finite_and_empty_tensors() -> None:
    values = np.array([0.0, np.inf, -np.inf, np.nan, 5.0])
    raw = np.asarray(values, "<f4").tobytes()
    groups = (TensorGroup(name="delta", encoding="f32", elements=5, bytes=20),)
    payload = update(np.zeros(5))[:-20] + raw
    assert groups[0].bytes == len(raw)
    assert not any(how.startswith("tensor") for how in ways("0", payload))
    assert "tensor in f32, exact" in ways("5", payload)
    assert ways("271.8281", update(np.zeros(0))) == {}


def test_a_compressed_update_is_looked_through_as_it_unpacks() -> None:
    values = np.zeros(20_000)
    values[[17, 4321]] = 271.8281
    plain = update(values, "int8")
    header = decode_update(plain, 50_000).header.model_dump()
    body = compress(encoding("int8").encode(values.astype(np.float32)))
    packed = encode_update(UpdateHeader.model_validate({**header, "compression": "zstd"}), body)
    assert len(packed) < 1000
    assert not Haystack(packed).is_undecodable
    assert ways("271.8281", packed) == ways("271.8281", plain)
    assert "element 17 of delta" in {find.place for find in ways("271.8281", packed).values()}


def test_an_encoding_that_is_not_known_is_said() -> None:
    groups = (TensorGroup(name="delta", encoding="int4", elements=4, bytes=4),)
    raw = encode_update(UpdateHeader.model_validate({
        "federation": "f", "participant": "berlin", "round_number": 1, "attempt": 1, "base": "a" * 64,
        "generation": 1, "num_examples": 1, "num_steps": 1, "groups": groups,
    }), b"\xff\x80\x81\x82")  # fmt: skip
    assert Haystack(raw).is_undecodable
    assert Haystack(b"\xff\xfe").is_undecodable
    assert not Haystack(b"{}").is_undecodable


def test_ten_megabytes_take_about_a_second() -> None:
    payload = update(RNG.normal(0, 0.01, 2_500_000))
    started = time.process_time()
    search("271.8281", payload)
    search(TEXT, payload)
    assert time.process_time() - started < 10  # 0.3 s where nothing else runs; a loop per byte takes longer
