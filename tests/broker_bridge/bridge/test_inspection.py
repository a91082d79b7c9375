"""What a hostile edge could try, one thing at a time: each is refused for its own reason, without being repeated."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_bridge.bridge.inspection import (
    Passed,
    Refusal,
    Way,
    Why,
    judge_json,
    judge_manifest,
    judge_update,
    receipt_code,
)
from broker_bridge.bridge.text import RUN, has_text
from tests.broker_bridge.bridge.examples import (
    FEDERATION,
    KINDS,
    PARTICIPANT,
    PLAN,
    header,
    manifest_of,
    policy,
    sealed,
    topic,
    update,
)
from tests.contracts.examples import BODIES, DELTA, TABLE, UPDATE_MANIFEST
from uns_topics.codes import Code
from uns_topics.compression import compress
from uns_topics.controls import max_control_norm
from uns_topics.plan import Plan
from uns_topics.presence import BridgeStatus, ParticipantStatus
from uns_topics.tensors import Role, Tensor, TensorTable
from uns_topics.topics import Kind
from uns_topics.transfers import TransferManifest, make_manifest
from uns_topics.update import UpdateHeader, decode_update, encode_update, pack_groups, pack_update

SECRET = "SN-4711-0815"
REPORTS = (Kind.STATUS, Kind.STATISTICS, Kind.EVALUATION, Kind.DATA_QUALITY, Kind.LAST_UPDATE)
BRIDGES = Way(frozenset({"gate"}), frozenset({"dmz"}))


def judge(kind: Kind, payload: bytes, plan: Plan | None = PLAN, **fields: Any) -> Passed | Refusal:
    return judge_json(topic(kind, **fields), payload, policy(), plan, BRIDGES)


@pytest.mark.parametrize("kind", REPORTS)
def test_an_honest_report_leaves_as_it_is(kind: Kind) -> None:
    payload = sealed(BODIES[kind])
    passed = judge(kind, payload)
    assert isinstance(passed, Passed)
    assert (passed.payload, passed.line) == (payload, "allow[0]")


def raw(kind: Kind, change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(sealed(BODIES[kind]))
    change(content)
    return json.dumps(content).encode()


def with_sketch(steps: list[int], rows: list[int]) -> bytes:
    return raw(Kind.STATISTICS, lambda c: c["cells"][0].update(sketch={"steps": steps, "rows": rows}))


def test_white_space_and_order_don_t_leave() -> None:
    content = json.loads(sealed(BODIES[Kind.STATUS]))
    head = {key: content.pop(key) for key in ("v", "federation", "sender", "boot", "sequence")}
    payload = json.dumps({**head, **dict(reversed(content.items()))}, indent=3).encode()
    passed = judge(Kind.STATUS, payload)
    assert isinstance(passed, Passed)
    assert passed.payload == sealed(BODIES[Kind.STATUS])


def test_a_key_that_stands_twice_leaves_once() -> None:
    payload = sealed(BODIES[Kind.STATUS]).replace(b'"samples":1200', b'"samples":4711,"samples":1200')
    passed = judge(Kind.STATUS, payload)
    assert isinstance(passed, Passed)
    assert b"4711" not in passed.payload


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update(note=SECRET)), Why.PAYLOAD),
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update({SECRET: 1})), Why.PAYLOAD),
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update(reason=SECRET)), Why.PAYLOAD),
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update(encodings=["f32", SECRET])), Why.UNDECLARED),
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update(via=["serial-4711"])), Why.UNDECLARED),
        (Kind.STATUS, raw(Kind.STATUS, lambda c: c.update(sender="serial-4711")), Why.PAYLOAD),
        (Kind.STATUS, sealed(BODIES[Kind.STATUS], sender="lyon"), Why.PAYLOAD),
        (Kind.STATUS, sealed(BODIES[Kind.STATUS])[:-1] + b',"signature":"U04tNDcxMQ=="}', Why.SIGNATURE),
        (Kind.STATUS, b"\xff\x00" + SECRET.encode(), Why.PAYLOAD),
        (Kind.STATUS, sealed(BODIES[Kind.STATISTICS]), Why.PAYLOAD),
        (Kind.DATA_QUALITY, raw(Kind.DATA_QUALITY, lambda c: c.update(problems={SECRET: 1})), Why.PAYLOAD),
        (Kind.DATA_QUALITY, raw(Kind.DATA_QUALITY, lambda c: c["features"][0].update(feature="sn_1")), Why.UNDECLARED),
        (Kind.STATISTICS, raw(Kind.STATISTICS, lambda c: c["cells"][0].update(feature="sn_1")), Why.UNDECLARED),
        (Kind.STATISTICS, raw(Kind.STATISTICS, lambda c: c["cells"][0]["sketch"].update(note=SECRET)), Why.PAYLOAD),
        (Kind.STATISTICS, raw(Kind.STATISTICS, lambda c: c["cells"][0]["sketch"]["rows"].append(SECRET)), Why.PAYLOAD),
        (Kind.STATISTICS, with_sketch([210, 1, 12], [200, 511, 9]), Why.PAYLOAD),  # a bin of nine rows
        (Kind.STATISTICS, with_sketch([210, 1, 12], [200, 310, 4711]), Why.UNDECLARED),  # other rows than the sums'
        (Kind.STATISTICS, with_sketch([210, 1, 400], [200, 310, 210]), Why.UNDECLARED),  # beyond the range
        (
            Kind.EVALUATION,
            raw(Kind.EVALUATION, lambda c: c["select"]["models"].update({"sn_4711": {}})),
            Why.PAYLOAD,
        ),
        (
            Kind.EVALUATION,
            raw(Kind.EVALUATION, lambda c: c["select"]["models"]["current"]["histograms"].update({"sn_1": [[64, 20]]})),
            Why.UNDECLARED,
        ),
        (Kind.JOIN, b"{}", Why.KIND),
        (Kind.PLAN, sealed(PLAN), Why.KIND),
    ],
)  # fmt: skip
def test_what_is_not_declared_stays(kind: Kind, payload: bytes, why: Why) -> None:
    refusal = judge(kind, payload)
    assert isinstance(refusal, Refusal)
    assert refusal.why is why
    for word in (SECRET, "4711", "sn_1"):
        assert word not in refusal.detail


@pytest.mark.parametrize("kind", REPORTS)
def test_what_no_line_allows_stays(kind: Kind) -> None:
    judged = judge_json(topic(kind), sealed(BODIES[kind]), policy("update"), PLAN, BRIDGES)
    assert isinstance(judged, Refusal)
    assert judged.why is Why.POLICY


@pytest.mark.parametrize("kind", REPORTS)
def test_what_only_a_plan_can_judge_waits_for_it(kind: Kind) -> None:
    judged = judge(kind, sealed(BODIES[kind]), None)
    if kind in (Kind.STATUS, Kind.LAST_UPDATE):
        assert isinstance(judged, Passed)
    else:
        assert isinstance(judged, Refusal)
        assert judged.why is Why.NO_PLAN


def test_only_known_bridges_speak_of_themselves() -> None:
    body = BridgeStatus(birth=1, state="online")
    assert isinstance(judge(Kind.VIA, sealed(body, "gate"), bridge="gate"), Passed)
    refusal = judge(Kind.VIA, sealed(body, "serial-4711"), bridge="serial-4711")
    assert isinstance(refusal, Refusal)
    assert refusal.why is Why.UNDECLARED
    own = judge(Kind.VIA, sealed(body, "dmz"), bridge="dmz")  # its presence is nobody else's to say
    assert isinstance(own, Refusal)
    assert own.why is Why.UNDECLARED
    forged = judge(Kind.VIA, sealed(body, "berlin"), bridge="gate")
    assert isinstance(forged, Refusal)
    assert forged.why is Why.PAYLOAD


def test_a_status_may_name_the_bridges_on_its_way() -> None:
    status = BODIES[Kind.STATUS]
    assert isinstance(status, ParticipantStatus)
    passed = judge(Kind.STATUS, sealed(status.model_copy(update={"via": ("gate", "dmz")})))
    assert isinstance(passed, Passed)


# Manifests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (make_manifest(b"x" * 200_000, "update", 15 * 1024, round_number=1), Why.OVERSIZED),
        (make_manifest(b"x", "model", 15 * 1024, version=3), Why.PAYLOAD),
        (make_manifest(b"x", "update", 15 * 1024, round_number=1, version=4711), Why.PAYLOAD),
    ],
)
def test_a_manifest_alone_can_be_enough(manifest: TransferManifest, why: Why) -> None:
    refusal = judge_manifest(topic(Kind.UPDATE_MANIFEST, transfer=manifest.id), manifest, PLAN)
    assert refusal is not None
    assert refusal.why is why


def test_a_manifest_stands_on_its_own_topic() -> None:
    assert judge_manifest(topic(Kind.UPDATE_MANIFEST, transfer=UPDATE_MANIFEST.id), UPDATE_MANIFEST, PLAN) is None
    refusal = judge_manifest(topic(Kind.UPDATE_MANIFEST, transfer="0" * 16), UPDATE_MANIFEST, PLAN)
    assert refusal is not None


# Updates --------------------------------------------------------------------------------------------------------------


def judged(content: bytes) -> Refusal | None:
    return judge_update(content, PARTICIPANT, manifest_of(content), PLAN)


@pytest.mark.parametrize("encoding", ["f32", "f16"])
def test_an_honest_update_leaves(encoding: str) -> None:
    assert judged(update(encoding=encoding)) is None


@pytest.mark.parametrize("encoding", ["int8", "ternary", "topk-int8", "topk-sign"])
def test_an_honest_compact_update_leaves_where_the_plan_has_its_encoding(encoding: str) -> None:
    plan, table = wide_plan(20_000)
    delta = np.random.default_rng(0).normal(0, 0.01, table.size).astype(np.float32)
    groups, body = pack_groups(delta, table, encoding)
    content = pack_update(UpdateHeader.model_validate(header(groups=groups)), body)
    refusal = judge_update(content, PARTICIPANT, manifest_of(content), plan)
    assert refusal is not None
    assert refusal.why is Why.CONTENT
    allowed = plan.model_copy(update={"encodings": (encoding,)})
    assert judge_update(content, PARTICIPANT, manifest_of(content), allowed) is None


def test_rows_in_unused_bits_or_beside_a_compressed_body_stay() -> None:
    plan, table = wide_plan(20_003)
    allowed = plan.model_copy(update={"encodings": ("ternary",)})
    delta = np.random.default_rng(0).normal(0, 0.01, table.size).astype(np.float32)
    groups, body = pack_groups(delta, table, "ternary")
    packed = UpdateHeader.model_validate(header(groups=groups, compression="zstd"))
    skippable = b"\x50\x2a\x4d\x18" + len(ROWS).to_bytes(4, "little") + ROWS
    unused = body[:-1] + bytes([body[-1] + 81])  # the last byte holds three of five elements
    for content in (
        encode_update(packed, compress(body) + skippable),
        encode_update(packed, skippable + compress(body)),
        encode_update(packed, compress(unused)),
        encode_update(UpdateHeader.model_validate(header(groups=groups)), unused),
    ):
        refusal = judge_update(content, PARTICIPANT, manifest_of(content), allowed)
        assert refusal is not None
        assert refusal.why is Why.CONTENT


ROWS = b"1699999990,B4711,150.25,110.5,OK\n1700000020,B4712,95.0,111.0,OK\n"
BODY = pack_groups(DELTA, TABLE, "f32")[1]
GROUPS = pack_groups(DELTA, TABLE, "f32")[0]


def hand_made(fields: dict[str, Any], body: bytes, pad: bytes = b"", tail: bytes = b"") -> bytes:
    """An update written by hand: header, pad, body, and whatever comes behind."""
    head = msgpack.packb(fields)
    return b"\x93" + head + b"\xc4" + bytes([len(pad)]) + pad + struct.pack(">BI", 0xC6, len(body)) + body + tail


def text_delta(dtype: str) -> np.ndarray:
    """Rows written where a tensor's bytes should be."""
    return np.frombuffer(ROWS[: 4 * np.dtype(dtype).itemsize], dtype).astype(np.float32)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (update() + ROWS, Why.CONTENT),  # rows behind the body
        (ROWS, Why.CONTENT),  # rows instead of an update
        (hand_made(header(), BODY + ROWS), Why.CONTENT),  # rows within the body
        (hand_made(header(), BODY, pad=ROWS[:60]), Why.CONTENT),  # rows in the pad
        (hand_made(header(), BODY, pad=bytes(60)), Why.CONTENT),  # a pad that isn't due
        (hand_made({**header(), "note": SECRET}, BODY), Why.CONTENT),  # an unknown field
        (hand_made({**header(), "metrics": {"SN_4711": 1.0}}, BODY), Why.CONTENT),  # a metric's name
        (hand_made({**header(), "compression": SECRET}, BODY), Why.CONTENT),
        (hand_made(header(), BODY), Why.CONTENT),  # not aligned: not as it is written
        (update(participant="lyon"), Why.CONTENT),
        (update(federation="another"), Why.CONTENT),
        (update(generation=2), Why.CONTENT),
        (update(attempt=2), Why.CONTENT),
        (update(num_examples=2**52), Why.UNDECLARED),
    ],
)
def test_an_update_with_anything_else_in_it_stays(content: bytes, why: Why) -> None:
    refusal = judged(content)
    assert refusal is not None
    assert refusal.why is why
    assert SECRET not in refusal.detail
    assert "SN_4711" not in refusal.detail


