"""`make bench`: all benchmarks that need no recorded data, one after the other."""

from __future__ import annotations

import os
import platform
import sys

import onnxruntime
import torch

from benchmarks import aggregation, attacks, bridge, demo, encodings, inference, rounds

ALL = {
    "aggregation": aggregation,
    "attacks": attacks,
    "bridge": bridge,
    "demo": demo,
    "encodings": encodings,
    "inference": inference,
    "rounds": rounds,
}


def main() -> None:
    """All, or those named."""
    chosen = sys.argv[1:] or list(ALL)
    if unknown := set(chosen) - set(ALL):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{os.cpu_count()} cores, {platform.machine()}, {versions}\n")
    for name in chosen:
        print(f"## {name}")
        ALL[name].main()
        print()


if __name__ == "__main__":
    main()
