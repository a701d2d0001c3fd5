"""What a training loop needs of the optimisers: pytrees, precision, devices, errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import fisher
from ngvi.fisher.likelihoods import Gaussian
from ngvi.fisher.structures import KroneckerEigenStructure, KroneckerStructure
from ngvi.nets.optimizers import (
    State,
    ekfac,
    hessian_free,
    kfac,
    natural_gradient,
    squared_gradient,
    stochastic_natural_gradient,
    train,
)
from ngvi.nets.optimizers.devices import assigned
from tests.nets import problems
from tests.nets.problems import LABELS, PARAMS, X, close
from tests.processes import on_devices
from tests.programs import compiled

BATCH = tuple(jnp.concatenate(leaf) for leaf in (X[:2], LABELS[:2]))
ROWS = {
    "kfac": kfac,
    "ekfac": ekfac,
    "hessian_free": hessian_free,
    "squared_gradient": partial(squared_gradient, learning_rate=0.05),
}


# -- pure functions of pytrees ---------------------------------------------------------


@pytest.mark.parametrize("name", ["kfac", "hessian_free"])
def test_steps_in_scan_and_vmap_are_those_of_a_loop(name: str) -> None:
    optimizer = ROWS[name](problems.apply, "categorical")
    keys = jax.random.split(jax.random.key(0), 3)
    apart = [keys[i] for i in range(3)]

    def loop(params: Any, batch: Any) -> Any:
        state = optimizer.init(params, batch)
        for key in apart:
            state, info = optimizer.step(state, batch, key)
        return state.weights, info.loss

    def scanned(params: Any, batch: Any) -> Any:
        def one(state: Any, key: Any) -> Any:
            state, info = optimizer.step(state, batch, key)
            return state, info.loss

        state, losses = jax.lax.scan(one, optimizer.init(params, batch), keys)
        return state.weights, losses[-1]

    expected = compiled(loop)(PARAMS, BATCH)
    found = compiled(scanned)(PARAMS, BATCH)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    together = compiled(jax.vmap(scanned, (0, None)))(several, BATCH)
    for i in range(2):
        close(found[i], expected[i], 1e-9)
        close(together[i][1], expected[i], 1e-6)


def test_a_state_is_saved_by_its_leaves_and_nothing_compiles_twice(
    tmp_path: Path,
) -> None:
    traced = []

    def apply(params: Any, x: Any) -> Any:
        traced.append(x)
        return problems.apply(params, x)

    optimizer = kfac(apply, "categorical", refresh=2)
    state = optimizer.init(PARAMS, BATCH)
    state, _ = optimizer.step(state, BATCH, jax.random.key(0))
    np.savez(tmp_path / "state.npz", *jax.tree.leaves(state))
    like = optimizer.init(jax.tree.map(jnp.zeros_like, PARAMS), BATCH)
    before = len(traced)
    for i in (1, 2):
        state, _ = optimizer.step(state, BATCH, jax.random.key(i))
    # A process that starts anew has the structure from `init`.
    with np.load(tmp_path / "state.npz") as saved:
        leaves = [jnp.asarray(saved[name]) for name in saved.files]
    other = jax.tree.unflatten(jax.tree.structure(like), leaves)
    for i in (1, 2):
        other, _ = optimizer.step(other, BATCH, jax.random.key(i))
    assert len(traced) == before
    jax.tree.map(np.testing.assert_array_equal, other.params, state.params)


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_half_precision_parameters_have_wide_weights(name: str) -> None:
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    batch = BATCH[0].astype(jnp.bfloat16), BATCH[1]
    optimizer = ROWS[name](problems.apply, "categorical")
    state, step = optimizer.init(small, batch), compiled(optimizer.step)
    assert state.weights.dtype == jnp.float32
    losses = []
    for i in range(15):
        state, info = step(state, batch, jax.random.key(i))
        losses.append(float(info.loss))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.damped)} == {"float32"}
    assert losses[-1] < losses[0] - 0.3


def test_factors_of_rounded_rows_are_semidefinite_and_near() -> None:
    exact, rounded = (
        fisher(
            problems.apply,
            PARAMS,
            BATCH,
            likelihood="categorical",
            structure=KroneckerStructure(dtype=dtype),
        ).matrix
        for dtype in (None, "bfloat16")
    )
    pairs = jax.tree.leaves(exact), jax.tree.leaves(rounded)
    for one, other in zip(*pairs, strict=True):
        assert other.dtype == jnp.float32
        assert 0 < np.abs(other - one).max() < 0.02 * np.abs(one).max()
        assert np.linalg.eigvalsh(other).min() > -1e-6


def test_the_precision_of_factors_is_that_of_the_structure() -> None:
    structure = KroneckerEigenStructure("reduce", "bfloat16")
    optimizer = natural_gradient(problems.apply, "categorical", structure=structure)
    expected = ekfac(
        problems.apply, "categorical", sharing="reduce", factor_dtype="bfloat16"
    )
    assert optimizer.rule.measure.structure == expected.rule.measure.structure


def test_a_batch_in_parts_is_the_batch() -> None:
    found = []
    for parts in (1, 3):
        optimizer = kfac(problems.apply, "categorical", accumulate=parts, adapt_every=1)
        state, step = optimizer.init(PARAMS, BATCH), compiled(optimizer.step)
        for i in range(2):
            state, info = step(state, BATCH, jax.random.key(i))
        found.append((state.weights, info.reduction_ratio))
    jax.tree.map(close, *found)


@pytest.mark.parametrize("name", ["kfac", "hessian_free", "squared_gradient"])
def test_a_step_that_is_not_finite_is_not_taken(name: str) -> None:
    optimizer = ROWS[name](problems.apply, "categorical")
    state, step = optimizer.init(PARAMS, BATCH), compiled(optimizer.step)
    state, info = step(state, BATCH, jax.random.key(0))
    assert info.accepted
    bad = BATCH[0].at[0, 0].set(jnp.nan), BATCH[1]
    after, info = step(state, bad, jax.random.key(1))
    assert not info.accepted
    assert after.damping > state.damping or name == "squared_gradient"
    np.testing.assert_array_equal(after.weights, state.weights)
    jax.tree.map(np.testing.assert_array_equal, after.site, state.site)
    _, info = step(after, BATCH, jax.random.key(2))
    assert info.accepted


# -- the driver ------------------------------------------------------------------------


def test_training_in_batches_with_anchors() -> None:
    optimizer = stochastic_natural_gradient(problems.apply, "categorical", 0.1)
    x, y = X.reshape(-1, 2), LABELS.reshape(-1)
    state, info = train(
        optimizer, PARAMS, (x, y), epochs=3, batch_size=7, anchor_every=3
    )
    assert info.loss.shape == (9,) and int(state.steps) == 9
    assert state.anchor is not None
    more, info = train(optimizer, state, (x, y), steps=4, batch_size=7, key=1)
    assert int(more.steps) == 13 and info.loss.shape == (4,)
    jax.tree.map(np.testing.assert_array_equal, more.anchor, state.anchor)


def test_what_train_refuses() -> None:
    optimizer = kfac(problems.apply, "categorical")
    for settings, message in (
        ({}, "either steps or epochs"),
        ({"steps": 1, "epochs": 1}, "either steps or epochs"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1, "batch_size": 0}, "batch_size must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(optimizer, PARAMS, BATCH, **settings)
    with pytest.raises(ValueError, match="as many examples"):
        train(optimizer, PARAMS, (BATCH[0], BATCH[1][:3]), steps=1)


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": -1.0}, "damping must be at least 0, got -1"),
        ({"refresh": 3, "measure_every": 2}, "refresh must be a multiple"),
        ({"learning_rate": 0.1}, "momentum=None takes it from the quadratic model"),
        ({"damping": lambda t: 1.0}, "has no schedule"),
        ({"root": True}, "root=True is no natural gradient"),
        ({"kind": "hessian"}, "kind must be one of true, sampled"),
        ({"kind": "other"}, "kind must be one of"),
        ({"damping_factor": 0.0}, "damping_factor must be from 0.001 to 1"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kfac(problems.apply, "categorical", **settings)


def test_what_init_refuses() -> None:
    cases = [
        (kfac(problems.apply, "categorical", mask={"no": True}), BATCH, "mask must be"),
        (kfac(problems.apply, "categorical"), (BATCH[0], BATCH[1] + 5), "0 to 2"),
        (kfac(problems.apply, "categorical"), (BATCH[0] * jnp.nan, BATCH[1]), "finite"),
        (kfac(problems.apply, Gaussian(), kind="gauss-newton"), BATCH, "shape"),
    ]
    for optimizer, batch, message in cases:
        with pytest.raises(ValueError, match=message):
            optimizer.init(PARAMS, batch)
    with pytest.raises(ValueError, match="structure must be one of"):
        natural_gradient(problems.apply, "categorical", structure="round")
    with pytest.raises(ValueError, match="not for products alone"):
        hessian_free(problems.apply, "categorical", factored=True)
    with pytest.raises(ValueError, match="staggered is not for EK-FAC"):
        ekfac(problems.apply, "categorical", staggered=True)


# -- devices ---------------------------------------------------------------------------


def test_tasks_go_to_who_has_least_to_do() -> None:
    assert assigned([1.0, 8.0, 3.0, 4.0], 2) == [1, 0, 1, 1]
    assert assigned([2.0, 1.0], 1) == [0, 0]


PROGRAM = """
import jax, numpy as np, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, PartitionSpec
from ngvi.nets.optimizers import ekfac, kfac, shampoo, soap
from ngvi.nets.optimizers.devices import Task, shared_out
from tests.nets import problems

