"""Steps of mixtures: exact on mixtures, descents elsewhere, nothing where none is."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian, Mixture
from ngvi.linalg import Dense
from ngvi.mirror import mixture as steps
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.step import Direction

DIM, ROOM = 2, 4
EPS = jnp.asarray(antithetic(sobol_normals(DIM, 32, np.random.default_rng(0))))
FAR = np.array([[-8.0, 0.0], [8.0, 2.0], [0.0, 9.0], [0.0, 0.0]])


def three(z: jax.Array, weights: jax.Array) -> jax.Array:
    """−log of three Gaussians far apart, with sds 1, 2 and ½, times e³."""
    sd = jnp.array([1.0, 2.0, 0.5])
    squares = ((z - jnp.asarray(FAR[:3])) ** 2).sum(-1) / sd**2
    parts = jnp.log(weights) - squares / 2 - 2 * jnp.log(sd) - jnp.log(2 * jnp.pi)
    return -jax.nn.logsumexp(parts) - 3.0


def ridge(z: jax.Array, width: jax.Array) -> jax.Array:
    return z[0] ** 2 / 8 + ((z[1] - z[0] ** 2) / width) ** 2 / 2


def some(means: Any, sd: float, present: int) -> tuple[jax.Array, Gaussian]:
    logits = jnp.where(jnp.arange(ROOM) < present, 0.0, steps.ABSENT)
    root = jnp.broadcast_to(sd * jnp.eye(DIM), (ROOM, DIM, DIM))
    return logits, Gaussian(jnp.asarray(means, float), Dense.from_inverse_root(root))


@partial(jax.jit, static_argnums=0)
def start(potential: Any, q: tuple, parameter: Any) -> steps.MixtureState:
    return steps.begin(lambda z: potential(z, parameter), *q, EPS)


@partial(jax.jit, static_argnums=0)
def go(potential: Any, state: Any, parameter: Any, limit: int) -> steps.MixtureState:
    return steps.run(lambda z: potential(z, parameter), state, EPS, limit)


@pytest.fixture(scope="module")
def separated() -> steps.MixtureState:
    weights = jnp.array([0.2, 0.5, 0.3])
    begun = start(three, some(FAR + 0.5, 0.7, 3), weights)
    return go(three, begun, weights, 60)


def test_modes_far_apart_are_followed_exactly(separated):
    q, order = separated.q, slice(0, 3)
    np.testing.assert_allclose(q.weights[order], [0.2, 0.5, 0.3], atol=1e-3)
    np.testing.assert_allclose(q.components.mean[order], FAR[:3], atol=0.05)
    sd = np.sqrt(q.components.variance[order])
    np.testing.assert_allclose(sd, np.array([[1.0], [2.0], [0.5]]) * [1, 1], rtol=0.03)
    # L = E_q[ℓ + log q] is −3 at the optimum.
    np.testing.assert_allclose(separated.objective, -3.0, atol=5e-3)


def test_room_for_a_component_costs_and_changes_nothing(separated):
    assert float(separated.q.weights[3]) == 0
    np.testing.assert_array_equal(separated.q.components.mean[3], FAR[3] + 0.5)
    iterations = int(separated.iteration)
    assert int(separated.evaluations) == 3 * len(EPS) * iterations


def test_the_objective_descends_and_components_share_a_curved_ridge():
    means = [[-3.0, 6.0], [-1.0, 1.0], [1.0, 1.0], [3.0, 6.0]]
    width = jnp.asarray(0.5)
    state = start(ridge, some(means, 0.3, 4), width)
    objectives = []
    for limit in range(1, 16):
        state = go(ridge, state, width, limit)
        objectives.append(float(state.objective))
    # A weight that runs ahead of the draws may cost what these few draws cannot see.
    assert np.diff(objectives).max() < 0.02
    one = go(ridge, start(ridge, some([[0.0, 1.0]] * 4, 0.3, 1), width), width, 60)
    assert objectives[-1] < float(one.objective) - 0.7
    truth = -np.log(2 * np.pi * 2 * 0.5)
    assert truth - 0.02 < objectives[-1] < truth + 0.35


def test_a_components_gradient_is_that_of_the_whole_objective():
    """Written out: L(q) differentiated through the draws of each component."""
    width = jnp.asarray(1.5)
    logits, parts = some([[-0.5, 0.4], [0.8, 1.0], [0, 0], [0, 0]], 0.6, 2)
    state = start(ridge, (logits, parts), width)
    state = go(ridge, state, width, 1)  # evaluated where it began
    mixture = Mixture(jax.nn.log_softmax(logits), parts)

    def whole(shift: jax.Array, grow: jax.Array, k: int) -> jax.Array:
        member = jax.tree.map(lambda leaf: leaf[k], parts)
        root = member.precision.inverse_root
        inner = shift + EPS @ (jnp.eye(DIM) + (grow + grow.T) / 2).T
        z = member.mean + inner @ root.T
        # The score of q has mean zero, so log q may stand still.
        return (
            jax.vmap(ridge, (0, None))(z, width) + mixture.marginal_log_prob(z)
        ).mean()

    for k in range(2):
        zero = jnp.zeros(DIM), jnp.zeros((DIM, DIM))
        gamma, curvature = jax.grad(whole, (0, 1))(*zero, k)
        found: Direction = jax.tree.map(
            lambda leaf, k=k: leaf[k], state.components.estimate.gradient
        )
        np.testing.assert_allclose(found.mean, gamma, atol=1e-10)
        np.testing.assert_allclose(found.curvature, curvature, atol=1e-10)


def test_a_density_that_is_not_finite_is_survived():
    def edged(z: jax.Array, edge: jax.Array) -> jax.Array:
        return jnp.where(z[0] > edge, jnp.nan, (z**2).sum() / 2)

    edge = jnp.asarray(6.0)
    state = go(edged, start(edged, some([[5.5, 0.0]] * 4, 3.0, 1), edge), edge, 60)
    assert np.isfinite(state.objective)
    assert abs(float(state.q.components.mean[0, 0])) < 1.0
