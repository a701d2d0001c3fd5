"""Bounds, by a smooth map of the whole space onto the box.

In each coordinate, with a margin a at the lower bound l (and its mirror image at the
upper one):

    x(y) = y                          for y ≥ l + a,
    x(y) = l + (y − (l − a))² / 4a    below, a parabola that touches l at y = l − a
                                      and goes on as the mirror image.

So x(y) is the identity but for the margins, its slope is continuous, and an optimum on
the bound is a smooth optimum in y: a distance δ there is one of δ²/4a in x.

Source: the construction is that of Hansen's BoundTransform in pycma.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.pytrees import pytree

# Of the width between two bounds. A single bound has no width; there it is a sixth of
# the first standard deviation, which is .3 widths by default: the same again.
_MARGIN = 1 / 20


@pytree
class Box:
    """Lower and upper bounds, infinite where there is none, and the margins in them."""

    lower: Float[Array, "d"]
    upper: Float[Array, "d"]
    margin: Float[Array, "d"]

    def place(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """x(y), inside the box for every y."""
        low, high = self.lower - self.margin, self.upper + self.margin
        y = _fold(y, low, high)
        a = self.margin
        near_low, near_high = y < self.lower + a, y > self.upper - a
        # Zero where it is not used: the derivative of an infinity squared is NaN.
        rise = jnp.where(near_low, y - low, 0) ** 2 / (4 * a)
        fall = jnp.where(near_high, high - y, 0) ** 2 / (4 * a)
        x = jnp.where(near_low, self.lower + rise, y)
        x = jnp.where(near_high, self.upper - fall, x)
        return jnp.clip(x, self.lower, self.upper)

    def invert(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """The y between the folds with x(y) = x, for x in the box."""
        a = self.margin
        up = self.lower - a + 2 * jnp.sqrt(a * jnp.maximum(x - self.lower, 0))
        down = self.upper + a - 2 * jnp.sqrt(a * jnp.maximum(self.upper - x, 0))
        y = jnp.where(x < self.lower + a, up, x)
        return jnp.where(x > self.upper - a, down, y)


def _fold(
    y: Float[Array, "*b d"], low: Float[Array, "d"], high: Float[Array, "d"]
) -> Float[Array, "*b d"]:
    """Mirror y at both ends until it lies between them."""
    two_sided = jnp.isfinite(low) & jnp.isfinite(high)
    width = jnp.where(two_sided, high - low, 1)
    there = jnp.mod(y - jnp.where(two_sided, low, 0), 2 * width)
    both = low + jnp.minimum(there, 2 * width - there)
    one = jnp.where(y < low, 2 * low - y, jnp.where(y > high, 2 * high - y, y))
    inside = (y >= low) & (y <= high)
    return jnp.where(inside, y, jnp.where(two_sided, both, one))


def as_limits(bounds: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds as vectors, from what SciPy's optimisers accept.

    Args:
        bounds: a `scipy.optimize.Bounds`, or a sequence of D pairs (low, high) where
            None means no bound.
        dim: D.

    Raises:
        ValueError: not D pairs, or NaN.
    """
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        try:
            lower = np.broadcast_to(np.asarray(bounds.lb, float), (dim,))
            upper = np.broadcast_to(np.asarray(bounds.ub, float), (dim,))
        except ValueError as error:
            raise ValueError(
                f"bounds must have length {dim}, x0's, got {np.shape(bounds.lb)} and "
                f"{np.shape(bounds.ub)}"
            ) from error
    else:
        lower, upper = _from_pairs(bounds, dim)
    if np.isnan(lower).any() or np.isnan(upper).any():
        raise ValueError("bounds must not be NaN; None or an infinity means no bound")
    return lower, upper


def _from_pairs(bounds: Sequence[Any], dim: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(bounds)
    if len(pairs) != dim or any(np.size(pair) != 2 for pair in pairs):
        raise ValueError(
            f"bounds must be {dim} pairs (low, high), one a number of x0, got {bounds}"
        )
    lower = [-np.inf if low is None else float(low) for low, _ in pairs]
    upper = [np.inf if high is None else float(high) for _, high in pairs]
    return np.array(lower), np.array(upper)


def round_inward(
    lower: np.ndarray, upper: np.ndarray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds as numbers of a type, none outside of what was given.

    Those beyond the type's largest number are infinite.

    Raises:
        ValueError: there is no room between two bounds.
    """
    infinity, largest = np.asarray(np.inf, dtype), np.finfo(dtype).max
    with np.errstate(over="ignore"):
        low, high = lower.astype(dtype), upper.astype(dtype)
    low = np.where(low < lower, np.nextafter(low, infinity), low)
    high = np.where(high > upper, np.nextafter(high, -infinity), high)
    low = np.where(lower < -largest, -infinity, low)
    high = np.where(upper > largest, infinity, high)
    bad = np.flatnonzero(low >= high)
    if bad.size:
        i = int(bad[0])
        raise ValueError(
            f"bounds must not cross or coincide in {np.dtype(dtype)}: at position {i} "
            f"the lower is {lower[i]:g}, the upper {upper[i]:g}; leave out of x0 what "
            "is fixed"
        )
    return low, high


def make_box(
    lower: np.ndarray,
    upper: np.ndarray,
    x0: Float[Array, "d"],
    sigma: Float[Array, "d"],
) -> Box | None:
    """The box with these limits; None if there are none.

    Raises:
        ValueError: no room between two bounds, or x0 lies outside.
    """
    low, high = round_inward(lower, upper, x0.dtype)
    if not (np.isfinite(low).any() or np.isfinite(high).any()):
        return None
    # A bound that was rounded inward, rounded to the nearest may be one digit off.
    point, infinity = np.asarray(x0), np.asarray(np.inf, x0.dtype)
    outside = np.flatnonzero(
        (point < np.nextafter(low, -infinity)) | (point > np.nextafter(high, infinity))
    )
    if outside.size:
        i = int(outside[0])
        raise ValueError(
            f"x0 must lie inside the bounds: at position {i} it is {float(x0[i]):g}, "
            f"the bounds are {lower[i]:g} and {upper[i]:g}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        width = high - low
    margin = np.where(np.isfinite(width), _MARGIN * width, np.asarray(sigma) / 6)
    return Box(jnp.asarray(low), jnp.asarray(high), jnp.asarray(margin, x0.dtype))
