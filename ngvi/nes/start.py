"""Where a search starts: x0, the first standard deviations and the bounds, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.nes.bounds import as_limits, make_box, round_inward
from ngvi.nes.lattice import Domain, Lattice, as_mask, make_lattice, whole_limits
from ngvi.nes.layout import Layout, numbers_like_x0


@dataclass(frozen=True)
class Start:
    """The numbers a search starts from."""

    layout: Layout
    x0: Float[Array, "d"]
    sigma: Float[Array, "d"]
    lower: np.ndarray
    upper: np.ndarray
    whole: np.ndarray
    """Which numbers must be integers."""
    box: Domain | None

    @classmethod
    def of(cls, x0: Any, sigma0: Any, bounds: Any, integrality: Any = None) -> Self:
        """From what a user gives.

        Args:
            x0: an array, or a pytree of arrays.
            sigma0: one number, one for each number of x0, or a pytree like x0. None is
                .3 of the width between two bounds, so that ±1.7 σ spans it, and
                elsewhere .3 max(1, |x0|): the size of x0 is the only scale there is.
                The width of integers is their number.
            bounds: see `ngvi.nes.bounds.as_limits`; None for none.
            integrality: see `ngvi.nes.lattice.as_mask`. An integer's x0 may lie between
                two, as the mean of its first draws.

        Raises:
            TypeError: x0 is no real pytree.
            ValueError: something empty, NaN, not positive, of the wrong length, or x0
                outside the bounds.
        """
        layout, point = Layout.of(x0)
        infinite = np.full(layout.dim, np.inf, point.dtype)
        lower, upper = -infinite, infinite
        if bounds is not None:
            lower, upper = as_limits(bounds, layout.dim)
            lower, upper = round_inward(lower, upper, point.dtype)
        whole = as_mask(integrality, layout.dim)
        low, high = whole_limits(whole, lower, upper)
        with np.errstate(invalid="ignore", over="ignore"):
            sigma = _as_sigma(sigma0, point, high - low + whole)
        box: Domain | None = make_box(lower, upper, point, sigma)
        lower, upper = low, high
        if box is not None:
            # The bounds may have been rounded inward.
            point = jnp.clip(point, jnp.asarray(lower), jnp.asarray(upper))
        if whole.any():
            box = make_lattice(whole, lower, upper, point, sigma)
        return cls(layout, point, sigma, lower, upper, whole, box)

    @property
    def point(self) -> Float[Array, "d"]:
        """x0 as a point that may be evaluated."""
        return self.box.place(self.x0) if isinstance(self.box, Lattice) else self.x0

    @property
    def dim(self) -> int:
        """D."""
        return self.layout.dim


def _as_sigma(
    sigma0: Any, x0: Float[Array, "d"], width: np.ndarray
) -> Float[Array, "d"]:
    if sigma0 is None:
        free = np.maximum(1, np.abs(np.asarray(x0)))
        return jnp.asarray(0.3 * np.where(np.isfinite(width), width, free), x0.dtype)
    sigma = jnp.asarray(numbers_like_x0("sigma0", sigma0, x0.size), x0.dtype)
    if not bool((jnp.isfinite(sigma) & (sigma > 0)).all()):
        raise ValueError(f"sigma0 must be positive and finite, got {sigma0}")
    return jnp.broadcast_to(sigma, x0.shape)
