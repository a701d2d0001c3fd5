"""Data that come in batches, to be read again and again, or once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.bayes.columns import Columns, Parquet

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior


class StreamError(ValueError):
    """A batch could not be used.

    Attributes:
        batch: its number, from 0, in the order of reading.
        posterior: the fit to what was read before; None if there was nothing.
    """

    def __init__(self, message: str, batch: int) -> None:
        super().__init__(message)
        self.batch = batch
        self.posterior: Posterior | None = None


class Stream:
    """Batches of a model's arguments, for `ngvi.fit(model, ngvi.Stream(batches))`.

    Args:
        batches: each one a tuple of positional arguments, a dict of keyword arguments,
            or a single array; all of one shape, but the last may have fewer rows. Given
            as a list, or anything else that can be iterated anew; as a function that
            returns an iterator; or as an iterator, which can be read only once: then
            the fit is one pass of sequential updating.
        rows: how many rows there are in all, where a stream that ends early is to be
            told from one that is complete.
        epochs: the most times that the data are read; by default until the fit has
            converged.
        shuffle: a seed, to read the batches in random order (another in every epoch);
            the sums over all data do not depend on it, but the first pass, which begins
            with what comes first, does.
        prefetch: batches that are read ahead.

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist, ngvi
        >>> def model(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = np.arange(12.0)
        >>> stream = ngvi.Stream.from_arrays(y, batch_size=4)
        >>> round(float(ngvi.fit(model, stream).mean["mu"]), 3)
        5.495
    """

    def __init__(
        self,
        batches: Iterable[Any] | Callable[[], Iterator[Any]],
        *,
        rows: int | None = None,
        epochs: int | None = None,
        shuffle: int | None = None,
        prefetch: int = 2,
    ) -> None:
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}.")
        if prefetch < 0:
            raise ValueError(f"prefetch must not be negative, not {prefetch}.")
        if not callable(batches) and not isinstance(batches, Iterable):
            raise TypeError(
                f"A stream needs batches to iterate over, not {type(batches).__name__}."
            )
        orders = hasattr(batches, "shuffled") or isinstance(batches, Sequence)
        if shuffle is not None and not orders:
            raise ValueError(
                "Only a list of batches or columns can be shuffled: give "
                "Stream.from_arrays(...), or shuffle them where they come from."
            )
        self.batches = batches
        self.rows = rows
        self.epochs = epochs
        self.shuffle = shuffle
        self.prefetch = prefetch

    @classmethod
    def from_arrays(
        cls,
        *arrays: Any,
        batch_size: int,
        epochs: int | None = None,
        shuffle: int | None = None,
        prefetch: int = 2,
        **named: Any,
    ) -> Stream:
        """Batches of rows of arrays that need not fit in memory.

        Args:
            *arrays: positional arguments of the model: arrays, NumPy memory maps, zarr
                arrays, or paths of .npy files, equally long along their first axis.
            batch_size: rows in a batch.
            epochs, shuffle, prefetch: as for `Stream`; shuffled by blocks of rows.
            **named: keyword arguments of the model, likewise.
        """
        columns = Columns(arrays, named, batch_size)
        return cls(
            columns,
            rows=columns.rows,
            epochs=epochs,
            shuffle=shuffle,
            prefetch=prefetch,
        )

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        columns: Mapping[str, str | Sequence[str]],
        *,
        batch_size: int,
        epochs: int | None = None,
        shuffle: int | None = None,
        prefetch: int = 2,
    ) -> Stream:
        """Batches of rows of a parquet file, read by pyarrow.

        Args:
            path: of the file.
            columns: for each keyword argument of the model a column's name, or a list
                of names, which makes a matrix.
            batch_size: rows in a batch.
            epochs, shuffle, prefetch: as for `Stream`; shuffled by row groups.
        """
        table = Parquet(path, columns, batch_size)
        return cls(
            table, rows=table.rows, epochs=epochs, shuffle=shuffle, prefetch=prefetch
        )

    @property
    def once(self) -> bool:
        """It can be read only once."""
        return isinstance(self.batches, Iterator)

    def read(self, epoch: int) -> Iterator[Any]:
        """The batches in the order of an epoch."""
        if callable(self.batches):
            return iter(self.batches())
        if self.shuffle is None:
            return iter(self.batches)
        rng = np.random.default_rng([self.shuffle, epoch])
        if hasattr(self.batches, "shuffled"):
            return self.batches.shuffled(rng)
        assert isinstance(self.batches, Sequence)
        last = len(self.batches) - 1  # it may be smaller, and stays where it is
        return (self.batches[i] for i in [*rng.permutation(max(last, 0)), last])
