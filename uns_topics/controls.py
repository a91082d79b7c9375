"""Control variates on the wire (SCAFFOLD: Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1).

Where `Plan.control` says so, the server's c follows a version's vector in its full transfer, and an update's group
`control` is the change of its participant's own c_k. Both are float32, the elements of role `weight` in table order.
"""

from __future__ import annotations

from uns_topics.plan import Tolerances, Training
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes, vector_from_bytes


def full_bytes(table: TensorTable, *, control: bool) -> int:
    """Bytes of a version's full transfer."""
    return 4 * (table.size + (table.elements(Role.WEIGHT) if control else 0))


def join_full(vector: Vector, control: Vector | None) -> bytes:
    """A version's full transfer. Args: vector: shape (table.size,); control: c, or None where the plan has none."""
    return vector_bytes(vector) + (vector_bytes(control) if control is not None else b"")


def split_full(content: bytes, table: TensorTable, *, control: bool) -> tuple[Vector, Vector | None]:
    """The inverse of `join_full`. Raises: ValueError: another length, or a value that is not finite."""
    due = full_bytes(table, control=control)
    if len(content) != due:
        raise ValueError(f"{len(content)} bytes for a version that takes {due}")
    vector = vector_from_bytes(memoryview(content)[: 4 * table.size], table.size)
    if not control:
        return vector, None
    return vector, vector_from_bytes(memoryview(content)[4 * table.size :], table.elements(Role.WEIGHT))


def max_control_norm(training: Training, tolerances: Tolerances) -> float:
    """L2 norm beyond which the change of a participant's control variate is refused: 2 * max_delta_norm / (K * lr).

    By option II the change is -c - delta / (K * lr), so |change| <= |c| + max_delta_norm / (K * lr). The server's c
    starts at 0 and becomes (1 - s) * c - s * mean(delta) / (K * lr) with s = |S| / N: it never exceeds the second term.
    """
    return 2 * tolerances.max_delta_norm / (training.steps * training.learning_rate)
