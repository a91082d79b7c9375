"""A recording of a broker's messages: JSON lines, one message each, in the order in which they came.

    {"time": 1700000000.123, "topic": "acme/berlin/smt/line1/spi", "payload": "{\\"h\\": 120}"}
    {"time": 1700000000.124, "topic": "spBv1.0/berlin/DDATA/line1/spi", "payload_base64": "CAES...", "retain": true}

`time` is the arrival, seconds since the epoch. A payload that is UTF-8 stands as text, any other as base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINE = 4 * 1024 * 1024
"""Characters of one line; a longer one ends the reading."""


class RecordingError(ValueError):
    """A file that is no recording; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of a broker. `time_s`: its arrival, seconds since the epoch."""

    time_s: float
    topic: str
    payload: bytes
    retain: bool = False


def encode_line(heard: Heard) -> str:
    """One message as a line, its end included."""
    content: dict[str, Any] = {"time": heard.time_s, "topic": heard.topic}
    try:
        content["payload"] = heard.payload.decode()
    except UnicodeDecodeError:
        content["payload_base64"] = base64.b64encode(heard.payload).decode()
    if heard.retain:
        content["retain"] = True
    return json.dumps(content, ensure_ascii=False) + "\n"


def decode_line(line: str) -> Heard:
    """One message. Raises: ValueError: the line is something else."""
    try:
        content = json.loads(line)
    except RecursionError:
        raise ValueError("not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    time_s, topic = content.get("time"), content.get("topic")
    if not isinstance(time_s, int | float) or isinstance(time_s, bool) or not 0 <= time_s < 1e11:
        raise ValueError("no `time` in seconds since the epoch")
    if not isinstance(topic, str) or not topic:
        raise ValueError("no `topic`")
    return Heard(float(time_s), topic, _payload(content), content.get("retain") is True)


def _payload(content: dict[str, Any]) -> bytes:
    text, encoded = content.get("payload"), content.get("payload_base64")
    if isinstance(text, str) and encoded is None:
        return text.encode("utf-8", "replace")
    if isinstance(encoded, str) and text is None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("`payload_base64` is no base64") from None
    raise ValueError("one of `payload` and `payload_base64`, a text, was expected")


def read_recording(path: Path) -> Iterator[Heard]:
    """The messages of a file; a last line that breaks off is none. Raises: RecordingError: missing, or no recording."""
    try:
        with path.open(encoding="utf-8") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                if line.strip():
                    try:
                        yield decode_line(line)
                    except ValueError as error:
                        if (
                            number > 1
                            and line.startswith("{")
                            and not line.endswith(("}", "\n"))
                            and len(line) < MAX_LINE
                        ):
                            return  # whoever wrote it was killed in the middle of its last line
                        raise RecordingError(f"{path}, line {number}: {error}") from None
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise RecordingError(f"{path}: it is no recording: not UTF-8") from None
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from None
