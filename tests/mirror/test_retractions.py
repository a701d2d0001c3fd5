"""Retractions: their order, positivity and smoothness."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.mirror import retractions

RETRACTIONS = [
    retractions.first_order,
    retractions.second_order,
    retractions.exponential,
    retractions.safeguarded,
]


@pytest.mark.parametrize(
    ("retraction", "order"),
    [
        (retractions.first_order, 1),
        (retractions.second_order, 2),
        (retractions.safeguarded, 1),
        (retractions.covariance, 1),
    ],
    ids=lambda p: getattr(p, "__name__", p),
)
@pytest.mark.parametrize("sign", [1, -1])
def test_retractions_agree_with_exp_to_their_order(
    retraction: Callable, order: int, sign: int
) -> None:
    # An error of order p + 1 falls by 2^(p + 1) when the step is halved.
    x = sign * jnp.asarray([4e-3, 2e-3])
    error = retraction(x) - retractions.exponential(x)
    np.testing.assert_allclose(error[0] / error[1], 2 ** (order + 1), rtol=0.01)


@pytest.mark.parametrize("retraction", RETRACTIONS[1:], ids=lambda r: r.__name__)
def test_retractions_stay_positive(retraction: Callable) -> None:
    x = jnp.asarray(
        np.concatenate([-np.logspace(-6, 2.5, 200), np.logspace(-6, 2, 99)])
    )
    r = np.asarray(retraction(x))
    assert np.isfinite(r).all()
    assert (r > 0).all()
    if retraction is retractions.second_order:
        assert (r >= 0.5).all()
    else:
        assert (np.diff(r[np.argsort(x)]) >= 0).all()


def test_first_order_is_positive_only_above_minus_one() -> None:
    assert retractions.first_order(jnp.asarray(-0.999)) > 0
    assert retractions.first_order(jnp.asarray(-1.001)) < 0


def test_safeguarded_is_first_order_down_to_its_bend_and_smooth_there() -> None:
    bend = -0.8
    above = jnp.linspace(bend, 5, 50)
    np.testing.assert_allclose(retractions.safeguarded(above), 1 + above, rtol=1e-12)
    h = 1e-7
    left, at, right = (
        float(retractions.safeguarded(jnp.asarray(bend + t))) for t in (-h, 0, h)
    )
    np.testing.assert_allclose([left, right], at, atol=2 * h)
    np.testing.assert_allclose((at - left) / h, 1, atol=1e-5)
    np.testing.assert_allclose((right - at) / h, 1, atol=1e-5)
    slope = jax.vmap(jax.grad(retractions.safeguarded))
    np.testing.assert_allclose(slope(jnp.asarray([bend - h, bend + h])), 1, atol=1e-5)
    # As its description says: tenfold down in one step of −1.
    np.testing.assert_allclose(retractions.safeguarded(jnp.asarray(-1.0)), 0.1)
    assert np.isfinite(slope(jnp.asarray([-1e6, -1.6, -1.0, 0.0, 1e6]))).all()


def test_covariance_is_of_order_one_in_the_inverse_and_positive_below_one() -> None:
    x = jnp.linspace(-50, 0.99, 40)
    np.testing.assert_allclose(1 / retractions.covariance(x), 1 - x, rtol=1e-12)
    assert retractions.covariance(jnp.asarray(0.999)) > 0
    assert retractions.covariance(jnp.asarray(1.001)) < 0