def test_tensors_of_another_shape_stay() -> None:
    for group in ({"elements": 3, "bytes": 12}, {"elements": 5, "bytes": 20}):
        groups = (GROUPS[0].model_copy(update=group),)
        content = hand_made(header(groups=[g.model_dump() for g in groups]), bytes(group["bytes"]))
        refusal = judged(content)
        assert refusal is not None
        assert refusal.why is Why.CONTENT


def test_a_control_group_that_no_strategy_asked_for_stays() -> None:
    groups = (*GROUPS, GROUPS[0].model_copy(update={"name": "control"}))
    content = encode_update(UpdateHeader.model_validate(header(groups=groups)), BODY + ROWS[:16])
    refusal = judged(content)
    assert refusal is not None
    assert refusal.why is Why.CONTENT


def test_nan_is_no_tensor_element_that_leaves() -> None:
    delta = DELTA.copy()
    delta[3] = np.frombuffer(b"SN\xc1\x7f", "<f4")[0]  # a NaN carries 22 bits of one's choice
    assert np.isnan(delta[3])
    raw_groups = (GROUPS[0],)
    content = encode_update(
        UpdateHeader.model_validate(header(groups=raw_groups)), TABLE.gather(delta, TABLE.tensors[1].role).tobytes()
    )
    refusal = judged(content)
    assert refusal is not None
    assert refusal.why is Why.NOT_FINITE


