"""Proving that a template's graph and a torch module are one function: random parameters in, outputs compared."""

from __future__ import annotations

import numpy as np
import torch

from edge.model_check import random_vector
from edge.training.modules import PlantModel
from edge.training.vectors import read_vector, write_vector
from uns_topics.golden import run_model
from uns_topics.template import CONTEXT_INPUT, FEATURES_INPUT, Lineage, Template, golden_inputs

PROOFS = 3
MAX_DRAWS = 50
"""Parameters under which a narrow network is dead (the same output whatever comes in) prove nothing: drawn again."""
TOLERANCE = 2e-5
"""Largest difference that passes, relative beyond 1: what float32 leaves between two orders of summation."""


class ProofError(Exception):
    """Graph and module are not the same function of the same parameters."""


def prove(template: Template, module: PlantModel) -> None:
    """Compare onnxruntime and torch on the golden inputs; the module's parameters are as before afterwards.

    Raises: ProofError: other tensors, or other outputs: a parameter is not where the table says, was folded away, or
        the module is not the one that was exported.
    """
    state = {name: tuple(value.shape) for name, value in module.state_dict().items() if value.is_floating_point()}
    table = {tensor.name: tensor.shape for tensor in template.table.tensors}
    if state != table:
        name = min(set(state.items()) ^ set(table.items()))[0]
        raise ProofError(f"tensor {name} is {state.get(name, 'missing')} here and {table.get(name, 'missing')} there")
    inputs = golden_inputs(template.sha256, template.contract)
    features = torch.from_numpy(inputs[FEATURES_INPUT])
    context = torch.from_numpy(inputs[CONTEXT_INPUT]) if CONTEXT_INPUT in inputs else None
    info = template.version_info(0, 0, Lineage(origin="new"))
    rng = np.random.Generator(np.random.PCG64(int(template.sha256, 16)))
    before = read_vector(module, template.table)
    was_training = module.training
    try:
        proofs = 0
        for _ in range(MAX_DRAWS):
            vector = random_vector(template, rng)
            write_vector(module.eval(), template.table, vector)
            with torch.no_grad():
                expected = module(features, context).numpy()
            measured = run_model(template.file(vector, info), inputs)
            if measured.shape != expected.shape:
                raise ProofError(f"onnxruntime gives shape {measured.shape}, torch {expected.shape}")
            difference = float((np.abs(measured - expected) / np.maximum(1.0, np.abs(expected))).max())
            if not difference <= TOLERANCE:
                raise ProofError(f"with the same random parameters onnxruntime and torch differ by {difference:.2g}")
            proofs += float(np.ptp(expected)) > 1e-4
            if proofs == PROOFS:
                return
        raise ProofError("the module gives the same output for different inputs: nothing can be proven")
    finally:
        write_vector(module, template.table, before)
        module.train(was_training)
