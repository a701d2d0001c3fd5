"""Every structure against dense NumPy, as an operator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from tests.linalg.cases import (
    STRUCTURES,
    Case,
    close,
    dims,
    every_structure,
    numbers_of,
    on_vectors,
    seeds,
    stack,
)
from tests.programs import compiled


@every_structure
@given(dim=dims, seed=seeds)
def test_operator(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, matrix = case.member(rng, dim)
    assert (p.dim, p.batch_shape) == (dim, ())
    x = rng.standard_normal((2, 3, dim))
    vectors, numbers = on_vectors(p, jnp.asarray(x)), numbers_of(p)
    inverse = np.linalg.inv(matrix)
    close(vectors["mv"], x @ matrix)
    close(vectors["solve"], np.linalg.solve(matrix, x[..., None])[..., 0])
    close(numbers["dense"], matrix)
    close(numbers["inverse_dense"], inverse)
    close(numbers["diagonal"], np.diag(matrix))
    close(numbers["inverse_diagonal"], np.diag(inverse))
    np.testing.assert_allclose(numbers["trace"], np.trace(matrix), rtol=1e-10)
    logdet = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(numbers["logdet"], logdet, atol=1e-9)
    for name in ("scaled", "scaled_by_array"):
        close(numbers[name], 2.5 * matrix)
    close(numbers["scaled_inverse"], inverse / 2.5)


@every_structure
@given(dim=dims, seed=seeds)
def test_roots(case: Case, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, matrix = case.member(rng, dim)
    x = rng.standard_normal((2, 3, dim))
    vectors, numbers = on_vectors(p, jnp.asarray(x)), numbers_of(p)
    close(vectors["rewhiten"], x)
    close(vectors["reunwhiten"], x)
    b, a = np.asarray(numbers["root"]), np.asarray(numbers["inverse_root"])
    close(b @ b.T, matrix)
    close(a @ a.T, np.linalg.inv(matrix))
    close(b.T @ a, np.eye(dim), 1e-9)
    # One A and its transpose; B likewise.
    close(vectors["whiten"], x @ b)
    close(vectors["unwhiten"], x @ a.T)
    close(vectors["whiten_gradient"], x @ a)
    # The frame is kept by a scaling: the roots scale too.
    close(numbers["scaled_root"], 2 * b)


# -- leading axes, by themselves and under JAX's transformations ---------------------


@every_structure
def test_leading_axes_are_a_loop(case: Case) -> None:
    if not case.stacks:
        pytest.skip("it stands for one matrix")
    rng = np.random.default_rng(0)
    members = [case.member(rng, 4)[0] for _ in range(3)]
    together = stack(members)
    assert (together.dim, together.batch_shape) == (4, (3,))
    x = jnp.asarray(rng.standard_normal((2, 3, 4)))
    many, of_one = on_vectors(together, x), on_vectors(together, x[0, 0])
    mapped = compiled(jax.vmap(on_vectors.__wrapped__, (0, None)))(together, x)
    numbers = numbers_of(together), compiled(jax.vmap(numbers_of.__wrapped__))(together)
    alone = on_vectors(members[0], x[0, 0])
    for i, member in enumerate(members):
        for name, value in on_vectors(member, x).items():
            close(many[name][:, i], value[:, i], 1e-12)
            close(of_one[name][i], value[0, 0], 1e-12)
            close(mapped[name][i], value, 1e-12)
            if i == 0:
                assert alone[name].shape == (4,)
                close(alone[name], value[0, 0], 1e-12)
        for name, value in numbers_of(member).items():
            for batched in numbers:
                close(batched[name][i], value, 1e-12)


@every_structure
def test_slopes_are_those_of_differences(case: Case) -> None:
    # Along a scaling, which stays in every structure.
    rng = np.random.default_rng(0)
    p, _ = case.member(rng, 4)
    x = jnp.asarray(rng.standard_normal((2, 3, 4)))

    def total(c: jax.Array) -> jax.Array:
        scaled = p.scale(c)
        pieces = [scaled.logdet(), scaled.mv(x), scaled.solve(x)]
        if case.root_slopes:
            pieces.append(scaled.unwhiten(x))
        return sum((jnp.sin(piece).sum() for piece in pieces), jnp.zeros(()))

    every = compiled(lambda c: (total(c), jax.jacfwd(total)(c), jax.grad(total)(c)))
    h = 1e-6
    (_, slope, backward), above, below = (every(1.3 + step) for step in (0.0, h, -h))
    np.testing.assert_allclose(slope, (above[0] - below[0]) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(backward, slope, rtol=1e-10)


@every_structure
def test_relative_trace(case: Case) -> None:
    """tr(P Q⁻¹) with Q of every structure, and a batch of Q."""
    rng = np.random.default_rng(0)
    p, matrix = case.member(rng, 4)
    for other_case in STRUCTURES:
        other, q = other_case.member(rng, 4)
        expected = np.trace(matrix @ np.linalg.inv(q))
        np.testing.assert_allclose(p.relative_trace(other), expected, rtol=1e-9)
        if not other_case.stacks:
            continue
        batch = stack([other, other.scale(2.0)])
        found = p.relative_trace(batch)
        np.testing.assert_allclose(found, [expected, expected / 2], rtol=1e-9)
    np.testing.assert_allclose(p.relative_trace(p), 4, rtol=1e-12)
