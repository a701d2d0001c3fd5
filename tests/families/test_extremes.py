"""Single precision at the ends of the range: right values and finite derivatives.

What is right is the same formula in double precision, which other tests compare with
SciPy's and with its own identities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ngvi.families as f
from ngvi.linalg import Dense
from tests.families.cases import double
from tests.families.checks import close
from tests.programs import compiled

SHAPES = np.float32(10.0) ** np.arange(-6, 9, dtype=np.float32)


def _precision(condition: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    root = np.sqrt(np.geomspace(1 / condition, 1, 4))
    # In units that differ, as of data that nobody scaled.
    return np.diag(root) @ (np.eye(4) + 0.5 * vectors @ vectors.T) @ np.diag(root)


def _unit(dim: int) -> np.ndarray:
    vector = np.random.default_rng(dim).standard_normal(dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


Pair = tuple[Any, Any]

EXTREMES: dict[str, Callable[[], Pair]] = {
    "gamma": lambda: (
        f.Gamma(SHAPES, np.float32(2.0)),
        f.Gamma(SHAPES * np.float32(1.5), np.float32(3.0)),
    ),
    "inverse-gamma": lambda: (
        f.InverseGamma(SHAPES, np.float32(2.0)),
        f.InverseGamma(SHAPES * np.float32(1.5), np.float32(3.0)),
    ),
    "beta": lambda: (
        f.Beta(np.float32([1e-3, 0.5, 3e5, 5e5]), np.float32([1e-3, 1e6, 7e5, 5e5])),
        f.Beta(np.float32([2e-3, 0.7, 4e5, 5.1e5]), np.float32([1e-3, 1e6, 6e5, 5e5])),
    ),
    "dirichlet": lambda: (
        f.Dirichlet(np.float32([[1e5, 4e5, 5e5], [0.1, 1e6, 3.0]])),
        f.Dirichlet(np.float32([[1.1e5, 4e5, 5e5], [0.2, 1e6, 4.0]])),
    ),
    "von-mises": lambda: (
        f.VonMises(np.float32(0.3), np.float32([0.0, 1e-4, 10.0, 1e4])),
        f.VonMises(np.float32(0.31), np.float32([1e-3, 1e-3, 11.0, 1.2e4])),
    ),
    **{
        f"von-mises-fisher-{d}": lambda d=d: (
            f.VonMisesFisher(_unit(d), np.float32([1e-3, 1.0, 500.0, 1e4, 1e6])),
            f.VonMisesFisher(_unit(d), np.float32([2e-3, 2.0, 600.0, 2e4, 2e6])),
        )
        for d in (3, 50, 500)
    },
    "gaussian": lambda: (
        f.Gaussian(
            np.zeros(4, np.float32),
            Dense.from_dense(jnp.asarray(_precision(1e12), jnp.float32)),
        ),
        f.Gaussian(
            np.full(4, 0.1, np.float32),
            Dense.from_dense(jnp.asarray(2 * _precision(1e12), jnp.float32)),
        ),
    ),
    "poisson": lambda: (
        f.Poisson(np.float32([1e-6, 1.0, 1e4, 1e8])),
        f.Poisson(np.float32([2e-6, 1.5, 1.1e4, 1.1e8])),
    ),
    "bernoulli": lambda: (
        f.Bernoulli(np.float32([-80, -20, 0, 20, 80])),
        f.Bernoulli(np.float32([-70, -21, 1, 21, 70])),
    ),
    "categorical": lambda: (
        f.Categorical(np.float32([[-80, 0, 80], [80, 80, -80], [0, 0, 0]])),
        f.Categorical(np.float32([[-70, 0, 75], [79, 80, -80], [0, 1, 0]])),
    ),
    "geometric": lambda: (
        f.Geometric(np.float32([-12, 0, 80])),
        f.Geometric(np.float32([-11, 1, 70])),
    ),
    # Where one component draws, the density of the other is zero.
    "mixture": lambda: (
        f.Mixture(
            np.zeros(2, np.float32),
            f.Gamma(np.float32(2), np.float32([1e-10, 1e30])),
        ),
        f.Mixture(
            np.ones(2, np.float32),
            f.Gamma(np.float32(3), np.float32([2e-10, 2e30])),
        ),
    ),
}
_sample = compiled(lambda q: q.sample(jax.random.key(0)))
each = pytest.mark.parametrize("name", EXTREMES)


def _numbers(q: Any, p: Any, x: Any) -> dict[str, Any]:
    return {"log_prob": q.log_prob(x), "entropy": q.entropy(), "kl": q.kl(p)}


@each
def test_values(name: str) -> None:
    q, p = EXTREMES[name]()
    x = _sample(q)
    found = compiled(_numbers)(q, p, x)
    exact = compiled(_numbers)(double(q), double(p), double(x))
    for what, value in exact.items():
        assert found[what].dtype == jnp.float32
        scale = np.abs(value) + (1 if what != "kl" else 1e-30)
        close(found[what], value, 2e-4 * scale, what)


@each
def test_derivatives_are_finite(name: str) -> None:
    """Of log_prob, entropy, KL and μ, and through the map from μ."""
    q, p = EXTREMES[name]()
    x = _sample(q)

    @compiled
    def slopes(q: Any) -> list[Any]:
        def total(function: Callable[[Any], Any]) -> Any:
            return jax.grad(
                lambda v: sum(
                    jnp.sum(leaf)
                    for leaf in jax.tree.leaves(function(q.with_natural_params(v)))
                )
            )(q.natural_params)

        return [
            total(lambda m: m.log_prob(x)),
            total(lambda m: m.entropy()),
            total(lambda m: m.kl(p)),
            total(lambda m: m.mean_params),
        ]

    for what, slope in zip(("log_prob", "entropy", "kl", "μ"), slopes(q), strict=True):
        for leaf in jax.tree.leaves(slope):
            assert leaf.dtype == jnp.float32
            assert np.isfinite(leaf).all(), what


def test_gamma_from_mean_and_its_derivatives_are_finite() -> None:
    """Up to the largest shape that rounded means can still tell from infinity."""
    q = f.Gamma(SHAPES[:11], np.float32(2.0))
    mean = q.mean_params

    @compiled
    def study(mean: Any) -> tuple[Any, Any]:
        made = f.Gamma.from_mean(mean)
        slope = jax.grad(lambda m: f.Gamma.from_mean(m).concentration.sum())(mean)
        return made, slope

    made, slope = study(mean)
    # The rounding of E[log x] is what is left of log E[x] − E[log x] ≈ 1/(2a).
    lost = (
        4 * np.finfo(np.float32).eps * (1 + np.abs(mean[0])) * (1 + 2 * q.concentration)
    )
    close(made.concentration, q.concentration, q.concentration * (lost + 1e-5))
    assert all(np.isfinite(s).all() for s in slope)
