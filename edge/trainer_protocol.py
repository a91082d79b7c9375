"""The pipe protocol between an edge and its trainer: a length, then a msgpack map; one answer per request.

    hello {}                                    -> {version, takes}
    template {skeleton, factories}              -> {}
    dataset {path}                              -> {}                 a file that `edge.dataset` wrote
    initial {seed}                              -> {vector}           fresh parameters of the template's network
    train {base, settings, class_weights, seed, correction}
                                                -> {delta, local, num_steps, num_examples, loss}
    train_local {base, settings, ...}           -> {vector, num_steps, select_loss}
    anything                                    -> {error, detail}    `error` is a reason code

`takes` lists what else a trainer understands; left out, nothing. `correction` (SCAFFOLD) stands in a request only where
the plan has control variates, and is asked only of a trainer that takes "correction": float32, the elements of role
`weight` in table order, added to each step's gradient as it is, after any clipping. Where the plan has them and the
trainer doesn't take it, the participant says `trainer-without-correction` and takes no part in rounds.

`base` of `train` holds the plant's own values of the tensors of role `local`; `local` are these as training left
them, where it moved them. `delta` is zero there. `train_local` goes on from its own last call; `base` counts at its
first call for a template only. Any program that speaks this can be a trainer (`trainer.command`).
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgpack

MAX_FRAME_BYTES = 2**31
TAKES_CORRECTION = "correction"
"""What a trainer's hello lists where it corrects each step."""
EXIT_NOT_INSTALLED = 69
"""Exit code of a trainer whose libraries are missing (EX_UNAVAILABLE of sysexits.h)."""
_LENGTH = struct.Struct(">I")


class FrameError(ValueError):
    """The other side sent no frame of this protocol, or ended within one."""


def encode_frame(message: dict[str, Any]) -> bytes:
    """A request or an answer as bytes. Raises: FrameError: larger than a frame may be."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes; at most {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """The bytes that follow a frame's head. Raises: FrameError."""
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES}")
    return int(length)


def decode_body(body: bytes) -> dict[str, Any]:
    """A frame's content. Raises: FrameError: no msgpack map."""
    try:
        message = msgpack.unpackb(body, raw=False, max_bin_len=MAX_FRAME_BYTES)
    except (ValueError, msgpack.UnpackException) as error:
        raise FrameError(f"no msgpack: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise FrameError(f"a map was expected, not {type(message).__name__}")
    return message


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next request, on the trainer's side; None where the edge closed the pipe. Raises: FrameError."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    body = stream.read(frame_length(head)) if len(head) == _LENGTH.size else b""
    if len(head) < _LENGTH.size or len(body) < frame_length(head):
        raise FrameError("the pipe ended within a frame")
    return decode_body(body)


HEAD_BYTES = _LENGTH.size
