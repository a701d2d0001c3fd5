"""Each stop test, where it must fire and where it must not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Diagonal
from ngvi.nes import Stopping, cma, run, snes
from ngvi.nes.stopping import TESTS, describe, empty_record, measure

DIM = 3
STRATEGY = cma(DIM)


@pytest.fixture(scope="module")
def search():
    """Compiled once: the objective is chosen by a number."""

    def objective(x, which):
        sphere = (x**2).sum()
        return jax.lax.switch(
            which,
            [
                lambda: sphere,
                lambda: jnp.zeros(()),
                lambda: 1e6 + jnp.sqrt(sphere) * 1e-30,
                lambda: jnp.sin(1e9 * x).sum(),
                lambda: x[0] - 1e3 * jnp.abs(x[1]),
                lambda: x[0],
                lambda: jnp.nan * sphere,
            ],
        )

    @jax.jit
    def go(which, stopping):
        start, key = jnp.full(DIM, 0.7), jax.random.key(0)
        return run(
            STRATEGY,
            objective,
            start,
            0.3,
            key,
            5000,
            args=(which,),
            stopping=stopping,
        )

    return lambda which, **limits: go(which, Stopping(**limits))


def fired(found):
    return {n for n, stop in zip(TESTS, found.fired, strict=True) if stop}


OFF = dict(tolfun=-1.0, tolfunhist=-1.0, tolx=0.0, stagnation=0.0, conditioncov=jnp.inf)


@pytest.mark.parametrize(
    ("name", "which", "limits"),
    [
        ("ftarget", 0, {"ftarget": 1e-3}),
        ("tolfun", 0, {"tolfun": 1e-3}),
        ("tolfunhist", 0, {"tolfunhist": 1e-3}),
        ("tolx", 0, {"tolx": 1e-2}),
        ("tolfun", 1, {"tolfun": 0.0}),
        ("tolfun", 2, {"tolfun": 0.0}),
        ("stagnation", 3, {"stagnation": 1.0}),
        ("conditioncov", 4, {"conditioncov": 1e4}),
    ],
)
def test_each_test_fires_alone(search, name, which, limits):
    found = search(which, **(OFF | limits))
    names = fired(found)
    assert name in names
    # Where values differ by rounding alone, both histories are flat.
    assert names == {name} or (which in (1, 2) and names == {name, "tolfunhist"})
    measured = float(found.measured[TESTS.index(name)])
    limit = float(limits[name])
    if name == "conditioncov":
        assert measured > limit
    elif name == "stagnation":
        assert measured <= 0
    else:
        assert measured <= max(limit, 1e-8)
    assert describe(name, measured, Stopping(**limits), jnp.float64).startswith(name)


def test_steps_lost_in_rounding_fire():
    one, length = jnp.ones(()), 10

    @jax.jit
    def measured(sd):
        q = Gaussian(jnp.ones(DIM), Diagonal(1 / sd))
        record = empty_record(DIM, 7, sd.dtype)
        limits = Stopping(**OFF)
        return measure(
            q,
            jnp.ones(DIM),
            record,
            jnp.zeros((), int),
            length,
            one,
            one,
            limits,
            one,
        )[1]

    def names(*sd):
        return {n for n, f in zip(TESTS, measured(jnp.array(sd)), strict=True) if f}

    assert names(1e-3, 1e-3, 1e-3) == set()
    assert names(1e-3, 1e-18, 1e-3) == {"noeffectcoord"}
    # The first generation looks at the first axis.
    assert names(1e-18, 1e-3, 1e-3) == {"noeffectaxis", "noeffectcoord"}


def test_limits_end_a_run_without_a_test():
    start, key = jnp.ones(DIM), jax.random.key(0)

    @jax.jit
    def go(stopping, generations):
        return run(
            snes(DIM), lambda x: x @ x, start, 0.3, key, generations, stopping=stopping
        )

    found = go(Stopping(maxfevals=50), 1000)
    assert int(found.state.generation) == 7 and not fired(found)
    found = go(Stopping(maxfevals=10_000), 4)
    assert int(found.state.generation) == 4 and not fired(found)


def test_failures_alone_stop_nothing(search):
    found = search(6, maxfevals=60 * STRATEGY.popsize)
    assert int(found.failed) == 60 * STRATEGY.popsize
    assert not fired(found) and found.best_value == jnp.inf
    np.testing.assert_array_equal(found.best_point, np.full(DIM, 0.7))


def test_runs_can_be_batched_over_seeds_and_data():
    strategy = cma(2)

    @jax.jit
    @jax.vmap
    def go(key, goal):
        return run(
            strategy,
            lambda x, goal: ((x - goal) ** 2).sum(),
            jnp.zeros(2),
            0.5,
            key,
            300,
            args=(goal,),
        )

    goals = jnp.stack([jnp.linspace(-2, 2, 100), jnp.linspace(3, -1, 100)], 1)
    found = go(jax.random.split(jax.random.key(0), 100), goals)
    np.testing.assert_allclose(found.best_point, goals, atol=1e-4)
    assert len(set(np.asarray(found.state.generation).tolist())) > 10


def test_single_precision_stays_single_and_stops():
    found = jax.jit(
        lambda: run(
            STRATEGY,
            lambda x: ((x - 3) ** 2).sum(),
            jnp.zeros(DIM, jnp.float32),
            0.3,
            jax.random.key(0),
            5000,
        )
    )()
    floats = [a.dtype for a in jax.tree.leaves(found) if a.dtype.kind == "f"]
    assert set(floats) == {np.dtype(np.float32)}
    assert fired(found) and int(found.state.generation) < 1000
    assert float(found.best_value) < 1e-8
