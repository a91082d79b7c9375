"""The record of what left a plant: one line per message out, written before the message is published.

A folder holds a file `YYYY-MM-DD.jsonl` per day (UTC), and the payloads themselves in `contents.sqlite`. The record can
say too much (a message that was recorded and then not sent), never too little. Nothing is ever rewritten; whole days
are removed after `keep_days` where a plant wants that. Tampering is not detected yet: the fields for a hash chain and
signatures are there and empty.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from broker_bridge.bridge.contents import Contents, ContentsError
from broker_bridge.durable import sync_folder
from uns_topics.envelope import PayloadError
from uns_topics.model import Sha256, Value
from uns_topics.transfers import decode_chunk, encode_chunk

FOLDER = "ledger"
"""Below the bridge's data directory."""
DEFAULT_CONTENTS_BYTES = 1 << 30
"""Payloads that are kept for searching."""

_DAY_FILE = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
_NUMBER = re.compile(rb'\{"v":\d+,"n":(\d{1,18}),')
_TAIL_BYTES = 64 * 1024


class LedgerError(Exception):
    """The ledger can't be used or written; the text says why and what to do. Nothing may leave then."""


class Entry(Value):
    """One line of the ledger, in the order of its keys."""

    v: Literal[1] = 1
    n: int = Field(ge=1, le=2**53, description="counts up over the life of the ledger, over restarts too")
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="RFC 3339, UTC")
    bridge: str = Field(max_length=64)
    federation: str = Field(max_length=64)
    participant: str = Field(max_length=64)
    topic: str = Field(max_length=65_535)
    kind: str = Field(max_length=64)
    bytes: int = Field(ge=0, description="of the payload")
    sha256: Sha256 = Field(description="of the payload")
    policy: str = Field(max_length=256, description="the line of the export policy that allowed it")
    content: Sha256 | None = Field(description="of the whole transfer, where the payload is a chunk of one")
    previous: str | None = Field(default=None, max_length=512, description="for a hash chain")
    signature: str | None = Field(default=None, max_length=512)

    @property
    def kept_as(self) -> str:
        """The SHA-256 under which the contents have what left with it."""
        return self.content or self.sha256


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that is no entry. `at_end`: the file's last one, without its end: it may just be being written."""

    file: str
    line: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """The whole that a chunk belongs to."""

    sha256: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Departure:
    """A message that is about to leave. `transfer`: what its payload may be a chunk of."""

    federation: str
    participant: str
    topic: str
    kind: str
    policy: str
    payload: bytes = field(repr=False)
    transfer: Transfer | None = None


Write = Callable[[int, bytes], int]


