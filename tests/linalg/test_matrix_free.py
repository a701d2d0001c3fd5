"""Matrix-free curvature: draws, preconditioned frames, derivatives, compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from ngvi.linalg import (
    DampedMatrixFree,
    Diagonal,
    LowRankPlusDiagonal,
    MatrixFree,
    low_rank,
)
from tests.linalg.cases import close

DIM, RANK, DAMPING = 40, 6, 0.5
TRACES = 0


def product(factor: jax.Array, x: jax.Array) -> jax.Array:
    global TRACES
    TRACES += 1
    return factor @ (factor.T @ x)


def noise(factor: jax.Array, key: jax.Array) -> jax.Array:
    return factor @ jax.random.normal(key, factor.shape[1:], factor.dtype)


def root(seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.standard_normal(RANK) + 1)
    return jnp.asarray(rng.standard_normal((DIM, RANK)) * scales)


def curvature(seed: int = 0) -> MatrixFree:
    factor = root(seed)
    return MatrixFree(Partial(product, factor), DIM, Partial(noise, factor))


@jax.jit
def near(f: MatrixFree) -> LowRankPlusDiagonal:
    return low_rank(f.mv, DIM, 4, jax.random.key(0)).damp(DAMPING)


EXACT = np.asarray(root() @ root().T) + DAMPING * np.eye(DIM)


def _draws_are_right(p: DampedMatrixFree) -> None:
    count = 1000
    draws = np.asarray(p.draw(jax.random.key(1), (count,)))
    # In the exact frame they are independent and standard: each mean of products
    # deviates by at most five of its standard errors.
    white = draws @ np.linalg.cholesky(EXACT)
    errors = (1 + np.eye(DIM)) ** 0.5 / np.sqrt(count)
    assert (np.abs(white.T @ white / count - np.eye(DIM)) < 5 * errors).all()


def test_draws_by_a_solve_and_by_lanczos() -> None:
    f = curvature()
    _draws_are_right(f.damp(DAMPING, tolerance=1e-8))
    silent = MatrixFree(f.product, DIM)
    # Seven different eigenvalues need no more steps.
    _draws_are_right(silent.damp(DAMPING, steps=8))
    _draws_are_right(silent.damp(DAMPING, near(f), steps=8))
    alone = f.damp(DAMPING).draw(jax.random.key(2))
    assert alone.shape == (DIM,)


def test_a_preconditioner_makes_solves_shorter_and_determinants_surer() -> None:
    f = MatrixFree(curvature().product, DIM, probes=20)
    plain, framed = f.damp(DAMPING, steps=8), f.damp(DAMPING, near(f), steps=8)
    b = jnp.ones(DIM)
    (x, info), (y, info_framed) = (p.solve_with_info(b) for p in (plain, framed))
    assert info_framed.iterations < info.iterations
    for solution in (x, y):
        close(solution, np.linalg.solve(EXACT, b), 1e-4)
    logdet = np.linalg.slogdet(EXACT)[1]
    rough, sure = (p.estimate_logdet() for p in (plain, framed))
    assert sure.standard_error < rough.standard_error / 2
    for value, error in (rough, sure):
        assert abs(value - logdet) < 4 * error
    inverse = framed.estimate_inverse_diagonal()
    z = (inverse.value - np.diag(np.linalg.inv(EXACT))) / inverse.standard_error
    assert np.abs(z).max() < 5


def test_the_slope_of_the_determinant_in_a_damping_of_each_coordinate() -> None:
    f = curvature()
    each = jnp.linspace(0.5, 2, DIM)

    def logdet(each: jax.Array) -> jax.Array:
        return f.damp(each, tolerance=1e-12).logdet()

    exact = np.asarray(root() @ root().T) + np.diag(each)
    value, slope = jax.jit(jax.value_and_grad(logdet))(each)
    np.testing.assert_allclose(value, np.linalg.slogdet(exact)[1], rtol=1e-10)
    close(slope, np.diag(np.linalg.inv(exact)), 1e-9)


def test_roots_are_linear_maps_without_slopes_in_the_matrix() -> None:
    f = curvature()
    p = f.damp(DAMPING, steps=8)
    eps = jnp.linspace(-1, 1, DIM)
    _, back = jax.vjp(p.unwhiten, eps)
    close(back(eps)[0], p.whiten_gradient(eps))
    with pytest.raises(NotImplementedError, match="have no derivatives"):
        jax.jvp(lambda d: f.damp(d).unwhiten(eps), (0.5,), (1.0,))
    # A draw by a solve has them: n and ε fixed, P x = n + √λ ε.
    key, h = jax.random.key(3), 1e-5
    draw = jax.jit(lambda d: f.damp(d, tolerance=1e-13).draw(key))
    slope = jax.jvp(draw, (0.5,), (1.0,))[1]
    close(slope, (draw(0.5 + h) - draw(0.5 - h)) / (2 * h), 1e-6)


def test_new_data_compile_nothing_also_outside_of_jit() -> None:
    def all_of_it(seed: int) -> None:
        p = curvature(seed).damp(DAMPING + seed, tolerance=1e-3 / (1 + seed))
        x = jnp.ones((2, DIM))
        p.solve(x), p.unwhiten(x), p.logdet(), p.trace(), p.inverse_diagonal()

    all_of_it(0)
    before = TRACES
    all_of_it(1)
    # The vectors' shapes alone are looked at anew.
    assert TRACES - before <= 1


def test_a_product_in_parts_is_the_same_matrix() -> None:
    def in_parts(factor: jax.Array, parts: list[jax.Array]) -> list[jax.Array]:
        return jnp.split(product(factor, jnp.concatenate(parts)), [15])

    parted = MatrixFree(Partial(in_parts, root()), DIM, sizes=(15, DIM - 15)).scale(3)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, DIM)))
    whole = 3 * np.asarray(root() @ root().T)
    close(parted.dense(), whole)
    close(parted.trace(), np.trace(whole))
    each = np.linspace(0.5, 2, DIM)
    p = parted.damp(jnp.asarray(each), near(curvature()), 1e-12)
    exact = np.linalg.solve(whole + np.diag(each), x.T).T
    close(p.solve(x), exact, 1e-9)
    found, info = p.solve_with_info(x, start=jnp.asarray(exact))
    close(found, exact, 1e-9)
    assert (info.iterations <= 1).all()


def test_single_precision_of_the_parameters_among_double_data() -> None:
    double, x = root(), jnp.ones(DIM, jnp.float32)

    def in_single(factor: jax.Array, x: jax.Array) -> jax.Array:
        assert x.dtype == jnp.float32
        return product(factor, x).astype(jnp.float32)

    f = MatrixFree(Partial(in_single, double), DIM, dtype=jnp.float32)
    p = f.damp(DAMPING)
    for value in (f.diagonal(), p.logdet(), p.solve(x), p.draw(jax.random.key(0))):
        assert value.dtype == jnp.float32
    np.testing.assert_allclose(f.trace(), np.trace(EXACT) - DAMPING * DIM, rtol=1e-5)


def test_sums_say_why_not() -> None:
    f = curvature()
    with pytest.raises(TypeError, match="one product over the whole data"):
        f.average(f, 0.5)
    with pytest.raises(TypeError, match="averaged with, its like, got Diagonal"):
        f._matching(Diagonal(jnp.ones(DIM)))
