"""Products with Hessians from gradients alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families import Gaussian
from ngvi.linalg import LearnedLowRank
from ngvi.mirror.draws import antithetic
from ngvi.mirror.secants import find_low_rank_start, from_secants
from tests.programs import compiled

RNG = np.random.default_rng(0)
DIM = 6
HESSIAN = np.diag(np.arange(1.0, 7)) + np.ones((DIM, DIM))
CENTER = RNG.standard_normal(DIM)
EPS = jnp.asarray(antithetic(RNG.standard_normal((16, DIM))))


def quadratic(z: jax.Array) -> jax.Array:
    away = z - CENTER
    return away @ (jnp.asarray(HESSIAN) @ away) / 2


def cubic(z: jax.Array) -> jax.Array:
    return quadratic(z) + (z**3).sum() / 3


def q_of() -> Gaussian:
    factor = jnp.asarray(RNG.standard_normal((DIM, 2)))
    return Gaussian(
        jnp.linspace(-1.0, 1.0, DIM),
        LearnedLowRank.from_factor(jnp.linspace(1.0, 3.0, DIM), factor),
    )


def test_products_of_a_cubic_are_exact() -> None:
    q = q_of()
    estimate = compiled(lambda q: from_secants(cubic, q, EPS))(q)
    # E[∇²ℓ] is that at the mean.
    expected = HESSIAN + 2 * np.diag(q.mean)
    of_q = q.precision.tangent_identity()
    found = estimate.gradient.curvature.products + of_q.products
    np.testing.assert_allclose(found, expected @ q.precision.probes(), atol=1e-10)


def test_the_diagonal_is_exact_beside_what_is_known() -> None:
    q = q_of()
    known = q.precision.known

    def beside(z: jax.Array) -> jax.Array:
        away = z - CENTER
        return away @ known.mv(away) / 2 + (jnp.arange(1.0, 7) * away**2).sum() / 2

    estimate = compiled(lambda q: from_secants(beside, q, EPS))(q)
    found = estimate.gradient.curvature.diagonal + q.precision.diagonal()
    np.testing.assert_allclose(found, known.diagonal() + np.arange(1.0, 7), rtol=1e-10)
    gradient = q.precision.whiten_gradient(jax.grad(beside)(q.mean))
    np.testing.assert_allclose(estimate.gradient.mean, gradient, atol=1e-10)


def test_a_start_has_the_scale_of_each_coordinate() -> None:
    scales = jnp.asarray([1e-3, 1.0, 1e4])
    start = find_low_rank_start(lambda z: ((z / scales) ** 2).sum() / 2, jnp.ones(3), 2)
    np.testing.assert_allclose(start.precision.diagonal(), 4 / scales**2, rtol=1e-6)
    assert bool(start.finite)
    flat = find_low_rank_start(lambda z: z[0] * 1.0, jnp.ones(3), 2)
    np.testing.assert_allclose(flat.precision.diagonal(), 4.0)
