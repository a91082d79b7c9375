"""The wire is kept as bytes: whoever changes it sees it here, and raises the wire version.

After a wanted change: `python -m tests.contracts.test_golden_bytes` writes the files anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.contracts.examples import BODIES, DELTA, TABLE, TEMPLATE, UPDATE, UPDATE_MANIFEST, VECTOR, golden_bytes
from uns_topics.payloads import PAYLOADS, read
from uns_topics.template import read_model_file, read_template
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import decode_chunk
from uns_topics.update import decode_update, unpack_groups

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(golden_bytes()))
def test_the_wire_has_not_changed(name: str) -> None:
    assert golden_bytes()[name] == (GOLDEN / name).read_bytes()


def test_no_golden_file_is_forgotten() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(golden_bytes())


def test_every_json_topic_has_an_example() -> None:
    assert set(BODIES) == set(PAYLOADS)


@pytest.mark.parametrize("kind", sorted(BODIES, key=lambda kind: kind.name))
def test_a_golden_message_reads_back(kind: Kind) -> None:
    names = {"participant": "berlin", "bridge": "berlin", "transfer": UPDATE_MANIFEST.id}
    needed = {name: value for name, value in names.items() if f"{{{name}}}" in kind.path}
    envelope, body = read(FlTopic("solder-defect", kind, **needed), (GOLDEN / f"{kind.name.lower()}.json").read_bytes())
    assert (envelope.sender, envelope.boot, envelope.sequence) == ("berlin", "0a1b2c3d", 7)
    assert body == BODIES[kind]


def test_golden_binaries_read_back() -> None:
    chunk = decode_chunk((GOLDEN / "chunk.msgpack").read_bytes(), 15 * 1024)
    assert chunk.body == UPDATE
    update = decode_update((GOLDEN / "update.msgpack").read_bytes(), 10_000)
    np.testing.assert_array_equal(unpack_groups(update, TABLE), DELTA)
    assert read_template((GOLDEN / "skeleton.onnx").read_bytes()).sha256 == TEMPLATE.sha256
    model = read_model_file((GOLDEN / "version.onnx").read_bytes())
    np.testing.assert_array_equal(model.vector, VECTOR)
    assert model.template.sha256 == TEMPLATE.sha256


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for file_name, content in golden_bytes().items():
        (GOLDEN / file_name).write_bytes(content)
