"""Data sets by group as ArviZ takes them, whichever its version."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xarray import Dataset


def as_arviz(groups: Mapping[str, Dataset], attrs: Mapping[str, Any]) -> Any:
    """An InferenceData with ArviZ 0.x, a DataTree with 1.x.

    Args:
        groups: xarray data sets by name: posterior, observed_data, and so on.
        attrs: of the root.
    """
    copies: dict[str, Any] = {name: group.copy() for name, group in groups.items()}
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import Dataset, DataTree

        return DataTree.from_dict({"/": Dataset(attrs=dict(attrs))} | copies)
    from arviz import InferenceData

    with warnings.catch_warnings():
        # Groups that are not in ArviZ's scheme are kept all the same.
        warnings.filterwarnings("ignore", message=".*InferenceData scheme.*")
        return InferenceData(attrs=dict(attrs), **copies)
