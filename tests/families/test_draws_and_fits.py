"""Draws, maximum likelihood, and products of densities of every family."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ngvi.families import ExponentialFamily
from tests.families.cases import (
    DIM,
    DRAWS,
    Case,
    every_family,
    same,
    seeds,
    within_error,
)


@every_family
@pytest.mark.parametrize("seed", range(3))
def test_draws_have_the_mean_params_as_moments(case: Case, seed: int) -> None:
    q = case.member(np.random.default_rng(seed), 3)
    x = q.sample(jax.random.key(seed), (DRAWS // 2, 2))
    assert x.shape[:2] == (DRAWS // 2, 2)
    event = x.shape[2:]
    assert q.sample(jax.random.key(seed)).shape == event
    within_error(q.sufficient_statistics(x.reshape(DRAWS, *event)), q.mean_params)


@jax.jit
def _fits(
    q: ExponentialFamily, x: jax.Array, weights: jax.Array, repeated: jax.Array
) -> tuple[Any, ...]:
    """Mean parameters of fits, those they should have, and the likelihood's slope."""
    statistics = q.sufficient_statistics(repeated)
    best = q.fit(x, weights)
    fits = [best, q.fit(x, 3.7 * weights), q.fit(repeated)]

    def likelihood(params: Any) -> jax.Array:
        return q.with_natural_params(params).log_prob(repeated).mean()

    return (
        [member.mean_params for member in fits],
        jax.tree.map(lambda t: t.mean(0), statistics),
        jax.grad(likelihood)(best.natural_params),
        jax.tree.map(lambda t: jnp.abs(t).max(), statistics),
    )


@every_family
@given(seed=seeds)
def test_fit_matches_moments_and_maximises_the_likelihood(
    case: Case, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    q, start = case.member(rng, DIM), case.member(rng, DIM)
    x = q.sample(jax.random.key(seed % 1000), (12,))
    weights = rng.permutation([0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4])
    repeated = jnp.repeat(x, weights, axis=0)
    fits, average, slope, scale = _fits(start, x, jnp.asarray(weights, float), repeated)
    for mean_params in fits:
        same(mean_params, average, 1e-8)
    for leaf, size in zip(jax.tree.leaves(slope), jax.tree.leaves(scale), strict=True):
        np.testing.assert_allclose(leaf, 0, atol=1e-8 * max(float(size), 1.0))


@jax.jit
def _product(members: list[ExponentialFamily], x: jax.Array) -> tuple[jax.Array, ...]:
    first, *others = members
    logs = jnp.stack([member.log_prob(x) for member in members])
    return first.conjugate_sum(*others).log_prob(x) - logs.sum(0), jnp.abs(logs).max()


@every_family
@given(seed=seeds)
def test_conjugate_sum_multiplies_densities(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = [case.member(rng, DIM) for _ in range(3)]
    x = members[0].sample(jax.random.key(seed % 1000), (6,))
    # Up to the constant that normalises the product.
    differences, scale = _product(members, x)
    np.testing.assert_allclose(
        differences, np.full(6, differences[0]), atol=1e-9 * (1 + scale)
    )


@every_family
def test_members_pass_through_jit_and_vmap(case: Case) -> None:
    rng = np.random.default_rng(0)
    members = [case.member(rng, 3) for _ in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    keys = jax.random.split(jax.random.key(0), 4)

    def summary(q: ExponentialFamily, key: jax.Array) -> Any:
        x = q.sample(key, (8,))
        return q.log_prob(x), q.entropy(), q.kl(q.fit(x)), x

    together = jax.jit(jax.vmap(summary))(stacked, keys)
    alone = jax.jit(summary)
    for i, member in enumerate(members):
        one = alone(member, keys[i])
        same(jax.tree.map(lambda leaf, i=i: leaf[i], together), one)
