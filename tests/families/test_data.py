"""Observations and weights that cannot be used: named outside `jit`, NaN inside."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import (
    Categorical,
    Dirichlet,
    Gamma,
    Gaussian,
    Multinomial,
    Poisson,
)
from ngvi.linalg import Dense
from tests.programs import compiled


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (Categorical, [0, 3], "1 of 2 observations are not a whole number, 0 to 2"),
        (Multinomial(jnp.zeros(3), 4), [[1, 2, 3]], "1 of 1 .* that sum to 4"),
        (Multinomial(jnp.zeros(2), 4), [[1, 3]], r"adds \(2,\) .* has \(3,\)"),
    ],
)
def test_wrong_observations_are_named(likelihood: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dirichlet(jnp.ones(3)).observe(likelihood, jnp.array(y))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 0.0], "weights must be zero or more"),
        ([1.0, np.inf, 0.0], "weights must be zero or more, and finite"),
        ([1.0, 1.0], r"of shape \(3,\), got \(2,\)"),
        ([1.0, 1.0, 1.0], "1 of 3 observations are not"),
    ],
)
def test_wrong_weights_are_named(weights: list[float], message: str) -> None:
    y = jnp.array([1, 2, -1])
    gamma = Gamma(1.0, 1.0)
    with pytest.raises(ValueError, match=f"^observe: .*{message}"):
        gamma.observe(Poisson, y, weights)
    with pytest.raises(ValueError, match=f"^Poisson.fit: .*{message}"):
        Poisson(1.0).fit(y, weights)


@compiled
def _observe_and_fit(y: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    prior, two = Dirichlet(jnp.ones((2, 3))), jnp.ones(2)
    return {
        "Dirichlet": prior.observe(Categorical, y, weights).concentration,
        "Gamma": Gamma(two, 1.0).observe(Poisson, y, weights).concentration,
        "Poisson": Poisson(two).fit(y, weights).rate,
    }


def test_what_cannot_be_used_spoils_the_members_it_concerns() -> None:
    y = jnp.array([[0.0, jnp.nan], [1.0, -1.0]])
    nan = np.nan
    found = _observe_and_fit(y, jnp.ones(2))
    np.testing.assert_allclose(found["Dirichlet"], [[2, 2, 1], [nan] * 3])
    np.testing.assert_allclose(found["Gamma"], [2, nan])
    np.testing.assert_allclose(found["Poisson"], [0.5, nan])


def test_what_has_no_weight_may_be_anything() -> None:
    y = jnp.array([[2.0, jnp.nan], [1.0, 2.0]])
    for run in (_observe_and_fit, _observe_and_fit.__wrapped__):
        found = run(y, jnp.array([0.0, 2.0]))
        np.testing.assert_allclose(found["Dirichlet"], [[1, 3, 1], [1, 1, 3]])
        np.testing.assert_allclose(found["Gamma"], [3, 5])
        np.testing.assert_allclose(found["Poisson"], [1, 2])


def test_a_negative_weight_spoils_all() -> None:
    found = _observe_and_fit(jnp.ones((2, 2)), jnp.array([3.0, -1.0]))
    assert all(np.isnan(value).all() for value in found.values())


@pytest.mark.parametrize(
    "weights", [None, [1, 2, 1], [1.0, 2.0, 0.5], np.array([1, 2, 1])], ids=str
)
def test_single_precision_stays_single(weights: Any) -> None:
    """Python's numbers, and whole ones, have no precision of their own."""
    prior, q = Gamma(np.float32(2), np.float32(1)), Poisson(np.float32(2))
    assert prior.observe(Poisson, [3, 5, 4], weights).dtype == jnp.float32
    assert q.fit([3, 5, 4], weights).dtype == jnp.float32
    assert prior.log_prob([3.0, 5.0, 4.0]).dtype == jnp.float32
    assert prior.log_prob(3.0).dtype == jnp.float32


def test_a_mean_of_whole_numbers_takes_the_precision_of_the_matrix() -> None:
    q = Gaussian(np.array([1, 2]), Dense.from_dense(jnp.eye(2, dtype=jnp.float32)))
    assert q.mean.dtype == jnp.float32


def test_log_base_measures_of_whole_numbers() -> None:
    gaussian = Gaussian(jnp.zeros(2), Dense.from_dense(jnp.eye(2)))
    found = gaussian.log_base_measure(jnp.array([[1, 2]]))
    np.testing.assert_allclose(found, [-np.log(2 * np.pi)])
