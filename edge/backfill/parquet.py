"""Parquet exports, one batch of rows at a time, by `pyarrow` (`headgate[parquet]`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge.backfill.tables import TableError

_BATCH_ROWS = 16_384


class ParquetTable:
    """A Parquet file; cells have its types. Raises: TableError: missing, no Parquet, or pyarrow isn't installed."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ModuleNotFoundError:
            sentence = f"{path}: reading Parquet needs pyarrow, which is not installed: pip install 'headgate[parquet]'"
            raise TableError(sentence) from None
        self._pa, self._pq = pa, pq
        self.path = path
        self.done = 0.0
        self.bad_rows = 0
        with self._open() as file:
            self._total = max(1, file.metadata.num_rows)
            self.header: tuple[str, ...] = tuple(file.schema_arrow.names)

    def rows(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        """The cells of these columns, row by row. Raises: TableError."""
        names = [self.header[column] for column in columns]
        self.done, seen = 0.0, 0
        with self._open() as file:
            try:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(dict.fromkeys(names))):
                    cells = {name: self._cells(batch.column(name)) for name in batch.schema.names}
                    yield from zip(*(cells[name] for name in names), strict=True)
                    seen += batch.num_rows
                    self.done = seen / self._total
            except (self._pa.ArrowException, OSError) as error:
                raise TableError(f"{self.path}: {error}") from None

    def _open(self) -> Any:
        try:
            return self._pq.ParquetFile(self.path)
        except FileNotFoundError:
            raise TableError(f"{self.path}: no such file") from None
        except (self._pa.ArrowException, OSError) as error:
            raise TableError(f"{self.path}: it can't be read as Parquet: {error}") from None

    def _cells(self, column: Any) -> list[Any]:
        pa = self._pa
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # Python's own datetime ends at us
            column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        cells: list[Any] = column.to_pylist()
        return cells
