"""The envelope: prefix, suffix, and refusals that never repeat content."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.envelope import (
    MAX_JSON_BYTES,
    Envelope,
    PayloadError,
    UnknownWireVersion,
    seal,
    split_signature,
    unseal,
)
from uns_topics.presence import AggregatorStatus, ParticipantState, ParticipantStatus

ENVELOPE = Envelope("solder-defect", "berlin", "0a1b2c3d", 7)
STATUS = ParticipantStatus(birth=1, state=ParticipantState.ONLINE)


def test_a_message_starts_with_its_envelope_and_reads_back() -> None:
    raw = seal(ENVELOPE, STATUS)
    assert raw.startswith(b'{"v":1,"federation":"solder-defect","sender":"berlin","boot":"0a1b2c3d","sequence":7,')
    assert json.loads(raw)["state"] == "online"
    assert unseal(raw, ParticipantStatus) == (ENVELOPE, STATUS)


def test_spaces_as_people_write_them_are_accepted() -> None:
    raw = json.dumps(json.loads(seal(ENVELOPE, STATUS))).encode()
    assert b'"v": 1, ' in raw
    assert unseal(raw, ParticipantStatus) == (ENVELOPE, STATUS)


def test_a_signature_is_a_suffix() -> None:
    raw = seal(ENVELOPE, STATUS)
    signed = raw[:-1] + b',"signature":"abc="}'
    assert split_signature(signed) == (raw, b"abc=")
    assert split_signature(raw) == (raw, None)
    assert unseal(signed, ParticipantStatus) == (ENVELOPE, STATUS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: {**m, "extra": 1}, "…: Extra inputs are not permitted"),
        (lambda m: {**m, "samples": "12"}, "samples: Input should be a valid integer"),
        (lambda m: {**m, "samples": -1}, "samples: Input should be greater than or equal to 0"),
        (lambda m: {k: v for k, v in m.items() if k != "birth"}, "birth: Field required"),
        (lambda m: {"birth": 1, **m}, "no envelope"),
        (lambda m: {**m, "boot": "XYZ"}, "no envelope"),
    ],
)
def test_another_body_is_refused_by_field(change, expected: str) -> None:  # type: ignore[no-untyped-def]
    raw = json.dumps(change(json.loads(seal(ENVELOPE, STATUS)))).encode()
    with pytest.raises(PayloadError, match=expected):
        unseal(raw, ParticipantStatus)


def test_another_wire_version_has_an_error_of_its_own() -> None:
    raw = seal(ENVELOPE, STATUS).replace(b'{"v":1', b'{"v":2')
    with pytest.raises(UnknownWireVersion, match="wire version 2; this side speaks 1"):
        unseal(raw, ParticipantStatus)


def test_refusals_do_not_repeat_the_content() -> None:
    raw = seal(ENVELOPE, STATUS).replace(b'"online"', b'"CANARY"')
    with pytest.raises(PayloadError) as error:
        unseal(raw, ParticipantStatus)
    assert "CANARY" not in str(error.value)


def test_a_payload_over_the_limit_is_not_parsed() -> None:
    with pytest.raises(PayloadError, match="bytes of JSON"):
        unseal(b" " * (MAX_JSON_BYTES + 1), AggregatorStatus)


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_every_truncated_message_is_refused(cut: int) -> None:
    raw = seal(ENVELOPE, STATUS)
    if cut < len(raw):
        with pytest.raises(PayloadError):
            unseal(raw[:cut], ParticipantStatus)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        unseal(b'{"v":1,"federation":"f","sender":"s","boot":"00000000","sequence":1,' + raw, AggregatorStatus)
