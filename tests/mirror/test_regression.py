"""Coefficients on the statistics: exact wherever they can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Beta, Gamma, Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.regression import (
    control_variates,
    expected,
    from_gradients,
    least_squares,
)
from ngvi.mirror.step import mirror_step
from ngvi.mirror.values import by_regression, coefficients


def test_one_step_from_values_is_a_conjugate_posterior():
    """15 successes and 13 failures, from two dozen draws of the prior and no
    gradient."""
    q = Beta(1.0, 1.0)
    x = q.sample(jax.random.key(0), (24,))
    loss = -15 * jnp.log(x) - 13 * jnp.log1p(-x)
    q = mirror_step(q, least_squares(q, x, loss), 1.0)
    np.testing.assert_allclose([q.concentration1, q.concentration0], [16, 14], 1e-8)


def _gamma_gradients(power):
    """∂/∂z, z = log x, at three points of a gamma density times x^power of a second
    one."""
    x = jnp.array([[0.5], [1.0], [4.0]])
    design = jnp.stack([jnp.ones_like(x), x], -1)[..., None]
    gradients = (2.0 - 3 * x + power * x**2)[None, ..., None]
    return design, gradients


def test_gradients_tell_a_conjugate_conditional_from_another():
    found, left = from_gradients(*_gamma_gradients(0.0))
    np.testing.assert_allclose(found[0, 0], [2.0, -3.0], rtol=1e-12)
    assert float(left[0, 0]) < 1e-12
    _, left = from_gradients(*_gamma_gradients(0.1))
    assert float(left[0, 0]) > 1e-2


def test_control_variates_make_multilinear_expectations_exact():
    """Means of 3 + a + b c, with a, b, c independent, from 64 random draws."""
    q = Gamma(jnp.array([2.0, 3.0, 5.0]), jnp.array([1.0, 2.0, 3.0]))
    x = q.sample(jax.random.key(1), (64,))
    centred = x - q.mean
    variates = control_variates(centred, np.arange(3))
    values = 3 + x[:, :1] + x[:, 1:2] * x[:, 2:]
    exact = 3 + q.mean[0] + q.mean[1] * q.mean[2]
    assert float(expected(values, variates)[0]) == pytest.approx(float(exact), rel=1e-9)
    # Within one variable there is no such product; too few draws carry none at all.
    assert [v.shape for v in variates] == [(64, 3), (64, 3)]
    assert control_variates(centred, np.zeros(3))[1].shape == (64, 0)
    assert control_variates(centred[:7], np.arange(3)) == ()


def test_two_events_that_no_draw_has_both_do_not_mix_up_the_mean():
    """1 + 2a + 3b, where a b = 0 in all draws."""
    a, b = np.zeros(64), np.zeros(64)
    a[:3], b[3:6] = 1, 1
    mean = np.array([0.01, 0.02])
    variates = control_variates(jnp.asarray(np.c_[a, b] - mean), np.arange(2))
    values = jnp.asarray(1 + 2 * a + 3 * b)[:, None]
    exact = 1 + 2 * mean[0] + 3 * mean[1]
    assert float(expected(values, variates)[0]) == pytest.approx(exact, rel=1e-9)


def test_what_never_varies_takes_no_part_of_the_mean():
    """An event so rare that no draw has it."""
    centred = jnp.full((64, 1), -1e-9)
    values = jnp.linspace(0.0, 1.0, 64)[:, None]
    variates = control_variates(centred, np.zeros(1))
    assert float(expected(values, variates)[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("full", [True, False])
def test_values_alone_give_the_natural_gradient_of_a_quadratic(full):
    dim = 3
    root = jnp.asarray(np.random.default_rng(0).standard_normal((dim, dim)))
    hessian = root @ root.T if full else jnp.diag(jnp.array([1.0, 5.0, 0.2]))
    linear = jnp.arange(1.0, 4.0)
    sd = jnp.array([0.3, 1.0, 2.0])
    precision = Dense.from_deviations(sd) if full else Diagonal(1 / sd)
    q = Gaussian(jnp.array([1.0, -2.0, 10.0]), precision)
    count = 2 * coefficients(dim, full)
    eps = jnp.asarray(antithetic(sobol_normals(dim, count // 2 + 1, 0)))

    def potential(z):
        return z @ hessian @ z / 2 + linear @ z + 7

    found = by_regression(potential, q, eps).gradient
    gamma = sd * (hessian @ q.mean + linear)
    curvature = sd[:, None] * hessian * sd - jnp.eye(dim)
    np.testing.assert_allclose(found.mean, gamma, rtol=1e-8, atol=1e-8)
    expected_curvature = curvature if full else jnp.diagonal(curvature)
    np.testing.assert_allclose(found.curvature, expected_curvature, atol=1e-7)
