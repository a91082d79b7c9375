"""Between a module's state and the flat vector: the table's order, the table's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from uns_topics.tensors import Role, TensorTable, Vector


def role_of(name: str, parameters: frozenset[str], local: Iterable[str] = ()) -> Role:
    """The role of a state entry of `PlantModel` by its name.

    Args: local: patterns of learnt tensors and running statistics that stay in the plant.
    """
    if name.startswith("calibration."):
        return Role.LOCAL
    if name.startswith(("standardise.", "context.")):
        return Role.FROZEN
    if any(fnmatchcase(name, pattern) for pattern in local):
        return Role.LOCAL
    return Role.WEIGHT if name in parameters else Role.BUFFER


def read_vector(module: nn.Module, table: TensorTable) -> Vector:
    """The module's state as a vector."""
    state = module.state_dict()
    vector = np.empty(table.size, np.float32)
    for tensor in table.tensors:
        vector[tensor.offset : tensor.offset + tensor.size] = state[tensor.name].detach().reshape(-1).numpy()
    return vector


def write_vector(module: nn.Module, table: TensorTable, vector: Vector) -> None:
    """Load a vector into the module, in place."""
    state = module.state_dict()
    with torch.no_grad():
        for tensor in table.tensors:
            values = torch.from_numpy(vector[tensor.offset : tensor.offset + tensor.size].copy())
            state[tensor.name].copy_(values.reshape(tensor.shape))
