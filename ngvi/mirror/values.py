"""The natural gradient of a Gaussian from values of ℓ alone, by least squares.

In the frame z = m + Aε the fit of

    ℓ(zᵢ) − ½ ‖εᵢ‖²  ≈  c₀ + γᵀ εᵢ + ½ εᵢᵀ M εᵢ

gives γ = Aᵀ E[∇ℓ] and M = Aᵀ E[∇²ℓ] A − I: exactly where ℓ is quadratic, from as many
draws as there are coefficients, and with a noise that vanishes where q is the
posterior, since it is the fit's residual. The score function's estimate (`zeroth_order`
of `ngvi.mirror.estimates`) has the noise of ℓ itself.

Source: Salimans and Knowles (2013), Fixed-form variational posterior approximation
through stochastic linear regression.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ngvi.families import Gaussian
from ngvi.mirror.estimates import Estimate, Potential
from ngvi.mirror.regression import solve_least_squares
from ngvi.mirror.step import Direction


def coefficients(dim: int, full: bool) -> int:
    """How many there are to fit."""
    return 1 + dim + (dim * (dim + 1) // 2 if full else dim)


def by_regression(potential: Potential, q: Gaussian, eps: Array) -> Estimate:
    """An `Estimator` from ℓ at more draws than there are `coefficients`."""
    values = jax.vmap(potential)(q.place(eps))
    mean = values.mean()
    rest = values - mean - (eps**2).sum(-1) / 2
    statistics = q.flatten((eps, q.precision.outer(eps)))
    columns = jnp.concatenate([jnp.ones_like(rest)[:, None], statistics], -1)
    found = solve_least_squares(columns, rest[:, None])[:, 0]
    linear, half = q.unflatten(found[1:])
    noise = ((rest - columns @ found) ** 2).mean() / 2
    return Estimate(
        mean,
        Direction(linear, jax.tree.map(lambda h: 2 * h, half)),
        jnp.full_like(q.mean, noise),
        None,
    )
