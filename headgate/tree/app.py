"""The tree in a terminal. The display is drawn four times a second whatever the broker says in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from headgate.tree import text
from headgate.tree.cells import cells
from headgate.tree.drawing import DIM, NOTE, columns, header
from headgate.tree.feed import CONNECTED, Feed
from headgate.tree.lines import Lines
from headgate.tree.model import Node, Tree
from headgate.tree.rows import filter_test

REDRAW_S = 0.25
READINGS_PER_REDRAW = 400
"""Messages read between two drawings, besides those of the lines in sight."""
KEYS = " ↑↓ move  ←→ space fold  / filter  s sort  p pause  c copy  ? help  q quit"
HELP = """\
↑ ↓ PgUp PgDn    move, also Home, End, j, k
← →              fold or go to the branch above; unfold
space, enter     fold, unfold
a                fold all, unfold all
/                show what has this in its topic, or an MQTT filter: +/smt/#
Esc              show all
s                sort by name, rate, age
p                pause: the display stands still, the broker is read on
c                copy the topic (OSC 52), and show it in full
q, Ctrl-C        quit

kept     a retained value that nobody has said since
stale    silent for five of its usual intervals
offline  the Sparkplug node or device said its death
sampled  more was said than drawn; all of it is counted"""


@dataclass
class _Rates:
    """Messages and bytes a second, between two looks."""

    at: float
    messages: int = 0
    payload_bytes: int = 0
    shown: str = ""
    unread: int = 0
    is_sampled: bool = False


class Help(ModalScreen[None]):
    """Keys, and what was left out."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space", "dismiss", "close", show=False)
    ]
    CSS = """
    Help { align: center middle; background: $background 60%; }
    Help VerticalScroll { width: 100%; max-width: 96; height: auto; max-height: 100%; background: $surface;
                          padding: 0 1; border: round $primary; }
    """

    def __init__(self, left_out: list[str]) -> None:
        super().__init__()
        self._left_out = left_out

    def compose(self) -> ComposeResult:
        """The text, to scroll where it is longer than the screen."""
        shown = Text(HELP)
        if self._left_out:
            shown.append("\n\nLeft out, because a cap was hit:\n", NOTE)
            shown.append("\n".join(text.printable(one) for one in self._left_out))
        with VerticalScroll():
            yield Static(shown)


