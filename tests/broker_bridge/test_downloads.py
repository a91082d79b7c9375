"""Fetching: exact topics, only what is missing, and never a model twice."""

from __future__ import annotations

import random

import pytest

from broker_bridge.downloads import STALLED_S, Downloads, Fetched, IntegrityError, Subscribe, Unsubscribe
from uns_topics.transfers import KIB, Chunk, TransferManifest, chunk_of, make_manifest

CONTENT = random.Random(3).randbytes(40 * KIB)
MANIFEST = make_manifest(CONTENT, "model", 16 * KIB, version=7)
TOPICS = tuple(f"fl/v1/f/down/model/7/{i}" for i in range(3))


def feed(downloads: Downloads, *indices: int, manifest: TransferManifest = MANIFEST, now: float = 0.0) -> list[object]:
    return [effect for i in indices for effect in downloads.on_chunk(chunk_of(CONTENT, manifest, i), now)]


def test_it_subscribes_to_exact_topics_and_leaves_them_when_it_is_whole() -> None:
    downloads = Downloads("f")
    assert downloads.want(MANIFEST, 0.0) == [Subscribe(TOPICS)]
    assert downloads.want(MANIFEST, 1.0) == []
    assert feed(downloads, 2, 0, 0) == []
    assert feed(downloads, 1) == [Unsubscribe(TOPICS), Fetched(MANIFEST, CONTENT)]
    assert (downloads.active, downloads.deadline) == (frozenset(), None)
    assert feed(downloads, 1) == []  # a copy that came late


def test_a_skeleton_has_its_own_topics() -> None:
    skeleton = make_manifest(CONTENT, "skeleton", 40 * KIB)
    assert Downloads("f").want(skeleton, 0.0) == [Subscribe(("fl/v1/f/down/skeleton/0",))]


def test_a_reconnect_asks_only_for_what_is_missing() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    feed(downloads, 1)
    assert downloads.on_connected(5.0) == [Subscribe((TOPICS[0], TOPICS[2]))]
    assert downloads.deadline == 5.0 + STALLED_S


def test_what_stalls_is_subscribed_again_and_then_asked_for() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    feed(downloads, 0)
    assert downloads.on_time(STALLED_S - 0.1) == []
    assert downloads.stalled == frozenset()
    missing = TOPICS[1:]
    assert downloads.on_time(STALLED_S) == [Unsubscribe(missing), Subscribe(missing)]
    assert downloads.stalled == {MANIFEST.id}
    assert isinstance(feed(downloads, 1, 2)[-1], Fetched)
    assert downloads.stalled == frozenset()


def test_a_changed_chunk_is_refused_and_the_right_one_still_counts() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    good = chunk_of(CONTENT, MANIFEST, 0)
    for bad in (Chunk(good.id, 0, 3, good.body[:-1]), Chunk(good.id, 0, 3, bytes(len(good.body)))):
        with pytest.raises(IntegrityError):
            downloads.on_chunk(bad, 0.0)
    assert downloads.on_chunk(Chunk("0" * 16, 0, 3, good.body), 0.0) == []  # nobody asked for that
    assert isinstance(feed(downloads, 0, 1, 2)[-1], Fetched)


def test_another_chunking_of_the_same_bytes_replaces_the_first() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    feed(downloads, 0)
    smaller = make_manifest(CONTENT, "model", 15 * KIB, version=7)
    stop, start = downloads.want(smaller, 1.0)
    assert (stop, start) == (Unsubscribe(TOPICS[1:]), Subscribe(TOPICS))
    with pytest.raises(IntegrityError):
        feed(downloads, 1)  # of the old chunking: three of three, but of another size
    assert isinstance(feed(downloads, 0, 1, 2, manifest=smaller)[-1], Fetched)


def test_superseded_versions_are_dropped() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    feed(downloads, 0)
    other = make_manifest(b"other", "model", 16 * KIB, version=8)
    downloads.want(other, 0.0)
    assert downloads.only({other.id}) == [Unsubscribe(TOPICS[1:])]
    assert downloads.active == {other.id}
    assert feed(downloads, 1, 2) == []


def test_a_slow_link_is_no_stalled_one() -> None:
    downloads = Downloads("f")
    downloads.want(MANIFEST, 0.0)
    feed(downloads, 0, now=STALLED_S - 1)
    assert downloads.deadline == 2 * STALLED_S - 1
    assert downloads.on_time(STALLED_S) == []
    assert downloads.on_time(2 * STALLED_S - 1) != []
    assert downloads.stalled == {MANIFEST.id}
    feed(downloads, 1, now=2 * STALLED_S)
    assert downloads.stalled == frozenset()


def test_a_delta_has_its_own_topics() -> None:
    delta = make_manifest(CONTENT, "delta", 40 * KIB, version=8)
    assert Downloads("f").want(delta, 0.0) == [Subscribe(("fl/v1/f/down/delta/8/0",))]


def test_right_chunks_of_a_wrong_whole_are_asked_for_again() -> None:
    wrong = MANIFEST.model_copy(update={"sha256": MANIFEST.id + "0" * 48})
    downloads = Downloads("f")
    downloads.want(wrong, 0.0)
    feed(downloads, 0, 1, manifest=wrong)
    with pytest.raises(IntegrityError):
        feed(downloads, 2, manifest=wrong)
    assert downloads.stalled == {MANIFEST.id}
    assert downloads.on_time(STALLED_S) == [Unsubscribe(TOPICS), Subscribe(TOPICS)]
