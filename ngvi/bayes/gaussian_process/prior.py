"""A Gaussian process as a linear function of standard normal numbers.

With K = L Lᵀ the covariance of the process at inducing inputs Z, and u ~ N(0, I),

    f(Z) = L u,    f(x) = aᵀu + rest,   a = L⁻¹ k(Z, x),   rest ~ N(0, k(x, x) − aᵀa).

With Z = X the rows a of the data are those of L, and there is no rest: the exact
process. Otherwise the rest of each datum is taken to be independent of all others,
which makes a bound of what is then computed, not an error in it.

Every algorithm moves q(u). In these coordinates its prior is the identity: no inverse
of K is met, and a change of the kernel's parameters carries q(u) along.

Source: Titsias (2009), Variational learning of inducing variables in sparse Gaussian
processes; Hensman, Matthews and Ghahramani (2015), Scalable variational Gaussian
process classification, section 3, for the whitened form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ngvi.families import Gaussian
from ngvi.linalg import Dense


class Rows(NamedTuple):
    """f at some inputs: aᵀu and what is left."""

    weights: Float[Array, "n m"]
    """a, a row for each input."""
    rest: Float[Array, "n"]
    """The variance that u does not explain."""


class Marginals(NamedTuple):
    """q(f) at each input."""

    mean: Float[Array, "n"]
    variance: Float[Array, "n"]


def covariance(kernel: Any, x: Float[Array, "m d"]) -> Float[Array, "m m"]:
    """K, with a few units of rounding on its diagonal."""
    values = kernel(x, x)
    nugget = 10 * jnp.finfo(values.dtype).eps * len(x) * kernel.diagonal(x).mean()
    return values + nugget * jnp.eye(len(x))


def root(kernel: Any, inducing: Float[Array, "m d"]) -> Float[Array, "m m"]:
    """L."""
    return jnp.linalg.cholesky(covariance(kernel, inducing))


def exact_rows(lower: Float[Array, "n n"]) -> Rows:
    """Those of the inducing inputs themselves."""
    return Rows(lower, jnp.zeros(len(lower), lower.dtype))


def rows(
    kernel: Any,
    lower: Float[Array, "m m"],
    inducing: Float[Array, "m d"],
    x: Float[Array, "n d"],
) -> Rows:
    """Those of any inputs."""
    weights = solve_triangular(lower, kernel(inducing, x), lower=True).T
    rest = kernel.diagonal(x) - (weights**2).sum(-1)
    return Rows(weights, jnp.maximum(rest, 0))


def standard(size: int, dtype: Any) -> Gaussian:
    """The prior of u."""
    eye = jnp.eye(size, dtype=dtype)
    return Gaussian(jnp.zeros(size, dtype), Dense(eye, eye))


def marginals(q: Gaussian, rows: Rows) -> Marginals:
    """q(f) at each input: N(aᵀm, aᵀS⁻¹a + rest)."""
    spread = rows.weights @ q.precision.inverse_root
    return Marginals(rows.weights @ q.mean, (spread**2).sum(-1) + rows.rest)


def divergence(q: Gaussian) -> Float[Array, ""]:
    """KL(q(u) ‖ N(0, I))."""
    trace = (q.precision.inverse_root**2).sum()
    return (trace + q.mean @ q.mean - q.dim + q.precision.logdet()) / 2
