"""Every family's counterpart in `numpyro.distributions`, there and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import ngvi.families
from ngvi.families import from_numpyro
from tests.families.cases import FAMILIES, Case, has, members
from tests.families.checks import close
from tests.programs import compiled

BATCH, COUNT = (3,), 6


def _has_counterpart(case: Case) -> bool:
    return has(case.family, "to_numpyro") or bool(case.family.numpyro_names)


COUNTERPARTS = [c for c in FAMILIES if _has_counterpart(c)]
NONE = [c for c in FAMILIES if not _has_counterpart(c)]


@compiled
def _log_probs(q: Any, key: Array) -> tuple[Array, Array, Array]:
    x = q.sample(key, (COUNT,))
    other = q.to_numpyro()
    again = from_numpyro(other)
    if isinstance(q, ngvi.families.Mixture):
        # NumPyro has the marginal distribution.
        x = x[1]
        return q.marginal_log_prob(x), other.log_prob(x), again.marginal_log_prob(x)
    return q.log_prob(x), other.log_prob(x), again.log_prob(x)


@pytest.mark.parametrize("case", COUNTERPARTS, ids=lambda c: c.name)
def test_there_and_back(case: Case) -> None:
    """The same log density there, and again on return."""
    (q,) = members(case, 0, BATCH, count=1)
    mine, theirs, again = _log_probs(q, jax.random.key(1))
    close(mine, theirs, 1e-9 * (1 + np.abs(theirs)), "there")
    close(again, mine, 1e-9 * (1 + np.abs(mine)), "and back")


@pytest.mark.parametrize("case", COUNTERPARTS, ids=lambda c: c.name)
def test_numpyro_names(case: Case) -> None:
    """Each is a class there, and what `to_numpyro` returns is one a family takes."""
    (q,) = members(case, 0, (), count=1)
    for name in case.family.numpyro_names:
        assert inspectable(name), name
    if case.family.numpyro_names:
        assert type(from_numpyro(q.to_numpyro())) is case.family


def inspectable(name: str) -> bool:
    """Whether numpyro.distributions has a class of this name, exported or not."""
    modules = (dist, dist.continuous, dist.discrete, dist.conjugate, dist.mixtures)
    return any(isinstance(getattr(m, name, None), type) for m in modules)


@pytest.mark.parametrize("case", NONE, ids=lambda c: c.name)
def test_families_without_a_counterpart_say_so(case: Case) -> None:
    (q,) = members(case, 0, (), count=1)
    with pytest.raises(NotImplementedError, match=case.family.__name__):
        q.to_numpyro()


SPELLINGS = {
    "BernoulliProbs": lambda: dist.BernoulliProbs(0.3),
    "BernoulliLogits": lambda: dist.BernoulliLogits(-0.4),
    "BinomialProbs": lambda: dist.BinomialProbs(0.3, 4),
    "BinomialLogits": lambda: dist.BinomialLogits(0.3, 4),
    "CategoricalProbs": lambda: dist.CategoricalProbs(jnp.array([0.2, 0.3, 0.5])),
    "CategoricalLogits": lambda: dist.CategoricalLogits(jnp.array([0.2, 0.3, 0.5])),
    "Chi2": lambda: dist.Chi2(3.0),
    "GammaPoisson": lambda: dist.GammaPoisson(2.0, 3.0),
    "GeometricLogits": lambda: dist.GeometricLogits(0.3),
    "GeometricProbs": lambda: dist.GeometricProbs(0.3),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        jnp.ones(2), jnp.ones((2, 1)), jnp.array([0.5, 2.0])
    ),
    "MultinomialLogits": lambda: dist.MultinomialLogits(jnp.array([0.1, 0.5]), 4),
    "MultinomialProbs": lambda: dist.MultinomialProbs(jnp.array([0.1, 0.9]), 4),
    "NegativeBinomial2": lambda: dist.NegativeBinomial2(2.0, 3.0),
    "NegativeBinomialLogits": lambda: dist.NegativeBinomialLogits(2, 0.3),
    "NegativeBinomialProbs": lambda: dist.NegativeBinomialProbs(2, 0.3),
}
"""Distributions that NumPyro has under several names."""


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings(name: str) -> None:
    other = SPELLINGS[name]()
    assert type(other).__name__ == name
    x = other.sample(jax.random.key(0), (5,))
    expected = other.log_prob(x)
    q = from_numpyro(other)
    close(q.log_prob(x), expected, 1e-9 * (1 + np.abs(expected)), name)


EXPANDED = {
    "numbers": lambda: dist.Gamma(2.0, 3.0).expand((4,)),
    "vectors": lambda: dist.Normal(jnp.arange(3.0), 1.0).to_event(1),
    "a batch of vectors": lambda: (
        dist.Normal(jnp.arange(3.0), 1.0).to_event(1).expand((2,))
    ),
    "matrices": lambda: (
        dist.Normal(jnp.arange(6.0).reshape(2, 3), 1.0).to_event(1).to_event(1)
    ),
    # λ = −σ⁻ᵏ is no number here.
    "tiny": lambda: dist.Weibull(1e-200, 2.0).expand((2,)),
}
"""Batches, and joint distributions of their members."""


@pytest.mark.parametrize("name", EXPANDED)
def test_expanded_and_independent_distributions(name: str) -> None:
    other = EXPANDED[name]()
    q = from_numpyro(other)
    assert (q.batch_shape, q.event_shape) == (other.batch_shape, other.event_shape)
    x = other.sample(jax.random.key(0), (2,))
    close(q.log_prob(x), other.log_prob(x), 1e-12 * np.abs(other.log_prob(x)))


def test_an_expanded_mixture_of_vectors() -> None:
    vectors = dist.Normal(jnp.arange(6.0).reshape(2, 3), 1.0).to_event(1)
    mixing = dist.Categorical(logits=jnp.array([0.1, 0.5]))
    other = dist.MixtureSameFamily(mixing, vectors).expand((4,))
    q, x = from_numpyro(other), other.sample(jax.random.key(0), (2,))
    assert (q.batch_shape, q.event_shape) == ((4,), ((), (3,)))
    close(q.marginal_log_prob(x), other.log_prob(x), 1e-12)


def test_a_stranger_is_named() -> None:
    with pytest.raises(TypeError, match="Cauchy"):
        from_numpyro(dist.Cauchy(0.0, 1.0))
