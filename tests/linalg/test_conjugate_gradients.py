"""Conjugate gradients: when they stop, what they say, and how often they compile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import Dense, Diagonal, SolveInfo, conjugate_gradients
from ngvi.linalg.conjugate_gradients import solve_positive
from tests.linalg.cases import close, stack


def matrix(seed: int, dim: int = 30, decades: float = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return vectors * 10.0 ** np.linspace(0, decades, dim) @ vectors.T


@jax.jit
def solved(
    p: jax.Array,
    b: jax.Array,
    tolerance: float = 1e-12,
    start: jax.Array | None = None,
    preconditioner: Dense | None = None,
) -> tuple[jax.Array, SolveInfo]:
    return conjugate_gradients(
        lambda x: x @ p, b, preconditioner, tolerance=tolerance, start=start
    )


def test_every_right_side_stops_by_itself() -> None:
    p = matrix(0)
    vectors = np.linalg.eigh(p)[1]
    # Nothing, an eigenvector, a sum of three of them, and a vector of all.
    hard = np.random.default_rng(1).standard_normal(30)
    b = np.stack([np.zeros(30), vectors[:, 3], vectors[:, ::13].sum(1), hard])
    x, info = solved(p, b)
    close(x, np.linalg.solve(p, b.T).T)
    assert info.iterations[:2].tolist() == [0, 1]
    assert 3 <= info.iterations[2] <= 4 < 30 <= info.iterations[3]
    assert info.converged.all() and not info.indefinite.any()
    true = np.linalg.norm(b - x @ p, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1)
    np.testing.assert_allclose(info.residual[:3], true[:3], atol=1e-12)
    assert (np.asarray(info.residual) < 2e-12).all()
    alone, alone_info = solved(p, b[3])
    assert alone_info.iterations == info.iterations[3]
    close(alone, x[3])


def test_a_preconditioner_and_a_start_save_iterations() -> None:
    p = matrix(2)
    b = np.random.default_rng(3).standard_normal(30)
    exact = np.linalg.solve(p, b)
    x, info = solved(p, b, preconditioner=Dense.from_dense(jnp.asarray(p)))
    assert info.iterations <= 2
    close(x, exact)
    _, plain = solved(p, b, 1e-6)
    near, warm = solved(p, b, 1e-6, exact * (1 + 1e-6))
    assert warm.converged and warm.iterations < plain.iterations / 4
    close(near, exact, 1e-3)


def test_progress_ends_it_where_martens_rule_does() -> None:
    p, b = matrix(4, 120, 2), np.random.default_rng(5).standard_normal(120)
    limit = 5e-3
    # The textbook, and the rule on the list of values.
    x, r, values = np.zeros(120), b.copy(), [0.0]
    direction = r.copy()
    while True:
        step = r @ r / (direction @ p @ direction)
        x, left = x + step * direction, r - step * p @ direction
        direction, r = left + left @ left / (r @ r) * direction, left
        values.append(x @ p @ x / 2 - b @ x)
        i = len(values) - 1
        k = max(10, i // 10)
        if i > k and (values[-1] - values[-1 - k]) / values[-1] < k * limit:
            break
    found, info = jax.jit(
        lambda p, b: conjugate_gradients(
            lambda x: p @ x, b, tolerance=1e-12, progress=limit
        )
    )(p, b)
    assert info.converged and info.iterations == i > 10
    close(found, x, 1e-6)
    assert info.residual > 1e-6


def test_a_singular_system_that_has_a_solution() -> None:
    # A gradient lies in the range of its Fisher matrix: the shortest step is found.
    factor = np.random.default_rng(6).standard_normal((30, 5))
    b = factor @ np.arange(1.0, 6)
    x, info = solved(factor @ factor.T, b)
    close(x, np.linalg.lstsq(factor @ factor.T, b, rcond=1e-10)[0], 1e-9)
    assert info.converged and info.iterations == 5


def test_what_cannot_be_solved_says_so() -> None:
    p = np.diag(np.linspace(1, 30, 30))
    b = np.ones(30)
    p[0, 0] = -1.0
    x, info = solved(p, b)
    assert info.indefinite and not info.converged and np.isfinite(x).all()
    assert np.isnan(solve_positive(lambda x: p @ x, jnp.ones(30), None, 1e-9, 9)).all()
    x, info = solved(p, b * np.nan)
    assert np.isnan(x).all() and not info.converged and info.iterations == 0
    short = jax.jit(
        lambda b: conjugate_gradients(lambda x: matrix(7) @ x, b, max_iterations=4)
    )
    _, info = short(jnp.asarray(b))
    assert info.iterations == 4 and not info.converged and info.residual > 1e-5


def test_matrices_with_leading_axes_share_a_right_side() -> None:
    matrices = [matrix(seed, 4) for seed in range(3)]
    p = stack([Dense.from_dense(jnp.asarray(m)) for m in matrices])
    b = np.random.default_rng(8).standard_normal(4)
    x, info = conjugate_gradients(p.mv, jnp.asarray(b), tolerance=1e-13)
    assert info.iterations.shape == (3,)
    for one, m in zip(x, matrices, strict=True):
        close(one, np.linalg.solve(m, b), 1e-9)


def test_vectors_in_parts_are_solved_as_if_they_were_joined() -> None:
    # One part is long enough to be summed in rows, the last of which is not full.
    sizes = (3, 20_400, 200)
    cuts = np.cumsum(sizes)[:-1]
    rng = np.random.default_rng(9)
    w, u = 1 + rng.random(sum(sizes)), rng.standard_normal(sum(sizes)) / 50
    b, start = rng.standard_normal((2, 2, sum(sizes)))

    def mv(parts: list[jax.Array]) -> list[jax.Array]:
        pieces = list(zip(parts, np.split(w, cuts), np.split(u, cuts), strict=True))
        along = sum((x * u).sum(-1, keepdims=True) for x, _, u in pieces)
        return [w * x + along * u for x, w, u in pieces]

    # Sherman and Morrison's formula.
    exact = b / w - (b @ (u / w))[:, None] * (u / w) / (1 + u @ (u / w))
    near = Diagonal.from_entries(jnp.asarray(w))
    for m, most in ((None, 25), (near, 2)):
        parts, info = jax.jit(
            lambda b, x, m=m: conjugate_gradients(mv, b, m, tolerance=1e-10, start=x)
        )(np.split(b, cuts, -1), np.split(start, cuts, -1))
        assert info.converged.all() and (np.asarray(info.iterations) <= most).all()
        assert (np.asarray(info.residual) < 1.1e-10).all()
        close(jnp.concatenate(parts, -1), exact, 1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_it_compiles_once_for_its_shapes(dtype: type) -> None:
    traces = 0

    @jax.jit
    def solve(p: jax.Array, b: jax.Array, tolerance: float) -> jax.Array:
        nonlocal traces
        traces += 1
        return conjugate_gradients(lambda x: x @ p, b, tolerance=tolerance)[0]

    for seed, tolerance in enumerate((1e-2, 1e-4, 1e-5)):
        p = matrix(seed, decades=1)
        b = np.random.default_rng(seed).standard_normal((2, 30))
        x = solve(jnp.asarray(p, dtype), jnp.asarray(b, dtype), tolerance)
        assert x.dtype == dtype
        left = np.linalg.norm(b - x @ p, axis=1) / np.linalg.norm(b, axis=1)
        assert (left < 1.1 * tolerance).all()
    assert traces == 1
