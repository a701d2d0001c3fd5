"""The two-loop recursion against the dense inverse Hessian it stands for."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.mirror.memory import Memory
from ngvi.mirror.step import Direction, inner
from tests.mirror.problems import every_structure, gaussian, positive

DIM = 2
seeds = st.integers(0, 2**32 - 1)


class Coordinates:
    """An isometry between directions, with the Fisher inner product, and ℝⁿ."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.precision = gaussian(name, np.random.default_rng(0), DIM).precision
        rows, columns = (
            np.triu_indices(DIM) if name == "dense" else [np.arange(DIM)] * 2
        )
        self.rows, self.columns = rows, columns
        self.dense = name == "dense"
        # ½ tr X²: an off-diagonal entry counts twice.
        self.scale = np.where(rows == columns, np.sqrt(0.5), 1.0)
        self.size = DIM + len(rows)

    def vector(self, d: Direction) -> np.ndarray:
        curvature = np.asarray(d.curvature)
        entries = curvature[self.rows, self.columns] if self.dense else curvature
        return np.concatenate([np.asarray(d.mean), entries * self.scale])

    def direction(self, v: np.ndarray) -> Direction:
        entries = v[DIM:] / self.scale
        if self.dense:
            curvature = np.zeros((DIM, DIM))
            curvature[self.rows, self.columns] = entries
            curvature[self.columns, self.rows] = entries
        else:
            curvature = entries
        return Direction(jnp.asarray(v[:DIM]), jnp.asarray(curvature))

    def inner(self, a: Direction, b: Direction) -> jax.Array:
        return inner(self.precision, a, b)


def same(d: Direction) -> Direction:
    """No preconditioner."""
    return d


def dense_inverse(
    pairs: list[tuple[np.ndarray, np.ndarray]], start: np.ndarray
) -> np.ndarray:
    """The BFGS update of an inverse Hessian, oldest pair first."""
    h = start
    for s, y in pairs:
        left = np.eye(len(s)) - np.outer(s, y) / (s @ y)
        h = left @ h @ left.T + np.outer(s, s) / (s @ y)
    return h


@partial(jax.jit, static_argnums=0)
def _push(name: str, memory: Memory, s: Direction, y: Direction) -> Memory:
    return memory.push(s, y, Coordinates(name).inner)


@partial(jax.jit, static_argnums=0)
def _direction(
    name: str, memory: Memory, gradient: Direction, metric: np.ndarray
) -> Direction:
    def precondition(d: Direction) -> Direction:
        return Direction(metric[:DIM, :DIM] @ d.mean, d.curvature)

    return memory.direction(gradient, Coordinates(name).inner, precondition)


@every_structure
@given(seed=seeds, count=st.integers(0, 6))
def test_two_loops_are_the_dense_inverse(name: str, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    space = Coordinates(name)
    hessian = positive(rng, space.size)
    gradient = rng.standard_normal(space.size)
    # γ is solved in a metric of its own, as where the precision is diagonal.
    metric = np.eye(space.size)
    metric[:DIM, :DIM] = positive(rng, DIM)

    room = 4
    memory = Memory.empty(room, space.direction(gradient))
    pairs = []
    for _ in range(count):
        s = rng.standard_normal(space.size)
        pairs.append((s, hessian @ s))
        memory = _push(name, memory, *map(space.direction, pairs[-1]))
    # A pair whose curvature shows too little beside its length is left out.
    kept = [(s, y) for s, y in pairs if s @ y > 1e-3 * np.sqrt((s @ s) * (y @ y))]
    expected = dense_inverse(kept[-room:], metric) @ gradient
    direction = _direction(space.name, memory, space.direction(gradient), metric)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(space.vector(direction), expected, atol=1e-8 * scale)
    assert np.sum(np.asarray(memory.weight) > 0) == min(len(kept), room)


def test_enough_pairs_along_conjugate_directions_solve_a_quadratic() -> None:
    rng = np.random.default_rng(0)
    space = Coordinates("dense")
    hessian = positive(rng, space.size)
    gradient = rng.standard_normal(space.size)
    # The eigenvectors are conjugate, so BFGS holds the whole inverse after all of them.
    memory = Memory.empty(space.size, space.direction(gradient))
    for s in np.linalg.eigh(hessian)[1].T:
        memory = memory.push(
            space.direction(s), space.direction(hessian @ s), space.inner
        )
    direction = memory.direction(space.direction(gradient), space.inner, same)
    np.testing.assert_allclose(
        space.vector(direction), np.linalg.solve(hessian, gradient), rtol=1e-9
    )


@every_structure
@pytest.mark.parametrize(
    "factor", [-1.0, 0.0, np.nan, np.inf], ids=["negative", "zero", "nan", "inf"]
)
def test_push_refuses_what_shows_no_positive_curvature(
    name: str, factor: float
) -> None:
    rng = np.random.default_rng(1)
    space = Coordinates(name)
    s = rng.standard_normal(space.size)
    memory = Memory.empty(3, space.direction(s))
    memory = memory.push(space.direction(s), space.direction(2 * s), space.inner)
    refused = memory.push(space.direction(s), space.direction(factor * s), space.inner)
    for before, after in zip(*map(jax.tree.leaves, (memory, refused)), strict=True):
        np.testing.assert_array_equal(before, after)
    # Nearly orthogonal: positive, but not clearly.
    y = rng.standard_normal(space.size)
    y -= s * (y @ s) / (s @ s)
    y += 1e-4 * s * np.linalg.norm(y) / np.linalg.norm(s)
    refused = memory.push(space.direction(s), space.direction(y), space.inner)
    np.testing.assert_array_equal(refused.weight, memory.weight)


@every_structure
def test_an_empty_or_forgotten_memory_only_preconditions(name: str) -> None:
    rng = np.random.default_rng(2)
    space = Coordinates(name)
    gradient = space.direction(rng.standard_normal(space.size))

    def precondition(d: Direction) -> Direction:
        return Direction(3 * d.mean, d.curvature)

    memory = Memory.empty(2, gradient)
    s = rng.standard_normal(space.size)
    full = memory.push(space.direction(s), space.direction(5 * s), space.inner)
    assert float(full.weight[0]) > 0
    for empty in (memory, full.forget()):
        np.testing.assert_array_equal(empty.weight, 0)
        direction = empty.direction(gradient, space.inner, precondition)
        for a, b in zip(
            *map(jax.tree.leaves, (direction, precondition(gradient))), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    changed = full.direction(gradient, space.inner, precondition)
    assert np.abs(changed.mean - 3 * gradient.mean).max() > 1e-3
