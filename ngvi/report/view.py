"""What a report reads from an archive, and what it makes of what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ngvi.report.scalars import draws_of

if TYPE_CHECKING:
    from xarray import Dataset

Record = Mapping[str, Any]


class Archive(Protocol):
    """What a report is made from."""

    @property
    def groups(self) -> Mapping[str, Dataset]:
        """The data sets by name: posterior, sample_stats, fit_history and so on."""

    @property
    def record(self) -> Record:
        """Plain values: model, ngvi, verdict, diagnostics, latent_sites, summary."""


def diagnostics(record: Record) -> Record:
    """Return the diagnostics of a fit; empty where none were recorded."""
    return record.get("diagnostics") or {}


def group(archive: Archive, name: str) -> Dataset | None:
    """Return a group of the archive, or None where it is missing or empty."""
    dataset = archive.groups.get(name)
    if dataset is None or not any(array.size for array in dataset.values()):
        return None
    return dataset


def log_weights(archive: Archive) -> NDArray[np.float64] | None:
    """Return log p - log q of the draws behind the recorded k-hat, shape (S,).

    None where they are not known; where none were kept apart, those of the archive's
    own draws.
    """
    importance = group(archive, "importance")
    if importance is not None:
        return np.asarray(importance["log_weight"], np.float64)
    return log_weights_of_draws(archive)


def log_weights_of_draws(archive: Archive) -> NDArray[np.float64] | None:
    """Return log p - log q at each archived draw, (S,), or None where not known."""
    stats = group(archive, "sample_stats")
    if stats is None:
        return None
    if "log_weight" in stats:
        return draws_of(stats["log_weight"])
    if "lp" in stats and "log_q" in stats:
        return draws_of(stats["lp"]) - draws_of(stats["log_q"])
    return None
