"""Who is asked: drawn by hash from federation, generation and round, so that a replay draws the same."""

from __future__ import annotations

import hashlib

from aggregator.state import Rules


def round_seed(rules: Rules, round_number: int) -> int:
    """The round's seed: the first 48 bits of a hash, the same at every replay."""
    text = f"{rules.federation}|{rules.generation}|{round_number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def draw(candidates: tuple[str, ...], size: int, seed: int, attempt: int) -> tuple[str, ...]:
    """At most `size` of the candidates, in participant order; each is equally likely.

    Sorting by a hash of seed and id needs no random generator and doesn't depend on who else is there.
    """
    if len(candidates) <= size:
        return tuple(sorted(candidates))

    def rank(participant: str) -> bytes:
        return hashlib.sha256(f"{seed}|{attempt}|{participant}".encode()).digest()

    return tuple(sorted(sorted(candidates, key=rank)[: max(0, size)]))
