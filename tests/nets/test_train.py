"""Epochs as one program: the same as a loop of steps, for one net or many."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets import Algorithm, noisy_kfac, vogn
from ngvi.nets.train import run_epochs
from tests.nets.problems import LABELS, PARAMS, X, apply, begun, close
from tests.programs import compiled

ALL_X, ALL_Y = X.reshape(-1, 2)[:22], LABELS.reshape(-1)[:22]
SETTINGS = {"learning_rate": 0.1, "precision_rate": 0.3}
KEY = jax.random.key(7)


VOGN = vogn(apply, "categorical", 22, **SETTINGS)


def ran(algorithm: Algorithm, epochs: int, batch_size: int) -> Any:
    state = begun(algorithm, PARAMS, (ALL_X, ALL_Y))
    options = {"epochs": epochs, "batch_size": batch_size}
    run = compiled(partial(run_epochs, algorithm.rule, **options))
    return state, *run(state, ALL_X, ALL_Y, KEY)


def test_epochs_are_a_loop_of_steps() -> None:
    # 2 batches of 8 from 22 examples; 10 steps are no multiple of 4.
    when = {"refresh": 4, "measure_every": 2}
    algorithm, epochs = vogn(apply, "categorical", 22, **when, **SETTINGS), 5
    state, last, losses = ran(algorithm, epochs, 8)
    of_order, of_steps = jax.random.split(KEY)
    keys = jax.random.split(of_steps, 2 * epochs)
    step, expected = compiled(algorithm.step), []
    for epoch, of_epoch in enumerate(jax.random.split(of_order, epochs)):
        order = jax.random.permutation(of_epoch, 22)
        for half in (0, 1):
            rows = order[8 * half : 8 * half + 8]
            batch, key = (ALL_X[rows], ALL_Y[rows]), keys[2 * epoch + half]
            state, info = step(state, batch, key)
            expected.append(info.loss)
    close(losses, expected)
    for actual, leaf in zip(*map(jax.tree.leaves, (last, state)), strict=True):
        close(actual, leaf)


def test_all_examples_are_taken_where_they_fill_no_batch() -> None:
    state, last, losses = ran(VOGN, 2, 1000)
    assert len(losses) == 2 and int(last.steps) == 2
    assert int(state.steps) == 0


def test_many_nets_at_once_are_those_nets() -> None:
    algorithm = noisy_kfac(apply, "categorical", 22, refresh=2, **SETTINGS)
    keys, xs = jax.random.split(KEY, 2), jnp.stack([ALL_X, -ALL_X])

    def train(scale: Any, x: Any, key: Any) -> Any:
        params = jax.tree.map(lambda leaf: scale * leaf, PARAMS)
        state = algorithm.init(params, (x, ALL_Y))
        options = {"epochs": 2, "batch_size": 8}
        state, losses = run_epochs(algorithm.rule, state, x, ALL_Y, key, **options)
        return state.mean, state.precision, losses

    scales = jnp.asarray([1.0, 0.5])
    together = compiled(jax.vmap(train))(scales, xs, keys)
    alone = compiled(train)
    for i in range(2):
        one = alone(scales[i], xs[i], keys[i])
        for many, leaf in zip(*map(jax.tree.leaves, (together, one)), strict=True):
            close(many[i], leaf, 1e-8)


def test_other_data_of_the_same_shapes_do_not_compile_anew() -> None:
    traced = []

    def counted(p: Any, x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return apply(p, x)

    def run(x: jax.Array, y: jax.Array, seed: int) -> tuple[int, Any]:
        algorithm = vogn(counted, "categorical", 22, **SETTINGS)
        params = jax.tree.map(lambda leaf: leaf + seed, PARAMS)
        state = algorithm.init(params, (x, y))
        before, key = len(traced), jax.random.key(seed)
        options = {"epochs": 1, "batch_size": 8}
        state, _ = run_epochs(algorithm.rule, state, x, y, key, **options)
        stepped, _ = algorithm.step(state, (x, y), key)
        return len(traced) - before, stepped.mean

    first, mean = run(ALL_X, ALL_Y, 0)
    second, other = run(2 * ALL_X, (ALL_Y + 1) % 3, 1)
    assert first > 0 and second == 0
    assert np.abs(mean - other).max() > 0.1


@pytest.mark.parametrize(
    ("epochs", "batch_size", "count", "message"),
    [
        (0, 8, 22, "epochs must be at least 1, got 0"),
        (1, 0, 22, "batch_size must be at least 1, got 0"),
        (1, 8, 21, r"x and y must have as many examples, got lengths \[21, 22\]"),
    ],
)
def test_bad_input(epochs: int, batch_size: int, count: int, message: str) -> None:
    state = jax.eval_shape(VOGN.init, PARAMS, (ALL_X, ALL_Y))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    options = {"epochs": epochs, "batch_size": batch_size}
    with pytest.raises(ValueError, match=message):
        run_epochs(VOGN.rule, state, ALL_X, ALL_Y[:count], KEY, **options)
