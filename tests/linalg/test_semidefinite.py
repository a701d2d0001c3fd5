"""Every semidefinite structure against dense NumPy: products, sums, damping."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ngvi.linalg import Diagonal, Reordered, SemidefiniteDiagonal
from tests.linalg.cases import (
    SemidefiniteCase,
    close,
    dims,
    every_semidefinite,
    seeds,
    semidefinite,
    stack,
)
from tests.programs import compiled


@every_semidefinite
@given(dim=dims, seed=seeds)
def test_curvature(case: SemidefiniteCase, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    f, matrix = case.member(rng, dim)
    assert (f.dim, f.batch_shape) == (dim, ())
    x = rng.standard_normal((2, 3, dim))
    found = semidefinite(f, jnp.asarray(x))
    close(found["mv"], x @ matrix)
    close(found["diagonal"], np.diag(matrix))
    np.testing.assert_allclose(found["trace"], np.trace(matrix), atol=1e-10)
    close(found["dense"], matrix)
    for name in ("scaled", "scaled_by_array"):
        close(found[name], 2.5 * matrix)
    damped = matrix + 0.3 * np.eye(dim)
    for name in ("damped", "damped_by_array"):
        close(found[name], damped)
    close(found["damped_solve"], np.linalg.solve(damped, x[..., None])[..., 0])
    close(found["damped_inverse"], np.linalg.inv(damped))
    logdet = np.linalg.slogdet(damped)[1]
    np.testing.assert_allclose(found["damped_logdet"], logdet, atol=1e-9)


@every_semidefinite
def test_arithmetic(case: SemidefiniteCase) -> None:
    rng = np.random.default_rng(0)
    (f, matrix), (g, other) = case.member(rng, 4), case.member(rng, 4)
    if case.adds:
        close(f.add(g).dense(), matrix + other)
        close(f.average(g, 0.3).dense(), 0.7 * matrix + 0.3 * other)
        with pytest.raises(TypeError, match="of 4 rows can be added"):
            f.add(case.member(rng, 1)[0])
    else:
        with pytest.raises(TypeError, match="average"):
            f.add(g)
    each = np.exp(rng.standard_normal(4))
    if case.damps_each:
        close(f.damp(jnp.asarray(each)).dense(), matrix + np.diag(each))
        with pytest.raises(ValueError, match="each of 4 coordinates"):
            f.damp(jnp.ones(3))
    else:
        with pytest.raises(ValueError, match="takes one λ"):
            f.damp(jnp.asarray(each))
    if case.clips:
        values, vectors = np.linalg.eigh(matrix)
        clipped = vectors * np.maximum(values, 0.5) @ vectors.T
        close(f.clip(0.5).dense(), clipped)
    else:
        with pytest.raises(TypeError, match="does not know its eigenvalues"):
            f.clip(0.5)


@every_semidefinite
def test_leading_axes_are_a_loop(case: SemidefiniteCase) -> None:
    if not case.stacks:
        pytest.skip("it stands for one matrix")
    rng = np.random.default_rng(0)
    members = [case.member(rng, 4)[0] for _ in range(3)]
    together = stack(members)
    assert (together.dim, together.batch_shape) == (4, (3,))
    x = jnp.asarray(rng.standard_normal((2, 1, 4)))
    found = semidefinite(together, x)
    mapped = compiled(jax.vmap(semidefinite.__wrapped__, (0, None)))(together, x)
    for i, member in enumerate(members):
        for name, value in semidefinite(member, x[:, 0]).items():
            on_vectors = name in ("mv", "damped_solve")
            close(found[name][:, i] if on_vectors else found[name][i], value, 1e-12)
            close(mapped[name][i, :, 0] if on_vectors else mapped[name][i], value)


def test_a_running_average_is_the_mean_over_all_examples() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n, 3)) for n in (5, 2, 4)]
    mean, seen = SemidefiniteDiagonal(jnp.zeros(3)), 0
    for batch in batches:
        seen += len(batch)
        here = SemidefiniteDiagonal(jnp.asarray((batch**2).mean(0)))
        mean = mean.average(here, len(batch) / seen)
    close(mean.values, (np.concatenate(batches) ** 2).mean(0))


def test_a_prior_precision_for_each_coordinate_of_a_batch() -> None:
    f = SemidefiniteDiagonal(jnp.ones((2, 3)))
    close(f.damp(jnp.asarray([1.0, 2.0])).diagonal(), [[2.0] * 3, [3.0] * 3])
    of_each = jnp.arange(6.0).reshape(2, 3)
    damped = f.damp(of_each)
    assert isinstance(damped, Diagonal)
    close(damped.diagonal(), 1 + of_each)


def test_an_order_has_a_place_for_each_coordinate() -> None:
    p = Diagonal(jnp.sqrt(jnp.asarray([1.0, 2.0, 3.0])))
    with pytest.raises(ValueError, match="2 places for 3 coordinates"):
        Reordered.from_order(p, jnp.asarray([1, 0]))
    # The first of the diagonal belongs to the vector's last coordinate.
    q = Reordered.from_order(p, jnp.asarray([2, 0, 1]))
    close(q.mv(jnp.ones(3)), [2.0, 3.0, 1.0])
