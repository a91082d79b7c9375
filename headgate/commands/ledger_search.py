"""`headgate ledger canary`: every payload that left, and recorded files, searched for values."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from broker_bridge.bridge.canary import Find, Haystack, left_out, look
from broker_bridge.bridge.contents import ContentAltered, Contents, ContentsError
from broker_bridge.bridge.ledger import Entry
from broker_bridge.bridge.needles import Needle, needle
from headgate.commands.ledger import WIDTH, Selection
from headgate.exits import CommandError, Exit


@dataclass
class Hit:
    """A value found in one payload; `messages` carried it or a piece of it, the first one at `time` on `topic`."""

    find: Find
    time: str
    topic: str
    kind: str
    messages: int = 1


@dataclass
class Searched:
    """What was searched and what could not be."""

    messages: int = 0
    payloads: int = 0
    bytes: int = 0
    files: int = 0
    not_kept: int = 0
    altered: int = 0
    undecodable: int = 0
    by_chance: Counter[str] = field(default_factory=Counter)
    """Values whose finds inside tensors are no more than chance."""


class Search:
    """One run over a ledger and over files."""

    def __init__(self, needles: Sequence[Needle], *, every_width: bool) -> None:
        self._needles = needles
        self._every_width = every_width
        self._known: dict[bytes, list[Hit] | None] = {}
        self._topic_hits: dict[tuple[str, str, str], Hit] = {}
        self._topic_finds = lru_cache(4096)(self._look_at_topic)
        self.total_bytes = 0
        self.hits: list[Hit] = []
        self.searched = Searched()

    def ledger(self, entries: Selection, contents: Contents | None) -> None:
        """Search topics and contents of all entries; a content is searched once, however often it left."""
        for entry in entries:
            for find in self._topic_finds(entry.topic):
                self._add_topic_hit(find, entry)
            digest = bytes.fromhex(entry.kept_as)
            if digest not in self._known:
                self._known[digest] = self._look_at_content(entry, contents)
                self.hits += self._known[digest] or []
            elif hits := self._known[digest]:
                for hit in hits:
                    hit.messages += 1
            if self._known[digest] is None:
                self.searched.not_kept += 1
            else:
                self.searched.messages += 1

    def files(self, files: Sequence[Path]) -> None:
        """Search plain files. Raises: CommandError: one can't be read."""
        for file in files:
            self.hits += self._look(Haystack(_content(file)), "", str(file), "file")
            self.searched.files += 1

    def _look_at_content(self, entry: Entry, contents: Contents | None) -> list[Hit] | None:
        """None: it is not there to be searched."""
        try:
            content = contents.get(entry.kept_as) if contents is not None else None
        except ContentAltered:
            self.searched.altered += 1
            return None
        if content is None:
            return None
        return self._look(Haystack(content), entry.time, entry.topic, entry.kind)

    def _look(self, haystack: Haystack, time: str, topic: str, kind: str) -> list[Hit]:
        self.searched.payloads += 1
        self.searched.bytes += len(haystack.payload)
        self.searched.undecodable += haystack.is_undecodable
        hits = []
        for wanted in self._needles:
            for find in look(wanted, haystack, self.total_bytes, every_width=self._every_width):
                if find.is_chance and not self._every_width:
                    self.searched.by_chance[wanted.text] += find.count
                else:
                    hits.append(Hit(find, time, topic, kind))
        return hits

    def _add_topic_hit(self, find: Find, entry: Entry) -> None:
        """One for each value, way and kind: a topic comes again with every message."""
        key = (find.value, find.how, entry.kind)
        if (known := self._topic_hits.get(key)) is not None:
            known.messages += 1
            return
        self._topic_hits[key] = Hit(find, entry.time, entry.topic, entry.kind)
        self.hits.append(self._topic_hits[key])

    def _look_at_topic(self, topic: str) -> list[Find]:
        haystack = Haystack(topic.encode())
        finds = [f for wanted in self._needles for f in look(wanted, haystack, self.total_bytes)]
        return [Find(f.value, f"{f.how}, in the topic", f.place, f.count, f.accidental) for f in finds]