def test_text_is_no_tensor() -> None:
    """The right number of bytes, finite as floats, and yet rows of a table."""
    plan, table = wide_plan(64)
    body = (ROWS * 4)[: 4 * 64]
    delta = np.zeros(table.size, np.float32)
    table.scatter(delta, table.tensors[0].role, np.frombuffer(body, "<f4").copy())
    content = update_of(delta, table)
    assert np.isfinite(delta).all()
    generous = plan.model_copy(update={"tolerances": plan.tolerances.model_copy(update={"max_delta_norm": 1e38})})
    refusal = judge_update(content, PARTICIPANT, manifest_of(content), generous)
    assert refusal is not None
    assert refusal.why is Why.TEXT


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("encoding", ["f32", "f16"])
def test_text_in_wide_characters_is_no_tensor_either(coding: str, encoding: str) -> None:
    plan, table = wide_plan(128)
    width = 4 if encoding == "f32" else 2
    body = (ROWS.decode() * 9).encode(coding)[: 128 * width]
    values = np.frombuffer(body, f"<f{width}").astype(np.float32)
    groups, _ = pack_groups(values, table, encoding)
    content = encode_update(UpdateHeader.model_validate(header(groups=groups)), body)
    refusal = judge_update(content, PARTICIPANT, manifest_of(content), plan)
    assert refusal is not None
    assert refusal.why in (Why.TEXT, Why.NORM)


