"""Natural against plain gradients: in iterations, and in seconds.

A network 64–16–10 learns the 1,797 handwritten digits, all of them at every step. Plain
gradients, without momentum and with, have the best step size of a grid. Natural ones
have no step size: each goes to the minimum of the quadratic model

    L(θ) + ∇ᵀd + ½ dᵀ(F + λ I)d

on the span of (F̂ + λ I)⁻¹∇ and the last step, where F̂ is some structure of the Fisher
matrix F and the damping λ follows Levenberg and Marquardt: less if the loss falls as
the model says, more if it does not; a step that raises it is not taken.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, sections 6.4, 6.5 and 7.

    python examples/natural_gradient.py
"""

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

# Threads of LAPACK that wait for each other on a busy machine are not what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from ngvi.fisher import MLP, fisher
from ngvi.fisher.likelihoods import Categorical

NET, PRIOR = MLP((64, 16, 10)), 1e-4
GRID = (0.03, 0.1, 0.3, 1.0, 3.0)
PLAIN_STEPS = 1000
NATURAL_STEPS = {"dense": 12, "kronecker": 40, "matrix-free": 40}
STYLES = {
    "plain": "C7:",
    "plain, momentum": "C1-.",
    "natural, dense": "C3-",
    "natural, kronecker": "C2--",
    "natural, matrix-free": "C0-",
}
TARGETS = (0.3, 0.1, 0.03, 0.02)


def random_network() -> tuple[jax.Array, Callable]:
    """A vector, and what makes parameters of it."""
    rng = np.random.default_rng(0)
    params = [
        {"w": rng.normal(size=(n, m)) / np.sqrt(n), "b": np.zeros(m)}
        for n, m in pairwise(NET.sizes)
    ]
    return ravel_pytree(jax.tree.map(jnp.float32, params))


START, unravel = random_network()


def loss(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    log_prob = jax.vmap(Categorical().log_prob)(NET(unravel(theta), x), y)
    return PRIOR / 2 * theta @ theta - log_prob.mean()


@partial(jax.jit, static_argnames=("size", "momentum"))
def plain(state: tuple, data: tuple, size: float, momentum: float) -> tuple:
    """The state after a step, and the loss before it."""
    theta, velocity = state
    value, gradient = jax.value_and_grad(loss)(theta, *data)
    velocity = momentum * velocity + gradient
    return (theta - size * velocity, velocity), value


@partial(jax.jit, static_argnames="structure")
def natural(state: tuple, data: tuple, structure: str) -> tuple:
    """The state after a step, and the loss before it."""
    theta, last, damping = state
    value, gradient = jax.value_and_grad(loss)(theta, *data)
    make = partial(fisher, NET, unravel(theta), data[0], likelihood="categorical")
    # The prior's curvature is part of the model, whatever λ is.
    added = damping + PRIOR
    rough = {"tolerance": 0.1, "max_iterations": 50}
    options = rough if structure == "matrix-free" else {}
    step = make(structure=structure).solve(gradient, added, **options)

    exact = make(structure="matrix-free")
    span = jnp.stack([step, last])
    curved = jnp.stack([exact @ step, exact @ last]) + added * span
    # The last step is zero at first: the solution of least norm has none of it.
    weights = jnp.linalg.lstsq(span @ curved.T, -span @ gradient)[0]
    step = weights @ span
    fall = value - loss(theta + step, *data)
    ratio = fall / (-gradient @ step / 2)
    damping *= jnp.where(ratio > 0.75, 0.5, jnp.where(ratio > 0.25, 1.0, 2.0))
    last = jnp.where(fall > 0, step, last)
    return (jnp.where(fall > 0, theta + step, theta), last, damping), value


def run(step: Callable, state: tuple, data: tuple, steps: int) -> np.ndarray:
    """Seconds and losses, shape (steps, 2); compilation is not counted."""
    jax.block_until_ready(step(state, data))
    path = []
    began = time.perf_counter()
    for _ in range(steps):
        state, value = step(state, data)
        path.append((time.perf_counter() - began, float(value)))
    return np.array(path)


def main() -> None:
    x, y = load_digits(return_X_y=True)
    data = jnp.asarray(x / 8 - 1, jnp.float32), jnp.asarray(y)
    zero = jnp.zeros_like(START)
    runs = {}
    for name, momentum in (("plain", 0.0), ("plain, momentum", 0.9)):
        steps = [partial(plain, size=size, momentum=momentum) for size in GRID]
        tried = [run(step, (START, zero), data, PLAIN_STEPS) for step in steps]
        best = np.nanargmin([path[-1, 1] for path in tried])
        print(f"{name}: the best step size is {GRID[best]}")
        runs[name] = tried[best]
    for structure, steps in NATURAL_STEPS.items():
        step = partial(natural, structure=structure)
        start = START, zero, jnp.float32(0.1)
        runs[f"natural, {structure}"] = run(step, start, data, steps)

    print(f"\n{'iterations, seconds to loss':28s}", end="")
    print("".join(f"{target:15.2f}" for target in TARGETS), end="")
    print(f"{'at the end':>18s}")
    for name, path in runs.items():
        print(f"{name:28s}", end="")
        for target in TARGETS:
            reached = np.flatnonzero(path[:, 1] <= target)
            first = reached[0] if len(reached) else None
            cell = "—" if first is None else f"{first}, {path[first, 0]:.3f} s"
            print(f"{cell:>15s}", end="")
        print(f"{len(path):8d}, {path[-1, 1]:.4f}")
    draw(runs)


def draw(runs: dict[str, np.ndarray]) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), sharey=True, layout="constrained"
    )
    for name, path in runs.items():
        seconds, losses = path.T
        left.plot(np.arange(1, len(path) + 1), losses, STYLES[name], label=name)
        right.plot(seconds, losses, STYLES[name], label=name)
    left.set(xscale="log", yscale="log", xlabel="iteration", ylabel="loss")
    right.set(xscale="log", xlabel="seconds")
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/natural_gradient.png", dpi=150)
    print("\nout/natural_gradient.png: the losses by iteration and by second")


if __name__ == "__main__":
    main()
