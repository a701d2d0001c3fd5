"""The update, its length and its invariance, against dense formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.families import Beta, Gaussian
from ngvi.mirror import retractions
from ngvi.mirror.draws import antithetic
from ngvi.mirror.estimates import Estimate, FirstOrder, second_order
from ngvi.mirror.step import (
    Direction,
    Step,
    fisher_length,
    gaussian_path,
    gaussian_step,
    inner,
    mean_step,
    mirror_step,
)
from tests.mirror.problems import (
    KEEP,
    close,
    estimate,
    every_structure,
    gaussian,
    quadratic,
    roots,
    smooth,
    symmetric,
    take,
)

RETRACTIONS = [
    retractions.first_order,
    retractions.second_order,
    retractions.exponential,
    retractions.safeguarded,
]
DIM = 3

every_retraction = pytest.mark.parametrize(
    "retraction", RETRACTIONS, ids=lambda r: r.__name__
)
seeds = st.integers(0, 2**32 - 1)


FIRST_ORDER, SECOND_ORDER = FirstOrder(), second_order()
in_old_frame = jax.jit(gaussian_step, static_argnums=3)


move = jax.jit(mirror_step)
fisher_product = jax.jit(lambda q, direction: q.fisher_product(direction))


@partial(jax.jit, static_argnums=2)
def walk(
    q: Gaussian, direction: Direction, retraction: Callable, rho: float
) -> tuple[Step, jax.Array, Gaussian]:
    """A step, the KL to where it leads, and a step along its own log R."""
    step = gaussian_path(q, direction, retraction)(jnp.asarray(rho))
    back = jax.tree.map(jnp.negative, step.displacement.curvature)
    along = q.precision.along(back)(jnp.ones(()), retractions.exponential)
    return step, step.q.kl(q), Gaussian(q.mean, along.matrix)


def whitened(
    name: str, q: Gaussian, g: np.ndarray, h: np.ndarray, temperature: float
) -> Direction:
    """γ = Aᵀg and M = AᵀHA − τI."""
    identity = q.precision.tangent_identity()
    curvature = q.precision.whiten_curvature(jnp.asarray(h))
    error = jax.tree.map(lambda c, i: c - temperature * i, curvature, identity)
    return Direction(q.precision.whiten_gradient(jnp.asarray(g)), error)


def in_mean_params(name: str, q: Gaussian, g: np.ndarray, h: np.ndarray) -> Any:
    """(g − H m, ½ H) in the structure's entries: ∇_μ E_q[ℓ], Bonnet and Price."""
    kept = KEEP[name](h)
    half = jax.tree.map(lambda e: e / 2, q.precision.project(jnp.asarray(kept)))
    return jnp.asarray(g - kept @ np.asarray(q.mean)), half


# -- the whitened step is the mirror step ---------------------------------------------


