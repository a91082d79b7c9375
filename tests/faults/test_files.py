"""Every write, fsync and rename that fails, and every moment at which the power may go: no file is half of anything."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aggregator.templates import TemplateFiles
from aggregator.vectors import VectorError, VectorFiles
from broker_bridge import durable
from edge.models import ModelRefused, ModelStore, OwnModel
from tests.edge.versions import TEMPLATE, manifest_of, vector_of
from tests.faults.disk import FailingDisk, PowerCut, materialise
from uns_topics.presence import Variant
from uns_topics.tensors import vector_sha256

ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS]
OWN = OwnModel(Variant.LOCAL, 2, TEMPLATE.sha256, vector_of(9))


def an_edge_that_serves_version_1(folder: Path) -> ModelStore:
    store = ModelStore(folder)
    store.save_template(TEMPLATE)
    store.save(manifest_of(1), vector_of(1), TEMPLATE.sha256, frozenset())
    store.mark_served(1)
    return store


def version_2_comes(store: ModelStore) -> None:
    store.save_template(TEMPLATE)
    store.save(manifest_of(2), vector_of(2), TEMPLATE.sha256, frozenset({1}))
    store.mark_served(2)
    store.save_own(OWN)
    store.save(manifest_of(3), vector_of(3), TEMPLATE.sha256, frozenset({2}))
    store.mark_served(3)


def serves(folder: Path) -> int:
    """What a restart runs: the first that served and is what its manifest says."""
    store = ModelStore(folder)
    assert store.template(TEMPLATE.sha256).sha256 == TEMPLATE.sha256
    found = None
    for version in store.served():
        try:
            manifest, vector, _ = store.load(version)
        except ModelRefused:
            continue
        assert vector_sha256(vector) == manifest.sha256 == vector_sha256(vector_of(version))
        found = found or version
    assert found is not None, "nothing serves any more"
    try:
        own = store.own()
    except ModelRefused:
        own = None
    assert own is None or np.array_equal(own.vector, OWN.vector)
    return found


def operations(run: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> int:
    disk = FailingDisk(0, 0)
    with disk.mounted(monkeypatch):
        run()
    return disk.operations


@pytest.mark.parametrize("number", ERRORS)
def test_an_edge_serves_on_whichever_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    count = operations(lambda: version_2_comes(an_edge_that_serves_version_1(tmp_path / "count")), monkeypatch)
    before = operations(lambda: an_edge_that_serves_version_1(tmp_path / "before") and None, monkeypatch)
    assert count - before > 20
    for at in range(1, count - before + 1):
        folder = tmp_path / f"{number}-{at}"
        store = an_edge_that_serves_version_1(folder)
        with FailingDisk(at, number).mounted(monkeypatch), pytest.raises(OSError, match=r"\[Errno"):
            version_2_comes(store)
        assert serves(folder) in (1, 2, 3), at
        assert not list(folder.glob("*.part")), at
        version_2_comes(ModelStore(folder))  # there is room again
        assert serves(folder) == 3, at


def test_an_edge_serves_on_whenever_the_power_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = an_edge_that_serves_version_1(tmp_path / "edge")
    power = PowerCut(tmp_path / "edge")
    with power.mounted(monkeypatch):
        version_2_comes(store)
    assert len(power.states) > 60
    seen = [serves(materialise(state, tmp_path / str(i))) for i, state in enumerate(power.states)]
    assert set(seen) == {1, 2, 3}
    assert seen[-1] == 3


@pytest.mark.parametrize("number", ERRORS)
def test_an_aggregator_s_vectors_are_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sha256 = vector_sha256(vector_of(5))
    for at in range(1, 5):
        files = VectorFiles(tmp_path / str(at))
        with FailingDisk(at, number).mounted(monkeypatch), pytest.raises(OSError, match=r"\[Errno"):
            files.write(5, vector_of(5))
        if files.path(5, sha256).exists():
            assert np.array_equal(files.read(5, sha256, vector_of(5).size), vector_of(5))
        assert files.write(5, vector_of(5)) == sha256
        assert np.array_equal(files.read(5, sha256, vector_of(5).size), vector_of(5))


def test_what_is_kept_is_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector that `write` returned for is recorded as made in the next transaction: it must not be gone then."""
    files, templates = VectorFiles(tmp_path / "vectors"), TemplateFiles(tmp_path / "templates")
    vectors, skeletons = PowerCut(tmp_path / "vectors"), PowerCut(tmp_path / "templates")
    with vectors.mounted(monkeypatch):
        sha256 = files.write(5, vector_of(5))
    with skeletons.mounted(monkeypatch):
        templates.keep(TEMPLATE)
    left = VectorFiles(materialise(vectors.states[-2], tmp_path / "left"))
    assert np.array_equal(left.read(5, sha256, vector_of(5).size), vector_of(5))
    for i, state in enumerate(vectors.states[:-2]):
        there = VectorFiles(materialise(state, tmp_path / f"v{i}"))
        if there.path(5, sha256).exists():
            assert np.array_equal(there.read(5, sha256, vector_of(5).size), vector_of(5))
    kept = TemplateFiles(materialise(skeletons.states[-2], tmp_path / "kept"))
    assert kept.read(TEMPLATE.sha256).sha256 == TEMPLATE.sha256


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_forgotten_fsync_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    """The tests above can fail: without one of the two flushes what was kept is empty, or gone."""
    flush = durable.os.fsync
    folder = tmp_path / "vectors"
    files, power = VectorFiles(folder), PowerCut(folder)
    with power.mounted(monkeypatch):
        followed = durable.os.fsync
        with monkeypatch.context() as patched:

            def fsync(descriptor: int) -> None:
                is_folder = Path(f"/proc/self/fd/{descriptor}").resolve() == folder
                (flush if is_folder == (forgotten == "folder") else followed)(descriptor)

            patched.setattr(durable.os, "fsync", fsync)
            sha256 = files.write(5, vector_of(5))
    left = VectorFiles(materialise(power.states[-2], tmp_path / "left"))
    with pytest.raises(VectorError):
        left.read(5, sha256, vector_of(5).size)
