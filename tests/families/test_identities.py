"""The identities that hold for every exponential family."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.flatten_util import ravel_pytree

from ngvi.families import ExponentialFamily
from ngvi.families.base import pair
from tests.families.cases import (
    DIM,
    DRAWS,
    Case,
    dims,
    every_family,
    same,
    seeds,
    tangent,
    within_error,
)

# -- the two coordinate systems -------------------------------------------------------


@jax.jit
def _mean_params(q: ExponentialFamily) -> tuple[Any, Any]:
    return q.mean_params, ExponentialFamily.mean_params.fget(q)


@every_family
@given(seed=seeds)
def test_mean_params_are_the_gradient_of_the_log_partition(
    case: Case, seed: int
) -> None:
    q = case.member(np.random.default_rng(seed), DIM)
    same(*_mean_params(q))


@jax.jit
def _around(q: ExponentialFamily, other: ExponentialFamily) -> tuple[Any, Any]:
    """λ and μ of q, and those of members made from them."""
    made = [
        other.with_natural_params(q.natural_params),
        other.with_mean_params(q.mean_params),
    ]
    return (q.natural_params, q.mean_params), [
        (member.natural_params, member.mean_params) for member in made
    ]


@every_family
@given(dim=dims, seed=seeds)
def test_round_trips(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params, made = _around(case.member(rng, dim), case.member(rng, dim))
    for member in made:
        same(member, params, 1e-8)


@jax.jit
def _log_probs(q: ExponentialFamily, x: jax.Array) -> tuple[jax.Array, ...]:
    return q.log_prob(x), ExponentialFamily.log_prob(q, x), q.log_prob(x[0, 0])


@every_family
@given(dim=dims, seed=seeds)
def test_log_prob(case: Case, dim: int, seed: int) -> None:
    q = case.member(np.random.default_rng(seed), dim)
    x = q.sample(jax.random.key(seed % 1000), (2, 5))
    expected = case.log_prob(q, np.asarray(x))
    own, generic, single = _log_probs(q, x)
    np.testing.assert_allclose(own, expected, atol=1e-9)
    np.testing.assert_allclose(generic, expected, atol=1e-8)
    np.testing.assert_allclose(single, expected[0, 0], atol=1e-9)


@every_family
def test_log_prob_integrates_to_one(case: Case) -> None:
    q = case.member(np.random.default_rng(0), 1)
    x = np.linspace(-60, 60, 200_001)
    density = np.exp(q.log_prob(jnp.asarray(x[:, None])))
    np.testing.assert_allclose(density.sum() * (x[1] - x[0]), 1, atol=1e-9)


# -- divergence and entropy -----------------------------------------------------------


@jax.jit
def _divergences(q: ExponentialFamily, p: ExponentialFamily) -> tuple[list, list]:
    generic = ExponentialFamily
    return (
        [q.kl(p), q.entropy(), q.cross_entropy(p), q.kl(q)],
        [generic.kl(q, p), generic.entropy(q), generic.cross_entropy(q, p)],
    )


@every_family
@given(dim=dims, seed=seeds)
def test_divergences_agree_with_their_generic_definitions(
    case: Case, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own, generic = _divergences(case.member(rng, dim), case.member(rng, dim))
    kl, entropy, cross, nothing = own
    np.testing.assert_allclose(own[:3], generic, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kl, cross - entropy, rtol=1e-9, atol=1e-9)
    assert kl >= 0
    np.testing.assert_allclose(nothing, 0, atol=1e-12 * dim)


@every_family
@pytest.mark.parametrize("seed", range(3))
def test_divergences_are_the_expectations_they_stand_for(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p = case.member(rng, 3), case.member(rng, 3)
    x = q.sample(jax.random.key(seed), (DRAWS,))
    mine, theirs = q.log_prob(x), p.log_prob(x)
    (kl, entropy, cross, _), _ = _divergences(q, p)
    within_error([mine - theirs, -mine, -theirs], [kl, entropy, cross])


@jax.jit
def _remainder(q: ExponentialFamily, direction: Any, h: float) -> jax.Array:
    """KL(q_λ ‖ q_{λ+hd}) − ½h², for d scaled to Fisher length 1."""
    length = jnp.sqrt(pair(direction, q.fisher_product(direction)))
    moved = jax.tree.map(lambda p, d: p + h * d / length, q.natural_params, direction)
    return q.kl(q.with_natural_params(moved)) - h**2 / 2


@every_family
@given(seed=seeds)
def test_kl_is_half_the_squared_fisher_length(case: Case, seed: int) -> None:
    # KL(q_λ ‖ q_{λ+d}) = ½ dᵀF d + O(‖d‖³): the remainder falls eightfold per halving.
    rng = np.random.default_rng(seed)
    q = case.member(rng, DIM)
    direction = tangent(q, rng)
    assert abs(_remainder(q, direction, 1e-3)) < 1e-2 * 1e-6 / 2
    whole = _remainder(q, direction, 1e-2)
    if abs(whole) > 1e-8:
        half = _remainder(q, direction, 5e-3)
        np.testing.assert_allclose(whole / half, 8, rtol=0.1)


# -- the Fisher metric ----------------------------------------------------------------


@jax.jit
def _fisher(q: ExponentialFamily, direction: Any) -> tuple[jax.Array, ...]:
    """F d three ways: the method, the Hessian of A, and differences of μ along d."""
    flat, unravel = ravel_pytree(q.natural_params)
    d = ravel_pytree(direction)[0]
    hessian = jax.hessian(lambda v: q.log_partition(unravel(v)))(flat)
    h = 1e-5 / jnp.linalg.norm(d)

    def mean_at(t: jax.Array) -> jax.Array:
        member = q.with_natural_params(unravel(flat + t * d))
        return ravel_pytree(member.mean_params)[0]

    differences = (mean_at(h) - mean_at(-h)) / (2 * h)
    return ravel_pytree(q.fisher_product(direction))[0], hessian @ d, differences


@every_family
@given(seed=seeds)
def test_fisher_product_is_the_hessian_of_the_log_partition(
    case: Case, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    q = case.member(rng, DIM)
    product, from_hessian, differences = _fisher(q, tangent(q, rng))
    same(product, from_hessian)
    same(differences, product, 1e-4)


@jax.jit
def _covariances(q: ExponentialFamily, direction: Any, key: jax.Array) -> tuple:
    """(T − μ) ⟨T − μ, d⟩ of every draw, and F d."""
    statistics = q.sufficient_statistics(q.sample(key, (DRAWS,)))
    centred = jax.tree.map(lambda t, m: t - m, statistics, q.mean_params)
    along = jax.vmap(lambda t: pair(t, direction))(centred)
    products = jax.tree.map(
        lambda t: t * along.reshape(-1, *[1] * (t.ndim - 1)), centred
    )
    return products, q.fisher_product(direction)


@every_family
@pytest.mark.parametrize("seed", range(3))
def test_fisher_product_is_the_covariance_of_the_statistics(
    case: Case, seed: int
) -> None:
    # F d = E[(T − μ) ⟨T − μ, d⟩].
    rng = np.random.default_rng(seed)
    q = case.member(rng, 3)
    direction = tangent(q, rng)
    within_error(*_covariances(q, direction, jax.random.key(seed)))


@jax.jit
def _gradients(q: ExponentialFamily, p: ExponentialFamily) -> tuple[Any, Any]:
    in_natural = jax.grad(lambda v: q.with_natural_params(v).kl(p))(q.natural_params)
    in_mean = jax.grad(lambda v: q.with_mean_params(v).kl(p))(q.mean_params)
    difference = jax.tree.map(jnp.subtract, q.natural_params, p.natural_params)
    return (in_natural, in_mean), (q.fisher_product(in_mean), difference)


@every_family
@given(seed=seeds)
def test_the_natural_gradient_is_the_gradient_in_mean_params(
    case: Case, seed: int
) -> None:
    # For L = KL(q ‖ p): ∇_λ L = F ∇_μ L, and in closed form ∇_μ L = λ_q − λ_p.
    rng = np.random.default_rng(seed)
    same(*_gradients(case.member(rng, DIM), case.member(rng, DIM)), 1e-7)
