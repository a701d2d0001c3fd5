"""Arrays by site turned into xarray data sets with named axes.

An axis is named by the plate it belongs to, or by `infer={"event_dims": [...]}`; other
axes are "<site>_dim_0" and so on, as ArviZ calls them. Names that xarray or netCDF
cannot hold are replaced: a variable then keeps its site's name in its attribute "site".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

Axes = Mapping[str, tuple[str | None, ...]]
"""For each site a name, or None, for each axis of its value."""

SAMPLE_DIMS = ("chain", "draw")


def storable(value: Any) -> np.ndarray | None:
    """An array as netCDF can hold it, on the host; None for complex numbers, keys and
    whatever else is not a real number."""
    try:
        array = np.asarray(value)
    except TypeError:
        return None
    if array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64):
        return array
    # Half precision: float16 is of kind f, bfloat16 is an extension type.
    if array.dtype.kind == "f" or "float" in array.dtype.name:
        return array.astype(np.float32)
    return None


def portable(name: str, taken: Iterable[str] = ()) -> str:
    """A variable's name without "/", which separates groups in a file, and not one of
    the names that are taken."""
    name = name.replace("/", ".") or "value"
    while name in taken or name in SAMPLE_DIMS:
        name += "_"
    return name


def dataset(
    arrays: Mapping[str, np.ndarray],
    axes: Axes,
    leading: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Dataset:
    """A data set of arrays, each axis named.

    Args:
        arrays: by site; the leading axes first, then those of the site's value.
        axes: names of the value's axes, see `ngvi.bayes.model_trace.axis_names`.
        leading: name and labels of the leading axes that all arrays share.
        attrs: of the data set.
    """
    from xarray import Dataset

    leading = dict(leading or {})
    variables: dict[str, str] = {}
    for site in arrays:
        variables[site] = portable(site, variables.values())
    sizes = {dim: len(labels) for dim, labels in leading.items()}
    data: dict[str, tuple] = {}
    for site, array in arrays.items():
        name = variables[site]
        shape = array.shape[len(leading) :]
        named = [*axes.get(site, ()), *([None] * len(shape))][: len(shape)]
        dims = list(leading)
        for axis, (wanted, size) in enumerate(zip(named, shape, strict=True)):
            dim = (wanted or "").replace("/", ".")
            # One name has one length, occurs once in an array, and is no variable's.
            usable = dim and dim not in dims and dim not in variables.values()
            if not usable or sizes.get(dim, size) != size:
                dim = f"{name}_dim_{axis}"
            sizes[dim] = size
            dims.append(dim)
        data[name] = (dims, array, {} if name == site else {"site": site})
    used = {dim for dims, *_ in data.values() for dim in dims}
    coords = {dim: np.arange(size) for dim, size in sizes.items() if dim in used}
    return Dataset(data, coords | leading, dict(attrs or {}))


def site_name(array: DataArray) -> str:
    """The name in the model of what a variable holds."""
    return str(array.attrs.get("site", array.name))
