"""The reader of a stream for one fit.

It holds every batch against the first (a program is compiled for one shape), counts
rows, reads ahead in a thread, and puts the number of the batch into every complaint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from ngvi.bayes.checks import named_arguments
from ngvi.bayes.columns import Batch
from ngvi.bayes.stream import Stream, StreamError
from ngvi.bayes.target import Arguments, Data


class Numbered(NamedTuple):
    """A batch that was read."""

    number: int
    rows: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    data: Data


_END: Any = object()


def _ahead(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """The same, the next `count` read by a thread meanwhile."""
    if not count:
        yield from batches
        return
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future] = deque(
            thread.submit(next, batches, _END) for _ in range(count)
        )
        while (batch := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, batches, _END))
            yield batch


class Reader:
    """Reads a stream, epoch after epoch, for one fit."""

    def __init__(self, stream: Stream, args: tuple, kwargs: dict[str, Any]) -> None:
        self.stream = stream
        self.shared = args, kwargs
        self.epoch = 0
        """Complete passes."""
        self.rows = 0
        """Of an epoch, once there was one."""
        self.batches = 0
        self.last: Numbered | None = None
        """The last batch that was read, if it is not the first of its epoch."""
        self._first: Numbered | None = None
        self._opened: Iterator[Numbered] | None = None
        self._waiting: list[Numbered] = []

    @property
    def ended(self) -> bool:
        """No further epoch is possible or allowed."""
        return self.epoch >= self._most

    @property
    def last_pass(self) -> bool:
        """No epoch may follow the next."""
        return self.epoch + 1 >= self._most

    @property
    def _most(self) -> float:
        epochs = self.stream.epochs
        return 1 if self.stream.once else np.inf if epochs is None else epochs

    def position(self) -> dict[str, int]:
        """How far it has come, to `go_on_from` later."""
        return {"epoch": self.epoch, "rows": self.rows, "batches": self.batches}

    def go_on_from(self, position: dict[str, int]) -> None:
        """Be where another reader of the same stream was between two epochs."""
        if self._opened is not None:
            next(self._opened, None)  # a batch beside the first, to compare it with
        self._opened, self._waiting = None, []
        self.epoch, self.rows = position["epoch"], position["rows"]
        self.batches = position["batches"]

    def first(self) -> Numbered:
        """The first batch of all, with which the next epoch begins.

        Raises:
            StreamError: there is none.
        """
        self._opened = self._read()
        self._waiting = [next(self._opened)]
        return self._waiting[0]

    def __iter__(self) -> Iterator[Numbered]:
        """An epoch.

        Raises:
            StreamError: as below.
        """
        while self._waiting:
            yield self._waiting.pop()
        opened, self._opened = self._opened, None
        yield from opened or self._read()

    def _read(self) -> Iterator[Numbered]:
        """An epoch.

        Raises:
            StreamError: reading failed, a batch is not like the first one, or there
                are fewer batches or rows than declared, or than in the first epoch.
        """
        number, rows = 0, 0
        batches = _ahead(self.stream.read(self.epoch), self.stream.prefetch)
        while True:
            try:
                batch = next(batches, _END)
            except Exception as error:
                raise StreamError(
                    f"Batch {number} could not be read: {type(error).__name__}: "
                    f"{error}",
                    number,
                ) from error
            if batch is _END:
                break
            read = self._numbered(number, batch)
            yield read
            number, rows = number + 1, rows + read.rows
        self._check_end(number, rows)
        self.epoch, self.rows, self.batches = self.epoch + 1, rows, number

    def _check_end(self, number: int, rows: int) -> None:
        declared = self.stream.rows
        if not number:
            text = "The stream has no batch."
            if self.epoch:
                text = "The stream had nothing when it was read again."
            raise StreamError(text, 0)
        if declared is not None and rows != declared:
            raise StreamError(
                f"The stream ended after batch {number - 1} with {rows:,d} rows; "
                f"{declared:,d} were declared.",
                number,
            )
        if self.epoch and (number, rows) != (self.batches, self.rows):
            raise StreamError(
                f"The stream ended after batch {number - 1} with {rows:,d} rows; it "
                f"had {self.batches} batches with {self.rows:,d} rows before.",
                number,
            )

    def _numbered(self, number: int, batch: Any) -> Numbered:
        args, kwargs = _as_arguments(batch)
        args, kwargs = (*args, *self.shared[0]), kwargs | self.shared[1]
        arguments, data = Arguments.split(args, kwargs)
        read = Numbered(number, _count_rows(batch), args, kwargs, data)
        if self._first is None:
            self._first, self._arguments = read, arguments
        elif arguments != self._arguments or _differs(read, self._first):
            self._complain(read)
            if arguments != self._arguments:
                raise StreamError(
                    f"Batch {number}: arguments that are no arrays differ from those "
                    "of the first batch.",
                    number,
                )
        if number:
            self.last = read
        return read

    def _complain(self, read: Numbered) -> None:
        """Say what of a batch is not as in the first."""
        assert self._first is not None
        here, before = _described(read), _described(self._first)
        for name in before.keys() | here.keys():
            if name not in here or name not in before:
                where = "is missing" if name not in here else "was not in the first one"
                raise StreamError(f"Batch {read.number}: {name} {where}.", read.number)
        for name, now in here.items():
            if now != before[name] and not _fewer_rows(now, before[name]):
                raise StreamError(
                    f"Batch {read.number}: {name} is {_words(now)}; in the first batch "
                    f"it was {_words(before[name])}.",
                    read.number,
                )
        lengths = {
            name: now[0][0]
            for name, now in here.items()
            if isinstance(now, tuple)
            and before[name][0]
            and before[name][0][0] == self._first.rows
        }
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise StreamError(
                f"Batch {read.number}: its arguments disagree in their number of rows: "
                f"{listed}.",
                read.number,
            )


def _as_arguments(batch: Any) -> Batch:
    if isinstance(batch, dict):
        return (), batch
    if isinstance(batch, tuple):
        pair = len(batch) == 2 and isinstance(batch[0], tuple)
        if pair and isinstance(batch[1], dict):
            return batch
        return batch, {}
    return (batch,), {}


def _count_rows(batch: Any) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(_as_arguments(batch))]
    return next((shape[0] for shape in shapes if shape), 0)


def _described(read: Numbered) -> dict[str, Any]:
    """(shape, dtype) of each array, and other values as they are, by name."""
    found = {}
    for name, leaf in named_arguments(read.args, read.kwargs):
        array = isinstance(leaf, np.ndarray | np.generic | jax.Array)
        found[name] = (leaf.shape, leaf.dtype) if array else leaf
    return found


def _words(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2:
        return f"{value[1]} of shape {value[0]}"
    return repr(value)


def _fewer_rows(now: Any, before: Any) -> bool:
    """As in a last batch, or in any other of another length."""
    if not (isinstance(now, tuple) and isinstance(before, tuple)):
        return False
    (shape, dtype), (old, old_dtype) = now, before
    same = dtype == old_dtype and len(shape) == len(old)
    return bool(same and shape and shape[0] and shape[1:] == old[1:])


def _differs(read: Numbered, first: Numbered) -> bool:
    return any(
        a.shape != b.shape or a.dtype != b.dtype
        for a, b in zip(read.data.arrays, first.data.arrays, strict=True)
    )
