"""What "equal" means here: up to rounding, conditioning, or Monte Carlo error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tests.families.cases import STANDARD_ERRORS

TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-4}
"""Relative, of results that are well conditioned."""


def roundings(dtype: Any) -> float:
    """What a few hundred roundings do to a sum, relative to its largest terms."""
    return 500 * float(np.finfo(dtype).eps)


def same(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Two pytrees agree, relative to the largest entry of each leaf."""
    left, right = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, b in zip(left, right, strict=True):
        scale = max(np.abs(b).max(initial=0.0), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def close(actual: Any, expected: Any, allowed: Any, what: str = "") -> None:
    """Arrays agree up to an error allowed entry by entry; NaN agrees with nothing."""
    actual, expected, allowed = np.broadcast_arrays(actual, expected, allowed)
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(actual - expected) <= allowed) | (actual == expected))
    if wrong.any():
        i = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {wrong.size} entries differ, the first at "
            f"{i}: {actual[i]!r}, expected {expected[i]!r} ± {allowed[i]:.2g}"
        )


class Estimate:
    """A mean over draws and its standard error, made inside a compiled program."""

    def __init__(self, mean: Array, error: Array) -> None:
        self.mean, self.error = mean, error


jax.tree_util.register_pytree_node(
    Estimate, lambda e: ((e.mean, e.error), None), lambda _, c: Estimate(*c)
)


def estimate(values: Float[Array, "n *s"]) -> Estimate:
    """The mean over the first axis."""
    error = values.std(0) / jnp.sqrt(values.shape[0])
    return Estimate(values.mean(0), error)


def agrees(found: Estimate, expected: Any, what: str = "") -> None:
    """An estimate's error is within its standard error, and the last digits'."""
    rounding = 1e-10 * (np.abs(expected) + np.abs(found.mean)) + 1e-12
    close(found.mean, expected, STANDARD_ERRORS * found.error + rounding, what)


def within_error(samples: Any, expected: Any) -> None:
    """The means over axis 0 of a pytree agree up to their own standard errors."""
    for s, e in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        s = np.asarray(s)
        error = s.std(0) / np.sqrt(len(s))
        np.testing.assert_array_less(
            np.abs(s.mean(0) - e), STANDARD_ERRORS * error + 1e-12
        )
