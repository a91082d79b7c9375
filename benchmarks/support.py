"""What the benchmarks share."""

from __future__ import annotations


def row(name: str, value: str) -> None:
    """One printed figure."""
    print(f"{name:62} {value:>14}", flush=True)
