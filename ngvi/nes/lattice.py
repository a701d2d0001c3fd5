"""Coordinates that are integers, by a margin that keeps all of them in play.

The search distribution is a Gaussian in y as ever; a point x has the integer nearest to
y_j, within its bounds. Where a coordinate's distribution lies in one integer's interval
all draws are equal there, nothing can be learnt of it, and its deviation only shrinks.
So after each generation every integer coordinate keeps, with α = 1/(nD), of

    P(y_j < z − ½) and P(y_j > z + ½), at least α/2 each,        z the mean's integer,

and at an end of its bounds α of the one side that there is: about one draw of a
generation differs from the mean's integers. To that end the deviation gets a floor, at
which a mean of an integer's own value has both margins, and the mean goes as far back
as they ask for. All other marginals and all correlations stay.

The tests of convergence see the distribution as if it had not been widened: the scale
they compare deviations with is widened along.

Source: Hamano, Saito, Nomura and Shirakawa (2022), CMA-ES with margin: lower-bounding
marginal probability for mixed-integer black-box optimization. There a matrix beside the
covariance widens the draws, and where only one margin is short the other probability is
kept. A mean that moves in the widened units would then wander off between integers, and
draws that fall on others for no reason would shorten all steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.nes import search
from ngvi.nes.bounds import Box, make_box
from ngvi.nes.layout import numbers_like_x0
from ngvi.pytrees import pytree


@pytree
class Lattice:
    """Which coordinates are integers, with the bounds of all of them."""

    whole: Bool[Array, "d"]
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]
    box: Box | None
    """The bounds of the others."""

    def place(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """x(y)."""
        x = y if self.box is None else self.box.place(y)
        return jnp.where(self.whole, self._nearest(y), x)

    def invert(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """A y with x(y) = x."""
        y = x if self.box is None else self.box.invert(x)
        return jnp.where(self.whole, x, y)

    def _nearest(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        integer = jnp.round(y)
        # No negative zeros.
        integer = jnp.where(integer == 0, 0, integer)
        return jnp.clip(integer, self.lower, self.upper)

    def keep_margin(
        self, state: search.State, scale: Float[Array, "d"], popsize: int
    ) -> tuple[search.State, Float[Array, "d"]]:
        """The distribution with the margins, and the scale that goes with it.

        Args:
            state: its distribution is moved.
            scale: the standard deviations that tests compare with.
            popsize: n.

        Raises:
            ValueError: the coordinates have no deviations of their own.
        """
        q = state.q
        if not isinstance(q.precision, Dense | Diagonal):
            raise ValueError(
                "integrality needs a deviation for each coordinate: use the method "
                "'cma', 'sep-cma', 'xnes' or 'snes'"
            )
        integer = self._nearest(q.mean)
        low, high = integer - 0.5, integer + 0.5
        has_low, has_high = integer > self.lower, integer < self.upper
        margin = 1 / (popsize * q.dim)
        sd = jnp.sqrt(q.variance)
        wide = jnp.where(self.whole, jnp.maximum(sd, -0.5 / ndtri(margin / 2)), sd)
        # How far from either end of the interval the mean may be.
        reach = -wide * ndtri(jnp.where(has_low & has_high, margin / 2, margin))
        mean = jnp.where(has_high, jnp.maximum(q.mean, high - reach), q.mean)
        mean = jnp.where(has_low, jnp.minimum(mean, low + reach), mean)
        wider = wide / sd
        moved = Gaussian(
            jnp.where(self.whole, mean, q.mean), q.precision.stretch(wider)
        )
        return replace(state, q=moved), scale * wider


Domain = Box | Lattice
"""Where points may lie."""


def make_lattice(
    whole: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    x0: Float[Array, "d"],
    sigma: Float[Array, "d"],
) -> Lattice:
    """The lattice with these limits, which are integers where `whole` says so."""
    box = make_box(
        np.where(whole, -np.inf, lower), np.where(whole, np.inf, upper), x0, sigma
    )
    return Lattice(jnp.asarray(whole), jnp.asarray(lower), jnp.asarray(upper), box)


def as_mask(integrality: Any, dim: int) -> np.ndarray:
    """Which coordinates are integers.

    Args:
        integrality: 0 or 1, for all, for each number of x0, or a pytree like it; None
            for none.
        dim: D.

    Raises:
        ValueError: other numbers, or another count of them.
    """
    flags = numbers_like_x0("integrality", integrality, dim)
    if flags.dtype.kind not in "fiub" or not np.isin(flags, (0, 1)).all():
        raise ValueError(
            "integrality must be 1 where a number must be an integer, elsewhere 0, got "
            f"{integrality}"
        )
    return np.broadcast_to(flags != 0, (dim,))


def whole_limits(
    whole: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest integer between two bounds, where `whole` says so.

    Raises:
        ValueError: there are not two of them.
    """
    low = np.where(whole, np.ceil(lower), lower)
    high = np.where(whole, np.floor(upper), upper)
    bad = np.flatnonzero(low >= high)
    if bad.size:
        i = int(bad[0])
        count = "no integer lies" if low[i] > high[i] else "only one integer lies"
        raise ValueError(
            f"at position {i} {count} between the bounds {lower[i]:g} and {upper[i]:g};"
            " leave out of x0 what is fixed"
        )
    return low, high
