"""`make bench`: all benchmarks that need no recorded data, one after the other."""

from __future__ import annotations

import argparse
import os
import platform

import onnxruntime
import torch

from benchmarks import aggregation, attacks, bridge, demo, encodings, inference, ingest, rounds

ALL = {
    "aggregation": aggregation,
    "attacks": attacks,
    "bridge": bridge,
    "demo": demo,
    "encodings": encodings,
    "inference": inference,
    "ingest": ingest,
    "rounds": rounds,
}


def main() -> None:
    """All, or those named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all without")
    parser.add_argument("--messages", type=int, default=0, metavar="N", help="ingest: N more messages, for its memory")
    arguments = parser.parse_args()
    chosen = arguments.names or list(ALL)
    if unknown := set(chosen) - set(ALL):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{os.cpu_count()} cores, {platform.machine()}, {versions}\n")
    for name in chosen:
        print(f"## {name}")
        if name == "ingest":
            ingest.main(arguments.messages)
        else:
            ALL[name].main()
        print()


if __name__ == "__main__":
    main()
