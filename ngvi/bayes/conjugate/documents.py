"""Counts of words as batches of one shape, so that one program serves them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ngvi.bayes.conjugate.topics import ROW, Batch


class Part(NamedTuple):
    """The documents of a batch, and their words."""

    documents: np.ndarray
    batch: Batch


class Layout(NamedTuple):
    """The shape of all batches."""

    documents: int
    rows: int

    @classmethod
    def of(cls, counts: Any, batch_size: int) -> Layout:
        """Room for `batch_size` documents of ordinary length.

        Args:
            counts: a sparse matrix in CSR format, a row for each document.
            batch_size: documents.
        """
        size = min(batch_size, counts.shape[0])
        rows = _rows(counts)
        room = max(int(rows.max(initial=1)), int(1.1 * size * rows.mean()))
        # Few different shapes: other data of this kind then find a program compiled.
        step = max(1, 1 << (room.bit_length() - 3))
        return cls(size, -(-room // step) * step)


def _rows(counts: Any) -> np.ndarray:
    """How many rows each document takes."""
    return -(-np.diff(counts.indptr) // ROW)


def cut(counts: Any, layout: Layout, order: np.ndarray) -> Iterator[Part]:
    """The documents in this order, as many at a time as there is room for.

    Args:
        counts: a sparse matrix in CSR format, a row for each document.
        layout: with room for the longest of them.
        order: of all documents.
    """
    rows = _rows(counts)
    start, total = 0, 0
    for at, document in enumerate(order):
        full = at - start == layout.documents or total + rows[document] > layout.rows
        if full:
            yield _part(counts, layout, order[start:at], rows)
            start, total = at, 0
        total += rows[document]
    yield _part(counts, layout, order[start:], rows)


def _part(counts: Any, layout: Layout, chosen: np.ndarray, rows: np.ndarray) -> Part:
    own = rows[chosen]
    lengths = np.diff(counts.indptr)[chosen]
    firsts = np.cumsum(own) - own
    # Where each word goes, word by word, document by document.
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row = np.repeat(firsts, lengths) + within // ROW
    source = np.repeat(counts.indptr[chosen], lengths) + within

    shape = layout.rows, ROW
    words, numbers = np.zeros(shape, np.int32), np.zeros(shape)
    words[row, within % ROW] = counts.indices[source]
    numbers[row, within % ROW] = counts.data[source]
    owner = np.zeros(layout.rows, np.int32)
    owner[: own.sum()] = np.repeat(np.arange(len(chosen)), own)
    dtype = jnp.result_type(float)
    batch = Batch(jnp.asarray(words), jnp.asarray(numbers, dtype), jnp.asarray(owner))
    return Part(chosen, batch)
