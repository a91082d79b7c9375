"""The update codec: aligned, readable by any msgpack reader, bounded, and strict."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uns_topics.compression import compress
from uns_topics.encodings import ENCODINGS, EncodingError, encoding
from uns_topics.envelope import PayloadError
from uns_topics.tensors import Role, Tensor, TensorTable
from uns_topics.update import (
    TensorGroup,
    UpdateHeader,
    decode_update,
    encode_update,
    is_canonical,
    max_update_bytes,
    pack_groups,
    pack_update,
    unpack_control,
    unpack_groups,
    unpacked,
)

TABLE = TensorTable(
    tensors=(
        Tensor(name="standardise.mean", shape=(1, 2), role=Role.FROZEN, offset=0, file_offset=0),
        Tensor(name="network.weight", shape=(3, 2), role=Role.WEIGHT, offset=2, file_offset=100),
        Tensor(name="network.running_var", shape=(2,), role=Role.BUFFER, offset=8, file_offset=200),
        Tensor(name="network.bias", shape=(3,), role=Role.WEIGHT, offset=10, file_offset=300),
        Tensor(name="calibration.scale", shape=(), role=Role.LOCAL, offset=13, file_offset=400),
    )
)
DELTA = np.arange(14, dtype=np.float32) / 8  # exact in f16 too


def header(groups, **changes) -> UpdateHeader:  # type: ignore[no-untyped-def]
    fields = {
        "federation": "f", "participant": "berlin", "round_number": 3, "attempt": 1, "base": "a" * 64,
        "generation": 1, "num_examples": 120, "num_steps": 50, "groups": groups,
    }  # fmt: skip
    return UpdateHeader(**{**fields, **changes})


def update(name: str = "f32") -> bytes:
    groups, body = pack_groups(DELTA, TABLE, name)
    return encode_update(header(groups), body)


@pytest.mark.parametrize("name", ["f32", "f16"])
def test_weights_and_buffers_travel_and_nothing_else(name: str) -> None:
    decoded = decode_update(update(name), 10_000)
    expected = DELTA.copy()
    expected[[0, 1, 13]] = 0  # frozen and local never leave
    np.testing.assert_array_equal(unpack_groups(decoded, TABLE), expected)


def test_the_body_is_aligned_and_any_msgpack_reader_can_read_it() -> None:
    raw = update()
    fields, pad, body = msgpack.unpackb(raw)
    assert fields["num_examples"] == 120
    assert not any(pad)
    assert raw.index(body) % 64 == 0
    assert len(body) == 4 * (9 + 2)


def test_f16_halves_the_weights_and_leaves_buffers_whole() -> None:
    groups, body = pack_groups(DELTA, TABLE, "f16")
    assert [(g.name, g.encoding, g.bytes) for g in groups] == [("delta", "f16", 18), ("buffer", "f32", 8)]
    assert len(body) == 26


def test_every_truncation_and_every_byte_too_many_is_refused() -> None:
    raw = update()
    for cut in range(len(raw)):
        with pytest.raises(PayloadError):
            decode_update(raw[:cut], 10_000)
    with pytest.raises(PayloadError):
        decode_update(raw + b"\0", 10_000)


def test_a_size_over_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(PayloadError, match="at most"):
        decode_update(update(), len(update()) - 1)
    assert len(update()) <= max_update_bytes(TABLE, ("f32",))


@pytest.mark.parametrize(
    "changes",
    [{"note": "row 17 of line 3"}, {"round_number": 0}, {"base": "xyz"}, {"num_examples": -1}, {"metrics": {"a": "b"}}],
)
def test_a_header_is_closed(changes: dict[str, object]) -> None:
    groups, body = pack_groups(DELTA, TABLE, "f32")
    fields = {**header(groups).model_dump(mode="python"), **changes}
    head = msgpack.packb(fields)
    pad = -(1 + len(head) + 2 + 5) % 64
    raw = b"\x93" + head + b"\xc4" + bytes([pad]) + bytes(pad) + b"\xc6" + len(body).to_bytes(4, "big") + body
    with pytest.raises(PayloadError):
        decode_update(raw, 10_000)


def test_a_pad_that_carries_something_is_refused() -> None:
    raw = update()
    body_at = raw.index(msgpack.unpackb(raw)[2])
    pad = len(msgpack.unpackb(raw)[1])
    assert pad > 0
    smuggled = raw[: body_at - 5 - pad] + b"x" * pad + raw[body_at - 5 :]
    with pytest.raises(PayloadError, match="pad"):
        decode_update(smuggled, 10_000)


def test_a_group_of_the_wrong_size_does_not_fit() -> None:
    groups, body = pack_groups(DELTA, TABLE, "f32")
    short = groups[0].model_copy(update={"elements": 8})
    with pytest.raises(ValueError, match="doesn't fit the table"):
        unpack_groups(decode_update(encode_update(header((short, groups[1])), body), 10_000), TABLE)
    without = encode_update(header((groups[0],)), body[: groups[0].bytes])
    with pytest.raises(ValueError, match="the table has buffers"):
        unpack_groups(decode_update(without, 10_000), TABLE)


def test_an_unknown_encoding_names_the_valid_ones() -> None:
    with pytest.raises(EncodingError, match="f32, f16"):
        encoding("gzip")


def test_f16_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(EncodingError, match="f16"):
        encoding("f16").encode(np.array([70_000.0], np.float32))
    with pytest.raises(EncodingError, match="f16"):
        encoding("f16").encode(np.array([np.nan], np.float32))


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 150))
def test_mutated_updates_are_read_or_refused(noise: bytes, at: int) -> None:
    raw = bytearray(update())
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(ValueError):
        unpack_groups(decode_update(bytes(raw), 10_000), TABLE)


def test_only_one_way_to_write_an_update_is_canonical() -> None:
    raw = update()
    assert is_canonical(raw, decode_update(raw, 10_000))


def test_a_key_that_stands_twice_reads_but_is_not_canonical() -> None:
    groups, body = pack_groups(DELTA, TABLE, "f32")
    fields = header(groups).model_dump(mode="python")
    pairs = [("participant", "row 4711: 1.5, 2.5"), *fields.items()]  # the last one wins in msgpack
    head = bytes([0xDE]) + len(pairs).to_bytes(2, "big") + b"".join(msgpack.packb(x) for pair in pairs for x in pair)
    raw = b"\x93" + head + b"\xc4\x00" + b"\xc6" + len(body).to_bytes(4, "big") + body
    read = decode_update(raw, 10_000)
    assert read.header.participant == "berlin"
    assert not is_canonical(raw, read)


WIDE = TensorTable(
    tensors=(
        Tensor(name="network.weight", shape=(40, 500), role=Role.WEIGHT, offset=0, file_offset=0),
        Tensor(name="network.running_var", shape=(9,), role=Role.BUFFER, offset=20_000, file_offset=90_000),
    )
)
WIDE_DELTA = np.random.default_rng(3).normal(0, 0.01, WIDE.size).astype(np.float32)


def wide(name: str) -> bytes:
    groups, body = pack_groups(WIDE_DELTA, WIDE, name)
    return pack_update(header(groups), body)


@pytest.mark.parametrize("name", ENCODINGS)
def test_packed_updates_are_no_larger_and_decode_to_the_same(name: str) -> None:
    groups, body = pack_groups(WIDE_DELTA, WIDE, name)
    plain, packed = encode_update(header(groups), body), wide(name)
    assert len(packed) <= len(plain) <= max_update_bytes(WIDE, (name,))
    read = decode_update(packed, max_update_bytes(WIDE, (name,)))
    assert read.header.compression == ("zstd" if name in ("int8", "ternary", "topk-int8") else "none")
    assert bytes(read.body) == body
    assert is_canonical(packed, read)
    assert unpacked(read) == plain
    delta = unpack_groups(read, WIDE)
    np.testing.assert_array_equal(delta[20_000:], WIDE_DELTA[20_000:])


def test_what_an_update_unpacks_to_is_bounded_before_it_is_unpacked() -> None:
    bomb = compress(bytes(10**8))
    group = TensorGroup(name="delta", encoding="int8", elements=10, bytes=10**8)
    raw = encode_update(header((group,), compression="zstd"), bomb)
    with pytest.raises(PayloadError, match="at most 20000 are due"):
        decode_update(raw, 20_000)
    small = encode_update(header((group.model_copy(update={"bytes": 15_000}),), compression="zstd"), bomb)
    with pytest.raises(PayloadError, match="15000 are due"):
        decode_update(small, 20_000)


def test_compression_that_gains_nothing_is_refused() -> None:
    groups, body = pack_groups(DELTA, TABLE, "f32")
    with pytest.raises(PayloadError, match="unpacks to"):
        decode_update(encode_update(header(groups, compression="zstd"), compress(body)), 10_000)


def test_every_truncation_of_a_compressed_update_is_refused() -> None:
    raw = wide("ternary")
    for cut in range(0, len(raw), 7):
        with pytest.raises(PayloadError):
            decode_update(raw[:cut], 100_000)


WIDE_CONTROL = np.random.default_rng(3).normal(0, 1, WIDE.elements(Role.WEIGHT)).astype(np.float32)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_control_variate_travels_exact_beside_every_encoding(name: str) -> None:
    groups, body = pack_groups(WIDE_DELTA, WIDE, name, WIDE_CONTROL)
    packed = pack_update(header(groups), body)
    most = max_update_bytes(WIDE, (name,), control=True)
    assert len(packed) <= most
    read = decode_update(packed, most)
    control = unpack_control(read)
    assert control is not None
    assert control.tobytes() == WIDE_CONTROL.tobytes()
    plain = pack_groups(WIDE_DELTA, WIDE, name)
    alone = decode_update(encode_update(header(plain[0]), plain[1]), most)
    np.testing.assert_array_equal(unpack_groups(read, WIDE, control=True), unpack_groups(alone, WIDE))
    assert unpack_control(alone) is None


def test_a_control_variate_is_there_where_the_plan_says_so_and_fits() -> None:
    groups, body = pack_groups(WIDE_DELTA, WIDE, "f32", WIDE_CONTROL)
    given = decode_update(encode_update(header(groups), body), 10**6)
    with pytest.raises(ValueError, match=r"group control of .* doesn't fit"):
        unpack_groups(given, WIDE)
    missing = decode_update(encode_update(header(groups[:-1]), body[: -groups[-1].bytes]), 10**6)
    with pytest.raises(ValueError, match="the update has none"):
        unpack_groups(missing, WIDE, control=True)
    short = groups[-1].model_copy(update={"elements": groups[-1].elements - 1, "bytes": groups[-1].bytes - 4})
    with pytest.raises(ValueError, match=r"group control of .* doesn't fit"):
        unpack_groups(decode_update(encode_update(header((*groups[:-1], short)), body[:-4]), 10**6), WIDE, control=True)
    half = groups[-1].model_copy(update={"encoding": "f16", "bytes": groups[-1].bytes // 2})
    content = encode_update(header((*groups[:-1], half)), body[: -groups[-1].bytes // 2])
    with pytest.raises(EncodingError, match="travels as f32"):
        unpack_groups(decode_update(content, 10**6), WIDE, control=True)