class TreeApp(App[None]):
    """The whole display.

    Args:
        feed: what fills the tree. run: holds its connection; what it raises ends the display and is `failure`.
        address: the broker's, for the headline.
    """

    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #head, #columns, #status, #keys { height: 1; }
    #head { background: $primary-background; }
    #columns { background: $surface; }
    #selected { height: auto; min-height: 2; max-height: 8; background: $surface; }
    #tree { height: 1fr; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit", priority=False),
        # Before any widget sees it: what is typed ahead on a slow line then meets the filter's field, not the lines.
        Binding("slash", "filter", "filter", priority=True),
        Binding("escape", "no_filter", "no filter"),
        Binding("p", "pause", "pause"),
        Binding("c", "copy", "copy"),
        Binding("s", "sort", "sort"),
        Binding("question_mark", "help", "help"),
    ]

    def __init__(
        self,
        tree: Tree,
        feed: Feed,
        address: str,
        clock: Callable[[], float],
        run: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._tree = tree
        self._feed = feed
        self._address = address
        self._given = " ".join(feed.filters)
        self._clock = clock
        self._run = run
        self._feeding: asyncio.Task[None] | None = None
        self._paused_at: float | None = None
        self._passed = 0
        self._copied_node: Node | None = None
        self._rates = _Rates(clock())
        self._lines = Lines(tree)
        self._shown: dict[str, Text] = {}

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="head", markup=False)
        yield Static(id="columns", markup=False)
        yield self._lines
        yield Static(id="selected", markup=False)
        yield Static(id="status", markup=False)
        yield Input(id="filter", placeholder="part of a topic, or acme/+/smt/#", compact=True, select_on_focus=False)
        yield Static(KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Start to read and to draw."""
        self._lines.focus()
        if self._run is not None:
            self._feeding = asyncio.ensure_future(self._run())
            self._feeding.add_done_callback(self._ended)
        self.set_interval(REDRAW_S, self.redraw)
        self.call_after_refresh(self.redraw)

    async def on_unmount(self) -> None:
        """Leave the broker."""
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)

    def redraw(self) -> None:
        """Read some of what waits, and draw."""
        if not self._lines.is_attached:
            return  # the timer's last turn, while the display ends
        now = self._clock()
        self._tree.settle(READINGS_PER_REDRAW)
        self._measure(now)
        self._lines.show(now if self._paused_at is None else self._paused_at)
        width = self.size.width
        self._put("#head", self._headline(width))
        self._put("#columns", header(columns(width)))
        self._put("#selected", self._selected(now))
        self._put("#status", self._status(width))

    def on_lines_moved(self) -> None:
        """Another line is selected: what was said of the last one is over."""
        if self._lines.selected is not self._copied_node:
            self._copied_node = None
        self._put("#selected", self._selected(self._clock()))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._lines.filter(filter_test(event.value))

    def on_input_submitted(self) -> None:
        """Back to the lines, the filter stays."""
        self._close_filter()

    def action_filter(self) -> None:
        """Type a filter; in its field, the character itself."""
        if len(self.screen_stack) > 1:
            return
        field = self.query_one("#filter", Input)
        if field.has_focus:
            field.insert_text_at_cursor("/")
            return
        field.display = True
        self.query_one("#keys").display = False
        self.screen.set_focus(field)

    def action_no_filter(self) -> None:
        """All lines again."""
        self.query_one("#filter", Input).value = ""
        self._close_filter()

    def action_pause(self) -> None:
        """Stand still, or go on."""
        if self._paused_at is None:
            self._paused_at, self._passed = self._clock(), self._feed.messages
            self._lines.look_at(self._tree.copy())
        else:
            self._paused_at = None
            self._lines.look_at(self._tree)
        self.redraw()

    def action_sort(self) -> None:
        """The next order."""
        self._lines.sort_next()
        self.redraw()

    def action_copy(self) -> None:
        """Put the topic into the terminal's clipboard; with escapes, for a line end in it would be a command's end."""
        node = self._lines.selected
        if node is not None:
            topic = text.printable(node.topic())
            self.copy_to_clipboard(topic)
            self._copied_node = node
            self._put("#selected", self._selected(self._clock()))

    def action_help(self) -> None:
        """Keys, and what was left out."""
        self.push_screen(Help([str(one) for one in self._feed.left_out]))

    def _close_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = bool(field.value)
        self.query_one("#keys").display = True
        self.screen.set_focus(self._lines)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.failure = task.exception()
            self.exit()

    def _put(self, where: str, what: Text) -> None:
        found = self.screen_stack[0].query_one(where, Static)
        what.no_wrap = True
        if self._shown.get(where) != what:  # or the terminal would be sent it again
            self._shown[where] = what
            found.update(what)

    def _measure(self, now: float) -> None:
        rates, feed = self._rates, self._feed
        passed = now - rates.at
        if passed < 1.0:
            return
        messages = (feed.messages - rates.messages) / passed
        amount = (feed.payload_bytes - rates.payload_bytes) / passed
        rates.is_sampled = self._tree.unread > rates.unread
        rates.shown = f"{text.rate(messages) or '0/s'}  {text.size(amount)}/s"
        rates.at, rates.messages, rates.payload_bytes = now, feed.messages, feed.payload_bytes
        rates.unread = self._tree.unread

    def _headline(self, width: int) -> Text:
        state = text.printable(self._feed.state)
        is_up = state == CONNECTED
        right = text.cut(state, max(12, width // 2))
        left = text.cut_middle(f" headgate tree  {self._address}  {self._given}", width - text.width_of(right) - 4)
        line = Text(text.column(left, width - text.width_of(right) - 3))
        line.append("● " if is_up else "○ ", "green" if is_up else "yellow")
        line.append(right, "" if is_up else NOTE)
        return line

    def _selected(self, now: float) -> Text:
        """Topic and value of the selected line; a topic that was copied in full, so that it can be selected, too."""
        node = self._lines.selected
        if node is None:
            return Text(" " + self._waiting_for(), DIM)
        width = self.size.width
        return _copied(node, width) if node is self._copied_node else _told(node, now, width)

    def _waiting_for(self) -> str:
        if self._feed.state != CONNECTED:
            return f"no connection yet: {text.printable(self._feed.state)}"
        if self._tree.topics:
            return "no topic passes the filter; Esc shows all"
        if not self._feed.filters:
            return "all was left out: name a narrower filter"
        return f"nothing said yet on {text.printable(self._given)}: waiting for its first message"

    def _status(self, width: int) -> Text:
        parts: list[tuple[str, object]] = []
        if self._paused_at is not None:
            parts.append((f"PAUSED, {self._feed.messages - self._passed:,} messages since", NOTE))
        left_out = self._feed.left_out
        if left_out:
            more = f" and {len(left_out) - 1} more (?)" if len(left_out) > 1 else ""
            parts.append((f"left out: {text.printable(left_out[0].branch)}{more}", NOTE))
        elif self._tree.refused:
            parts.append((f"left out: {self._tree.refused:,} messages on topics too long or too many", NOTE))
        sampled = " sampled" if self._rates.is_sampled else ""
        parts.append((f"{self._tree.topics:,} topics  {self._rates.shown}{sampled}", ""))
        parts.append((f"by {self._lines.order.value}  {self._lines.position}", DIM))
        line = Text()
        for what, style in parts:
            line.append("  " if line else " ")
            line.append(text.cut(what, max(16, width - text.width_of(line.plain) - 2)), style)  # type: ignore[arg-type] # a style or its name
        return line


def _copied(node: Node, width: int) -> Text:
    return Text("\n").join(
        [Text(" copied", NOTE), *(Text(one) for one in text.folded(text.printable(node.topic()), width))]
    )


def _told(node: Node, now: float, width: int) -> Text:
    told = Text(f" {text.cut_middle(text.printable(node.topic()), width - 2)}\n")
    shown = cells(node, now, is_open=True)
    leaf = node.leaf
    value = leaf.reading.text if leaf is not None and not shown.is_binary else shown.value
    figures = f"  {leaf.reading.kind.value}, {text.size(leaf.payload_bytes)}" if leaf is not None else ""
    note = f"  {shown.note}" if shown.note else ""
    room = width - 2 - text.width_of(shown.unit) - len(figures) - text.width_of(note)
    told.append(" " + text.cut(text.printable(value), max(10, room)))
    told.append(f" {shown.unit}" if shown.unit else "", "cyan")
    told.append(note, NOTE)
    told.append(figures, DIM)
    return told
