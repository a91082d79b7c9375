"""The display at 80x24, with a feed that no broker fills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from textual.pilot import Pilot

from broker_bridge.session import BrokerRefused, Message, OnMessage, Session, Will
from headgate.tree.app import Help, TreeApp
from headgate.tree.caps import LeftOut, Limits, Load
from headgate.tree.feed import CONNECTED, Feed
from headgate.tree.lines import Lines
from headgate.tree.model import Tree
from headgate.tree.text import width_of
from tests.aio import run

Script = Callable[["Screen"], Awaitable[None]]


class NoBroker:
    """A connector that nobody uses."""

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        raise NotImplementedError


class Screen:
    """A display in a terminal that only exists in memory."""

    def __init__(self, width: int, height: int) -> None:
        self.now = 100.0
        self.tree = Tree(100)
        self.feed = Feed(NoBroker(), self.tree, ("acme/#",), Limits(), lambda: self.now)
        self.feed.state = CONNECTED
        self.app = TreeApp(self.tree, self.feed, "mqtt://127.0.0.1:1883", lambda: self.now)
        self.size = (width, height)
        self.pilot: Pilot[Any]

    def say(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        content = payload.encode() if isinstance(payload, str) else payload
        self.feed.on_message(Message(topic, content, retain=retain))

    async def lines(self) -> list[str]:
        """What stands on the terminal."""
        await self.pilot.pause()
        self.app.redraw()
        await self.pilot.pause()
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    async def press(self, *keys: str) -> list[str]:
        await self.pilot.press(*keys)
        return await self.lines()

    @property
    def selected(self) -> str:
        node = self.app.query_one(Lines).selected
        return node.topic() if node is not None else ""


def on_screen(script: Script, width: int = 80, height: int = 24) -> None:
    async def main() -> None:
        screen = Screen(width, height)
        async with screen.app.run_test(size=screen.size) as screen.pilot:
            await script(screen)

    run(main())


def plant(screen: Screen) -> None:
    for i in range(8):
        screen.now += 1
        screen.say("acme/berlin/smt/temp", f'{{"value": {20 + i}, "unit": "°C"}}')
        screen.tree.settle(10)
    screen.say("acme/berlin/smt/state", "running")
    screen.say("acme/lyon/press/force", "7.5", retain=True)
    screen.say("acme/lyon/model", bytes(range(256)))


def test_a_plant_at_80_by_24() -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        lines = await screen.lines()
        assert len(lines) == 24
        assert all(width_of(one) <= 80 for one in lines)
        assert lines[0].split() == ["headgate", "tree", "mqtt://127.0.0.1:1883", "acme/#", "●", "connected"]
        assert lines[1].split() == ["topic", "value", "trend", "rate", "age"]
        body = [one.split() for one in lines[2:9]]
        assert body == [
            ["▾", "acme", "4", "topics", "1.1/s"],
            ["▾", "berlin/smt", "2", "topics", "1.1/s"],
            ["state", "running", "0s"],
            ["temp", "27", "°C", "▁▂▃▄▅▆▇█", "1.1/s", "0s"],
            ["▾", "lyon", "2", "topics"],
            ["model", "unknown", "256", "B", "0s"],
            ["press/force", "7.5", "kept"],
        ]
        assert lines[22].split()[:2] == ["4", "topics"]
        assert "q quit" in lines[23]

    on_screen(script)


def test_an_empty_tree_says_what_it_waits_for() -> None:
    async def script(screen: Screen) -> None:
        assert "nothing said yet on acme/#: waiting for its first message" in (await screen.lines())[20]
        screen.feed.state = "broker mqtt://127.0.0.1:1883 unreachable: connection refused"
        lines = await screen.lines()
        assert "no connection yet: broker mqtt://127.0.0.1:1883 unreachable" in lines[20]
        assert "○ broker mqtt://127.0.0.1:1883" in lines[0]

    on_screen(script)


def test_keys_move_fold_and_sort() -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        await screen.lines()
        await screen.press("down")
        assert screen.selected == "acme/berlin/smt"
        lines = await screen.press("left")
        assert "▸ berlin/smt" in lines[3]
        assert "lyon" in lines[4]
        assert "state" in (await screen.press("enter"))[4]
        assert "▸ berlin/smt" in (await screen.press("space"))[3]
        await screen.press("right", "down", "down")
        assert screen.selected == "acme/berlin/smt/temp"
        await screen.press("left")
        assert screen.selected == "acme/berlin/smt"
        await screen.press("end")
        assert screen.selected == "acme/lyon/press/force"
        await screen.press("home")
        assert screen.selected == "acme"
        assert "▸ acme" in (await screen.press("a"))[2]
        assert "▾ acme" in (await screen.press("a"))[2]
        assert "by rate" in (await screen.press("s"))[22]
        assert "temp" in (await screen.lines())[4]
        assert "by age" in (await screen.press("s"))[22]
        assert "by name" in (await screen.press("s"))[22]

    on_screen(script)


def test_a_filter_is_typed_kept_and_taken_away() -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        await screen.lines()
        lines = await screen.press("slash", *"LYON/m")
        assert [one.split()[:2] for one in lines[2:5]] == [["▾", "acme"], ["▾", "lyon"], ["model", "unknown"]]
        assert lines[5] == ""
        await screen.press("enter")
        assert "LYON/m" in "".join(await screen.lines())
        lines = await screen.press("escape")
        assert "berlin/smt" in lines[3]
        lines = await screen.press("slash", *"acme/+/smt/#")
        assert "temp" in lines[5]
        assert not any("lyon" in one for one in lines[2:20])
        lines = await screen.press("x")
        assert "no topic passes the filter" in "".join(lines)

    on_screen(script)


def test_a_pause_stands_still_and_counts() -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        before = await screen.lines()
        paused = await screen.press("p")
        screen.now += 5
        screen.say("acme/berlin/smt/temp", "99")
        screen.say("acme/new", "1")
        after = await screen.lines()
        assert after[2:20] == paused[2:20] == before[2:20]
        assert "PAUSED, 2 messages since" in after[22]
        assert "▸ acme" in (await screen.press("left"))[2]  # folding works in it
        lines = await screen.press("right", "p")
        assert "99" in lines[5]
        assert "new" in "".join(lines)

    on_screen(script)


def test_a_copied_topic_is_told_and_harmless() -> None:
    async def script(screen: Screen) -> None:
        screen.say("acme/\n rm -rf x/é", "1")
        await screen.lines()
        await screen.press("end")
        lines = await screen.press("c")
        assert screen.app.clipboard == "acme/\\n rm -rf x/é"
        assert [one.strip() for one in lines[20:22]] == ["copied", "acme/\\n rm -rf x/é"]
        long = "acme/" + "/".join(f"segment{i}" for i in range(9)) + "/end"
        screen.say(long, "1")
        await screen.lines()
        lines = await screen.press("end", "c")
        assert screen.app.clipboard == long
        assert [lines[19].strip(), lines[20] + lines[21]] == ["copied", long]
        assert "copied" not in "".join(await screen.press("up"))

    on_screen(script)


def test_what_was_left_out_is_in_the_status_bar_and_in_the_help() -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        for name in ("busy", "busier"):
            screen.feed.left_out.append(LeftOut(("acme", name), Load(3, 900.0, 2048.0)))
        lines = await screen.lines()
        assert "left out: acme/busy/# and 1 more (?)  4 topics" in lines[22]
        lines = await screen.press("question_mark")
        assert isinstance(screen.app.screen, Help)
        shown = "\n".join(lines)
        assert "pause" in shown
        await screen.press("end")
        shown += "\n".join(await screen.lines())
        assert "acme/busier/# (3 topics, 900/s, 2.0 KiB/s)" in shown
        await screen.press("escape")
        assert not isinstance(screen.app.screen, Help)

    on_screen(script)


def test_escapes_of_a_broker_never_reach_the_terminal() -> None:
    async def script(screen: Screen) -> None:
        screen.say("acme/\x1b[2J\x1b]0;owned\a", "\x1b[31m\x9b5mred\u202e [bold]x[/bold]")
        screen.say("acme/json", '{"value": "\\u001b[2J", "unit": "\\u001b[5m", "quality": "\\u0007"}')
        screen.feed.state = "ended by the broker: \x1b[2J"
        for _ in range(4):
            lines = await screen.press("down")
            assert all(one.isprintable() for one in lines)
        assert any("[bold]x[/bold]" in one for one in lines)

    on_screen(script, width=140, height=30)


@pytest.mark.parametrize(("width", "height"), [(20, 8), (50, 10), (140, 40)])
def test_other_sizes(width: int, height: int) -> None:
    async def script(screen: Screen) -> None:
        plant(screen)
        await screen.lines()
        lines = await screen.press("end", "p", "s")
        assert len(lines) == height
        assert all(width_of(one) <= width for one in lines)
        assert screen.selected.startswith("acme/")

    on_screen(script, width, height)


def test_a_long_tree_scrolls_with_its_cursor() -> None:
    async def script(screen: Screen) -> None:
        for number in range(90):
            screen.say(f"acme/{number:02}", str(number))
        await screen.lines()
        lines = await screen.press("pagedown", "pagedown")
        assert screen.selected == "acme/33"
        assert lines[19].split()[0] == "33"
        assert "18-35 of 91" in lines[22]
        screen.say("acme/00a", "new")  # a new line above: the cursor stays on its topic
        await screen.lines()
        assert screen.selected == "acme/33"

    on_screen(script)


def test_a_refusal_ends_the_display() -> None:
    async def refused() -> None:
        raise BrokerRefused("broker said no")

    async def main() -> None:
        screen = Screen(80, 24)
        app = TreeApp(screen.tree, screen.feed, "mqtt://x", lambda: screen.now, refused)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
        assert isinstance(app.failure, BrokerRefused)

    run(main())


def test_leaving_ends_the_connection() -> None:
    ended = asyncio.Event()

    async def connected() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main() -> None:
        screen = Screen(80, 24)
        app = TreeApp(screen.tree, screen.feed, "mqtt://x", lambda: screen.now, connected)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("q")
        assert ended.is_set()
        assert app.failure is None

    run(main())
