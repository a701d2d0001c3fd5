"""A small convolutional network for digits: K-FAC beside Adam, by steps and by seconds.

Two convolutions with strides and a dense layer. K-FAC takes a convolution for a dense
layer that is used at every place of the picture, so that its Fisher matrix is again a
Kronecker product, of the second moments of patches and of gradients. Labels for it are
drawn from the network; factors are measured at every fifth step, averaged, and
factorised at every tenth. Both have three learning rates, and the loss on what they
learn from chooses.

Source: Grosse and Martens (2016), A Kronecker-factored approximate Fisher matrix for
convolution layers.

    python examples/convolutions_by_kfac.py
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from ngvi.fisher.likelihoods import Categorical
from ngvi.nets.optimizers import kfac, train
from ngvi.nets.train import shuffled_batches

LEARN, BATCH, EPOCHS = 1200, 100, 20
RATES = {"Adam": (0.001, 0.003, 0.01), "K-FAC": (0.01, 0.03, 0.1)}
Params = dict[str, jax.Array]
Data = tuple[jax.Array, jax.Array]


def network(p: Params, x: jax.Array) -> jax.Array:
    """Logits of pictures (n, 8, 8, 1)."""

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=numbers
        )

    x = jax.nn.relu(convolution(x, p["w1"]) + p["b1"])
    x = jax.nn.relu(convolution(x, p["w2"]) + p["b2"])
    return x.reshape(len(x), -1) @ p["w3"] + p["b3"]


def random_network(key: jax.Array) -> Params:
    shapes = {"w1": (3, 3, 1, 8), "w2": (3, 3, 8, 16), "w3": (64, 10)}
    params = {}
    for (name, shape), k in zip(shapes.items(), jax.random.split(key, 3), strict=True):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        params[name] = scale * jax.random.normal(k, shape)
        params[name.replace("w", "b")] = jnp.zeros(shape[-1])
    return params


@jax.jit
def loss(params: Params, data: Data) -> jax.Array:
    return -jax.vmap(Categorical().log_prob)(network(params, data[0]), data[1]).mean()


@jax.jit
def by_adam(params: Params, data: Data, rate: jax.Array) -> tuple:
    """The parameters at the end, and the loss of every batch."""
    optimizer = optax.adam(rate)

    def step(state: Any, rows: jax.Array) -> tuple:
        params, kept = state
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, kept = optimizer.update(gradient, kept)
        return (optax.apply_updates(params, updates), kept), value

    batches = shuffled_batches(jax.random.key(1), LEARN, EPOCHS, BATCH)
    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params, values


def by_kfac(params: Params, data: Data, rate: float) -> tuple:
    optimizer = kfac(
        network,
        "categorical",
        learning_rate=rate,
        momentum=0.9,
        damping=0.03,
        adapt_every=0,
        max_kl=1e-3,
        measure_every=5,
        refresh=10,
    )
    state, info = train(
        optimizer,
        params,
        data,
        epochs=EPOCHS,
        batch_size=BATCH,
        key=jax.random.key(1),
    )
    return state.params, info.loss


def main() -> None:
    x, y = load_digits(return_X_y=True)
    pictures = jnp.asarray(x.reshape(-1, 8, 8, 1) / 8 - 1, jnp.float32)
    order = np.random.default_rng(0).permutation(len(y))
    learn, test = (
        (pictures[rows], jnp.asarray(y[rows]))
        for rows in (order[:LEARN], order[LEARN:])
    )
    params = random_network(jax.random.key(0))
    weights = sum(leaf.size for leaf in params.values())
    print(f"{weights:,d} weights, {EPOCHS} epochs of {LEARN // BATCH} batches\n")
    print(f"{'':12s}{'rate':>6s}{'loss':>10s}{'new loss':>10s}{'new right':>11s}")
    runs: dict[str, Any] = {}
    for name, run in (("Adam", by_adam), ("K-FAC", by_kfac)):
        for rate in RATES[name]:
            jax.block_until_ready(run(params, learn, rate))
            began = time.perf_counter()
            found, values = jax.block_until_ready(run(params, learn, rate))
            took = time.perf_counter() - began
            at_end = float(loss(found, learn))
            right = float((network(found, test[0]).argmax(-1) == test[1]).mean())
            new = float(loss(found, test))
            print(f"{name:12s}{rate:6g}{at_end:10.5f}{new:10.4f}{right:11.1%}")
            if name not in runs or at_end < runs[name][0]:
                runs[name] = at_end, np.asarray(values), took, rate
    print()
    for name, (_, values, took, rate) in runs.items():
        print(f"{name}, {rate:g}: {1e3 * took / len(values):.2f} ms a step")
    draw(runs)


def draw(runs: dict[str, Any]) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.4), sharey=True, layout="constrained"
    )
    for (name, run), colour in zip(runs.items(), ("C1", "C0"), strict=True):
        _, values, took, rate = run
        smooth = np.exp(np.convolve(np.log(values), np.ones(12) / 12, "valid"))
        steps = np.arange(12, len(values) + 1)
        left.plot(steps, smooth, colour, label=f"{name}, {rate:g}")
        right.plot(steps * took / len(values), smooth, colour)
    left.set(yscale="log", xlabel="step", ylabel="loss, mean of an epoch")
    right.set(xlabel="seconds")
    left.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/convolutions_by_kfac.png", dpi=150)
    print("\nout/convolutions_by_kfac.png: the losses by step and by second")


if __name__ == "__main__":
    main()