def run_search(arguments: argparse.Namespace, entries: Selection) -> int:
    """Search, print, and return the exit code. Raises: CommandError."""
    needles = list(_needles(arguments))
    files = _files(arguments.payloads) if arguments.payloads is not None else []
    search = Search(needles, every_width=arguments.all)
    contents = None
    try:
        contents = Contents.open_to_read(entries.folder)
        search.total_bytes = (contents.counts().bytes if contents else 0) + sum(f.stat().st_size for f in files)
        search.ledger(entries, contents)
        search.files(files)
    except ContentsError as error:
        raise CommandError(f"the ledger's contents can't be searched: {error}") from None
    finally:
        if contents is not None:
            contents.close()
    skipped = {wanted.text: left_out(wanted, search.total_bytes) for wanted in needles if not arguments.all}
    skipped = {value: ways for value, ways in skipped.items() if ways}
    if arguments.json:
        print(json.dumps(_result(search, entries, skipped)))
    else:
        _print(search, skipped)
        entries.say_damaged()
    return Exit.FINDINGS if search.hits else Exit.OK


def _needles(arguments: argparse.Namespace) -> Iterator[Needle]:
    values = list(arguments.values)
    if arguments.values_file is not None:
        try:
            lines = _content(arguments.values_file).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise CommandError(f"{arguments.values_file}: not UTF-8 text", Exit.USAGE) from None
        values += [line.strip() for line in lines if line.strip()]
    if not values:
        raise CommandError("no value to search for: name one, or a --values-file with one per line", Exit.USAGE)
    for value in dict.fromkeys(values):
        try:
            yield needle(value)
        except ValueError as error:
            raise CommandError(f"{value[:50]!r} can't be searched for: {error}", Exit.USAGE) from None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.exists():
        raise CommandError(f"{path}: no such file or folder", Exit.NOT_FOUND)
    return [path]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file", Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None


def _result(search: Search, entries: Selection, skipped: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "finds": [
            {
                **asdict(hit.find),
                "time": hit.time or None,
                "topic": hit.topic,
                "kind": hit.kind,
                "messages": hit.messages,
            }
            for hit in search.hits
        ],
        "searched": {**asdict(search.searched), "damaged": len(entries.damaged)},
        "left_out": skipped,
    }


def _print(search: Search, skipped: dict[str, dict[str, float]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    for hit in search.hits:
        find = hit.find
        where = f"{hit.time} {hit.kind}" if hit.time else hit.kind
        console.print(f"[bold]found {escape(repr(find.value))}[/] as {escape(find.how)}: {where}", soft_wrap=True)
        times = f", {find.count} times" if find.count > 1 else ""
        carried = f", in {hit.messages} messages" if hit.messages > 1 else ""
        chance = "" if find.accidental is None else f"; by chance {find.accidental:.2g} in so much"
        console.print(f"  {escape(hit.topic)}, {find.place}{times}{carried}{chance}", soft_wrap=True)
    done = search.searched
    if not search.hits:
        console.print("nothing found in what could be searched")
    in_files = f", {done.files:,} of them from files" if done.files else ""
    console.print(
        f"searched: {done.messages:,} messages, {done.payloads:,} different payloads{in_files}, {done.bytes:,} bytes"
    )
    for sentence in _not_searched(done):
        console.print(sentence, soft_wrap=True)
    for value, ways in skipped.items():
        listed = ", ".join(f"{how} ({hits:.2g})" for how, hits in sorted(ways.items()))
        console.print(
            f"not looked for, because chance alone hits it in so much (times): {escape(repr(value))} as {listed}; "
            "--all looks for it",
            soft_wrap=True,
        )


def _not_searched(done: Searched) -> Iterator[str]:
    if done.not_kept:
        kept = f"{done.not_kept:,} messages could NOT be searched: what left with them is no longer kept"
        yield kept + (f" ({done.altered:,} contents were altered)" if done.altered else "")
    if done.undecodable:
        yield f"{done.undecodable:,} payloads are neither text nor an update: searched byte by byte only"
    for value, count in done.by_chance.items():
        yield f"{value!r}: {count:,} tensor elements near it, no more than chance puts there; --all lists them"
