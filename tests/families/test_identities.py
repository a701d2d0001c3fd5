"""The identities of exponential families: a new family is one row of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpyro.distributions import kl_divergence

from ngvi.families import ExponentialFamily, Gaussian
from ngvi.families.base import pair
from ngvi.linalg import Dense, Diagonal, PositiveDefinite

DRAWS = 20_000
# Two-sided false-alarm rate of one comparison: 2e-8; of a thousand: 2e-5.
STANDARD_ERRORS = 5.6


class Case(NamedTuple):
    """A family, a random member of it, and someone else's log density of a member."""

    name: str
    member: Callable[[np.random.Generator, int], ExponentialFamily]
    log_prob: Callable[[Any, np.ndarray], np.ndarray]


def _precision(rng: np.random.Generator, dim: int) -> np.ndarray:
    factor = rng.standard_normal((dim, 2 * dim + 2))
    units = np.exp(rng.standard_normal(dim) / 2)
    return (factor @ factor.T / (2 * dim) + 0.1 * np.eye(dim)) * np.outer(units, units)


def _gaussian(structure: type[PositiveDefinite]) -> Callable:
    def member(rng: np.random.Generator, dim: int) -> Gaussian:
        precision = structure.from_dense(jnp.asarray(_precision(rng, dim)))
        return Gaussian(jnp.asarray(rng.standard_normal(dim)), precision)

    return member


def _scipy_gaussian(q: Gaussian, x: np.ndarray) -> np.ndarray:
    covariance = np.linalg.inv(q.precision.dense())
    # SciPy drops a leading axis of length one.
    return np.reshape(
        scipy.stats.multivariate_normal(q.mean, covariance).logpdf(x), x.shape[:-1]
    )


FAMILIES = [
    Case("gaussian-dense", _gaussian(Dense), _scipy_gaussian),
    Case("gaussian-diagonal", _gaussian(Diagonal), _scipy_gaussian),
]

every_family = pytest.mark.parametrize("case", FAMILIES, ids=lambda c: c.name)
# Every shape is compiled anew: one dimension only where it could go wrong alone.
dims = st.sampled_from([1, 3])
DIM = 3
seeds = st.integers(0, 2**32 - 1)


