"""Maximum likelihood and products of densities of every family."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jaxtyping import Array

from ngvi.families import ExponentialFamily
from tests.families.cases import Case, every_family, members, seeds
from tests.families.checks import close
from tests.families.observations import draws, interior
from tests.programs import compiled

BATCH, COUNT = (8,), 256
# Every example is a batch of fits.
few = settings(max_examples=3)


class Fit(NamedTuple):
    """A fit's mean parameters, those it should have, and the likelihood's slope."""

    mean: Array
    average: Array
    sd: Array
    slope: Array


@compiled
def _fit(q: Any, x: Any, weights: Array) -> Fit:
    best = q.fit(x, weights)
    share = weights / weights.sum()

    def likelihood(params: Any) -> Array:
        logs = q.with_natural_params(params).log_prob(x)
        return jnp.tensordot(share, logs, 1).sum()

    statistics = q.flatten(q.sufficient_statistics(x))
    return Fit(
        mean=q.flatten(best.mean_params),
        average=jnp.tensordot(share, statistics, 1),
        sd=statistics.std(0),
        slope=q.flatten(jax.grad(likelihood)(best.natural_params)),
    )


_sample = compiled(lambda q, key: draws(q, key, COUNT))


@every_family
@few
@given(seed=seeds)
def test_fit(case: Case, seed: int) -> None:
    """The weighted mean of T, which is the likelihood's maximum; weights are counts."""
    q, other = members(case, seed, BATCH)
    rng = np.random.default_rng(seed)
    weights = rng.permutation([0.0, 1.0, 1.0, 2.0] * (COUNT // 4))
    x = _sample(q, jax.random.key(seed % 1000))
    index = np.repeat(np.arange(COUNT), weights.astype(int))
    repeated = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), x)
    found = _fit(other, x, jnp.asarray(weights))
    size = np.abs(found.average) + found.sd
    close(found.mean, found.average, 1e-9 * size, "μ")
    close(found.slope, 0, 1e-8 * size, "slope")
    scaled = _fit(other, x, jnp.asarray(3.7 * weights))
    close(scaled.mean, found.average, 1e-9 * size, "scaled weights")
    counted = _fit(other, repeated, jnp.ones(COUNT))
    close(counted.mean, found.average, 1e-9 * size, "repetitions")


@compiled
def _product(q: Any, p: Any, key: Array) -> tuple[Array, Array, Array]:
    """What the product's log density lacks to the sum of logs: h once, not twice."""
    x = draws(q, key, 16)
    product = q.conjugate_sum(p)
    first, second = q.log_prob(x), p.log_prob(x)
    excess = product.log_prob(x) - first - second + q.log_base_measure(x)
    scale = jnp.maximum(jnp.abs(first), jnp.abs(second)).max(0)
    return excess, scale, q.flatten(product.natural_params).sum(-1)


@every_family
@few
@given(seed=seeds)
def test_conjugate_sum_multiplies_densities(case: Case, seed: int) -> None:
    """Up to a constant; where no member is the product (λ too small), it is NaN."""
    q, p = members(case, seed, (32,))
    excess, scale, natural = _product(q, p, jax.random.key(seed % 1000))
    exists = np.isfinite(natural)
    assert exists.mean() > 0.25
    assert np.isnan(excess[:, ~exists]).all()
    constant = np.broadcast_to(excess[0], excess.shape)
    allowed = np.broadcast_to(1e-9 * (1 + scale), excess.shape)
    close(excess[:, exists], constant[:, exists], allowed[:, exists])


@every_family
def test_fit_names_what_it_cannot_use(case: Case) -> None:
    (q,) = members(case, 0, (), count=1)
    x = interior(q, (3,))
    name = case.family.__name__

    def spoilt(leaf: Array) -> Array:
        return leaf.astype(float).at[1].set(jnp.nan)

    with pytest.raises(ValueError, match=rf"{name}.fit: 1 of 3 observations"):
        q.fit(jax.tree.map(spoilt, x))
    for weights in ([-1.0, 1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match=rf"{name}.fit: the weights must be"):
            q.fit(x, jnp.asarray(weights))


@every_family
def test_only_members_of_one_family_combine(case: Case) -> None:
    class Stranger(ExponentialFamily):
        __init__ = object.__init__

    Stranger.__abstractmethods__ = frozenset()
    (q,) = members(case, 0, (), count=1)
    for combine in (q.kl, q.conjugate_sum):
        with pytest.raises(TypeError, match=case.family.__name__):
            combine(Stranger())