@every_structure
@given(
    seed=seeds,
    rho=st.sampled_from([1.0, 0.3, 0.01]),
    temperature=st.sampled_from([1.0, 0.3, 2.0, 0.0]),
)
def test_first_order_is_the_mirror_step(
    name: str, seed: int, rho: float, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    q, other = gaussian(name, rng, DIM), gaussian(name, rng, DIM)
    g = rng.standard_normal(DIM)
    # τS too large for positivity at (1 − ρτ) < 0 unless H makes up for it.
    h = np.asarray(other.precision.dense()) + 2 * np.asarray(q.precision.dense())
    direction = whitened(name, q, g, h, temperature)
    step = take(q, direction, rho, retractions.first_order)
    generic = move(q, in_mean_params(name, q, g, h), rho, temperature)
    close(step.mean, generic.mean)
    close(step.precision.dense(), generic.precision.dense())

    # And both are what the formulas say in dense matrices.
    s, kept = np.asarray(q.precision.dense()), KEEP[name](h)
    precision = (1 - rho * temperature) * s + rho * kept
    linear = (1 - rho * temperature) * s @ q.mean - rho * (g - kept @ q.mean)
    close(generic.precision.dense(), precision)
    close(generic.mean, np.linalg.solve(precision, linear))
    close(step.mean, q.mean - rho * np.linalg.solve(precision, g))


def test_the_mirror_step_minimises_its_own_criterion() -> None:
    # λ⁺ = argmin_μ ⟨∇_μ L, μ⟩ + KL(q_μ ‖ q_λ)/ρ, with L = E_q[ℓ] − τ Entropy.
    rng = np.random.default_rng(0)
    q = gaussian("dense", rng, DIM)
    h, g = np.asarray(gaussian("dense", rng, DIM).precision.dense()), np.ones(DIM)
    rho, temperature = 0.4, 0.7
    gradient = in_mean_params("dense", q, g, h)
    # ∇_μ of −τ Entropy is τλ.
    total = jax.tree.map(lambda a, b: a + temperature * b, gradient, q.natural_params)
    best = move(q, gradient, rho, temperature)

    @jax.jit
    @jax.grad
    def criterion(mean_params: Any) -> jax.Array:
        products = jax.tree.map(lambda a, b: (a * b).sum(), total, mean_params)
        member = q.with_mean_params(mean_params)
        return sum(jax.tree.leaves(products)) + member.kl(q) / rho

    for leaf in jax.tree.leaves(criterion(best.mean_params)):
        np.testing.assert_allclose(leaf, 0, atol=1e-9)


def test_a_step_in_the_mean_parameters_begins_the_same_way() -> None:
    # F⁻¹ ∇_λ L in λ is the tangent vector −∇_λ L in μ, in which mean_step is straight.
    q, gradient = Beta(2.0, 3.0), (jnp.asarray(0.3), jnp.asarray(-0.7))
    natural = q.natural_gradient(gradient)

    def ends(rho: jax.Array) -> tuple[Any, Any, Any]:
        mean = mean_step(q, gradient, rho)
        straight = mirror_step(q, natural, rho, temperature=0.0)
        return mean.mean_params, mean.natural_params, straight.natural_params

    moved = ends(jnp.asarray(0.1))[0]
    for m, before, g in zip(moved, q.mean_params, gradient, strict=True):
        close(m, before - 0.1 * g)
    _, (_, slope, expected) = jax.jvp(ends, (jnp.zeros(()),), (jnp.ones(()),))
    for s, e in zip(slope, expected, strict=True):
        close(s, e)


@every_structure
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@given(seed=seeds)
def test_one_whole_step_solves_a_quadratic(
    name: str, temperature: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    q = gaussian(name, rng, DIM)
    target = quadratic(rng, DIM)
    h = KEEP[name](target.h)
    # A diagonal precision is exact in one step where H is diagonal.
    g = h @ np.asarray(q.mean) - target.b
    direction = whitened(name, q, g, h, temperature)
    # τ ≤ 1: first order stays positive at ρ = 1 since AᵀHA > 0; at ρ = 1/τ it is exact.
    step = take(q, direction, 1 / temperature, retractions.first_order)
    close(step.precision.dense(), h / temperature)
    close(step.mean, np.linalg.solve(h, target.b))
    at_optimum = whitened(name, step, np.zeros(DIM), h, temperature)
    assert fisher_length(step.precision, at_optimum) < 1e-9


@every_structure
@given(seed=seeds)
def test_the_fisher_length_is_that_of_the_natural_gradient(
    name: str, seed: int
) -> None:
    # ‖γ‖² + ½‖M‖² = dᵀF d for d = ∇_μ L, in natural coordinates.
    rng = np.random.default_rng(seed)
    q = gaussian(name, rng, DIM)
    g, h = rng.standard_normal(DIM), symmetric(rng, DIM)
    direction = whitened(name, q, g, h, 1.0)
    natural = jax.tree.map(jnp.add, in_mean_params(name, q, g, h), q.natural_params)
    product = fisher_product(q, natural)
    squared = sum(
        (a * b).sum()
        for a, b in zip(*map(jax.tree.leaves, (natural, product)), strict=True)
    )
    length = fisher_length(q.precision, direction)
    np.testing.assert_allclose(length**2, squared, rtol=1e-8)
    np.testing.assert_allclose(
        inner(q.precision, direction, direction), squared, rtol=1e-8
    )


# -- a step's length and where it leads -----------------------------------------------


@every_structure
@every_retraction
@given(seed=seeds, rho=st.sampled_from([0.5, 0.1]))
def test_kl_and_displacement_of_a_step(
    name: str, retraction: Callable, seed: int, rho: float
) -> None:
    rng = np.random.default_rng(seed)
    q = gaussian(name, rng, DIM)
    curvature = q.precision.project(jnp.asarray(symmetric(rng, DIM) / 2))
    direction = Direction(jnp.asarray(rng.standard_normal(DIM)), curvature)
    step, kl, again = walk(q, direction, retraction, rho)
    np.testing.assert_allclose(step.kl, kl, rtol=1e-9, atol=1e-11)
    # The displacement says where the step led: log R in the old frame, and the shift of
    # the mean in the new one.
    close(again.precision.dense(), step.q.precision.dense())
    shift = step.q.precision.unwhiten(step.displacement.mean)
    close(q.mean + shift, step.q.mean)


@every_structure
@every_retraction
def test_a_step_of_length_zero_stays(name: str, retraction: Callable) -> None:
    rng = np.random.default_rng(0)
    q = gaussian(name, rng, DIM)
    curvature = q.precision.project(jnp.asarray(symmetric(rng, DIM)))
    direction = Direction(jnp.ones(DIM), curvature)
    step, _, _ = walk(q, direction, retraction, 0.0)
    close(step.q.mean, q.mean, 1e-15)
    close(roots(step.q.precision)[0], roots(q.precision)[0], 1e-14)
    assert float(step.kl) == 0


@every_structure
@every_retraction
def test_a_short_step_is_a_descent(name: str, retraction: Callable) -> None:
    # dL/dρ = −⟨direction, gradient⟩, for any direction and every retraction.
    rng = np.random.default_rng(1)
    q = gaussian(name, rng, DIM)
    target = quadratic(rng, DIM)
    h, g = np.asarray(target.h), target.h @ np.asarray(q.mean) - target.b
    gradient = whitened(name, q, g, h, 1.0)
    other = Direction(
        jnp.asarray(rng.standard_normal(DIM)),
        q.precision.project(jnp.asarray(symmetric(rng, DIM))),
    )

    def objective(q: Gaussian) -> jax.Array:
        covariance = q.precision.inverse_dense()
        return target(q.mean) + (h * covariance).sum() / 2 - q.entropy()

    for direction in (gradient, other):
        path = gaussian_path(q, direction, retraction)
        _, slope = jax.jvp(lambda rho: objective(path(rho).q), (0.0,), (1.0,))  # noqa: B023
        expected = -inner(q.precision, direction, gradient)
        np.testing.assert_allclose(slope, expected, rtol=1e-8)


@every_structure
@every_retraction
def test_a_mean_in_the_old_frame_moves_by_the_old_covariance(
    name: str, retraction: Callable
) -> None:
    # m⁺ = m − ρ A γ; the precision does not know.
    rng = np.random.default_rng(2)
    q = gaussian(name, rng, DIM)
    curvature = q.precision.project(jnp.asarray(symmetric(rng, DIM) / 2))
    direction = Direction(jnp.asarray(rng.standard_normal(DIM)), curvature)
    old = in_old_frame(q, direction, 0.3, retraction)
    new = take(q, direction, 0.3, retraction)
    close(old.mean, q.mean - 0.3 * q.precision.unwhiten(direction.mean), 1e-14)
    close(old.precision.dense(), new.precision.dense(), 1e-14)
    # The new frame's shift is the old one's, seen through R⁻¹.
    ratio = q.precision.solve(new.precision.mv(new.mean - q.mean))
    close(ratio, old.mean - q.mean)


@every_structure
def test_the_covariance_retraction_adds_in_the_covariance(name: str) -> None:
    # S⁺⁻¹ = A (I − ρM) Aᵀ: CMA-ES's update, with M = −Σ v (εεᵀ − I).
    rng = np.random.default_rng(3)
    q = gaussian(name, rng, DIM)
    m = KEEP[name](symmetric(rng, DIM)) / 2
    direction = Direction(jnp.zeros(DIM), q.precision.project(jnp.asarray(m)))
    step = take(q, direction, 0.2, retractions.covariance)
    root = roots(q.precision)[1]
    expected = root @ (np.eye(DIM) - 0.2 * m) @ root.T
    close(step.precision.inverse_dense(), expected)


# -- invariance -----------------------------------------------------------------------


@jax.jit
def _estimate_seen_through(
    t: np.ndarray, c: np.ndarray, q: Gaussian, eps: jax.Array
) -> Estimate:
    return FIRST_ORDER(lambda y: smooth(t @ y + c), q, eps)


@every_retraction
@given(seed=seeds)
def test_a_step_commutes_with_affine_maps(retraction: Callable, seed: int) -> None:
    # z = T y + c: with the root moved along, γ, M and the step in y are those in z.
    rng = np.random.default_rng(seed)
    q = gaussian("dense", rng, DIM)
    t = rng.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
    c = rng.standard_normal(DIM)
    eps = jnp.asarray(antithetic(rng.standard_normal((8, DIM))))
    in_y = Gaussian(
        jnp.asarray(np.linalg.solve(t, np.asarray(q.mean) - c)),
        type(q.precision).from_inverse_root(
            jnp.asarray(np.linalg.solve(t, roots(q.precision)[1]))
        ),
    )
    here = estimate(FIRST_ORDER, smooth, q, eps)
    there = _estimate_seen_through(t, c, in_y, eps)
    loss = np.linalg.cond(t) * 1e-12
    for a, b in zip(*map(jax.tree.leaves, (here, there)), strict=True):
        close(b, a, loss)
    moved = take(q, here.gradient, 0.1, retraction)
    moved_in_y = take(in_y, there.gradient, 0.1, retraction)
    close(t @ moved_in_y.mean + c, moved.mean, 10 * loss)
    close(t @ roots(moved_in_y.precision)[1], roots(moved.precision)[1], 10 * loss)
