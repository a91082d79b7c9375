"""Benchmarks: each prints its figures beside a peer or a physical floor measured in the same run."""
