"""Every structure against dense NumPy: a new structure is one row of `STRUCTURES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from ngvi.mirror import retractions


class Case(NamedTuple):
    """A structure, and what it keeps of a symmetric matrix, as a dense array."""

    name: str
    structure: type[PositiveDefinite]
    keep: Callable[[np.ndarray], np.ndarray]
    build: Callable[[np.ndarray, np.random.Generator], PositiveDefinite]
    """From a dense matrix of the structure, in a frame as generic as it has."""


def _rotated(matrix: np.ndarray, rng: np.random.Generator) -> Dense:
    """A dense matrix in a frame that is neither triangular nor symmetric."""
    rotation = np.linalg.qr(rng.standard_normal(matrix.shape))[0]
    root = np.linalg.cholesky(matrix) @ rotation
    inverse_root = np.linalg.inv(root).T
    return Dense(
        jnp.asarray(root, matrix.dtype), jnp.asarray(inverse_root, matrix.dtype)
    )


STRUCTURES = [
    Case("dense", Dense, lambda m: (m + m.T) / 2, _rotated),
    Case(
        "diagonal",
        Diagonal,
        lambda m: np.diag(np.diag(m)),
        lambda m, rng: Diagonal(jnp.sqrt(jnp.diagonal(jnp.asarray(m)))),
    ),
]
RETRACTIONS = [
    retractions.first_order,
    retractions.second_order,
    retractions.exponential,
    retractions.safeguarded,
]

every_structure = pytest.mark.parametrize("case", STRUCTURES, ids=lambda c: c.name)
every_retraction = pytest.mark.parametrize(
    "retraction", RETRACTIONS, ids=lambda r: r.__name__
)
# Few shapes, so that few programs are compiled; values are as random as the seed.
dims = st.sampled_from([1, 2, 5])
seeds = st.integers(0, 2**32 - 1)


def positive(case: Case, rng: np.random.Generator, dim: int) -> np.ndarray:
    """A random positive-definite matrix of the structure, condition up to about 1e3."""
    factor = rng.standard_normal((dim, 2 * dim + 2))
    matrix = case.keep(factor @ factor.T / dim + 0.05 * np.eye(dim))
    units = np.exp(rng.standard_normal(dim))
    return matrix * np.outer(units, units)


def random_symmetric(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Symmetric and usually indefinite."""
    matrix = rng.standard_normal((dim, dim))
    return (matrix + matrix.T) / 2


def roots(p: PositiveDefinite) -> tuple[np.ndarray, np.ndarray]:
    """B and A as arrays, read off the operators."""
    eye = jnp.eye(p.dim, dtype=p.diagonal().dtype)
    return np.asarray(p.whiten(eye)), np.asarray(p.unwhiten(eye)).T


def tangent_dense(p: PositiveDefinite, tangent: object) -> np.ndarray:
    """X as a dense array, from P⁺ = P + ρ B X Bᵀ with a small ρ."""
    rho = 1e-3
    moved = p.along(tangent)(jnp.asarray(rho), retractions.first_order).matrix.dense()
    _, a = roots(p)
    return a.T @ (np.asarray(moved) - np.asarray(p.dense())) @ a / rho