class Ledger:
    """The one writer of a folder. Use it from one thread at a time.

    A day's file is never older than the newest one there is: after a clock was set back, entries with their earlier
    times go on in the newest file, so that the files' order is the order of `n`.

    Args:
        clock: seconds since 1970, UTC.
        keep_contents_bytes: bound of the payloads kept for searching; the oldest are dropped, their entries stay.
        keep_days: whole days older than this are removed, contents with them; None: never.
        write: takes a file descriptor and bytes, returns how many were written.

    Raises:
        LedgerError: the folder can't be used, or another process writes to it.
    """

    def __init__(
        self,
        folder: Path,
        bridge: str,
        clock: Callable[[], float] = time.time,
        *,
        keep_contents_bytes: int = DEFAULT_CONTENTS_BYTES,
        keep_days: int | None = None,
        write: Write = os.write,
    ) -> None:
        self._folder = folder
        self._bridge = bridge
        self._clock = clock
        self._keep_contents_bytes = keep_contents_bytes
        self._keep_days = keep_days
        self._write = write
        self._file: int | None = None
        self._day = ""
        self._n = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise LedgerError(f"the ledger {folder} can't be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._contents = Contents.open(folder)
        except OSError:
            os.close(self._lock)
            raise LedgerError(f"the ledger {folder} is in use by another bridge; each needs its own data_dir") from None
        except ContentsError as error:
            os.close(self._lock)
            raise LedgerError(f"the ledger {folder} can't be used: {error}") from None
        try:
            self._open(self._today())
        except (OSError, ContentsError) as error:
            self.close()
            raise LedgerError(f"the ledger {folder} can't be used: {_reason(error)}") from None

    def close(self) -> None:
        """Close the files; the folder is free for another writer."""
        self._close_file()
        self._contents.close()
        os.close(self._lock)

    def record(self, departures: Sequence[Departure]) -> None:
        """Put messages on record, durable when it returns: contents first, then all entries in one write, one fsync.

        Raises: LedgerError: nothing of it may be published. Part of it may stand in the ledger all the same.
        """
        if not departures:
            return
        try:
            now = datetime.fromtimestamp(self._clock(), UTC)
            if self._file is None or now.date().isoformat() > self._day:
                self._open(now.date().isoformat())
            kept = [_kept(departure) for departure in departures]
            self._contents.keep(kept, now.date().isoformat(), self._keep_contents_bytes)
            entries = [
                self._entry(self._n + 1 + i, now, departure, sha256)
                for i, (departure, (sha256, _)) in enumerate(zip(departures, kept, strict=True))
            ]
            self._append(b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries))
            self._n += len(entries)
        except (OSError, ContentsError) as error:
            self._close_file()  # how much of it was written is seen when the file is opened again
            raise LedgerError(
                f"what leaves can't be recorded in {self._folder}: {_reason(error)}; nothing leaves until it can. "
                "Is the disk full?"
            ) from None

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()

    def _entry(self, n: int, now: datetime, departure: Departure, kept_as: str) -> Entry:
        sha256 = hashlib.sha256(departure.payload).hexdigest()
        return Entry(
            n=n,
            time=time_text(now),
            bridge=self._bridge,
            federation=departure.federation,
            participant=departure.participant,
            topic=departure.topic,
            kind=departure.kind,
            bytes=len(departure.payload),
            sha256=sha256,
            policy=departure.policy,
            content=kept_as if kept_as != sha256 else None,
        )

    def _append(self, lines: bytes) -> None:
        assert self._file is not None
        if (written := self._write(self._file, lines)) != len(lines):
            raise OSError(0, f"{written} of {len(lines)} bytes were written")
        os.fsync(self._file)

    def _open(self, today: str) -> None:
        """Open the day's file, mend its end, and find the last number."""
        self._close_file()
        self._forget_old(today)
        files = day_files(self._folder)
        self._day = max([today, *(file.stem for file in files[-1:])])
        self._n = max(self._n, _last_number(files))
        path = self._folder / f"{self._day}.jsonl"
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if is_new:
            sync_folder(self._folder)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # the torn line stays, apart from the next one

    def _forget_old(self, today: str) -> None:
        if self._keep_days is None:
            return
        first = (date.fromisoformat(today) - timedelta(days=self._keep_days)).isoformat()
        old = [file for file in day_files(self._folder)[:-1] if file.stem < first]  # the newest one has the last number
        for file in old:
            file.unlink()
        if old:
            sync_folder(self._folder)
        self._contents.drop_before(first)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read(
    folder: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    kind: str | None = None,
    participant: str | None = None,
) -> Iterator[Entry | Damaged]:
    """Entries in the order of `n`, and damaged lines where they stand, whatever else is asked for; lazily.

    Works while a bridge writes. Args: since: the first time wanted; until: the first time no longer wanted.
    """
    first = time_text(since) if since is not None else ""
    end = time_text(until) if until is not None else "~"
    for file in day_files(folder):
        if file.stem < first[:10]:  # no entry is of a later day than its file
            continue
        for entry in _read_file(file):
            if isinstance(entry, Damaged) or (
                first <= entry.time < end
                and (kind is None or entry.kind == kind)
                and (participant is None or entry.participant == participant)
            ):
                yield entry


def is_in_use(folder: Path) -> bool:
    """Whether a bridge writes to it now."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def spent_on(folder: Path, day: str) -> tuple[int, int]:
    """Bytes and messages that left on a day (`YYYY-MM-DD`, UTC)."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    sizes = [e.bytes for e in read(folder, start, start + timedelta(days=1)) if isinstance(e, Entry)]
    return sum(sizes), len(sizes)


def day_files(folder: Path) -> list[Path]:
    """The files of a ledger, oldest first."""
    return sorted(path for path in folder.glob("*.jsonl") if _DAY_FILE.fullmatch(path.name))


def time_text(moment: datetime) -> str:
    """As an entry has it: RFC 3339 in UTC with milliseconds, so that the order of texts is that of times."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_file(path: Path) -> Iterator[Entry | Damaged]:
    try:
        file = path.open("rb")
    except FileNotFoundError:  # its days were over
        return
    with file:
        for number, line in enumerate(file, 1):
            if line == b"\n":
                continue
            try:
                yield Entry.model_validate_json(line)
            except ValidationError:
                yield Damaged(path.name, number, at_end=not line.endswith(b"\n"))


def _kept(departure: Departure) -> tuple[str, bytes]:
    """What the contents keep of a message: the whole transfer, if its payload is a piece of that and nothing else."""
    transfer = departure.transfer
    if transfer is not None and _is_piece(departure.payload, transfer.raw):
        return transfer.sha256, transfer.raw
    return hashlib.sha256(departure.payload).hexdigest(), departure.payload


def _is_piece(payload: bytes, whole: bytes) -> bool:
    try:
        chunk = decode_chunk(payload, len(whole))
    except PayloadError:
        return False
    size = len(chunk.body)
    start = len(whole) - size if chunk.index == chunk.count - 1 else chunk.index * size
    return memoryview(whole)[start : start + size] == chunk.body and encode_chunk(chunk) == payload


def _last_number(files: Iterable[Path]) -> int:
    """The highest `n` of the newest file that has one, of damaged lines too; 0 where there is none."""
    for path in reversed(list(files)):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            span = min(size, _TAIL_BYTES)
            while True:
                file.seek(size - span)
                numbers = [int(found) for found in _NUMBER.findall(file.read(span))]
                if numbers or span == size:
                    break
                span = min(size, 4 * span)
        if numbers:
            return max(numbers)
    return 0


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