mesh = Mesh(np.array(jax.devices()), ("data",))
assert mesh.devices.shape == (2,)


def who(x):
    return x + jax.lax.axis_index("data")


tasks = [Task(who, (jnp.zeros(2, int),), cost) for cost in (1.0, 8.0, 3.0, 4.0)]
found = jax.jit(lambda: shared_out(tasks, mesh))()
np.testing.assert_array_equal(found, [[owner] * 2 for owner in (1, 0, 1, 1)])


def factorisations(jaxpr, path=()):
    # What is around each.
    for one in jaxpr.eqns:
        name = one.primitive.name
        if name in ("eigh", "cholesky", "qr", "geqrf"):
            yield path
        for value in one.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from factorisations(inner, (*path, name))


def agree(begin, step, steps):
    # Of a mesh or none, what there is at first; of that, a number and the rest, a step.
    ends = []
    for over in (None, mesh):
        state, one = begin(over), jax.jit(lambda s, i, over=over: step(over, s, i))
        around = list(factorisations(jax.make_jaxpr(one)(state, 0).jaxpr))
        assert around
        for path in around:
            # By the owner alone.
            alone = "shard_map" in path and "cond" in path[path.index("shard_map") :]
            assert alone == (over is not None), path
        compiled = one.lower(state, 0).compile()
        assert ("all-reduce" in compiled.as_text()) == (over is not None)
        for i in range(steps):
            state = compiled(state, i)
        ends.append(jax.tree.leaves(state))
    for alone, shared in zip(*ends, strict=True):
        np.testing.assert_allclose(shared, alone, rtol=0, atol=1e-12)