def close(actual: object, expected: object, tolerance: float = 1e-10) -> None:
    """Equal to a tolerance relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.abs(expected).max(initial=0.0), 1e-300)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


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


def _summary(p: PositiveDefinite, x: jax.Array) -> list[jax.Array]:
    """Every method that returns arrays, and a step."""
    moved = p.along(p.tangent(x, x[::-1]))(jnp.asarray(0.1), retractions.safeguarded)
    return [
        p.mv(x),
        p.solve(x),
        p.whiten(x),
        p.unwhiten(x),
        p.whiten_gradient(x),
        p.logdet(),
        p.diagonal(),
        p.inverse_diagonal(),
        p.trace(),
        p.dense(),
        p.inverse_dense(),
        *jax.tree.leaves(p.entries()),
        p.scale(2.0).dense(),
        p.add(p).dense(),
        p.damp(0.1).dense(),
        p.damp(jnp.asarray(0.1, x.dtype)).dense(),
        *jax.tree.leaves(p.outer(x)),
        *jax.tree.leaves(p.tangent_identity()),
        *jax.tree.leaves(p.whiten_curvature(p.dense())),
        moved.matrix.dense(),
        moved.solve(x[0]),
        moved.trace_inverse,
        moved.logdet,
        *jax.tree.leaves(moved.log),
    ]


@every_structure
def test_jit_and_vmap(case: Case) -> None:
    rng = np.random.default_rng(0)
    members = [case.build(positive(case, rng, 3), rng) for _ in range(4)]
    x = jnp.asarray(rng.standard_normal((4, 5, 3)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(_summary))(stacked, x)
    for i, member in enumerate(members):
        for one, many in zip(_summary(member, x[i]), together, strict=True):
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


# -- single precision ---------------------------------------------------------------


def _ill_conditioned(case: Case, rng: np.random.Generator, dim: int) -> np.ndarray:
    """Units from 1e-4 to 1e4, so entries from 1e-8 to 1e8."""
    units = 10.0 ** np.linspace(-4, 4, dim)
    correlated = positive(case, rng, dim)
    scale = np.sqrt(np.diag(correlated))
    return correlated / np.outer(scale, scale) * np.outer(units, units)


@every_structure
@pytest.mark.parametrize("seed", range(3))
def test_single_precision_stays_single(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = case.build(positive(case, rng, 3).astype(np.float32), rng)
    x = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    for i, value in enumerate(_summary(p, x)):
        assert value.dtype == jnp.float32, f"entry {i} of the summary"


@every_structure
@pytest.mark.parametrize("seed", range(5))
def test_units_cost_no_digits_in_single_precision(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 5
    exact = _ill_conditioned(case, rng, dim)
    p = case.structure.from_dense(jnp.asarray(exact, jnp.float32))
    inverse = np.linalg.inv(exact)
    x = rng.standard_normal((20, dim)).astype(np.float32)
    np.testing.assert_allclose(p.whiten(p.unwhiten(x)), x, atol=1e-4)
    np.testing.assert_allclose(p.logdet(), np.linalg.slogdet(exact)[1], atol=1e-4)
    np.testing.assert_allclose(p.diagonal(), np.diag(exact), rtol=1e-5)
    np.testing.assert_allclose(p.inverse_diagonal(), np.diag(inverse), rtol=1e-3)
    # The error of a solve, in standard deviations.
    g = exact @ np.linalg.cholesky(inverse) @ rng.standard_normal(dim)
    error = np.asarray(p.solve(jnp.asarray(g, jnp.float32))) - np.linalg.solve(exact, g)
    assert np.sqrt(error @ exact @ error) < 1e-3
    # A step is as accurate as its own spectrum.
    h = exact * 1.5
    moved = p.along(p.whiten_curvature(jnp.asarray(h, jnp.float32)))(
        jnp.float32(1.0), retractions.first_order
    )
    np.testing.assert_allclose(moved.logdet, dim * np.log(2.5), rtol=1e-3)
    np.testing.assert_allclose(
        moved.matrix.inverse_diagonal(), np.diag(inverse) / 2.5, rtol=1e-3
    )


@every_structure
def test_many_steps_do_not_pull_the_roots_apart(case: Case) -> None:
    rng = np.random.default_rng(0)
    dim, steps = 5, 300
    p = case.structure.from_dense(
        jnp.asarray(_ill_conditioned(case, rng, dim), jnp.float32)
    )

    def step(p: PositiveDefinite, eps: jax.Array) -> tuple[PositiveDefinite, None]:
        tangent = p.tangent(eps, eps[::-1])
        return p.along(tangent)(jnp.float32(0.3), retractions.second_order).matrix, None

    eps = jnp.asarray(rng.standard_normal((steps, 8, dim)), jnp.float32)
    last, _ = jax.jit(lambda p: jax.lax.scan(step, p, eps))(p)
    b, a = roots(last)
    # Each step may lose some units in the last place of each root.
    rounding = 100 * steps * np.finfo(np.float32).eps
    np.testing.assert_allclose(b.T @ a, np.eye(dim), atol=rounding)


# -- dense only ---------------------------------------------------------------------


@given(dim=dims, seed=seeds)
def test_dense_from_inverse_root(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((dim, dim)) + 2 * np.eye(dim)
    p = Dense.from_inverse_root(jnp.asarray(a))
    np.testing.assert_array_equal(p.inverse_root, a)
    scale = np.linalg.cond(a)
    np.testing.assert_allclose(p.root.T @ a, np.eye(dim), atol=1e-13 * scale)
    close(p.inverse_dense(), a @ a.T)


@pytest.mark.parametrize("seed", range(5))
def test_dense_from_inverse_root_in_single_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact = _ill_conditioned(STRUCTURES[0], rng, 5)
    values, vectors = np.linalg.eigh(exact / np.sqrt(np.outer(*[np.diag(exact)] * 2)))
    a = vectors / np.sqrt(values) / np.sqrt(np.diag(exact))[:, None]
    p = Dense.from_inverse_root(jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(p.root.T @ p.inverse_root, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(p.diagonal(), np.diag(exact), rtol=1e-3)
