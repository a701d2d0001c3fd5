"""Frames in which the Fisher matrix is I, and descents in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Beta, Gamma, Gaussian, Wishart
from ngvi.mirror.descent import again, begin, descend
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.frames import retraction
from tests.programs import compiled

MATRIX = jnp.array([[2.0, 0.5], [0.5, 1.0]])
MEMBERS = (
    Gamma(jnp.array([0.3, 50.0]), jnp.array([2.0, 1e-3])),
    Gaussian.from_covariance(jnp.ones((1, 2)), MATRIX[None]),
    Wishart(jnp.array([5.0]), MATRIX[None]),
)


@compiled
def _displaced(members, xi):
    """⟨Δλ, Δμ⟩ of each member, the symmetrised divergence."""
    moved = retraction(members)[0](xi)

    def change(of):
        return jax.tree.map(jnp.subtract, of(moved), of(members))

    natural = change(lambda ms: tuple(q.natural_params for q in ms))
    mean = change(lambda ms: tuple(q.mean_params for q in ms))
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), natural, mean)))


def test_the_fisher_matrix_is_the_identity():
    size = retraction(MEMBERS)[1]
    assert size == 2 * 2 + 5 + 4
    directions = np.random.default_rng(0).standard_normal((5, size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for xi in 1e-3 * directions:
        both = _displaced(MEMBERS, xi), _displaced(MEMBERS, -xi)
        assert sum(map(float, both)) / 2e-6 == pytest.approx(1, abs=1e-4)


def test_no_step_leaves_the_families():
    size = retraction(MEMBERS)[1]
    for seed in range(5):
        xi = 3 * np.random.default_rng(seed).standard_normal(size)
        # A member outside of its family is NaN.
        assert 0 < float(_displaced(MEMBERS, xi)) < np.inf


EPS = jnp.asarray(antithetic(sobol_normals(6, 256, 0)))


def _objective(members):
    """Of a Beta(16, 14) and a Gamma(4, 3), independent."""
    p, rate = members
    x, y = p.place(EPS[:, None, :4]), rate.place(EPS[:, None, 4:])
    loss = 3 * y - 3 * jnp.log(y) - 15 * jnp.log(x) - 13 * jnp.log1p(-x)
    return loss.sum(-1).mean() - sum(q.entropy().sum() for q in members)


@compiled
def _fitted(members):
    first = descend(_objective, begin(members), 1e-7, 100)
    return first, descend(_objective, again(first), 1e-7, first.trials + 5)


def test_a_descent_finds_the_best_members_and_knows_it():
    one = jnp.ones(1)
    end, still = _fitted((Beta(one, one), Gamma(2 * one, 20 * one)))
    assert float(end.length) < 1e-7
    assert int(end.trials) < 40
    # Exact up to what 512 draws know of the expectations.
    p, rate = end.members
    np.testing.assert_allclose(p.natural_params, [[15.0], [13.0]], rtol=0.02)
    np.testing.assert_allclose(rate.natural_params, [[3.0], [-3.0]], rtol=0.02)
    # At rest there is nothing to do but to look.
    assert int(still.trials) == int(end.trials) + 1
