"""docs/sparkplug.md: each statement of the specification once, tests that are collected, an example that is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from edge.config import InferenceConfig, SparkplugConfig

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "sparkplug.md").read_text("utf-8")
ROWS = [line for line in DOCUMENT.splitlines() if line.startswith("| `tck-id-")]


def test_every_statement_stands_there_once_with_what_is_done_and_a_test() -> None:
    statements = []
    for row in ROWS:
        ids, done, tests = (cell.strip() for cell in row.strip("| ").split(" | "))
        statements += re.findall(r"`(tck-id-[A-Za-z0-9-]+)`", ids)
        assert done, row
        assert re.fullmatch(r"`tests/\S+\.py::test_\w+`( `tests/\S+\.py::test_\w+`)*", tests), row
    assert len(statements) > 200
    assert sorted(set(statements)) == sorted(statements)


def test_every_test_that_is_named_is_collected() -> None:
    named = set(re.findall(r"`(tests/\S+\.py::test_\w+)`", DOCUMENT))
    files = sorted({name.partition("::")[0] for name in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("[")[0] for line in done.stdout.splitlines()}
    assert named - collected == set()


def test_the_example_is_a_configuration_with_every_option() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    shown = InferenceConfig.model_validate(yaml.safe_load(example)["inference"])
    assert shown.sparkplug == SparkplugConfig(group="Headgate", node="berlin-1")
    uncommented = re.sub(r"# (\w+: \S+) .*", r"\1", example)
    every = InferenceConfig.model_validate(yaml.safe_load(uncommented)["inference"]).sparkplug
    assert every is not None
    assert every.model_fields_set == set(SparkplugConfig.model_fields)
