"""What every optimiser of the package must do, see `cases`."""

from __future__ import annotations

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.nets.optimizers import shampoo
from tests.nets.optimizers.cases import CASES, PROBLEMS, run_of, solved

KEY = jax.random.key(0)


def transformations():
    made = {name: case.make(PROBLEMS["logistic"], 0.1) for name, case in CASES.items()}
    return [n for n, o in made.items() if isinstance(o, optax.GradientTransformation)]


def pairs():
    """Of rows and problems; what compiles longest, the quick suite sees on one."""
    seldom = pytest.mark.slow
    return [
        pytest.param(name, problem, marks=() if quick else seldom)
        for name, problem in itertools.product(CASES, PROBLEMS)
        for quick in [name in transformations() or problem == "logistic"]
    ]


@pytest.mark.parametrize(("name", "problem"), pairs())
def test_targets_are_reached(name, problem):
    _, run, kept, _ = solved(name, problem)
    problem, params = PROBLEMS[problem], run.params(kept[-1])
    loss = jax.vmap(problem.loss) if problem.many else problem.loss
    start, end = (np.asarray(loss(run.params(carry))) for carry in (kept[0], kept[-1]))
    assert (start > problem.best + 10 * problem.tolerance).all()
    assert (end < problem.best + problem.tolerance).all()
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", CASES)
def test_states_are_checkpoints(name):
    advance, _, (start, middle, end, *_), traces = solved(name, "logistic")
    # Through bytes, as plain numbers, into the structure of a fresh start.
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(middle))
    file.seek(0)
    leaves = list(np.load(file).values())
    restored = jax.tree.unflatten(jax.tree.structure(start), leaves)
    again = advance(restored, jax.random.key(1))
    for one, other in zip(*map(jax.tree.leaves, (again, end)), strict=True):
        np.testing.assert_array_equal(one, other)
    # Nor is it compiled again.
    assert len(traces) == 1


@pytest.mark.parametrize("name", transformations())
def test_half_precision_and_injected_rates(name):
    problem = PROBLEMS["logistic"]

    def make(learning_rate):
        return CASES[name].make(problem, learning_rate)

    rate = optax.cosine_decay_schedule(CASES[name].rate_for(problem), 60)
    run = run_of(optax.inject_hyperparams(make)(rate), problem)

    @jax.jit
    def steps(start):
        keys = jax.random.split(KEY, 60)
        begun = run.begin(start)
        return jax.lax.scan(lambda c, k: (run.step(c, k), 0), begun, keys)[0]

    params, state = steps(problem.cast(problem.start, jnp.bfloat16))
    assert float(problem.loss(params)) < problem.best + 0.05
    assert state.hyperparams["learning_rate"] < 0.001
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.bfloat16


def test_gradients_are_accumulated():
    # Two steps of MultiSteps are one along the mean; its sums are in single precision.
    problem = PROBLEMS["parabola"]
    optimizer = CASES["sophia"].make(problem, 0.1)
    accumulated = optax.MultiSteps(optimizer, 2)
    gradient = jax.grad(problem.loss)(problem.start)
    extra = {"batch": problem.batch}

    @jax.jit
    def twice(params):
        state = accumulated.init(params)
        for scale in (0.5, 1.5):
            scaled = jax.tree.map(lambda g, scale=scale: scale * g, gradient)
            updates, state = accumulated.update(scaled, state, params, **extra)
        return updates

    @jax.jit
    def once(params):
        return optimizer.update(gradient, optimizer.init(params), params, **extra)[0]

    for found, expected in zip(
        *(jax.tree.leaves(f(problem.start)) for f in (twice, once)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_masks_and_chains():
    problem = PROBLEMS["parabola"]
    gradient = jax.grad(problem.loss)(problem.start)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(shampoo(0.1, weight_decay=0.1), {"w": True, "b": False}),
    )
    params = jax.tree.map(jnp.ones_like, problem.start)
    state = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(gradient, state, params)
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(updates["b"], gradient["b"] / norm, rtol=1e-12)
    # Adam's first step has entries of size one.
    size = np.linalg.norm(updates["w"] + 0.1 * 0.1)
    np.testing.assert_allclose(size, 0.1 * 6**0.5, rtol=1e-6)
    # Of a state, what is like the parameters is known as such.
    doubled = optax.tree.map_params(optimizer, lambda leaf: 2 * leaf, state)
    of, before = (optax.tree.get(s, "factors")["w"] for s in (doubled, state))
    np.testing.assert_array_equal(of.made[0], 2 * before.made[0])
    assert [int(c) for _, c in optax.tree.get_all_with_path(doubled, "count")] == [
        1
    ] * 2