def test_packed_rows_are_no_step_of_a_training() -> None:
    plan, table = wide_plan(64)
    body = zlib.compress(ROWS * 40)
    body = (body * 9)[:256]
    values = np.frombuffer(body, "<f4")
    groups, _ = pack_groups(np.zeros(64, np.float32), table, "f32")
    content = encode_update(UpdateHeader.model_validate(header(groups=groups)), body)
    refusal = judge_update(content, PARTICIPANT, manifest_of(content), plan)
    assert refusal is not None
    assert refusal.why in (Why.NORM, Why.NOT_FINITE)
    assert len(values) == 64


def test_an_encoding_of_buffers_is_not_repeated() -> None:
    groups = (
        *GROUPS,
        GROUPS[0].model_copy(update={"name": "buffer", "encoding": "SN_4711", "elements": 0, "bytes": 0}),
    )
    content = encode_update(UpdateHeader.model_validate(header(groups=groups)), BODY)
    refusal = judged(content)
    assert refusal is not None
    assert "4711" not in refusal.detail


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(RUN - 3, RUN + 3), st.integers(0, 70))
def test_a_run_is_found_wherever_it_starts(before: int, length: int, after: int) -> None:
    body = bytes(before) + b"x" * length + bytes(after)
    assert has_text(body) == (length >= RUN)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_honest_delta_is_taken_for_text(seed: int) -> None:
    plan, table = wide_plan(4096)
    delta = np.random.default_rng(seed).normal(0, 10.0 ** (seed % 6 - 4), table.size).astype(np.float32)
    content = update_of(delta, table)
    assert judge_update(content, PARTICIPANT, manifest_of(content), plan) is None


