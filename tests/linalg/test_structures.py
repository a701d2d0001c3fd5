"""Every structure against dense NumPy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.mirror import retractions
from tests.linalg.cases import (
    RETRACTIONS,
    STRUCTURES,
    Case,
    close,
    dims,
    every_retraction,
    every_structure,
    positive,
    random_symmetric,
    roots,
    seeds,
    summary,
    tangent_dense,
)

# -- the operator -------------------------------------------------------------------


@every_structure
@given(dim=dims, seed=seeds)
def test_products_and_solves(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    x = rng.standard_normal((2, 3, dim))
    close(p.mv(x), x @ matrix)
    close(p.solve(x), np.linalg.solve(matrix, x[..., None])[..., 0])
    close(p.mv(x[0, 0]), matrix @ x[0, 0])
    close(p.solve(p.mv(x)), x)


@every_structure
@given(dim=dims, seed=seeds)
def test_roots(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    x = rng.standard_normal((4, dim))
    close(p.whiten(p.unwhiten(x)), x)
    close(p.unwhiten(p.whiten(x)), x)
    b, a = roots(p)
    close(b @ b.T, matrix)
    close(a @ a.T, np.linalg.inv(matrix))
    # Aᵀ is the adjoint of A: ⟨g, A ε⟩ = ⟨Aᵀ g, ε⟩.
    g = rng.standard_normal((4, dim))
    left = (np.asarray(p.unwhiten(x)) * g).sum(-1)
    close(left, (x * np.asarray(p.whiten_gradient(g))).sum(-1))


@every_structure
@given(dim=dims, seed=seeds)
def test_numbers_about_it(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    assert p.dim == dim
    np.testing.assert_allclose(p.logdet(), np.linalg.slogdet(matrix)[1], atol=1e-9)
    close(p.diagonal(), np.diag(matrix))
    close(p.inverse_diagonal(), np.diag(np.linalg.inv(matrix)))
    np.testing.assert_allclose(p.trace(), np.trace(matrix), rtol=1e-10)
    close(p.dense(), matrix)
    close(p.inverse_dense(), np.linalg.inv(matrix))


# -- arithmetic and entries ---------------------------------------------------------


@every_structure
@given(dim=dims, seed=seeds)
def test_arithmetic(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    close(p.scale(2.5).dense(), 2.5 * matrix)
    close(p.scale(jnp.asarray(2.5)).inverse_dense(), np.linalg.inv(2.5 * matrix))
    # The frame is kept by a scaling: the roots scale too.
    close(roots(p.scale(4.0))[0], 2 * roots(p)[0])
    close(p.damp(0.3).dense(), matrix + 0.3 * np.eye(dim))
    for other in STRUCTURES:
        term = positive(other, rng, dim)
        total = p.add(other.build(term, rng))
        assert type(total) is case.structure
        close(total.dense(), case.keep(matrix + term))


@every_structure
@given(dim=dims, seed=seeds)
def test_entries(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    structure = case.structure
    close(structure.from_entries(p.entries()).dense(), matrix)
    full = positive(STRUCTURES[0], rng, dim)
    close(structure.from_dense(jnp.asarray(full)).dense(), case.keep(full))
    projected = structure.project(jnp.asarray(full))
    close(structure.from_entries(projected).dense(), case.keep(full))
    for kept, direct in zip(
        jax.tree.leaves(structure.project(p.dense())),
        jax.tree.leaves(p.entries()),
        strict=True,
    ):
        close(kept, direct)


@every_structure
@given(dim=dims, seed=seeds)
def test_outer_and_inner(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = case.structure
    x, y = random_symmetric(rng, dim), random_symmetric(rng, dim)
    inner = structure.inner(
        structure.project(jnp.asarray(x)), structure.project(jnp.asarray(y))
    )
    expected = np.trace(case.keep(x) @ case.keep(y))
    np.testing.assert_allclose(inner, expected, atol=1e-12 * dim * 10)
    v = rng.standard_normal((3, dim))
    batched = jax.tree.leaves(structure.outer(jnp.asarray(v)))
    for i, row in enumerate(v):
        one = jax.tree.leaves(structure.project(jnp.outer(row, row)))
        for part, whole in zip(one, batched, strict=True):
            close(whole[i], part)


# -- the tangent space --------------------------------------------------------------


@every_structure
@given(dim=dims, seed=seeds)
def test_tangents(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = case.build(positive(case, rng, dim), rng)
    eps, g = rng.standard_normal((2, 7, dim))
    mean = eps.T @ g / 7
    tangent = p.tangent(jnp.asarray(eps), jnp.asarray(g))
    close(tangent_dense(p, tangent), case.keep((mean + mean.T) / 2), 1e-8)
    close(tangent_dense(p, p.tangent_identity()), np.eye(dim), 1e-8)
    h = random_symmetric(rng, dim)
    _, a = roots(p)
    curvature = p.whiten_curvature(jnp.asarray(h))
    close(tangent_dense(p, curvature), case.keep(a.T @ h @ a), 1e-8)
    # The inner product of two tangents is the trace of their product.
    np.testing.assert_allclose(
        p.inner(tangent, curvature),
        np.trace(case.keep((mean + mean.T) / 2) @ case.keep(a.T @ h @ a)),
        atol=1e-9 * (1 + np.abs(a.T @ h @ a).max()),
    )


@every_retraction
@every_structure
@given(dim=dims, seed=seeds, rho=st.sampled_from([1.0, 0.25]))
def test_along(
    case: Case, retraction: Callable, dim: int, seed: int, rho: float
) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
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


@every_structure
@given(dim=dims, seed=seeds)
def test_standing_still_keeps_the_root(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = case.build(positive(case, rng, dim), rng)
    tangent = p.whiten_curvature(jnp.asarray(random_symmetric(rng, dim)))
    moved = p.along(tangent)(jnp.zeros(()), retractions.safeguarded)
    for before, after in zip(roots(p), roots(moved.matrix), strict=True):
        close(after, before, 1e-13 * dim)
    assert abs(float(moved.logdet)) == 0
    assert float(moved.trace_inverse) == dim


@pytest.mark.parametrize(
    "retraction", RETRACTIONS[1:], ids=lambda retraction: retraction.__name__
)
@every_structure
@given(dim=dims, seed=seeds)
def test_a_long_step_stays_positive(
    case: Case, retraction: Callable, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p = case.build(positive(case, rng, dim), rng)
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


@every_structure
def test_jit_and_vmap(case: Case) -> None:
    rng = np.random.default_rng(0)
    members = [case.build(positive(case, rng, 3), rng) for _ in range(4)]
    x = jnp.asarray(rng.standard_normal((4, 5, 3)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(summary))(stacked, x)
    alone = jax.jit(summary)
    for i, member in enumerate(members):
        for one, many in zip(alone(member, x[i]), together, strict=True):
            close(many[i], one, 1e-9)


@every_structure
@given(dim=dims, seed=seeds)
def test_gradient_of_logdet(case: Case, dim: int, seed: int) -> None:
    # d log det P = tr(P⁻¹ dP).
    rng = np.random.default_rng(seed)
    matrix = positive(case, rng, dim)
    p = case.build(matrix, rng)
    direction = random_symmetric(rng, dim)
    _, slope = jax.jvp(
        lambda entries: case.structure.from_entries(entries).logdet(),
        (p.entries(),),
        (case.structure.project(jnp.asarray(direction)),),
    )
    terms = np.linalg.inv(matrix) * case.keep(direction)
    np.testing.assert_allclose(slope, terms.sum(), atol=1e-9 * np.abs(terms).sum())
