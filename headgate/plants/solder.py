"""Simulated solder-paste printing lines: what each plant publishes, deterministic from a seed.

A board's slow tags are published as it is printed, its paste inspection some seconds later, and the optical
inspection's verdict minutes later, behind the oven. Now and then a sensor fails for one message, a message comes twice
or late, a board is taken off the line before its verdict, and a verdict is wrong.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from operator import attrgetter
from random import Random

from headgate.plants.emission import Emission
from headgate.plants.solder_messages import (
    BoardTopic,
    TagTopic,
    Verdicts,
    board_payload,
    tag_payload,
    verdict_payload,
)
from headgate.plants.solder_process import Board, Chemistry, Joint, LineProcess, Phase

__all__ = ["DEFAULT_START_S", "LIVE_BOARD_INTERVAL_S", "SolderLine", "SolderPlant"]

DEFAULT_START_S = 1_767_600_000.0
"""2026-01-05 08:00 UTC: where a history begins unless told otherwise."""
LIVE_BOARD_INTERVAL_S = 4.0
"""Event time between two boards of a line once the history is over: quick, so that there is something to watch."""
LIVE_VERDICT_DELAY_S = (10.0, 30.0)

_SENSOR_FAILS = 0.005
_COMES_TWICE = 0.004
_COMES_LATE = 0.004
_FALSE_CALL = 0.004
_ESCAPE = 0.02
_TAKEN_OFF = 0.004


@dataclass(frozen=True, slots=True)
class SolderLine:
    """One line. `segment`: its name in the plant's topics, as the plant spells it; `phases` by fraction of history."""

    segment: str
    serial_prefix: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """An emission with the time at which it reaches the broker, which for a late one is not its own time."""

    publish_s: float
    emission: Emission


@dataclass(frozen=True, slots=True)
class SolderPlant:
    """One plant with one or more lines.

    Attributes:
        plant_id: slug, as a participant's id.
        instance: path of a line in the plant's topic tree, with `{line}`.
        chemistry: what its paste does at reflow.
        board_interval_s: between two boards of one line.
        history_boards: boards of all lines together before the plant goes live, unless told otherwise.
    """

    plant_id: str
    title: str
    instance: str
    lines: tuple[SolderLine, ...]
    chemistry: Chemistry
    board_interval_s: float
    history_boards: int
    tags: tuple[TagTopic, ...]
    inspection: BoardTopic
    verdicts: Verdicts
    seed: int

    @property
    def instances(self) -> tuple[str, ...]:
        """Paths of the lines."""
        return tuple(self.instance.replace("{line}", line.segment) for line in self.lines)

    @property
    def features(self) -> tuple[str, ...]:
        """Features that this plant has, by the contract's names."""
        tags = tuple(reading.feature for topic in self.tags for reading in topic.readings)
        return tags + tuple(reading.feature for reading in self.inspection.readings)

    def history_span_s(self, boards: int | None = None) -> float:
        """No event of a history of so many boards is later than this after its start, seconds."""
        longest = max(self._boards_of(line, boards) for line in range(len(self.lines)))
        return (longest + 1) * self.board_interval_s + 2.0 * self.verdicts.delay_s[1]

    def emissions(self, boards: int | None = None, start_s: float = DEFAULT_START_S) -> Iterator[Emission]:
        """The history, in the order of publishing: so many boards (over all lines) with their verdicts."""
        return _merged(
            [
                self._line(
                    line,
                    self._boards_of(line, boards),
                    _Pace(start_s, self.board_interval_s, self.verdicts.delay_s),
                    live=False,
                )
                for line in range(len(self.lines))
            ]
        )

    def live(
        self,
        start_s: float | None = None,
        after_boards: int | None = None,
        board_interval_s: float = LIVE_BOARD_INTERVAL_S,
    ) -> Iterator[Emission]:
        """What goes on after a history of `after_boards`, without end, with the next serials.

        Args:
            start_s: event time of the first board; by default where a history from `DEFAULT_START_S` ends.
            board_interval_s: between two boards of one line. Only the publishing is quicker than in the history:
                paste ages and halls warm up per board as before.
        """
        if start_s is None:
            start_s = DEFAULT_START_S + self.history_span_s(after_boards)
        pace = _Pace(start_s, board_interval_s, LIVE_VERDICT_DELAY_S)
        return _merged(
            [self._line(line, self._boards_of(line, after_boards), pace, live=True) for line in range(len(self.lines))]
        )

    def _boards_of(self, line: int, boards: int | None) -> int:
        share, rest = divmod(self.history_boards if boards is None else boards, len(self.lines))
        return share + (1 if line < rest else 0)

    def _line(self, line: int, history: int, pace: _Pace, *, live: bool) -> Iterator[_Outgoing]:
        """One line's messages. Process and messages draw from sources of their own: the boards never depend on pace."""
        declared = self.lines[line]
        name = f"{self.seed}/{self.plant_id}/{declared.segment}"
        process = LineProcess(
            Random(f"{name}/process"), declared.phases, self.chemistry, board_interval_s=self.board_interval_s
        )
        boards = (process.print_board(number / max(history, 1)) for number in count())
        offset_s = line / len(self.lines) * pace.board_interval_s
        speaker = _Speaker(self, declared, Random(f"{name}/{'live' if live else 'history'}"), pace)
        if not live:
            return speaker.say(islice(boards, history), lambda board: board.number, offset_s)
        return speaker.say(islice(boards, history, None), lambda board: board.number - history, offset_s)


