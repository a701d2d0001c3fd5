"""Small log densities that the tests of the step, the estimates and the loop share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from ngvi.mirror.estimates import (
    Estimate,
    Estimator,
    FirstOrder,
    Potential,
    second_order,
    zeroth_order,
)
from ngvi.mirror.step import Direction, gaussian_path

STRUCTURES = {"dense": Dense, "diagonal": Diagonal}
KEEP: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dense": lambda m: (m + m.T) / 2,
    "diagonal": lambda m: np.diag(np.diag(m)),
}
"""What each structure keeps of a matrix, as a dense array."""
every_structure = pytest.mark.parametrize("name", list(STRUCTURES))
ESTIMATORS = {
    "zeroth": zeroth_order,
    "first": FirstOrder,
    "second": second_order,
}


def fresh_draws(key: jax.Array, count: int, dim: int) -> jax.Array:
    """Antithetic normals, as few as are asked for."""
    half = jax.random.normal(key, (count // 2, dim))
    return jnp.concatenate([half, -half])


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal to a tolerance relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def positive(rng: np.random.Generator, dim: int) -> np.ndarray:
    """A positive-definite matrix with correlations and uneven units."""
    factor = rng.standard_normal((dim, 2 * dim + 2))
    units = np.exp(rng.standard_normal(dim) / 2)
    return (factor @ factor.T / (2 * dim) + 0.1 * np.eye(dim)) * np.outer(units, units)


def symmetric(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Symmetric and usually indefinite."""
    matrix = rng.standard_normal((dim, dim))
    return (matrix + matrix.T) / 2


def gaussian(name: str, rng: np.random.Generator, dim: int) -> Gaussian:
    """A random Gaussian in a frame that is as generic as the structure has."""
    matrix = KEEP[name](positive(rng, dim))
    precision: PositiveDefinite
    if name == "dense":
        rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        root = np.linalg.cholesky(matrix) @ rotation
        precision = Dense(jnp.asarray(root), jnp.asarray(np.linalg.inv(root).T))
    else:
        precision = Diagonal(jnp.asarray(np.sqrt(np.diag(matrix))))
    return Gaussian(jnp.asarray(rng.standard_normal(dim)), precision)


def roots(p: PositiveDefinite) -> tuple[np.ndarray, np.ndarray]:
    """B and A as arrays."""
    eye = jnp.eye(p.dim)
    return np.asarray(p.whiten(eye)), np.asarray(p.unwhiten(eye)).T


class Quadratic(NamedTuple):
    """ℓ(z) = ½ zᵀHz − bᵀz + c, a pytree that may be traced."""

    h: np.ndarray
    b: np.ndarray
    c: float

    def __call__(self, z: jax.Array) -> jax.Array:
        return z @ self.h @ z / 2 - self.b @ z + self.c


def quadratic(rng: np.random.Generator, dim: int, definite: bool = True) -> Quadratic:
    """A random quadratic; of an indefinite one no optimum exists."""
    h = positive(rng, dim) if definite else symmetric(rng, dim)
    return Quadratic(h, rng.standard_normal(dim), float(rng.standard_normal()))


class Logistic(NamedTuple):
    """A logistic regression with a skew prior, wᵢ = log of a Gamma variable, of which
    the parameters are seen through an affine map: w = T z + c."""

    x: np.ndarray
    y: np.ndarray
    transform: np.ndarray
    shift: np.ndarray
    constant: float = 0.0

    def __call__(self, z: jax.Array) -> jax.Array:
        w = self.transform @ z + self.shift
        logits = self.x @ w
        likelihood = jnp.logaddexp(0.0, logits).sum() - self.y @ logits
        return likelihood + (jnp.exp(w) - 1.5 * w).sum() + self.constant


def logistic(dim: int = 4, rows: int = 15, seed: int = 0) -> Logistic:
    """Data from the model, in the parameters' own coordinates."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim))
    probability = 1 / (1 + np.exp(-x @ rng.standard_normal(dim)))
    y = (rng.random(rows) < probability).astype(float)
    return Logistic(x, y, np.eye(dim), np.zeros(dim))


class Gumbel(NamedTuple):
    """ℓ(z) = Σ exp(wᵢ) − aᵢ wᵢ, w = T z: log Gamma variables, mixed. The best Gaussian
    in w is known: variances 1/aᵢ and means log aᵢ − 1/(2aᵢ)."""

    a: np.ndarray
    t: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        w = self.t @ z
        return (jnp.exp(w) - self.a * w).sum()

    def optimum(self) -> Gaussian:
        inverse = np.linalg.inv(self.t)
        precision = self.t.T @ np.diag(self.a) @ self.t
        return Gaussian(
            jnp.asarray(inverse @ (np.log(self.a) - 1 / (2 * self.a))),
            Dense.from_dense(jnp.asarray(precision)),
        )


def skewed(*a: float) -> Gumbel:
    """The smaller a, the more skewed."""
    return Gumbel(
        np.array(a), np.random.default_rng(3).standard_normal((len(a), len(a)))
    )


def smooth(z: jax.Array) -> jax.Array:
    """Neither quadratic nor symmetric nor convex, with moderate tails."""
    twisted = jnp.sin(z[0]) * z[-1] + jnp.logaddexp(0.0, z.sum())
    return twisted + 0.3 * (z**2).sum() + 0.1 * (z**3).sum() / (1 + z @ z)


gradients = jax.jit(jax.vmap(jax.grad(smooth)))
hessians = jax.jit(jax.vmap(jax.hessian(smooth)))


@partial(jax.jit, static_argnums=(0, 1))
def estimate(
    estimator: Estimator, potential: Potential, q: Gaussian, eps: jax.Array
) -> Estimate:
    """One estimate, compiled once for an estimator, a potential and a shape."""
    return estimator(potential, q, eps)


@partial(jax.jit, static_argnums=0)
def estimate_quadratic(
    estimator: Estimator, target: Quadratic, q: Gaussian, eps: jax.Array
) -> Estimate:
    """The same for a quadratic that is traced."""
    return estimator(target, q, eps)


@partial(jax.jit, static_argnums=3)
def take(
    q: Gaussian, direction: Direction, rho: float, retraction: Callable
) -> Gaussian:
    """A step from q."""
    return gaussian_path(q, direction, retraction)(rho).q


def truth(
    name: str, q: Gaussian, target: Quadratic, temperature: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """E_q[ℓ], γ and M of a quadratic ℓ."""
    a, m = roots(q.precision)[1], np.asarray(q.mean)
    value = float(target(m)) + np.trace(target.h @ a @ a.T) / 2
    gamma = a.T @ (target.h @ m - target.b)
    error = KEEP[name](a.T @ target.h @ a) - temperature * np.eye(q.dim)
    return value, gamma, error
