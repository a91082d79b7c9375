"""The lines of the tree as a widget that draws only what is in sight."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from headgate.tree.cells import cells
from headgate.tree.drawing import columns, line
from headgate.tree.model import Node, Tree
from headgate.tree.rows import Row, Sort, measure, opens_first, rows

RESORT_S = 1.0
"""Rates of branches, and an order by rate or age, are worked out anew this often: lines that jump can't be read."""


class Lines(ScrollView, can_focus=True):
    """Shows a tree. Attributes: order: how a branch's children are sorted."""

    DEFAULT_CSS = "Lines { scrollbar-size: 0 0; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "move(-1000000)", "top", show=False),
        Binding("end", "move(1000000)", "bottom", show=False),
        Binding("left", "fold", "fold", show=False),
        Binding("right", "unfold", "unfold", show=False),
        Binding("space,enter", "fold_or_unfold", "fold or unfold", show=False),
        Binding("a", "all", "all", show=False),
    ]

    class Moved(Message):
        """Another line is selected."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(id="tree")
        self.order = Sort.NAME
        self._tree = tree
        self._rows: list[Row] = []
        self._toggled: set[Node] = set()
        self._paths: set[tuple[str, ...]] = set()
        self._wanted: Callable[[str], bool] | None = None
        self._cursor = 0
        self._now = 0.0
        self._measured = -RESORT_S
        self._seen = -1
        self._drawn: dict[int, Strip] = {}

    @property
    def selected(self) -> Node | None:
        """The node of the line under the cursor."""
        return self._rows[self._cursor].node if self._rows else None

    @property
    def position(self) -> str:
        """Which lines are in sight, of how many."""
        if not self._rows:
            return ""
        first = int(self.scroll_offset.y) + 1
        return f"{first}-{min(len(self._rows), first + self.size.height - 1)} of {len(self._rows):,}"

    def show(self, now: float) -> None:
        """Draw, as of this time."""
        self._now = now
        is_due = now - self._measured >= RESORT_S or now < self._measured
        if is_due:
            measure(self._tree.root, now)
            self._measured = now
        if self._tree.revision != self._seen or (is_due and self.order is not Sort.NAME):
            self._arrange()
            return
        # Line by line: over SSH a whole screen four times a second is more than its news.
        for y in range(self.size.height):
            before = self._drawn.get(y)
            if before is not None and self._draw(y) != before:
                self.refresh(Region(0, y, self.size.width, 1))

    def look_at(self, tree: Tree) -> None:
        """Show another tree, such as a copy that stands still; what is folded and selected stays so."""
        path = self.selected.path() if self.selected is not None else ()
        folded = [node.path() for node in self._toggled]
        self._tree = tree
        self._toggled = {node for one in folded if (node := tree.find(one)) is not None}
        self._measured = -RESORT_S
        self._arrange(tree.find(path))

    def filter(self, wanted: Callable[[str], bool] | None) -> None:
        """Show what passes."""
        self._wanted = wanted
        self._arrange()
        self.refresh()

    def sort_next(self) -> None:
        """Take the next order."""
        self.order = self.order.following()
        measure(self._tree.root, self._now)
        self._arrange()

    def render_line(self, y: int) -> Strip:
        """One line of what is in sight."""
        self._drawn[y] = self._draw(y)
        return self._drawn[y]

    def _draw(self, y: int) -> Strip:
        width, index = self.size.width, y + int(self.scroll_offset.y)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[index]
        self._tree.settle_one(row.node)
        drawn = line(
            row, cells(row.node, self._now, is_open=row.is_open), columns(width), is_cursor=index == self._cursor
        )
        segments = [one for one in drawn.render(self.app.console) if one.text]
        return Strip(Segment.apply_style(segments, self.rich_style)).adjust_cell_length(width, self.rich_style)

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self._go(self._cursor + lines)

    def action_page(self, direction: int) -> None:
        """Move it by what is in sight."""
        self._go(self._cursor + direction * max(1, self.size.height - 1))

    def action_fold_or_unfold(self) -> None:
        """Fold or unfold the branch."""
        row = self._row()
        if row is not None and row.is_branch:
            self._toggled ^= {row.node}
            self._arrange()

    def action_fold(self) -> None:
        """Fold the branch; a leaf or a folded one leads to the branch above."""
        row = self._row()
        if row is None:
            return
        if row.is_open and self._wanted is None:
            self.action_fold_or_unfold()
            return
        for index in range(self._cursor - 1, -1, -1):
            if self._rows[index].depth < row.depth:
                self._go(index)
                return

    def action_unfold(self) -> None:
        """Unfold the branch."""
        row = self._row()
        if row is not None and row.is_branch and not row.is_open:
            self.action_fold_or_unfold()

    def action_all(self) -> None:
        """Fold every branch; unfold them all where they are."""
        branches = [row for row in self._rows if row.is_branch]
        is_open = any(row.is_open for row in branches)
        every = (node for node in self._tree.root.walk() if node.children and node.parent is not None)
        self._toggled = {node for node in every if opens_first(node)} if is_open else set()
        self._arrange()

    def _row(self) -> Row | None:
        return self._rows[self._cursor] if self._rows else None

    def _go(self, index: int) -> None:
        if not self._rows:
            return
        before, self._cursor = self._cursor, max(0, min(index, len(self._rows) - 1))
        self._keep_in_sight()
        self.refresh()
        if before != self._cursor:
            self.post_message(self.Moved())

    def _arrange(self, selected: Node | None = None) -> None:
        """Work out the lines; the cursor stays on its node, or where that was."""
        selected = selected or self.selected
        self._seen = self._tree.revision
        self._rows = rows(self._tree.root, self._toggled, self.order, self._wanted)
        self._toggled = {node for node in self._toggled if self._tree.find(node.path()) is node}
        found = next((index for index, row in enumerate(self._rows) if row.node is selected), None)
        at_top = self._cursor == 0 and self.scroll_offset.y == 0
        if found is not None and not at_top:
            self._cursor = found
        self._cursor = max(0, min(self._cursor, len(self._rows) - 1))
        self.virtual_size = Size(self.size.width, len(self._rows))
        self._keep_in_sight()
        self.refresh()

    def _keep_in_sight(self) -> None:
        top, height = int(self.scroll_offset.y), max(1, self.size.height)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False, immediate=True)
