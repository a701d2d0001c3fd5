"""Other units of the inputs: the same function by natural gradients, another by others.

A net 2–6–1 learns a surface from 400 noisy points: once with the inputs as they are,
once in other units and another place, x′ = A x + c. Its first layer is changed so that
both nets are the same function at the start, and both are trained by the same optimiser
with the same settings.

For φ = h(θ) the Fisher matrix is F_φ = J⁻ᵀ F_θ J⁻¹ and the gradient J⁻ᵀ g, J = ∂φ/∂θ.
Here h is linear, so that a step −α F⁻¹ g is the same in both, and all that follows: the
functions differ by rounding, and by the little damping that keeps F regular. The steps
of plain gradients and of Adam are others, and lead to other functions.

Source: Amari (1998), Natural gradient works efficiently in learning.

    python examples/invariance.py
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from ngvi.fisher import MLP
from ngvi.nets.optimizers import natural_gradient, train

UNITS = np.array([[3.0, 1.0], [0.0, 0.2]])
PLACE = np.array([2.0, -1.0])
HIDDEN = 6
NET = MLP((2, HIDDEN, 1))
STEPS = {"natural gradient": 200, "gradient descent": 2000, "Adam": 500}
RATES = {"natural gradient": 0.01, "gradient descent": 0.02, "Adam": 0.01}


def surface(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * x[:, :1]) * np.cos(x[:, 1:])


def points(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(-2, 2, (400, 2))
    return x, surface(x) + 0.1 * rng.normal(size=(400, 1))


def random_net(rng: np.random.Generator) -> Any:
    """Hidden units that look in all directions: then F is regular."""
    angles = np.arange(HIDDEN) * np.pi / HIDDEN + 0.2
    kernel = 2 * np.stack([np.cos(angles), np.sin(angles)])
    biases = 2 * rng.permutation(np.linspace(-1, 1, HIDDEN))
    last = {"w": rng.normal(size=(HIDDEN, 1)) / 2, "b": np.zeros(1)}
    return jax.tree.map(jnp.asarray, [{"w": kernel, "b": biases}, last])


def moved(x: Any) -> Any:
    """Inputs in the other units."""
    return x @ UNITS.T + PLACE


def for_moved(params: Any) -> Any:
    """The net that is the same function of the moved inputs."""
    first, *others = params
    kernel = np.linalg.inv(UNITS).T @ first["w"]
    return [{"w": kernel, "b": first["b"] - PLACE @ kernel}, *others]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return ((NET(params, x) - y) ** 2).mean() / 2


def trained(name: str, params: Any, x: Any, y: Any) -> Any:
    """The net after some steps."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    if name == "natural gradient":
        optimizer = natural_gradient(
            NET,
            "gaussian",
            learning_rate=RATES[name],
            momentum=0.0,
            damping=1e-13,
            adapt_every=0,
            curvature_decay=0.0,
        )
        return train(optimizer, params, (x, y), steps=STEPS[name])[0].params
    make = {"gradient descent": optax.sgd, "Adam": optax.adam}[name]
    return descend(make(RATES[name]), STEPS[name], params, x, y)


@partial(jax.jit, static_argnums=(0, 1))
def descend(optimizer: Any, steps: int, params: Any, x: Any, y: Any) -> Any:
    def one(state: Any, _: None) -> Any:
        params, kept = state
        updates, kept = optimizer.update(jax.grad(loss)(params, x, y), kept)
        return (optax.apply_updates(params, updates), kept), None

    return jax.lax.scan(one, (params, optimizer.init(params)), length=steps)[0][0]


def both(name: str, at: np.ndarray) -> tuple[np.ndarray, ...]:
    """The two functions at some points, and their losses."""
    rng = np.random.default_rng(0)
    x, y = points(rng)
    start = random_net(rng)
    plain = trained(name, start, x, y)
    other = trained(name, for_moved(start), moved(x), y)
    functions = [NET(plain, at)[:, 0], NET(other, moved(at))[:, 0]]
    losses = [loss(plain, x, y), loss(other, moved(x), y)]
    return *map(np.asarray, functions), np.array(losses)


def main() -> None:
    # So that rounding is not what the functions differ by.
    jax.config.update("jax_enable_x64", True)
    side = np.linspace(-2, 2, 80)
    at = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    figure, axes = plt.subplots(
        2, 3, figsize=(9, 6), sharex=True, sharey=True, layout="constrained"
    )
    heads = ("steps", "loss", "loss, moved", "farthest apart")
    print(" " * 18 + "".join(f"{head:>15s}" for head in heads))
    for name, column in zip(STEPS, axes.T, strict=True):
        plain, other, losses = both(name, at)
        apart = np.abs(plain - other).max()
        print(f"{name:18s}{STEPS[name]:15d}", end="")
        print(f"{losses[0]:15.4f}{losses[1]:15.4f}{apart:15.1e}")
        column[0].set_title(f"{name}: apart by {apart:.1g}")
        for axis, function in zip(column, (plain, other), strict=True):
            grid, levels = function.reshape(80, 80), np.linspace(-1.2, 1.2, 13)
            axis.contourf(side, side, grid, levels, cmap="RdBu_r", extend="both")
            axis.contour(side, side, grid, [0.0], colors="k", linewidths=1)
    axes[0, 0].set_ylabel("inputs as they are")
    axes[1, 0].set_ylabel("inputs moved,\ndrawn where they were")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/invariance.png", dpi=150)
    print("\nout/invariance.png: the functions after the training, in two units each")


if __name__ == "__main__":
    main()