data = problems.X.reshape(-1, 2), problems.LABELS.reshape(-1)
settings = {"refresh": 2, "curvature_rows": 12, "adapt_every": 2}


def curvature(row):
    def made(over):
        return row(problems.apply, "categorical", mesh=over, **settings)

    def step(over, state, i):
        return made(over).step(state, data, jax.random.key(i))[0]

    agree(lambda over: made(over).init(problems.PARAMS, data), step, 4)


def gradients(row):
    def step(over, state, i):
        g = jax.tree.map(lambda p: jnp.cos(p * (i + 1)), problems.PARAMS)
        updates, state = row(0.1, every=2, mesh=over).update(g, state[1])
        return updates, state

    zeros = jax.tree.map(jnp.zeros_like, problems.PARAMS)
    agree(lambda over: (zeros, row(0.1, mesh=over).init(zeros)), step, 5)


for row in (kfac, ekfac):
    curvature(row)
for row in (shampoo, soap):
    gradients(row)
print("equal")
"""


def test_two_devices_make_the_step_of_one() -> None:
    assert on_devices(PROGRAM, 2) == "equal"


def test_state_is_a_pytree_of_arrays() -> None:
    state = hessian_free(problems.apply, "categorical").init(PARAMS, BATCH)
    assert isinstance(state, State)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
