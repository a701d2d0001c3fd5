"""Draws from a posterior of weights, for ArviZ.

Weights themselves mean little one by one; what ArviZ summarises, plots and compares are
functions of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ngvi.arviz_data import as_arviz

if TYPE_CHECKING:
    from xarray import Dataset


def to_arviz(
    posterior: Any,
    functions: Mapping[str, Callable[[Any], Array]],
    key: Key[Array, ""],
    draws: int = 1000,
) -> Any:
    """Functions of the weights, at draws of them, as the group "posterior".

    Args:
        posterior: whatever has `sample`.
        functions: by name, params ↦ an array or a number, such as the outputs at given
            x: `{"f": lambda params: net(params, x)}`. Their axes are called "f_dim_0"
            and so on.
        key: of the draws.
        draws: how many, in one chain.

    Returns:
        An InferenceData with ArviZ 0.x, a DataTree with 1.x.

    Raises:
        ValueError: no functions, no draws, or a name that xarray or ArviZ has another
            use for.
    """
    import ngvi

    if not functions or draws < 1:
        raise ValueError(
            f"to_arviz needs functions and draws, got {len(functions)} functions and "
            f"draws={draws}"
        )
    for name in functions:
        if name in ("chain", "draw") or "/" in name:
            raise ValueError(
                f"a function cannot be called {name!r}: 'chain' and 'draw' are axes, "
                "and '/' separates groups"
            )
    values = _values(tuple(functions.items()), draws, posterior, key)
    library = {
        "inference_library": "ngvi",
        "inference_library_version": ngvi.__version__,
    }
    return as_arviz({"posterior": draws_dataset(values, library)}, library)


@partial(jax.jit, static_argnums=(0, 1))
def _values(
    functions: tuple[tuple[str, Callable[[Any], Array]], ...],
    draws: int,
    posterior: Any,
    key: Key[Array, ""],
) -> dict[str, Array]:
    """At one draw after another; with an axis of one chain."""
    params = posterior.sample(key, (draws,))
    values = jax.lax.map(lambda one: {name: f(one) for name, f in functions}, params)
    return {name: value[None] for name, value in values.items()}


def draws_dataset(arrays: Mapping[str, Array], attrs: Mapping[str, Any]) -> Dataset:
    """A data set of arrays whose first axes are chain and draw."""
    from xarray import Dataset

    data: dict[str, tuple[list[str], np.ndarray]] = {}
    coords: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        others = [f"{name}_dim_{i}" for i in range(np.ndim(array) - 2)]
        data[name] = (["chain", "draw", *others], np.asarray(array))
        sizes = zip(["chain", "draw", *others], np.shape(array), strict=True)
        coords |= {dim: np.arange(size) for dim, size in sizes}
    return Dataset(data, coords, dict(attrs))
