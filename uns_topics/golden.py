"""Running a model file in memory, and the golden outputs that prove one side's copy to the other.

Aggregator and edges run the same eight inputs, drawn from the template's hash; a version whose outputs differ from its
manifest's must not serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uns_topics.template import Template, golden_inputs

if TYPE_CHECKING:
    import onnxruntime

TOLERANCE = 1e-4
"""Absolute below 1, relative above: float32 sums differ in their last digits between CPUs."""


def open_session(file: bytes) -> onnxruntime.InferenceSession:
    """A session on one thread, which neither spins nor takes a core from ingest between two samples.

    Raises: onnxruntime's own errors for a graph that it can't run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_model(file: bytes, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """The model's one output for these inputs: shape (n,)."""
    return run_session(open_session(file), inputs)


def run_session(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float32]:
    """The one output of a model that is open: shape (n,)."""
    outputs: list[npt.NDArray[np.float32]] = session.run(None, dict(inputs))
    return outputs[0].reshape(-1)


def golden_outputs(template: Template, file: bytes) -> list[float]:
    """Outputs of a model file for the template's golden inputs."""
    return golden_outputs_of(template, open_session(file))


def golden_outputs_of(template: Template, session: onnxruntime.InferenceSession) -> list[float]:
    """The same of a model that is open."""
    return [float(y) for y in run_session(session, golden_inputs(template.sha256, template.contract))]


def agrees(ours: Sequence[float], theirs: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    """Whether two lists of outputs are the same within the tolerance; NaN agrees with nothing."""
    if len(ours) != len(theirs):
        return False
    return all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=True))
