"""Tables on disk, row by row: CSV here, Parquet beside it. A file is never loaded as a whole."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

MAX_COLUMNS = 100_000
MAX_HEADER = 8 * 1024 * 1024
"""Characters of the line that names the columns."""
MAX_CELL = 64 * 1024
"""Characters of one cell; a row with a longer one is counted and left out."""
_DELIMITERS = (",", ";", "\t", "|")
_OPEN = {".gz": gzip.open, ".xz": lzma.open}


class TableError(ValueError):
    """A file that can't be read as a table; the text names it and says what to do."""


class Table(Protocol):
    """One export. It can be read several times."""

    path: Path
    header: tuple[str, ...]
    done: float
    """Share of the file that the newest iterator has read."""
    bad_rows: int
    """Rows of the newest iterator that could not be read."""

    def rows(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        """The cells of these columns, row by row. Raises: TableError."""


class CsvTable:
    """A CSV file with a header, plain or as `.gz` or `.xz`. Cells are texts; a short row's missing cells are empty.

    Raises: TableError: it is missing, has no header, or is not in this encoding.
    """

    def __init__(self, path: Path, *, delimiter: str | None = None, encoding: str = "utf-8-sig") -> None:
        self.path = path
        self.done = 0.0
        self.bad_rows = 0
        self._encoding = _codec(encoding)
        self._skip = 0
        with self._open() as (text, _), self._readable():
            line = text.readline(MAX_HEADER)
            if line.lower().startswith("sep=") and len(line.strip()) == 5:  # what Excel writes and reads
                delimiter, self._skip = delimiter or line.strip()[4], 1
                line = text.readline(MAX_HEADER)
            self._delimiter = delimiter or max(_DELIMITERS, key=line.count)
            header = next(csv.reader([line], delimiter=self._delimiter), [])
        self.header = tuple(name.strip() for name in header)
        if not any(self.header) or len(self.header) > MAX_COLUMNS:
            raise TableError(f"{path}: its first line is no header that names the columns")

    def rows(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        """The cells of these columns, row by row. Raises: TableError."""
        csv.field_size_limit(MAX_CELL)
        self.done, self.bad_rows = 0.0, 0
        size = max(1, self.path.stat().st_size)
        with self._open() as (text, raw), self._readable():
            for _ in range(self._skip + 1):
                text.readline()
            for count, row in enumerate(self._cut(csv.reader(text, delimiter=self._delimiter))):
                if count % 1024 == 0:
                    self.done = raw.tell() / size
                yield [row[column] for column in columns]
        self.done = 1.0

    def _cut(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """Rows of the header's width; those that can't be are counted."""
        width = len(self.header)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                self.bad_rows += 1
                continue
            if len(row) == width:
                yield row
            elif len(row) > width and any(row[width:]):
                self.bad_rows += 1
            elif row:
                yield row + [""] * (width - len(row))

    def _open(self) -> _Opened:
        return _Opened(self.path, self._encoding)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises: TableError, for what reading raises."""
        try:
            yield
        except UnicodeDecodeError:
            sentence = f"{self.path}: it is not {self._encoding}; name its `encoding` in the tag map, such as cp1252"
            raise TableError(sentence) from None
        except (OSError, EOFError, lzma.LZMAError, zlib.error, csv.Error) as error:
            raise TableError(f"{self.path}: {error}") from None


class _Opened:
    """A text stream, and the stream of bytes on disk whose position tells how far it is."""

    def __init__(self, path: Path, encoding: str) -> None:
        try:
            self._raw: IO[bytes] = path.open("rb")
        except FileNotFoundError:
            raise TableError(f"{path}: no such file") from None
        except OSError as error:
            raise TableError(f"{path}: {error.strerror}") from None
        opener: Any = _OPEN.get(path.suffix)
        content: Any = opener(self._raw, "rb") if opener is not None else self._raw
        self._text = io.TextIOWrapper(content, encoding=encoding, newline="")

    def __enter__(self) -> tuple[io.TextIOWrapper, IO[bytes]]:
        return self._text, self._raw

    def __exit__(self, *_: object) -> None:
        self._text.close()
        self._raw.close()


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise TableError(f"{name!r} is no encoding: write utf-8-sig, cp1252, latin-1 or utf-16") from None


def open_table(path: Path, *, delimiter: str | None = None, encoding: str = "utf-8-sig") -> Table:
    """A table by its file's name: `.parquet` or `.pq`, else CSV. Raises: TableError."""
    if path.suffix.lower() in (".parquet", ".pq"):
        from edge.backfill.parquet import ParquetTable

        return ParquetTable(path)
    return CsvTable(path, delimiter=delimiter, encoding=encoding)
