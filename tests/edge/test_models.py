"""Versions on disk and in memory: what may serve, and what a restart finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.models import ModelRefused, ModelStore, OwnModel, open_version
from tests.edge.versions import TEMPLATE, control_of, controlled, manifest_of, vector_of
from uns_topics.golden import open_session
from uns_topics.presence import Variant


def store_with(folder: Path, *served: int) -> ModelStore:
    store = ModelStore(folder)
    store.save_template(TEMPLATE)
    for version in served:
        store.save(manifest_of(version), vector_of(version), TEMPLATE.sha256, frozenset(served))
        store.mark_served(version)
    return store


def test_a_version_serves_only_as_what_its_manifest_says() -> None:
    model = open_version(TEMPLATE, vector_of(3), manifest_of(3))
    outputs = model.run(np.array([[1.0, 2.0], [np.nan, 9.0]], np.float32), np.zeros(2, np.int64))
    assert outputs.shape in ((2,), (2, 1))
    with pytest.raises(ModelRefused, match="not the one that the manifest names"):
        open_version(TEMPLATE, vector_of(4), manifest_of(3))
    lying = manifest_of(3).model_copy(update={"golden": manifest_of(4).golden})
    with pytest.raises(ModelRefused, match="other outputs"):
        open_version(TEMPLATE, vector_of(3), lying)


def test_a_version_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr("edge.models.open_session", lambda raw: opened.append(raw) or open_session(raw))
    open_version(TEMPLATE, vector_of(3), manifest_of(3))
    assert len(opened) == 1


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    store_with(tmp_path, 1, 2)
    store = ModelStore(tmp_path)  # another process
    assert store.served() == [2, 1]
    manifest, vector, template = store.load(2)
    assert manifest == manifest_of(2)
    assert np.array_equal(vector, vector_of(2))
    assert store.template(template).sha256 == TEMPLATE.sha256


def test_a_candidate_that_never_served_is_no_last_good_version(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    store.save(manifest_of(2), vector_of(2), TEMPLATE.sha256, frozenset({1}))
    assert store.served() == [1]
    assert store.load(2)[0].version == 2  # it is here, should it be promoted


def test_two_that_served_stay_and_older_ones_go(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1, 2, 3)
    store.save(manifest_of(4), vector_of(4), TEMPLATE.sha256, frozenset())
    assert sorted(p.stem for p in tmp_path.glob("*.f32")) == ["2", "3", "4"]
    with pytest.raises(ModelRefused):
        store.load(1)


def test_whatever_was_changed_on_disk_is_refused_and_never_raises_anything_else(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    numbers, record = tmp_path / "1.f32", tmp_path / "1.json"
    good = (numbers.read_bytes(), record.read_bytes())
    for content in (b"", b"x", good[0][:-4], good[0][:-1], b"\x01" + good[0][1:], good[0] + bytes(4)):
        numbers.write_bytes(content)
        with pytest.raises(ModelRefused):
            store.load(1)
    numbers.write_bytes(good[0])
    for content in (b"", b"[]", b"{}", b"7", b'{"manifest": 1, "template": 2}', good[1][:-9], b"\xff"):
        record.write_bytes(content)
        with pytest.raises(ModelRefused):
            store.load(1)
    record.write_bytes(good[1])
    assert store.load(1)[0].version == 1
    skeleton = next(tmp_path.glob("skeleton-*.onnx"))
    for content in (b"", skeleton.read_bytes() + b"\0", b"\xff" * 100):
        skeleton.write_bytes(content)
        with pytest.raises(ModelRefused):
            store.template(TEMPLATE.sha256)


@pytest.mark.parametrize("content", [b"", b"{", b"7", b'["x", 3]', b"\xff"])
def test_a_broken_list_of_what_served_is_a_shorter_one(tmp_path: Path, content: bytes) -> None:
    store = store_with(tmp_path, 1)
    (tmp_path / "served.txt").write_bytes(content)
    assert store.served() in ([], [3])


def test_an_own_model_is_read_back_until_it_is_dropped_or_was_changed(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    assert store.own() is None
    store.save_own(OwnModel(Variant.PERSONALISED, 1, TEMPLATE.sha256, vector_of(7)))
    found = store.own()
    assert found is not None
    assert (found.variant, found.version, found.template_sha256) == (Variant.PERSONALISED, 1, TEMPLATE.sha256)
    assert np.array_equal(found.vector, vector_of(7))
    kept = (tmp_path / "own.f32").read_bytes()
    for content in (b"", kept[:-4], bytes(len(kept))):
        (tmp_path / "own.f32").write_bytes(content)
        with pytest.raises(ModelRefused, match="own model"):
            store.own()
    (tmp_path / "own.f32").write_bytes(kept)
    for content in (b"", b"{}", b"[1]", b'{"variant": "best"}'):
        (tmp_path / "own.json").write_bytes(content)
        with pytest.raises(ModelRefused, match="own model"):
            store.own()
    store.drop_own()
    assert store.own() is None


def test_a_control_variate_lies_beside_its_version_and_goes_with_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2):
        store.save(controlled(version), vector_of(version), TEMPLATE.sha256, frozenset({1, 2}), control_of(version))
    manifest, vector, _ = ModelStore(tmp_path).load(2)
    model = open_version(TEMPLATE, vector, manifest, store.control(manifest))
    assert model.control is not None
    assert model.control.tobytes() == control_of(2).tobytes()
    assert store.control(manifest_of(1)) is None
    for other in (None, control_of(1)):
        with pytest.raises(ModelRefused, match="control variate is not the one"):
            open_version(TEMPLATE, vector, manifest, other)
    for content in (b"", control_of(2).tobytes()[:-1], control_of(2).tobytes()[:-4], b"\xff" * 40):
        (tmp_path / "2.control").write_bytes(content)
        with pytest.raises(ModelRefused):
            open_version(TEMPLATE, vector, manifest, store.control(manifest))
    store.save(controlled(3), vector_of(3), TEMPLATE.sha256, frozenset(), control_of(3))
    assert sorted(p.name for p in tmp_path.glob("*.control")) == ["3.control"]
    (tmp_path / "3.control").unlink()
    with pytest.raises(ModelRefused, match="version 3 on disk"):
        store.control(controlled(3))


def test_a_version_that_a_full_disk_kept_out_takes_no_good_one_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path, 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("broker_bridge.durable.os.fsync", full)
        for version in (2, 3):
            with pytest.raises(OSError, match="No space"):
                store.save(manifest_of(version), vector_of(version), TEMPLATE.sha256, frozenset({version}))
            store.mark_served(version)
    assert store.served() == [1]
    assert store.load(1)[0].version == 1
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "2.control").write_bytes(b"left half written")
    store.save(manifest_of(4), vector_of(4), TEMPLATE.sha256, frozenset())
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir() if path.name[0].isdecimal()} == {"1", "4"}
