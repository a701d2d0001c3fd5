"""A family of one's own A and T is the built-in one with the same A and T."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jaxtyping import Array

from ngvi.families import Gamma, from_log_partition
from ngvi.families.domains import POSITIVE
from tests.families.cases import single

Pair = tuple[Array, Array]


def log_partition(params: Pair) -> Array:
    """Of the gamma family; log Γ is finite where a is negative, too."""
    a, b = params[0] + 1, -params[1]
    return jnp.where(a > 0, gammaln(a) - a * jnp.log(b), jnp.inf)


def statistics(x: Array) -> Pair:
    return jnp.log(x), x


def draw(key: Array, params: Pair, shape: tuple[int, ...]) -> Array:
    return jax.random.gamma(key, params[0] + 1, shape) / -params[1]


def own(concentration: float, rate: float, **more: Any) -> Any:
    params = jnp.asarray(concentration - 1), jnp.asarray(-rate)
    more = {"support": POSITIVE, **more}
    return from_log_partition(log_partition, statistics, params, **more)


Q, P = own(3.0, 2.0), own(5.0, 1.5)
GAMMA, OTHER = Gamma(3.0, 2.0), Gamma(5.0, 1.5)
X = jnp.array([0.3, 1.0, 4.0])


def test_what_follows_from_the_log_partition() -> None:
    np.testing.assert_allclose(Q.mean_params, GAMMA.mean_params, rtol=1e-10)
    np.testing.assert_allclose(Q.fisher.dense(), GAMMA.fisher.dense(), rtol=1e-9)
    np.testing.assert_allclose(Q.log_prob(X), GAMMA.log_prob(X), rtol=1e-10)
    np.testing.assert_allclose(Q.kl(P), GAMMA.kl(OTHER), rtol=1e-9)
    np.testing.assert_allclose(Q.entropy(), GAMMA.entropy(), rtol=1e-10)
    assert Q.log_prob(-1.0) == -jnp.inf


def test_mean_parameters_are_inverted_from_far_away() -> None:
    # Full Newton steps from here would leave the domain.
    found = own(0.01, 50.0).with_mean_params(GAMMA.mean_params)
    np.testing.assert_allclose(found.natural_params, GAMMA.natural_params, rtol=1e-7)
    fitted = Q.fit(X)
    expected = Gamma(1.0, 1.0).fit(X).natural_params
    np.testing.assert_allclose(fitted.natural_params, expected, rtol=1e-7)


def test_single_precision() -> None:
    means = jnp.float32(-0.5), jnp.float32(1.0)
    found = single(Q).with_mean_params(means)
    assert found.dtype == jnp.float32
    expected = Gamma.from_mean(means).natural_params
    np.testing.assert_allclose(found.natural_params, expected, atol=1e-5)


@jax.jit
def inverted(mean_log: Array) -> Array:
    """λ of E[log x], E[x] = 1."""
    return jnp.stack(Q.with_mean_params((mean_log, jnp.asarray(1.0))).params)


@pytest.mark.parametrize("mean_log", [-2.0, -1e-3, -1e-5])
def test_the_inverse_of_nearly_certain_members(mean_log: float) -> None:
    expected = Gamma.from_mean((jnp.asarray(mean_log), jnp.asarray(1.0)))
    # A digit of the mean is as many of the concentration as it is of their difference.
    near = 1e-14 / abs(mean_log)
    natural = jnp.stack(expected.natural_params)
    np.testing.assert_allclose(inverted(mean_log), natural, rtol=max(near, 1e-9))


@pytest.mark.parametrize("mean_log", [1.0, 0.1, 1e-3])
def test_mean_parameters_of_no_member_are_found_out(mean_log: float) -> None:
    # E[log x] > log E[x] contradicts Jensen.
    assert np.isnan(inverted(mean_log)).all()
    with pytest.raises(ValueError, match="outside the family's domain"):
        Q.with_mean_params((jnp.asarray(mean_log), jnp.asarray(1.0)))


def test_the_derivative_of_the_inverse_is_one_over_the_fisher_matrix() -> None:
    def natural(mean: Array) -> Array:
        return Q.flatten(Q.with_mean_params(Q.unflatten(mean)).params)

    slope = jax.jacobian(natural)(Q.flatten(Q.mean_params))
    np.testing.assert_allclose(slope @ Q.fisher.dense(), np.eye(2), atol=1e-8)


def test_a_batch_is_had_by_vmap() -> None:
    a = jnp.array([2.0, 3.0])
    found = jax.vmap(lambda a: own(a, 2.0).kl(P))(a)
    np.testing.assert_allclose(found, Gamma(a, 2.0).kl(Gamma(5.0, jnp.full(2, 1.5))))


def test_draws_are_those_of_the_sampler() -> None:
    q = own(3.0, 2.0, sampler=draw)
    key = jax.random.key(0)
    np.testing.assert_array_equal(q.sample(key, (3,)), draw(key, q.params, (3,)))
    with pytest.raises(NotImplementedError, match="pass sampler="):
        Q.sample(jax.random.key(0))


def test_a_base_measure_moves_the_density() -> None:
    q = own(3.0, 2.0, log_base_measure=lambda x: -jnp.log(2 * x))
    expected = GAMMA.log_prob(X) - jnp.log(2 * X)
    np.testing.assert_allclose(q.log_prob(X), expected, rtol=1e-10)
    with pytest.raises(NotImplementedError, match="the entropy, is unknown"):
        q.entropy()


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="must be one number, got shape"):
        from_log_partition(lambda v: v**2, lambda x: x, jnp.ones(2))
    with pytest.raises(ValueError, match="lie outside the family's domain"):
        own(3.0, -2.0)
