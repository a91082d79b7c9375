"""A recording gives back what was heard, and anything else is refused with its line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.assess.recording import Heard, RecordingError, decode_line, encode_line, read_recording


@given(st.floats(0, 9e10), st.text(min_size=1), st.binary(), st.booleans())
def test_what_was_heard_comes_back(time_s: float, topic: str, payload: bytes, retain: bool) -> None:
    topic = topic.encode("utf-8", "replace").decode()
    heard = Heard(time_s, topic, payload, retain)
    line = encode_line(heard)
    assert line.count("\n") == 1
    assert decode_line(line) == heard


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    path.write_text(
        '{"time": 5, "topic": "a", "payload": "21.5"}\n\n{"time":6,"topic":"b","payload_base64":"/w=="}', "utf-8"
    )
    assert list(read_recording(path)) == [Heard(5.0, "a", b"21.5"), Heard(6.0, "b", b"\xff")]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "not a JSON object"),
        ('{"topic": "a", "payload": ""}', "no `time`"),
        ('{"time": true, "topic": "a", "payload": ""}', "no `time`"),
        ('{"time": NaN, "topic": "a", "payload": ""}', "no `time`"),
        ('{"time": 1, "payload": ""}', "no `topic`"),
        ('{"time": 1, "topic": "a"}', "one of `payload`"),
        ('{"time": 1, "topic": "a", "payload": "", "payload_base64": ""}', "one of `payload`"),
        ('{"time": 1, "topic": "a", "payload_base64": "?"}', "no base64"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_line_that_is_none(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "heard.jsonl"
    path.write_text('{"time": 5, "topic": "a", "payload": ""}\n' + line, "utf-8")
    with pytest.raises(RecordingError, match="line 2") as caught:
        list(read_recording(path))
    assert sentence in str(caught.value)


def test_a_recording_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    lines = [encode_line(Heard(1.0 + n, "a/b", b"1")) for n in range(3)]
    path = tmp_path / "cut.jsonl"
    path.write_text("".join(lines)[:-5], "utf-8")
    assert [heard.time_s for heard in read_recording(path)] == [1.0, 2.0]
    path.write_text(lines[0] + lines[1][:-5] + "\n" + lines[2], "utf-8")
    with pytest.raises(RecordingError, match="line 2"):
        list(read_recording(path))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        list(read_recording(tmp_path / "gone"))
    (tmp_path / "bytes").write_bytes(random.Random(1).randbytes(5000))
    with pytest.raises(RecordingError, match=r"not UTF-8|line 1"):
        list(read_recording(tmp_path / "bytes"))