def wide_plan(width: int) -> tuple[Plan, TensorTable]:
    table = TensorTable(tensors=(Tensor(name="w", shape=(width,), role=Role.WEIGHT, offset=0, file_offset=0),))
    template = PLAN.template.model_copy(update={"table": table})
    return PLAN.model_copy(update={"template": template}), table


def update_of(delta: np.ndarray, table: TensorTable) -> bytes:
    groups, body = pack_groups(delta, table, "f32")
    return encode_update(UpdateHeader.model_validate(header(groups=groups)), body)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_byte_passes_but_a_tensor_s_or_a_declared_field_s(data: st.DataObject) -> None:
    """Whatever passes reads as a declared header and the very tensors, and is written exactly as that."""
    good = bytearray(update())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    content = bytes(good)
    if judge_update(content, PARTICIPANT, manifest_of(content), PLAN) is None:
        read = decode_update(content, 10_000)
        assert encode_update(read.header, bytes(read.body)) == content
        assert len(read.body) == len(BODY)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_rubbish_never_raises(content: bytes) -> None:
    assert judge_update(content, PARTICIPANT, manifest_of(content or b"x"), PLAN) is not None
    for kind in REPORTS:
        assert isinstance(judge(kind, content), Refusal)


def test_every_reason_answers_with_a_permanent_code() -> None:
    assert {why: receipt_code(why) for why in Why if receipt_code(why) is not Code.POLICY} == {
        Why.NOT_FINITE: Code.NOT_FINITE,
        Why.NORM: Code.NORM,
        Why.BUDGET: Code.BUDGET,
        Why.OVERFLOW: Code.BUDGET,
        Why.EXPIRED: Code.LATE,
    }
    assert set(KINDS) == {"update", "status", "presence", "statistics", "evaluation", "data-quality", "last-update"}
    assert PLAN.contract.federation == FEDERATION


CONTROLLED = PLAN.model_copy(update={"control": True})


def with_control(control: np.ndarray) -> bytes:
    groups, body = pack_groups(DELTA, TABLE, "f32", np.zeros(control.size, np.float32))
    written = control.astype(np.float32).tobytes()  # what no encoder of ours writes too
    return encode_update(UpdateHeader.model_validate(header(groups=groups)), body[: -len(written)] + written)


def verdict_on(content: bytes, plan: Plan = CONTROLLED) -> Why | None:
    manifest = manifest_of(content)
    refusal = judge_manifest(topic(Kind.UPDATE_MANIFEST, transfer=manifest.id), manifest, plan)
    refusal = refusal or judge_update(content, PARTICIPANT, manifest, plan)
    return None if refusal is None else refusal.why


def test_a_control_variate_leaves_where_the_plan_has_them() -> None:
    content = with_control(np.array([0.25, -0.5, 1.0, 0.0]))
    assert verdict_on(content) is None
    assert verdict_on(content, PLAN) is Why.CONTENT
    assert verdict_on(update()) is Why.CONTENT
    assert verdict_on(with_control(np.ones(3))) is Why.CONTENT


def test_a_control_variate_is_judged_like_every_tensor() -> None:
    most = max_control_norm(PLAN.training, PLAN.tolerances)
    assert verdict_on(with_control(np.array([0.99 * most, 0, 0, 0]))) is None
    assert verdict_on(with_control(np.array([1.01 * most, 0, 0, 0]))) is Why.NORM
    for value in (np.nan, np.inf):
        assert verdict_on(with_control(np.array([0, value, 0, 0]))) is Why.NOT_FINITE
    plan, table = wide_plan(128)
    controlled = plan.model_copy(update={"control": True})
    delta = np.random.default_rng(0).normal(0, 0.01, 128).astype(np.float32)
    for body in ((ROWS * 9)[:512], (ROWS.decode() * 9).encode("utf-16-le")[:512]):
        groups, rest = pack_groups(delta, table, "f32", np.zeros(128, np.float32))
        content = encode_update(UpdateHeader.model_validate(header(groups=groups)), rest[:512] + body)
        assert verdict_on(content, controlled) in (Why.TEXT, Why.NORM)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_honest_control_variate_is_taken_for_text(seed: int) -> None:
    plan, table = wide_plan(4096)
    rng = np.random.default_rng(seed)
    delta, control = (rng.normal(0, 10.0 ** (seed % 6 - 4), table.size).astype(np.float32) for _ in range(2))
    groups, body = pack_groups(delta, table, "f32", control)
    content = encode_update(UpdateHeader.model_validate(header(groups=groups)), body)
    assert verdict_on(content, plan.model_copy(update={"control": True})) is None
