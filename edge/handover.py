"""By which contract a plant is read. Usually one; between two, samples of the new one are stored while the model that
runs is still given those of the old one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from broker_bridge.session import Message
from edge.effects import SampleReady
from edge.ingest import Ingest
from edge.quality import QualityCounters
from edge.reading import Reading
from edge.unit_watch import UnitWatch


@dataclass(frozen=True)
class Learning:
    """Another contract to learn by.

    Attributes:
        quality, units: as of `edge.plant.Plant`.
        begin: makes the store ready; called on its thread, once all that was read before is stored, and again before
            each batch until it succeeds.
        done: called on the loop after the first try.
    """

    reading: Reading
    quality: QualityCounters
    units: UnitWatch
    begin: Callable[[], None]
    done: Callable[[], None]


class Handover:
    """What is read by which contract. Messages are read by the newest at once; it is learnt once its turn has come.

    Attributes:
        ingest: reads messages from the next one on.
        learns: whose samples are kept. serves: whose samples the model that runs is given.
    """

    def __init__(self, reading: Reading) -> None:
        self.ingest = reading.ingest
        self.learns = self.serves = reading
        self._asked: list[SampleReady] = []
        """Samples for the model that runs, where it reads by another contract than is learnt."""
        self._coming: deque[tuple[int, Learning]] = deque()
        """What is to be learnt by, each with the number of effects that come before it."""
        self._taken = 0
        """Effects that were taken from those that wait."""
        self._learnt: dict[str, SampleReady] = {}
        """The newest sample of each instance that no model was given."""

    @property
    def ingests(self) -> tuple[Ingest, ...]:
        """All that messages are read by."""
        return tuple(dict.fromkeys((self.ingest, self.serves.ingest)))

    @property
    def is_waiting(self) -> bool:
        """Whether a model is asked for answers besides, or a contract is to be learnt by."""
        return bool(self._asked or self._coming)

    @property
    def asked(self) -> int:
        """Samples that wait for the model that runs."""
        return len(self._asked)

    def read_by(self, learning: Learning, waiting: int) -> None:
        """Read by another contract from the next message on. Args: waiting: effects that were read before it."""
        before, now = self.ingest, learning.reading.ingest
        now.counters.update(before.counters)
        now.messages += before.messages
        self.ingest = now
        self._coming.append((self._taken + waiting, learning))

    def before_next(self, most: int) -> int:
        """How many effects may be taken now, up to `most`; 0 where `next` has its turn."""
        return min(most, self._coming[0][0] - self._taken) if self._coming else most

    def took(self, effects: int) -> None:
        """So many of those that wait were taken."""
        self._taken += effects

    def next(self) -> Learning:
        """What is to be learnt by now. Raises: IndexError: nothing is."""
        return self._coming.popleft()[1]

    def besides(self, message: Message, arrival_s: float) -> list[SampleReady]:
        """Samples of the message for a model of another contract; what is wrong with it is said once, by `ingest`."""
        ingest = self.serves.ingest
        if ingest is self.ingest:
            return []
        effects = ingest.feed(message.topic, message.payload, retain=message.retain, arrival_s=arrival_s)
        return [effect for effect in effects if isinstance(effect, SampleReady)]

    def ask(self, samples: list[SampleReady]) -> None:
        """Give the model that runs these, too."""
        self._asked += samples

    def to_serve(self, samples: list[SampleReady], most: int) -> list[SampleReady]:
        """What the model that runs is given. Args: samples: of the contract that is learnt; most: of those asked."""
        if self.serves is not self.learns:
            self._learnt |= {sample.instance: sample for sample in samples}
            samples = []
        asked, self._asked = self._asked[:most], self._asked[most:]
        return [*samples, *asked]

    def serve(self, reading: Reading) -> dict[str, SampleReady]:
        """Give the model that runs samples that are read this way. Returns: the newest so far, by instance."""
        fresh = self._learnt if reading is self.learns else {}
        self.serves, self._asked, self._learnt = reading, [], {}
        return fresh
