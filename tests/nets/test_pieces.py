"""Batches in parts and draws on several devices: the same step."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ngvi.nets import (
    ivon,
    noisy_adam,
    noisy_ekfac,
    noisy_kfac,
    slang,
)
from tests.nets import problems
from tests.nets.problems import close
from tests.processes import on_devices
from tests.programs import compiled

BATCH = tuple(jnp.concatenate(leaf) for leaf in (problems.X[:2], problems.LABELS[:2]))
ROWS = {
    # Squares of the whole batch's gradient; labels that are drawn; a basis; and a step
    # that only moves the mean.
    "noisy_adam": noisy_adam,
    "ivon": ivon,
    "noisy_kfac": noisy_kfac,
    "noisy_ekfac": partial(noisy_ekfac, samples=2),
    "seldom": partial(noisy_kfac, measure_every=2, refresh=2),
}


def after_two(row: Any, **settings: Any) -> Any:
    """m, S and the losses after two steps."""
    algorithm = row(
        problems.apply,
        "categorical",
        problems.DATA_SIZE,
        learning_rate=0.1,
        **settings,
    )

    @compiled
    def run(params: Any, batch: Any) -> Any:
        state, losses = algorithm.init(params, batch), []
        for i in range(2):
            state, info = algorithm.step(state, batch, jax.random.key(i))
            losses.append(info.loss)
        return state.mean, state.precision.diagonal(), jnp.stack(losses)

    return run(problems.PARAMS, BATCH)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_batch_in_parts_is_the_batch(name: str) -> None:
    whole, parts = (after_two(ROWS[name], accumulate=k) for k in (1, 3))
    for actual, expected in zip(parts, whole, strict=True):
        close(actual, expected)


def test_what_cannot_be_taken_in_parts() -> None:
    with pytest.raises(ValueError, match=r"accumulate=5 takes .* it has 12 examples"):
        after_two(noisy_kfac, accumulate=5)
    with pytest.raises(ValueError, match="accumulate is not for slang"):
        after_two(slang, accumulate=2)


PROGRAM = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh
from ngvi.nets import Rule, noisy_kfac
from ngvi.nets.gradient_measures import SquaredGradient
from tests.nets import problems

mesh = Mesh(np.array(jax.devices()), ("draws",))
assert mesh.devices.shape == (8,)
batch, key = (problems.X[0], problems.LABELS[0]), jax.random.key(0)

def made(mesh):
    return noisy_kfac(problems.apply, "categorical", problems.DATA_SIZE, samples=16,
                      antithetic=True, learning_rate=0.1, refresh=1, mesh=mesh)

state, found = problems.begun(made(None), problems.PARAMS, batch), []
for algorithm in (made(None), made(mesh)):
    step = jax.jit(algorithm.step).lower(state, batch, key).compile()
    moved, info = step(state, batch, key)
    found.append((moved.mean, moved.precision.diagonal(), info.loss))
for actual, expected in zip(*reversed(found)):
    problems.close(actual, expected, 1e-12)

# Two of the sixteen draws, six examples and three outputs on each device.
text = step.as_text()
assert "all-reduce" in text and "f64[2,6,3]" in text and "f64[16,6,3]" not in text
try:
    Rule(SquaredGradient(), samples=12, mesh=mesh)
except ValueError as error:
    assert "a multiple of the 8 devices" in str(error)
    print("done")
"""


def test_draws_on_several_devices() -> None:
    assert on_devices(PROGRAM, 8) == "done"
