"""The exponential families that ngvi and efax both have, with random members.

efax orders, stacks and shifts natural parameters in its own way; a case says how.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ngvi import families
from ngvi.linalg import Dense, Diagonal

# What efax's solvers would raise inside a program counts as NaN.
os.environ.setdefault("EQX_ON_ERROR", "nan")
import efax


class Case(NamedTuple):
    """A family in both libraries."""

    member: Callable[[np.random.Generator, int], Any]
    """(random generator, batch) ↦ a batch of members of ours."""
    theirs: Callable[[Any], Any]
    """The same members as efax's natural parametrisation, from ours."""


def wide(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Positive numbers over four orders of magnitude."""
    return np.exp(rng.normal(size=shape) * 1.5)


def matrices(rng: np.random.Generator, batch: int, dim: int) -> np.ndarray:
    factor = rng.normal(size=(batch, dim, 2 * dim))
    return factor @ factor.swapaxes(-1, -2) / dim + 0.1 * np.eye(dim)


def logits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return 2 * rng.normal(size=shape)


def pair(name: str, first: int = 0, second: int = 1) -> Callable[[Any], Any]:
    """efax's class of two natural parameters, taken from ours in this order."""

    def build(q: Any) -> Any:
        params = q.natural_params
        return getattr(efax, name)(params[first], params[second])

    return build


def single(name: str) -> Callable[[Any], Any]:
    return lambda q: getattr(efax, name)(q.natural_params)


CASES = {
    "Normal": Case(
        lambda r, n: families.Normal(r.normal(size=n), wide(r, n)), pair("NormalNP")
    ),
    "LogNormal": Case(
        lambda r, n: families.LogNormal(r.normal(size=n), wide(r, n)),
        pair("LogNormalNP"),
    ),
    "Gamma": Case(
        lambda r, n: families.Gamma(wide(r, n), wide(r, n)), pair("GammaNP", 1, 0)
    ),
    "InverseGamma": Case(
        lambda r, n: families.InverseGamma(wide(r, n), wide(r, n)),
        lambda q: efax.InverseGammaNP(q.natural_params[1], -q.natural_params[0] - 2),
    ),
    "ChiSquared": Case(
        lambda r, n: families.ChiSquared(wide(r, n)),
        lambda q: efax.ChiSquareNP(q.natural_params),
    ),
    "Exponential": Case(
        lambda r, n: families.Exponential(wide(r, n)), single("ExponentialNP")
    ),
    "Rayleigh": Case(lambda r, n: families.Rayleigh(wide(r, n)), single("RayleighNP")),
    "Weibull": Case(
        lambda r, n: families.Weibull(wide(r, n), concentration=1.5),
        lambda q: efax.WeibullNP(jnp.full(q.batch_shape, 1.5), q.natural_params),
    ),
    "InverseGaussian": Case(
        lambda r, n: families.InverseGaussian(wide(r, n), wide(r, n)),
        pair("InverseGaussianNP"),
    ),
    "Beta": Case(
        lambda r, n: families.Beta(wide(r, n), wide(r, n)),
        lambda q: efax.BetaNP(jnp.stack(q.natural_params, -1)),
    ),
    "Dirichlet-3": Case(
        lambda r, n: families.Dirichlet(wide(r, n, 3)), single("DirichletNP")
    ),
    "Dirichlet-30": Case(
        lambda r, n: families.Dirichlet(wide(r, n, 30)), single("DirichletNP")
    ),
    "Bernoulli": Case(
        lambda r, n: families.Bernoulli(logits(r, n)), single("BernoulliNP")
    ),
    "Categorical-10": Case(
        lambda r, n: families.Categorical(logits(r, n, 10)), single("CategoricalNP")
    ),
    "Geometric": Case(
        lambda r, n: families.Geometric(logits(r, n)), single("GeometricNP")
    ),
    "NegativeBinomial": Case(
        lambda r, n: families.NegativeBinomial(logits(r, n), total_count=5),
        lambda q: efax.NegativeBinomialNP(
            q.natural_params, jnp.full(q.batch_shape, 5, jnp.int32)
        ),
    ),
    "Poisson": Case(lambda r, n: families.Poisson(wide(r, n)), single("PoissonNP")),
    "LogSeries": Case(
        lambda r, n: families.LogSeries(logits(r, n)), single("LogarithmicNP")
    ),
    "VonMises": Case(
        lambda r, n: families.VonMises(r.uniform(-3, 3, n), wide(r, n)),
        lambda q: efax.VonMisesFisherNP(jnp.stack(q.natural_params, -1)),
    ),
    "VonMisesFisher-3": Case(
        lambda r, n: families.VonMisesFisher.from_natural(3 * r.normal(size=(n, 3))),
        single("VonMisesFisherNP"),
    ),
    "Wishart-3": Case(
        lambda r, n: families.Wishart(3 + wide(r, n), matrices(r, n, 3)),
        pair("WishartNP", 1, 0),
    ),
    "Gaussian-diagonal-5": Case(
        lambda r, n: families.Gaussian(
            jnp.asarray(r.normal(size=(n, 5))),
            Diagonal.from_entries(jnp.asarray(wide(r, n, 5))),
        ),
        pair("MultivariateDiagonalNormalNP"),
    ),
    "Gaussian-dense-5": Case(
        lambda r, n: families.Gaussian(
            jnp.asarray(r.normal(size=(n, 5))),
            Dense.from_dense(jnp.asarray(matrices(r, n, 5))),
        ),
        pair("MultivariateNormalNP"),
    ),
}


def arguments(case: Case, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the functions take, in ngvi and in efax: two batches of members q and p, the
    mean parameters m of q, and a key k. All floats are float32."""
    rng = np.random.default_rng(0)
    ours = [case.member(rng, batch) for _ in range(2)]
    theirs = [case.theirs(member) for member in ours]
    key, mean = jax.random.key(0), ours[0].mean_params
    same = with_our_numbers(mean, theirs[0].to_exp())
    return (
        {"q": ours[0], "p": ours[1], "m": mean, "k": key},
        {"q": theirs[0], "p": theirs[1], "m": same, "k": key},
    )


def with_our_numbers(mean: Any, theirs: Any) -> Any:
    """efax's mean parameters with the numbers of ours in them: μ → λ magnifies the
    rounding of μ, so both libraries are to start from the same.

    Raises:
        ValueError: none of efax's arrays is one of ours, or all of ours stacked.
    """
    known = jax.tree.leaves(mean)
    if len({leaf.shape for leaf in known}) == 1:
        known.append(jnp.stack(known, -1))
    leaves, structure = jax.tree.flatten(theirs)
    equal = [[k for k in known if nearly_equal(k, leaf)] for leaf in leaves]
    if not any(equal):
        raise ValueError(f"mean parameters of {type(theirs).__name__} are not ours")
    same = [e[0] if e else leaf for e, leaf in zip(equal, leaves, strict=True)]
    return jax.tree.unflatten(structure, same)


def nearly_equal(a: Any, b: Any) -> bool:
    """Whether most entries of two arrays agree to three digits."""
    if a.shape != b.shape:
        return False
    return bool(np.nanmedian(np.abs(a - b) / np.abs(b)) < 1e-3)
