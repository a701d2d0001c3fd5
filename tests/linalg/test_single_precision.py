"""Single precision: units cost no digits, and no method widens its input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.linalg import LinearStructure
from ngvi.mirror import retractions
from tests.linalg.cases import (
    LINEAR,
    Case,
    LinearCase,
    close,
    every_linear,
    every_semidefinite,
    every_structure,
    ill_conditioned,
    linear,
    numbers_of,
    on_vectors,
    roots,
    semidefinite,
)


def single(tree: Any) -> Any:
    """The same structure in single precision."""

    def narrow(leaf: Any) -> jax.Array:
        real = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, jnp.float32 if real else None)

    return jax.tree.map(narrow, tree)


def in_single_precision(case: LinearCase, exact: np.ndarray) -> LinearStructure:
    """The matrix as the structure factorises it from single-precision entries."""
    p = single(case.build(exact, np.random.default_rng(0)))
    return p.from_entries(p.project(jnp.asarray(exact, jnp.float32)))


@every_structure
def test_single_precision_stays_single(case: Case) -> None:
    rng = np.random.default_rng(0)
    p, _ = single(case.member(rng, 4))
    x = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
    shapes = [jax.eval_shape(on_vectors, p, x), jax.eval_shape(numbers_of, p)]
    if case in LINEAR:
        shapes.append(jax.eval_shape(linear, p, x))
    for path, value in jax.tree.leaves_with_path(shapes):
        assert value.dtype == jnp.float32, path


@every_semidefinite
def test_a_curvature_in_single_precision_stays_single(case: Case) -> None:
    rng = np.random.default_rng(0)
    exact, matrix = case.member(rng, 4)
    x = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
    found = semidefinite(single(exact), x)
    for path, value in jax.tree.leaves_with_path(found):
        assert value.dtype == jnp.float32, path
    close(found["damped_solve"], np.linalg.solve(matrix + 0.3 * np.eye(4), x.T).T, 1e-5)


@every_linear
@pytest.mark.parametrize("seed", range(5))
def test_units_cost_no_digits_in_single_precision(case: LinearCase, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 5
    exact = ill_conditioned(case, rng, dim)
    p = in_single_precision(case, exact)
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


@every_linear
def test_many_steps_do_not_pull_the_roots_apart(case: LinearCase) -> None:
    if not case.whitened:
        pytest.skip("its roots are computed anew at each step, which may be too long")
    rng = np.random.default_rng(0)
    dim, steps = 5, 300
    p = in_single_precision(case, ill_conditioned(case, rng, dim))

    def step(p: LinearStructure, eps: jax.Array) -> tuple[LinearStructure, None]:
        tangent = p.tangent(eps, eps[::-1])
        return p.along(tangent)(jnp.float32(0.3), retractions.second_order).matrix, None

    eps = jnp.asarray(rng.standard_normal((steps, 8, dim)), jnp.float32)
    last, _ = jax.jit(lambda p: jax.lax.scan(step, p, eps))(p)
    b, a = roots(last)
    # Each step may lose some units in the last place of each root.
    rounding = 100 * steps * np.finfo(np.float32).eps
    np.testing.assert_allclose(b.T @ a, np.eye(dim), atol=rounding)
