"""Columns of a table, in memory or on disk, as batches of rows.

Only a batch of rows is read at a time. In random order blocks of neighbouring rows are
dealt out, so that a disk is still read in pieces: a batch has rows from eight places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngvi.extras import extra

_BLOCKS = 8
"""In a batch, when they are dealt out in random order."""

Batch = tuple[tuple[Any, ...], dict[str, Any]]
"""A model's arguments."""


class Columns:
    """Arrays that agree in their first axis; anything with a shape and slices will do:
    NumPy's memory maps, zarr and HDF5 arrays, the path of an .npy file."""

    def __init__(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], batch_size: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        self.args = tuple(_opened(column) for column in args)
        self.kwargs = {name: _opened(column) for name, column in kwargs.items()}
        self.batch_size = batch_size
        named = {str(i): column for i, column in enumerate(self.args)} | self.kwargs
        if not named:
            raise ValueError("There is no array to take batches of.")
        rows = {name: _rows(name, column) for name, column in named.items()}
        self.rows = next(iter(rows.values()))
        for name, count in rows.items():
            if count != self.rows:
                raise ValueError(
                    f"The columns have different lengths: '{next(iter(rows))}' has "
                    f"{self.rows:,d} rows, '{name}' has {count:,d}."
                )
        if not self.rows:
            raise ValueError("The columns have no rows.")

    def __len__(self) -> int:
        """Batches."""
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.rows, self.batch_size):
            yield self._read([slice(start, min(start + self.batch_size, self.rows))])

    def shuffled(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The same rows, their blocks in random order; those that fill no block last,
        so that all batches but the last have one shape."""
        blocks = next(n for n in (_BLOCKS, 4, 2, 1) if self.batch_size % n == 0)
        size = self.batch_size // blocks
        whole = self.rows // size
        starts = size * rng.permutation(whole)
        pieces = [slice(start, start + size) for start in starts]
        if whole * size < self.rows:
            pieces.append(slice(whole * size, self.rows))
        for first in range(0, len(pieces), blocks):
            yield self._read(sorted(pieces[first : first + blocks], key=_start))

    def _read(self, pieces: list[slice]) -> Batch:
        def read(column: Any) -> np.ndarray:
            return np.concatenate([np.asarray(column[piece]) for piece in pieces])

        args = tuple(read(column) for column in self.args)
        return args, {name: read(column) for name, column in self.kwargs.items()}


def _start(piece: slice) -> int:
    return piece.start


class _File:
    """An .npy file, mapped into memory anew for every piece: the pages of one that
    stays mapped would count as this process's memory, up to all of the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.shape = self._mapped().shape

    def __getitem__(self, piece: slice) -> np.ndarray:
        return np.array(self._mapped()[piece])

    def _mapped(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")


def _opened(column: Any) -> Any:
    if isinstance(column, str | Path):
        return _File(column)
    return column if hasattr(column, "shape") else np.asarray(column)


def _rows(name: str, column: Any) -> int:
    if not column.shape:
        raise ValueError(
            f"Column '{name}' is a single number: give what all batches share to fit() "
            "after the stream."
        )
    return int(column.shape[0])


class Parquet:
    """Columns of a parquet file, by pyarrow; several may be joined in one matrix."""

    def __init__(
        self,
        path: str | Path,
        columns: Mapping[str, str | Sequence[str]],
        batch_size: int,
    ) -> None:
        with extra("parquet", "Reading parquet"):
            from pyarrow.parquet import ParquetFile
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        self.columns = {
            name: [wanted] if isinstance(wanted, str) else list(wanted)
            for name, wanted in columns.items()
        }
        self.vectors = {n for n, wanted in columns.items() if isinstance(wanted, str)}
        self.batch_size = batch_size
        self.path = Path(path)
        with ParquetFile(self.path) as file:
            known = set(file.schema_arrow.names)
            self.rows = int(file.metadata.num_rows)
            self.groups = int(file.num_row_groups)
        for wanted in self.columns.values():
            for name in wanted:
                if name not in known:
                    raise ValueError(
                        f"{self.path} has no column '{name}'. It has: "
                        f"{', '.join(sorted(known))}."
                    )

    def __iter__(self) -> Iterator[Batch]:
        yield from self._read(list(range(self.groups)))

    def shuffled(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The same rows, the file's row groups in random order."""
        yield from self._read(rng.permutation(self.groups).tolist())

    def _read(self, groups: list[int]) -> Iterator[Batch]:
        from pyarrow.parquet import ParquetFile

        every = sorted({name for wanted in self.columns.values() for name in wanted})
        with ParquetFile(self.path) as file:
            tables = (
                {n: table.column(n).to_numpy(zero_copy_only=False) for n in every}
                for table in file.iter_batches(self.batch_size, groups, every)
            )
            for read in _rebatched(tables, self.batch_size):
                yield (), {name: self._joined(name, read) for name in self.columns}

    def _joined(self, name: str, read: dict[str, np.ndarray]) -> np.ndarray:
        wanted = [read[column] for column in self.columns[name]]
        return wanted[0] if name in self.vectors else np.stack(wanted, axis=-1)


def _rebatched(
    tables: Iterator[dict[str, np.ndarray]], size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The same rows, `size` at a time: a batch may end where a row group does."""
    rest: dict[str, np.ndarray] = {}
    for table in tables:
        if rest:
            table = {n: np.concatenate([rest[n], part]) for n, part in table.items()}
        count = len(next(iter(table.values())))
        for start in range(0, count - size + 1, size):
            yield {name: part[start : start + size] for name, part in table.items()}
        rest = {name: part[count - count % size :] for name, part in table.items()}
    if rest and len(next(iter(rest.values()))):
        yield rest
