"""Long directions in a diagonal: two ways to step, in the family and back to it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import SpikedCovariance
from ngvi.linalg.spiked import SpikeTangent
from ngvi.mirror import retractions
from tests.linalg.cases import close, random_symmetric, roots, stack

tangent = jax.jit(lambda p, eps, g: p.tangent(eps, g))
identity = jax.jit(lambda p: p.tangent_identity())


def spiked(rng: np.random.Generator, dim: int, spike: float) -> SpikedCovariance:
    """A spike in a generic direction that leans on no coordinate."""
    axis = rng.choice([-1.0, 1.0], dim) * rng.uniform(0.8, 1.2, dim)
    axis /= np.linalg.norm(axis)
    deviations = np.exp(rng.standard_normal(dim))
    parts = deviations, axis[:, None], np.array([spike])
    return SpikedCovariance(*map(jnp.asarray, parts))


def covariance(theta: jax.Array) -> jax.Array:
    """Of (log δ, v)."""
    log_deviations, v = jnp.split(theta, 2)
    scale = jnp.exp(log_deviations)
    return jnp.outer(scale, scale) * (jnp.eye(len(v)) + jnp.outer(v, v))


@jax.jit
def natural_gradient(theta: jax.Array, change: jax.Array) -> jax.Array:
    """F⁻¹ ∇ of the change of C seen in (log δ, v): F = ½ tr(C⁻¹ ∂C C⁻¹ ∂C)."""
    c, slopes = covariance(theta), jax.jacfwd(covariance)(theta)
    white = jnp.linalg.solve(c, jnp.moveaxis(slopes, -1, 0))
    fisher = jnp.einsum("iab,jba->ij", white, white) / 2
    gradient = jnp.einsum("iab,ba->i", white, jnp.linalg.solve(c, change)) / 2
    return jnp.linalg.solve(fisher, gradient)


@pytest.mark.parametrize("spike", [0.01, 1.0, 100.0])
def test_the_tangent_is_the_natural_gradient(spike: float) -> None:
    rng = np.random.default_rng(0)
    p = spiked(rng, 8, spike)
    v = np.sqrt(spike) * p.axes[:, 0]
    theta = jnp.concatenate([jnp.log(p.deviations), v])
    # Of any symmetric matrix: a sum of products of eigenvectors.
    values, vectors = np.linalg.eigh(random_symmetric(rng, 8))
    _, a = roots(p)
    eps, g = jnp.asarray(vectors.T), jnp.asarray(8 * values[:, None] * vectors.T)
    for found, matrix in [
        (tangent(p, eps, g), vectors * values @ vectors.T),
        (identity(p), np.eye(8)),
    ]:
        both = jnp.concatenate([found.log_precision / 2, found.stretch])
        expected = natural_gradient(theta, jnp.asarray(a @ matrix @ a.T))
        close(both, expected, 1e-9)
    # The identity scales: it stretches nothing.
    close(identity(p).log_precision, np.ones(8), 1e-12)
    np.testing.assert_allclose(identity(p).stretch, 0, atol=1e-12)


def test_a_step_moves_the_deviations_by_the_retraction_and_the_spike_straight() -> None:
    rng = np.random.default_rng(1)
    p = spiked(rng, 5, 2.0)
    direction = SpikeTangent(*jnp.asarray(rng.standard_normal((2, 5))))
    moved = p.retract(direction, retractions.exponential)
    expected = p.deviations * jnp.exp(-direction.log_precision / 2)
    close(moved.deviations, expected)
    v = jnp.sqrt(moved.spikes) * moved.axes[:, 0]
    close(v, np.sqrt(2.0) * p.axes[:, 0] - direction.stretch)
    still = p.retract(jax.tree.map(jnp.zeros_like, direction), retractions.exponential)
    close(still.dense(), p.dense())


def test_a_direction_along_a_coordinate_stays_finite() -> None:
    # There the exact Fisher matrix is singular: only δ₁² (1 + s) is determined.
    axis = jnp.eye(4)[:, :1]
    p = SpikedCovariance(jnp.ones(4), axis, jnp.asarray([3.0]))
    eps = jnp.asarray(np.random.default_rng(2).standard_normal((6, 4)))
    for leaf in jax.tree.leaves(tangent(p, eps, eps)):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() < 20


absorb = jax.jit(lambda p, eps, weights, keep: p.absorb(eps, weights, keep))


def test_what_stays_in_the_structure_is_absorbed_exactly() -> None:
    # Vectors along the axes, one weight negative: lengths change, directions do not.
    rng = np.random.default_rng(4)
    axes = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    deviations = np.exp(rng.standard_normal(6))
    p = SpikedCovariance(*map(jnp.asarray, (deviations, axes, np.array([2.0, 5.0]))))
    eps, weights = axes.T, np.array([0.7, -0.1])
    moved = absorb(p, jnp.asarray(eps), jnp.asarray(weights), 0.8)
    _, a = roots(p)
    inside = 0.8 * np.eye(6) + eps.T @ np.diag(weights) @ eps
    close(moved.inverse_dense(), a @ inside @ a.T)


def test_the_diagonal_is_absorbed_exactly_and_repetition_finds_the_axes() -> None:
    # C⁺ = 0.7 C + 0.3 T again and again, T of the structure with other axes.
    rng = np.random.default_rng(5)
    t = np.asarray(spiked_in(rng, 12, [30.0, 100.0]).inverse_dense())
    columns, weights = jnp.asarray(np.linalg.cholesky(t).T), jnp.full(12, 0.3)

    def again(_: int, p: SpikedCovariance) -> SpikedCovariance:
        return p.absorb(p.whiten(columns), weights, 0.7)

    p = SpikedCovariance.from_deviations(jnp.ones(12), 2)
    expected = 0.7 * p.inverse_diagonal() + 0.3 * np.diag(t)
    close(again(0, p).inverse_diagonal(), expected)
    p = jax.jit(lambda p: jax.lax.fori_loop(0, 1000, again, p))(p)
    close(p.inverse_dense(), t, 1e-4)


def spiked_in(
    rng: np.random.Generator, dim: int, spikes: list[float]
) -> SpikedCovariance:
    axes = np.linalg.qr(rng.standard_normal((dim, len(spikes))))[0]
    deviations = np.exp(rng.standard_normal(dim) / 2)
    return SpikedCovariance(*map(jnp.asarray, (deviations, axes, np.array(spikes))))


def test_it_starts_with_the_volume_of_independent_coordinates() -> None:
    sd = jnp.asarray([0.1, 2.0, 30.0])
    p = SpikedCovariance.from_deviations(sd)
    np.testing.assert_allclose(p.logdet(), -2 * np.log(sd).sum(), rtol=1e-12)
    close(p.spikes, np.ones(1))


def test_leading_axes_are_a_loop() -> None:
    rng = np.random.default_rng(3)
    members = [spiked(rng, 4, s) for s in (0.5, 3.0)]
    eps = jnp.asarray(rng.standard_normal((6, 2, 4)))
    together = tangent(stack(members), eps, eps)
    moved = stack(members).retract(together, retractions.exponential)
    for i, member in enumerate(members):
        alone = tangent(member, eps[:, i], eps[:, i])
        close(together.log_precision[i], alone.log_precision)
        close(together.stretch[i], alone.stretch)
        one = member.retract(alone, retractions.exponential)
        close(moved.dense()[i], one.dense())
    weights = jnp.linspace(0.2, -0.05, 6)
    absorbed = absorb(stack(members), eps, weights, 0.9)
    for i, member in enumerate(members):
        one = absorb(member, eps[:, i], weights, 0.9)
        close(absorbed.dense()[i], one.dense())
