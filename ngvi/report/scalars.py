"""From a data set of draws to named scalar quantities, and which of them to show."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngvi.names import scalar_names

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

Array = NDArray[np.float64]

# Numbers beyond these sizes are infinite and zero to a picture: their squares and
# differences would not be numbers any more.
LARGEST, SMALLEST = 1e100, 1e-100
# Correlations are looked for among this many coordinates at most: the matrix is square.
MOST_CORRELATED = 1500


def tame(values: ArrayLike) -> Array:
    """Return values as floats, with NaN for all that is not finite or far too large."""
    values = np.asarray(values, float)
    values = np.where(np.abs(values) < LARGEST, values, np.nan)
    return np.where(np.abs(values) < SMALLEST, 0.0, values)


def finite(values: ArrayLike) -> Array:
    """Return the values of an array that are numbers of a sane size, flat."""
    flat = tame(values).ravel()
    return flat[np.isfinite(flat)]


def draws_of(array: DataArray) -> Array:
    """Return the draws of one site, shape (S, *site), with all chains in one row.

    Raises:
        TypeError: If the values are not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{array.name!s} holds {array.dtype}, not real numbers.")
    sample_dims = [dim for dim in ("chain", "draw", "sample") if dim in array.dims]
    values = array.transpose(*sample_dims, ...).to_numpy().astype(float)
    return values.reshape(-1, *values.shape[len(sample_dims) :])


def numeric_sites(dataset: Dataset, names: Sequence[str] | None = None) -> list[str]:
    """Return the names of the sites that hold real numbers, in their own order."""
    kept = [
        str(name)
        for name, array in dataset.data_vars.items()
        if array.size and array.dtype.kind in "biuf"
    ]
    return kept if names is None else [name for name in kept if name in set(names)]


def scalars(dataset: Dataset, sites: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Yield the name and the draws, shape (S,), of every scalar quantity."""
    for site in sites:
        draws = draws_of(dataset[site])
        columns = draws.reshape(draws.shape[0], -1).T
        yield from zip(scalar_names(site, draws.shape[1:]), columns, strict=True)


def site_sizes(dataset: Dataset, sites: Sequence[str]) -> dict[str, int]:
    """Return the number of scalar quantities in each site."""
    sample_dims = {"chain", "draw", "sample"}
    return {
        site: int(
            np.prod(
                [n for dim, n in dataset[site].sizes.items() if dim not in sample_dims]
            )
        )
        for site in sites
    }


def most_correlated(
    dataset: Dataset, sites: Sequence[str], count: int = 4
) -> tuple[dict[str, Array], tuple[str, str, float] | None]:
    """Choose the coordinates whose pairwise correlations are the largest.

    Pairs are taken from the strongest correlation down until ``count`` coordinates are
    found. Constant coordinates, and pairs that are functions of one another (the two
    halves of a symmetric matrix), say nothing about the posterior and are passed over.

    Args:
        dataset: Draws.
        sites: The sites to look at.
        count: Coordinates wanted.

    Returns:
        The draws by name, and the strongest pair with its correlation; the dict is
        empty and the pair None where there are not two coordinates to compare.
    """
    named = [
        (name, tame(draws))
        for name, draws in itertools.islice(scalars(dataset, sites), MOST_CORRELATED)
    ]
    named = [(n, x) for n, x in named if x.size and np.isfinite(x).all()]
    named = [(n, x) for n, x in named if np.ptp(x) > 0]
    if len(named) < 2 or named[0][1].size < 3:
        return {}, None
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.corrcoef(np.stack([x for _, x in named])))
    rows, columns = np.triu_indices(len(named), k=1)
    values = correlation[rows, columns]
    strength = np.where(np.abs(values) < 1.0 - 1e-6, np.abs(values), -1.0)
    chosen: list[int] = []
    best = None
    for pair in np.argsort(-strength, kind="stable"):
        if strength[pair] < 0 or len(chosen) >= count:
            break
        ends = int(rows[pair]), int(columns[pair])
        best = best or (named[ends[0]][0], named[ends[1]][0], float(values[pair]))
        chosen += [end for end in ends if end not in chosen]
    return {named[i][0]: named[i][1] for i in sorted(chosen[:count])}, best