@dataclass(frozen=True, slots=True)
class _Pace:
    start_s: float
    board_interval_s: float
    verdict_delay_s: tuple[float, float]


class _Speaker:
    """Turns one line's boards into messages."""

    def __init__(self, plant: SolderPlant, line: SolderLine, rng: Random, pace: _Pace) -> None:
        self._plant = plant
        self._line = line
        self._rng = rng
        self._pace = pace
        self._order = count()
        self._waiting: list[tuple[float, int, Emission]] = []

    def say(self, boards: Iterator[Board], place: Callable[[Board], int], offset_s: float) -> Iterator[_Outgoing]:
        """Messages in the order of publishing; `place` counts the boards from `pace.start_s` on."""
        interval_s = self._pace.board_interval_s
        for board in boards:
            slot_s = self._pace.start_s + offset_s + place(board) * interval_s
            yield from self._due(slot_s)
            self._print(board, place(board), slot_s + self._rng.uniform(0.0, 0.15) * interval_s)
        yield from self._due(float("inf"))

    def _due(self, time_s: float) -> Iterator[_Outgoing]:
        while self._waiting and self._waiting[0][0] < time_s:
            publish_s, _, emission = heapq.heappop(self._waiting)
            yield _Outgoing(publish_s, emission)

    def _print(self, board: Board, place: int, print_s: float) -> None:
        rng, plant = self._rng, self._plant
        for topic in plant.tags:
            if place % topic.every_boards == 0 or (topic.on_change and board.settings_changed):
                failed = rng.choice(topic.readings).feature if rng.random() < _SENSOR_FAILS else None
                payload = tag_payload(topic, print_s, board.readings, failed=failed)
                self._publish(print_s, topic.topic, payload, retain=topic.retain)
        serial = f"{self._line.serial_prefix}-{board.number:06d}"
        inspected_s = print_s + min(12.0, 0.3 * self._pace.board_interval_s)
        failed = rng.choice(plant.inspection.readings).feature if rng.random() < _SENSOR_FAILS else None
        payload = board_payload(plant.inspection, inspected_s, serial, board.readings, failed=failed)
        self._publish(inspected_s, plant.inspection.topic, payload)
        if rng.random() >= _TAKEN_OFF:
            verdict_s = inspected_s + rng.uniform(*self._pace.verdict_delay_s)
            word = rng.choice(plant.verdicts.words[self._seen(board.joint)])
            payload = verdict_payload(plant.verdicts, verdict_s, serial, word)
            self._publish(verdict_s, plant.verdicts.topic, payload)

    def _seen(self, joint: Joint) -> Joint:
        """The joint as the optical inspection calls it."""
        draw = self._rng.random()
        if joint is Joint.OK:
            return self._rng.choice((Joint.BRIDGE, Joint.OPEN)) if draw < _FALSE_CALL else joint
        return Joint.OK if draw < _ESCAPE else joint

    def _publish(self, time_s: float, topic: str, payload: bytes, *, retain: bool = False) -> None:
        emission = Emission(time_s, topic.replace("{line}", self._line.segment), payload, retain)
        publish_s = time_s
        if self._rng.random() < _COMES_LATE:
            publish_s += self._rng.uniform(0.3, 1.5) * self._pace.board_interval_s
        heapq.heappush(self._waiting, (publish_s, next(self._order), emission))
        if self._rng.random() < _COMES_TWICE:
            again_s = publish_s + self._rng.uniform(0.05, 0.2) * self._pace.board_interval_s
            heapq.heappush(self._waiting, (again_s, next(self._order), emission))


def _merged(lines: list[Iterator[_Outgoing]]) -> Iterator[Emission]:
    return (outgoing.emission for outgoing in heapq.merge(*lines, key=attrgetter("publish_s")))
