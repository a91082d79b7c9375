"""Fetching skeletons and models: exact chunk topics, only while something is missing. A pure core.

Nobody subscribes to `down/#`: a link that flaps must not fetch a model again. Chunks that came once are kept over a
reconnect; what brings nothing for ten seconds is subscribed to again, and then asked for in the status (`wants`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_bridge.assembly import Assembly, IntegrityError
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import Chunk, TransferManifest

STALLED_S = 10.0

CHUNK_KINDS = {"skeleton": Kind.SKELETON_CHUNK, "model": Kind.MODEL_CHUNK, "delta": Kind.DELTA_CHUNK}
"""Where the chunks of a transfer down stand, by the transfer's kind."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to these topics (their retained chunks come at once)."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """These topics are no longer needed."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A transfer is whole; its bytes are the manifest's."""

    manifest: TransferManifest
    content: bytes = field(repr=False)


Effect = Subscribe | Unsubscribe | Fetched


@dataclass
class _Fetch:
    assembly: Assembly
    kind: Kind
    version: int | None
    deadline: float
    tries: int = 0


class Downloads:
    """Transfers that are being fetched, by id."""

    def __init__(self, federation: str) -> None:
        self._federation = federation
        self._fetches: dict[str, _Fetch] = {}

    def want(self, manifest: TransferManifest, now: float) -> list[Effect]:
        """Start to fetch; nothing where it is being fetched in this chunking already."""
        known = self._fetches.get(manifest.id)
        effects: list[Effect] = []
        if known is not None:
            if known.assembly.manifest.chunk_bytes == manifest.chunk_bytes:
                return []
            effects += self.drop(manifest.id)
        fetch = _Fetch(Assembly(manifest), CHUNK_KINDS[manifest.kind], manifest.version, now + STALLED_S)
        self._fetches[manifest.id] = fetch
        return [*effects, Subscribe(self._topics(fetch))]

    def drop(self, transfer: str) -> list[Effect]:
        """Stop to fetch."""
        fetch = self._fetches.pop(transfer, None)
        return [Unsubscribe(self._topics(fetch))] if fetch is not None else []

    def only(self, wanted: set[str]) -> list[Effect]:
        """Drop whatever is not among these ids: superseded versions."""
        return [effect for id_ in [i for i in self._fetches if i not in wanted] for effect in self.drop(id_)]

    def on_chunk(self, chunk: Chunk, now: float) -> list[Effect]:
        """A chunk came. Raises: IntegrityError: it is not what the manifest lists; it is asked for again later."""
        fetch = self._fetches.get(chunk.id)
        if fetch is None or not fetch.assembly.add(chunk):
            return []
        # A slow link is no stalled one: to subscribe again would bring what is on its way a second time.
        fetch.deadline, fetch.tries = now + STALLED_S, 0
        if not fetch.assembly.is_whole:
            return []
        manifest = fetch.assembly.manifest
        try:
            content = fetch.assembly.content()
        except IntegrityError:  # right chunks of a wrong whole: all of it is asked for again, and said to be lacking
            fetch.assembly, fetch.tries = Assembly(manifest), 1
            raise
        done = self._fetches.pop(chunk.id)
        return [Unsubscribe(self._all_topics(done)), Fetched(manifest, content)]

    def on_connected(self, now: float) -> list[Effect]:
        """A new session has no subscriptions: ask again for what is missing, and only that."""
        effects: list[Effect] = []
        for fetch in self._fetches.values():
            fetch.deadline = now + STALLED_S
            effects.append(Subscribe(self._topics(fetch)))
        return effects

    def on_time(self, now: float) -> list[Effect]:
        """Subscribe again to what stalls, so that the broker sends its retained copies once more."""
        effects: list[Effect] = []
        for fetch in self._fetches.values():
            if now >= fetch.deadline:
                fetch.tries += 1
                fetch.deadline = now + STALLED_S
                topics = self._topics(fetch)
                effects += [Unsubscribe(topics), Subscribe(topics)]
        return effects

    @property
    def deadline(self) -> float | None:
        """When to call `on_time`."""
        return min((f.deadline for f in self._fetches.values()), default=None)

    @property
    def active(self) -> frozenset[str]:
        """Ids that are being fetched."""
        return frozenset(self._fetches)

    @property
    def stalled(self) -> frozenset[str]:
        """Ids whose second subscription brought nothing either: the aggregator has to publish them again."""
        return frozenset(id_ for id_, fetch in self._fetches.items() if fetch.tries >= 1)

    def _topics(self, fetch: _Fetch) -> tuple[str, ...]:
        return tuple(self._topic(fetch, index) for index in fetch.assembly.missing)

    def _all_topics(self, fetch: _Fetch) -> tuple[str, ...]:
        return tuple(self._topic(fetch, index) for index in range(len(fetch.assembly.manifest.chunks)))

    def _topic(self, fetch: _Fetch, index: int) -> str:
        return str(FlTopic(self._federation, fetch.kind, version=fetch.version, index=index))


__all__ = ["CHUNK_KINDS", "STALLED_S", "Downloads", "Effect", "Fetched", "IntegrityError", "Subscribe", "Unsubscribe"]
