"""A deep autoencoder by K-FAC and by Adam: in steps, and in seconds.

Scikit-learn's digits go through six numbers, in a net 64–100–50–25–6–25–50–100–64 of
tanh units, and come back; the loss is the cross-entropy of the grey levels, all 1,797
images at every step. Such nets are hard for plain gradients, since the narrow layers
make curvatures of very different sizes. K-FAC takes each step's length and momentum
from the exact quadratic model on 512 of the images, and the Kronecker factors from 256;
Adam has the best learning rate of three.

Source: Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural
networks; Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature.

    python examples/deep_autoencoder.py
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads of LAPACK that wait for each other on a busy machine are not what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from ngvi.fisher import MLP
from ngvi.nets.optimizers import kfac

NET = MLP((64, 100, 50, 25, 6, 25, 50, 100, 64))
ADAM_STEPS, KFAC_STEPS = 600, 100
RATES = (3e-3, 5e-3, 1e-2)


def loss(params: Any, x: jax.Array) -> jax.Array:
    crosses = optax.sigmoid_binary_cross_entropy(NET(params, x), x)
    return crosses.sum(-1).mean()


@jax.jit
def adam_step(state: Any, x: jax.Array, rate: jax.Array) -> tuple[Any, jax.Array]:
    params, kept = state
    value, slopes = jax.value_and_grad(loss)(params, x)
    updates, kept = optax.adam(rate).update(slopes, kept)
    return (optax.apply_updates(params, updates), kept), value


def run(step: Callable, state: Any, steps: int) -> tuple[np.ndarray, Any]:
    """Seconds and losses, shape (steps, 2), and the last state; compiled before."""
    jax.block_until_ready(step(state, 0))
    path = []
    began = time.perf_counter()
    for i in range(steps):
        state, value = step(state, i)
        path.append((time.perf_counter() - began, float(value)))
    return np.array(path), state


def by_adam(params: Any, x: jax.Array, steps: int) -> dict[float, Any]:
    """A run for every learning rate."""
    start = params, optax.adam(1.0).init(params)
    return {
        rate: run(lambda state, _, r=rate: adam_step(state, x, r), start, steps)
        for rate in RATES
    }


def by_kfac(params: Any, x: jax.Array, steps: int) -> tuple[np.ndarray, Any]:
    optimizer = kfac(NET, "soft_bernoulli", curvature_rows=256, model_rows=512)
    keys = jax.random.split(jax.random.key(1), steps)

    def step(state: Any, i: int) -> tuple[Any, jax.Array]:
        state, info = optimizer.step(state, (x, x), keys[i])
        return state, info.loss

    path, state = run(step, optimizer.init(params, (x, x)), steps)
    return path, state.params


def main() -> None:
    x = jnp.asarray(load_digits().data / 16, jnp.float32)
    params = NET.init(jax.random.key(0))
    tried = by_adam(params, x, ADAM_STEPS)
    best = min(tried, key=lambda rate: tried[rate][0][-1, 1])
    adam, (at_adam, _) = tried[best]
    curved, at_kfac = by_kfac(params, x, KFAC_STEPS)
    first = np.flatnonzero(curved[:, 1] <= adam[-1, 1])[0]

    print(f"{'':8s}{'steps':>8s}{'loss':>9s}{'seconds':>9s}{'a step':>10s}")
    rows = {"Adam": adam, "K-FAC": curved[: first + 1], "K-FAC, all": curved}
    for name, path in rows.items():
        seconds, value = path[-1]
        each = 1e3 * seconds / len(path)
        print(f"{name:10s}{len(path):6d}{value:9.3f}{seconds:9.2f}{each:7.1f} ms")
    print(f"Adam's learning rate: {best}, the best of {RATES}")
    draw({"Adam": adam, "K-FAC": curved}, {"Adam": at_adam, "K-FAC": at_kfac}, x)


def draw(paths: dict[str, np.ndarray], nets: dict[str, Any], x: jax.Array) -> None:
    figure = plt.figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.4, 1))
    left, right = above.subplots(1, 2, sharey=True)
    for (name, path), style in zip(paths.items(), ("C7-", "C3-"), strict=True):
        left.plot(np.arange(1, len(path) + 1), path[:, 1], style, label=name)
        right.plot(path[:, 0], path[:, 1], style)
    target = paths["Adam"][-1, 1]
    for axis in (left, right):
        axis.axhline(target, color="0.8", zorder=0)
        axis.set_ylim(target - 1.5, target + 8)
    left.set(xscale="log", xlabel="step", ylabel="cross-entropy of an image")
    right.set(xlabel="seconds")
    left.legend(frameon=False)
    some = x[:: len(x) // 14][:14]
    images = {"images": some}
    images |= {name: jax.nn.sigmoid(NET(p, some)) for name, p in nets.items()}
    for axes, (name, each) in zip(
        below.subplots(3, len(some)), images.items(), strict=True
    ):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, image in zip(axes, each, strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/deep_autoencoder.png", dpi=150)
    print("\nout/deep_autoencoder.png: the losses, and images that came back")


if __name__ == "__main__":
    main()
