"""Seconds from `make demo` (installed) to the first values and to each round."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.support import row


def main() -> None:
    """One run of the default demo."""
    command = [sys.executable, "-m", "headgate", "demo", "--once", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    for line in ran.stderr.splitlines():
        if found := re.match(r"\s*([\d.]+) s\s+(first \w+ value|round \d+)\b", line):
            row(f"{found[2]} (s)", found[1])


if __name__ == "__main__":
    main()