def same(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Two pytrees agree, relative to the largest entry of each leaf."""
    left, right = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, b in zip(left, right, strict=True):
        scale = max(np.abs(b).max(initial=0.0), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def within_error(samples: Any, expected: Any) -> None:
    """The means over axis 0 of a pytree agree up to their own standard errors."""
    for s, e in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        s = np.asarray(s)
        error = s.std(0) / np.sqrt(len(s))
        np.testing.assert_array_less(
            np.abs(s.mean(0) - e), STANDARD_ERRORS * error + 1e-12
        )


def tangent(q: ExponentialFamily, rng: np.random.Generator) -> Any:
    """A random direction in λ: what leads from q's λ to a member's with other μ."""
    statistics = q.sufficient_statistics(
        q.sample(jax.random.key(int(rng.integers(99))))
    )
    return jax.tree.map(lambda t: t - t.mean() * rng.standard_normal(), statistics)


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
    within_error(mine - theirs, q.kl(p))
    within_error(-mine, q.entropy())
    within_error(-theirs, q.cross_entropy(p))


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


@every_family
@pytest.mark.parametrize("seed", range(3))
def test_fisher_product_is_the_covariance_of_the_statistics(
    case: Case, seed: int
) -> None:
    # F d = E[(T − μ) ⟨T − μ, d⟩].
    rng = np.random.default_rng(seed)
    q = case.member(rng, 3)
    direction = tangent(q, rng)
    statistics = q.sufficient_statistics(q.sample(jax.random.key(seed), (DRAWS,)))
    centred = jax.tree.map(lambda t, m: t - m, statistics, q.mean_params)
    along = jax.vmap(lambda t: pair(t, direction))(centred)
    products = jax.tree.map(
        lambda t: t * along.reshape(-1, *[1] * (t.ndim - 1)), centred
    )
    within_error(products, q.fisher_product(direction))


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


# -- draws and data -------------------------------------------------------------------


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


# -- Gaussians ------------------------------------------------------------------------

structures = pytest.mark.parametrize("structure", [Dense, Diagonal])


@jax.jit
def _against_numpyro(q: Gaussian, p: Gaussian, x: jax.Array) -> tuple[list, list]:
    mine, other = (
        dist.MultivariateNormal(g.mean, g.precision.inverse_dense()) for g in (q, p)
    )
    theirs = [kl_divergence(mine, other), mine.entropy(), mine.variance]
    return (
        [q.kl(p), q.entropy(), q.variance, q.log_prob(x)],
        [*theirs, mine.log_prob(x)],
    )


@structures
@given(seed=seeds)
def test_gaussian_against_numpyro(structure: type[PositiveDefinite], seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p = _gaussian(structure)(rng, DIM), _gaussian(structure)(rng, DIM)
    same(*_against_numpyro(q, p, jnp.asarray(rng.standard_normal((4, DIM)))), 1e-8)


@structures
@given(seed=seeds)
def test_conjugate_sum_is_bayes_rule_for_a_mean(
    structure: type[PositiveDefinite], seed: int
) -> None:
    # z ~ N(m₀, S₀⁻¹), yᵢ | z ~ N(z, P⁻¹): each datum's term is N(z | yᵢ, P⁻¹).
    rng = np.random.default_rng(seed)
    prior = _gaussian(structure)(rng, DIM)
    noise = _gaussian(structure)(rng, DIM).precision
    y = rng.standard_normal((4, DIM))
    posterior = prior.conjugate_sum(*(Gaussian(jnp.asarray(row), noise) for row in y))
    s0, p = np.asarray(prior.precision.dense()), np.asarray(noise.dense())
    precision = s0 + 4 * p
    mean = np.linalg.solve(precision, s0 @ prior.mean + p @ y.sum(0))
    same(posterior.precision.dense(), precision)
    same(posterior.mean, mean)


@structures
def test_gaussian_place_is_affine_in_the_base_draws(
    structure: type[PositiveDefinite],
) -> None:
    rng = np.random.default_rng(0)
    q = _gaussian(structure)(rng, 3)
    eps = rng.standard_normal((5, 3))
    a = np.asarray(q.place(np.eye(3)) - q.mean).T
    np.testing.assert_allclose(a @ a.T, q.precision.inverse_dense(), atol=1e-12)
    np.testing.assert_allclose(q.place(eps), q.mean + eps @ a.T, atol=1e-12)


class Far(NamedTuple):
    """Two Gaussians whose variance is lost beside their squared mean in float32."""

    q: Gaussian
    p: Gaussian
    means: np.ndarray
    covariances: list[np.ndarray]

    def kl(self) -> float:
        inverse = np.linalg.inv(self.covariances[1])
        ratio = inverse @ self.covariances[0]
        shift = self.means[1] - self.means[0]
        logdet = np.linalg.slogdet(ratio)[1]
        return (np.trace(ratio) - len(shift) - logdet + shift @ inverse @ shift) / 2

    def entropy(self) -> float:
        return scipy.stats.multivariate_normal(cov=self.covariances[0]).entropy()


@pytest.fixture(params=["dense-0", "dense-1", "diagonal-0", "diagonal-1"])
def far(request: pytest.FixtureRequest) -> Far:
    """m ≈ 1e4 and sd ≈ 0.03: E[z²] holds no digit of the variance in float32."""
    name, seed = request.param.split("-")
    structure = {"dense": Dense, "diagonal": Diagonal}[name]
    rng = np.random.default_rng(int(seed))
    first = (1e4 * (1 + rng.random(3))).astype(np.float32)
    means = np.stack([first, first + np.float32(0.0625)])
    covariances = [np.linalg.inv(_precision(rng, 3)) * 1e-3 for _ in range(2)]
    if structure is Diagonal:
        covariances = [np.diag(np.diag(c)) for c in covariances]
    members = [
        Gaussian(
            jnp.asarray(m),
            structure.from_dense(jnp.asarray(np.linalg.inv(c), jnp.float32)),
        )
        for m, c in zip(means, covariances, strict=True)
    ]
    return Far(*members, means.astype(float), covariances)


def test_far_log_prob(far: Far) -> None:
    x = np.asarray(far.q.sample(jax.random.key(0), (DRAWS,)))
    assert x.dtype == np.float32
    exact = scipy.stats.multivariate_normal(far.means[0], far.covariances[0])
    logs = exact.logpdf(x[:50].astype(float))
    np.testing.assert_allclose(far.q.log_prob(x[:50]), logs, rtol=1e-4, atol=1e-3)
    squares = (x.astype(float) - far.means[0]) ** 2
    within_error(squares, np.diag(far.covariances[0]))


def test_far_divergences(far: Far) -> None:
    np.testing.assert_allclose(far.q.entropy(), far.entropy(), atol=1e-4)
    np.testing.assert_allclose(far.q.kl(far.p), far.kl(), rtol=1e-4)


def test_far_cross_entropy(far: Far) -> None:
    expected = far.kl() + far.entropy()
    np.testing.assert_allclose(far.q.cross_entropy(far.p), expected, rtol=1e-3)


def test_far_fit(far: Far) -> None:
    x = far.q.sample(jax.random.key(0), (DRAWS,))
    exact = np.asarray(x, float)
    for weights in (None, jnp.ones(DRAWS, jnp.float32)):
        fitted = far.q.fit(x, weights)
        assert fitted.mean.dtype == jnp.float32
        np.testing.assert_allclose(fitted.mean, exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(fitted.variance, exact.var(0), rtol=0.01)
