"""Every linear structure against dense NumPy: its space, its dual, its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.linalg import Dense, Diagonal, Isotropic
from tests.linalg.cases import (
    DENSE,
    DIAGONAL,
    ISOTROPIC,
    OPERATORS,
    RETRACTIONS,
    LinearCase,
    close,
    dims,
    every_linear,
    every_retraction,
    every_spectral,
    lifted,
    linear,
    positive,
    random_symmetric,
    roots,
    seeds,
    stack,
    tangent_dense,
    trace_product,
)
from tests.programs import compiled

# -- arithmetic and entries ---------------------------------------------------------


@every_linear
@given(dim=dims, seed=seeds)
def test_arithmetic(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, matrix = case.member(rng, dim)
    numbers = linear(p, jnp.asarray(rng.standard_normal((5, dim))))
    close(numbers["added"], 1.5 * matrix)
    for name in ("damped", "damped_by_array"):
        close(numbers[name], matrix + 0.3 * np.eye(dim))
    close(numbers["from_entries"], matrix)


@every_linear
def test_adding_another_structure_keeps_what_fits(case: LinearCase) -> None:
    rng = np.random.default_rng(0)
    p, matrix = case.member(rng, 4)
    for other in (DENSE, *OPERATORS):
        q, term = other.member(rng, 4)
        # So small that what is kept of it leaves the sum positive.
        total = p.add(q.scale(1e-3))
        assert type(total) is type(p)
        close(total.dense(), case.keep(matrix + 1e-3 * term))


@every_linear
@given(dim=dims, seed=seeds)
def test_entries(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, matrix = case.member(rng, dim)
    full = lifted(case, positive(DENSE, rng, dim))
    close(p.from_entries(p.project(jnp.asarray(full))).dense(), case.keep(full))
    entries, projected = p.entries(), p.project(jnp.asarray(matrix))
    for direct, kept in zip(*map(jax.tree.leaves, (entries, projected)), strict=True):
        close(kept, direct)


# An array does not say where the blocks of a block-diagonal matrix end.
@pytest.mark.parametrize(
    ("structure", "case"),
    [(Dense, DENSE), (Diagonal, DIAGONAL), (Isotropic, ISOTROPIC)],
)
def test_from_dense(structure: Any, case: LinearCase) -> None:
    full = positive(DENSE, np.random.default_rng(0), 4)
    close(structure.from_dense(jnp.asarray(full)).dense(), case.keep(full))
    both = structure.from_dense(jnp.stack([full, 2 * full]))
    close(both.dense()[1], 2 * case.keep(full))


@pytest.mark.parametrize("structure", [Dense, Diagonal, Isotropic])
def test_from_deviations(structure: Any) -> None:
    # Their squares leave the range of single precision.
    sd = np.array([1e-25, 2e-25, 2e-25], np.float32)
    draws = structure.from_deviations(jnp.asarray(sd)).unwhiten(jnp.ones_like(sd))
    close(draws, np.sqrt(3) * 1e-25 if structure is Isotropic else sd, 1e-6)


@every_linear
@given(dim=dims, seed=seeds)
def test_the_inner_product_is_a_trace(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, _ = case.member(rng, dim)
    x, y = random_symmetric(rng, dim), random_symmetric(rng, dim)
    inner = p.inner(p.project(jnp.asarray(x)), p.project(jnp.asarray(y)))
    expected = np.trace(case.keep(x) @ case.keep(y))
    np.testing.assert_allclose(inner, expected, atol=1e-12 * dim * 10)
    # One projection is enough.
    np.testing.assert_allclose(np.trace(case.keep(x) @ y), expected, atol=1e-11)


@every_linear
@given(dim=dims, seed=seeds)
def test_moments_are_dual_to_entries(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (p, matrix), (q, other) = case.member(rng, dim), case.member(rng, dim)
    # Σ entries(P) · moments(M) = tr(P M), for M = x xᵀ and for M = Q⁻¹.
    v = rng.standard_normal((3, dim))
    batched = p.outer(jnp.asarray(v))
    for i, row in enumerate(v):
        square = trace_product(p.entries(), jax.tree.map(lambda m, i=i: m[i], batched))
        np.testing.assert_allclose(square, row @ matrix @ row, rtol=1e-10)
    trace = trace_product(p.entries(), q.inverse_moments())
    np.testing.assert_allclose(trace, np.trace(matrix @ np.linalg.inv(other)))
    close(p.from_moments(q.inverse_moments()).dense(), other)


@every_linear
@given(seed=seeds)
def test_second_moments_give_the_likeliest_precision(
    case: LinearCase, seed: int
) -> None:
    # log det P − Σ entries(P) · moments is stationary where P⁻¹ and the second moment
    # agree in all that the structure sees.
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((9, 4))
    p, _ = case.member(rng, 4)
    moments = jax.tree.map(lambda m: m.mean(0), p.outer(jnp.asarray(x)))
    covariance = np.linalg.inv(p.from_moments(moments).dense())
    close(case.keep(covariance), case.keep(x.T @ x / 9))


# -- the tangent space --------------------------------------------------------------


@every_linear
@given(dim=dims, seed=seeds)
def test_tangents(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, _ = case.member(rng, dim)
    eps, g = rng.standard_normal((2, 7, dim))
    mean = eps.T @ g / 7
    tangent = p.tangent(jnp.asarray(eps), jnp.asarray(g))
    close(tangent_dense(p, tangent), case.half(mean, p), 1e-8)
    close(tangent_dense(p, p.tangent_identity()), np.eye(dim), 1e-8)
    h = random_symmetric(rng, dim)
    _, a = roots(p)
    curvature = p.whiten_curvature(jnp.asarray(h))
    close(tangent_dense(p, curvature), case.seen(a.T @ h @ a, p), 1e-8)
    # The inner product of two tangents is the trace of their product.
    np.testing.assert_allclose(
        p.tangent_inner(tangent, curvature),
        np.trace(case.half(mean, p) @ case.seen(a.T @ h @ a, p)),
        atol=1e-9 * (1 + np.abs(a.T @ h @ a).max()),
    )


@every_retraction
@every_spectral
@given(dim=dims, seed=seeds, rho=st.sampled_from([1.0, 0.25]))
def test_along(
    case: LinearCase, retraction: Callable, dim: int, seed: int, rho: float
) -> None:
    rng = np.random.default_rng(seed)
    p, _ = case.member(rng, dim)
    x = case.keep(random_symmetric(rng, dim))
    # Where first order is positive too; another test leaves this ball.
    x *= 0.95 / max(np.abs(np.linalg.eigvalsh(x)).max(), 0.95)
    b, a = roots(p)
    tangent = p.whiten_curvature(jnp.asarray(b @ x @ b.T))
    moved = p.along(tangent)(jnp.asarray(rho), retraction)

    values, vectors = np.linalg.eigh(rho * x)
    spectrum = np.asarray(retraction(jnp.asarray(values)))
    r = vectors * spectrum @ vectors.T
    close(moved.matrix.dense(), b @ r @ b.T)
    close(moved.matrix.inverse_dense(), a @ np.linalg.inv(r) @ a.T)
    v = rng.standard_normal(dim)
    close(moved.solve(jnp.asarray(v)), np.linalg.solve(r, v))
    np.testing.assert_allclose(moved.trace_inverse, (1 / spectrum).sum(), rtol=1e-9)
    np.testing.assert_allclose(moved.logdet, np.log(spectrum).sum(), atol=1e-9)
    log = vectors * np.log(spectrum) @ vectors.T
    np.testing.assert_allclose(tangent_dense(p, moved.log), log, atol=1e-8)
    # The root is multiplied by the symmetric square root on the right.
    half = vectors * np.sqrt(spectrum) @ vectors.T
    close(roots(moved.matrix)[0], b @ half, 1e-9)
    close(roots(moved.matrix)[1], a @ np.linalg.inv(half), 1e-9)


@every_linear
@given(dim=dims, seed=seeds)
def test_standing_still_keeps_the_root(case: LinearCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, _ = case.member(rng, dim)
    tangent = p.whiten_curvature(jnp.asarray(random_symmetric(rng, dim)))
    moved = p.along(tangent)(jnp.zeros(()), RETRACTIONS[-1])
    for before, after in zip(roots(p), roots(moved.matrix), strict=True):
        close(after, before, 1e-13 * dim)
    assert abs(float(moved.logdet)) == 0
    assert float(moved.trace_inverse) == dim


@pytest.mark.parametrize(
    "retraction", RETRACTIONS[1:], ids=lambda retraction: retraction.__name__
)
@every_spectral
@given(dim=dims, seed=seeds)
def test_a_long_step_stays_positive(
    case: LinearCase, retraction: Callable, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p, _ = case.member(rng, dim)
    x = case.keep(random_symmetric(rng, dim))
    x *= 5 / np.abs(np.linalg.eigvalsh(x)).max()
    tangent = p.whiten_curvature(jnp.asarray(roots(p)[0] @ x @ roots(p)[0].T))
    moved = p.along(tangent)(jnp.ones(()), retraction).matrix
    # Aᵀ B⁺ = R^½, symmetric.
    half = roots(p)[1].T @ roots(moved)[0]
    np.testing.assert_allclose(half, half.T, atol=1e-9)
    assert np.linalg.eigvalsh(half).min() > 0
    b, a = roots(moved)
    np.testing.assert_allclose(b.T @ a, np.eye(dim), atol=1e-9)


# -- under JAX's transformations ----------------------------------------------------


@every_linear
@given(dim=dims, seed=seeds)
def test_gradient_of_logdet(case: LinearCase, dim: int, seed: int) -> None:
    # d log det P = tr(P⁻¹ dP).
    rng = np.random.default_rng(seed)
    p, matrix = case.member(rng, dim)
    direction = random_symmetric(rng, dim)
    _, slope = jax.jvp(
        lambda entries: p.from_entries(entries).logdet(),
        (p.entries(),),
        (p.project(jnp.asarray(direction)),),
    )
    terms = np.linalg.inv(matrix) * case.keep(direction)
    np.testing.assert_allclose(slope, terms.sum(), atol=1e-9 * np.abs(terms).sum())


@every_linear
def test_leading_axes_are_a_loop(case: LinearCase) -> None:
    rng = np.random.default_rng(0)
    members = [case.member(rng, 4)[0] for _ in range(3)]
    x = jnp.asarray(rng.standard_normal((5, 3, 4)))
    together = jax.tree.leaves(linear(stack(members), x))
    for i, member in enumerate(members):
        alone = jax.tree.leaves(linear(member, x[:, i]))
        for many, one in zip(together, alone, strict=True):
            close(many[i], one, 1e-12)


@every_linear
def test_vmap(case: LinearCase) -> None:
    rng = np.random.default_rng(0)
    members = [case.member(rng, 4)[0] for _ in range(3)]
    x = jnp.asarray(rng.standard_normal((5, 4)))
    together = compiled(jax.vmap(linear.__wrapped__, (0, None)))(stack(members), x)
    for i, member in enumerate(members):
        alone = jax.tree.leaves(linear(member, x))
        for many, one in zip(jax.tree.leaves(together), alone, strict=True):
            close(many[i], one, 1e-12)
