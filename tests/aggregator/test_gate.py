"""Each reason code of the gate, in its order; and that nothing a participant sends raises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator import gate
from aggregator.events import UpdateReceived
from tests.support.reducer_world import World, make_rules
from tests.support.tiny_template import tiny_template
from uns_topics.codes import Code
from uns_topics.presence import ParticipantState
from uns_topics.tensors import Role
from uns_topics.transfers import TransferManifest, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups

TABLE = tiny_template(buffer=True).table
LIMITS = gate.Limits(table=TABLE, encodings=("f32",), max_norm=10.0, max_examples=1000, max_steps=100)


def make_update(
    world: World, participant: str = "a", delta: np.ndarray | None = None, encoding: str = "f32", **changes: Any
) -> tuple[bytes, TransferManifest]:
    """Bytes and manifest of an update that fits the open round, but for the changes to its header."""
    current = world.state.round
    assert current is not None
    if delta is None:
        delta = np.full(TABLE.size, 0.1 + 0.01 * ord(participant[0]), np.float32)
    groups, body = pack_groups(delta.astype(np.float32), TABLE, encoding)
    fields: dict[str, Any] = {
        "federation": "tiny",
        "participant": participant,
        "round_number": current.number,
        "attempt": current.attempt,
        "base": current.base.sha256,
        "generation": 1,
        "num_examples": 100,
        "num_steps": 10,
        "groups": groups,
    }
    body = changes.pop("body", body)
    header = UpdateHeader(**{**fields, **changes})
    raw = encode_update(header, body)
    return raw, manifest_of(raw, header)


def manifest_of(raw: bytes, header: UpdateHeader) -> TransferManifest:
    return make_manifest(raw, "update", base=header.base, round_number=header.round_number, attempt=header.attempt)


@pytest.fixture
def world() -> World:
    world = World(make_rules())
    world.boot_up("a", "b", "c")
    return world


def look(
    world: World, raw: bytes, manifest: TransferManifest, participant: str = "a", limits: gate.Limits = LIMITS
) -> UpdateReceived:
    return gate.inspect(raw, participant, "tiny", manifest, limits)


def judge(
    world: World, raw: bytes, manifest: TransferManifest, participant: str = "a", limits: gate.Limits = LIMITS
) -> Code | None:
    return gate.verdict(look(world, raw, manifest, participant, limits), world.state)


def test_a_good_update_passes(world: World) -> None:
    assert judge(world, *make_update(world)) is None


def test_unknown_participant(world: World) -> None:
    assert judge(world, *make_update(world, "x"), "x") is Code.UNKNOWN_PARTICIPANT
    world.status("x")  # known, but not in the cohort
    assert judge(world, *make_update(world, "x"), "x") is Code.UNKNOWN_PARTICIPANT


def test_not_allowed(world: World) -> None:
    world.state = world.state.but(rules=world.state.rules.model_copy(update={"allowed": ("b", "c")}))
    assert judge(world, *make_update(world)) is Code.UNKNOWN_PARTICIPANT


def test_wrong_federation(world: World) -> None:
    assert judge(world, *make_update(world, federation="other")) is Code.WRONG_FEDERATION


def test_generation(world: World) -> None:
    assert judge(world, *make_update(world, generation=2)) is Code.GENERATION


def test_wrong_round(world: World) -> None:
    assert judge(world, *make_update(world, round_number=2)) is Code.WRONG_ROUND
    assert judge(world, *make_update(world, attempt=2)) is Code.WRONG_ROUND


def test_late(world: World) -> None:
    update = make_update(world)
    world.work = False
    world.send("a", "b", "c")
    assert judge(world, *update) is Code.LATE


def test_wrong_base(world: World) -> None:
    assert judge(world, *make_update(world, base="0" * 64)) is Code.WRONG_BASE


def test_schema(world: World) -> None:
    raw, manifest = make_update(world)
    model = make_manifest(raw, "model", round_number=1, attempt=1)
    assert judge(world, raw, model) is Code.SCHEMA
    broken = bytes([0x93]) + msgpack.packb({"v": 1, "surprise": 1}) + raw[300:]
    assert judge(world, broken, manifest) is Code.SCHEMA


def test_undecodable(world: World) -> None:
    _, manifest = make_update(world)
    assert judge(world, b"\x93" + b"\xc1" * 100, manifest) is Code.UNDECODABLE
    assert judge(world, b"", manifest) is Code.UNDECODABLE


def test_version(world: World) -> None:
    raw, manifest = make_update(world)
    assert raw[1:].index(b"\xa1v\x01") == 1
    newer = raw.replace(b"\xa1v\x01", b"\xa1v\x02", 1)
    assert judge(world, newer, manifest) is Code.VERSION


def test_oversized(world: World) -> None:
    raw, manifest = make_update(world)
    assert judge(world, raw + bytes(LIMITS.max_bytes), manifest) is Code.OVERSIZED


def test_integrity(world: World) -> None:
    raw, manifest = make_update(world)
    assert judge(world, *make_update(world, participant="b"), "a") is Code.INTEGRITY
    other = manifest.model_copy(update={"attempt": 7})
    assert judge(world, raw, other) is Code.INTEGRITY


def test_encoding(world: World) -> None:
    assert judge(world, *make_update(world, encoding="f16")) is Code.ENCODING
    groups, body = pack_groups(np.ones(TABLE.size, np.float32), TABLE, "f32")
    short = groups[0].model_copy(update={"bytes": groups[0].bytes - 4})
    assert judge(world, *make_update(world, groups=(short, groups[1]), body=body[:-4])) is Code.ENCODING


def test_shape(world: World) -> None:
    groups, body = pack_groups(np.ones(TABLE.size, np.float32), TABLE, "f32")
    fewer = groups[0].model_copy(update={"bytes": groups[0].bytes - 4, "elements": groups[0].elements - 1})
    assert judge(world, *make_update(world, groups=(fewer, groups[1]), body=body[:-4])) is Code.SHAPE
    assert judge(world, *make_update(world, groups=groups[:1], body=body[: groups[0].bytes])) is Code.SHAPE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(world: World, value: float) -> None:
    groups, body = pack_groups(np.ones(TABLE.size, np.float32), TABLE, "f32")
    values = np.frombuffer(body, np.float32).copy()
    for position in (0, -1):  # a weight, a buffer
        changed = values.copy()
        changed[position] = value
        assert judge(world, *make_update(world, groups=groups, body=changed.tobytes())) is Code.NOT_FINITE


def test_norm(world: World) -> None:
    assert judge(world, *make_update(world, delta=np.full(TABLE.size, 1e30))) is Code.NORM
    weights = TABLE.elements(Role.WEIGHT)
    assert judge(world, *make_update(world, delta=np.full(TABLE.size, 9.99 / np.sqrt(weights)))) is None


CONTROLLED = replace(LIMITS, max_control_norm=20.0)
CONTROL = np.full(TABLE.elements(Role.WEIGHT), 0.5, np.float32)


def controlled(world: World, control: np.ndarray) -> tuple[bytes, TransferManifest]:
    groups, body = pack_groups(np.full(TABLE.size, 0.1, np.float32), TABLE, "f32", np.zeros(control.size, np.float32))
    written = control.astype(np.float32).tobytes()  # what no encoder of ours writes too
    return make_update(world, groups=groups, body=body[: -len(written)] + written)


def test_a_control_variate_is_there_where_the_plan_says_so(world: World) -> None:
    assert judge(world, *controlled(world, CONTROL), limits=CONTROLLED) is None
    assert judge(world, *controlled(world, CONTROL)) is Code.SHAPE
    assert judge(world, *make_update(world), limits=CONTROLLED) is Code.SHAPE
    assert judge(world, *controlled(world, CONTROL[:-1]), limits=CONTROLLED) is Code.SHAPE
    assert CONTROLLED.max_bytes == LIMITS.max_bytes + CONTROL.nbytes


def test_a_control_variate_is_finite_and_of_an_admissible_norm(world: World) -> None:
    weights = TABLE.elements(Role.WEIGHT)
    for value in (np.nan, np.inf, -np.inf):
        broken = CONTROL.copy()
        broken[-1] = value
        assert judge(world, *controlled(world, broken), limits=CONTROLLED) is Code.NOT_FINITE
    assert judge(world, *controlled(world, np.full(weights, 19.9 / np.sqrt(weights))), limits=CONTROLLED) is None
    assert judge(world, *controlled(world, np.full(weights, 20.1 / np.sqrt(weights))), limits=CONTROLLED) is Code.NORM
    assert judge(world, *controlled(world, np.full(weights, 1e30)), limits=CONTROLLED) is Code.NORM
    assert judge(world, *controlled(world, np.zeros(weights)), limits=CONTROLLED) is None


def test_zero(world: World) -> None:
    assert judge(world, *make_update(world, delta=np.zeros(TABLE.size))) is Code.ZERO


def test_weight(world: World) -> None:
    assert judge(world, *make_update(world, num_examples=0)) is Code.WEIGHT
    assert judge(world, *make_update(world, num_examples=1001)) is Code.WEIGHT
    assert judge(world, *make_update(world, num_steps=0)) is Code.WEIGHT
    assert judge(world, *make_update(world, num_steps=101)) is Code.WEIGHT


def test_duplicate_and_copied(world: World) -> None:
    world.do(look(world, *make_update(world)))
    assert judge(world, *make_update(world, num_steps=11)) is Code.DUPLICATE
    same = np.full(TABLE.size, 0.1 + 0.01 * ord("a"), np.float32)
    assert judge(world, *make_update(world, "b", delta=same), "b") is Code.COPIED
    assert judge(world, *make_update(world, "b"), "b") is None


def test_hold(world: World) -> None:
    world.status("a", state=ParticipantState.HOLD)
    assert judge(world, *make_update(world)) is Code.HOLD


def test_the_first_objection_counts(world: World) -> None:
    bad = make_update(world, federation="other", generation=2, round_number=5, base="0" * 64, num_examples=0)
    assert judge(world, *bad) is Code.WRONG_FEDERATION
    assert judge(world, *make_update(world, base="0" * 64, num_examples=0)) is Code.WRONG_BASE


def test_what_never_became_whole(world: World) -> None:
    _, manifest = make_update(world)
    for code in (Code.OVERSIZED, Code.INTEGRITY):
        event = gate.refused("a", "tiny", manifest, code, "said")
        assert gate.verdict(event, world.state) is code
        assert event.content_checked


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bytes_make_it_raise(data: st.DataObject) -> None:
    world = World(make_rules())
    world.boot_up("a", "b", "c")
    raw, manifest = make_update(world)
    kind = data.draw(st.sampled_from(["noise", "cut", "flip", "insert"]))
    if kind == "noise":
        raw = data.draw(st.binary(max_size=400))
    elif kind == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + data.draw(st.binary(min_size=1, max_size=4)) + raw[at + (kind == "flip") :]
    before = world.state.current
    event = look(world, raw, manifest)
    world.do(event)
    assert world.state.current == before
