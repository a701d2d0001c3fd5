"""A small transformer learns to spell Python's language reference: SOAP beside Adam.

A decoder with two blocks reads 24 letters and says for each what follows. Shampoo takes
the Fisher matrix of a weight matrix for a Kronecker product of two statistics of its
gradients, L = Σ G Gᵀ and R = Σ Gᵀ G, and needs no more than gradients; SOAP is Adam in
their eigenvectors, renewed every tenth step. All three are transformations of optax in
one loop, with the same schedule; each has three learning rates, and the loss over the
last tenth of the training chooses.

Source: Gupta, Koren and Singer (2018), Shampoo: preconditioned stochastic tensor
optimization; Vyas et al. (2025), SOAP: improving and stabilizing Shampoo using Adam.

    python examples/letters_by_soap.py
"""

import pydoc_data.topics
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from ngvi.nets.optimizers import shampoo, soap

CONTEXT, WIDTH, HEADS, BLOCKS = 24, 32, 2, 2
LEARN, TEST = 60_000, 12_000
STEPS, BATCH, WARM = 220, 64, 22
OPTIMIZERS = {
    "Adam": (optax.adam, (0.001, 0.003, 0.01)),
    "Shampoo": (shampoo, (0.01, 0.03, 0.1)),
    "SOAP": (soap, (0.01, 0.03, 0.1)),
}
STYLES = {"Adam": "C1", "Shampoo": "C2", "SOAP": "C0"}
Params = dict[str, Any]


def text() -> tuple[np.ndarray, np.ndarray]:
    """The language reference as numbers of letters, and the letters."""
    topics = pydoc_data.topics.topics
    whole = "".join(topics[name] for name in sorted(topics)).lower()[: LEARN + TEST]
    letters, numbers = np.unique(list(whole), return_inverse=True)
    return numbers, letters


def random_transformer(key: jax.Array, letters: int) -> Params:
    *of_blocks, of_letters, of_places = jax.random.split(key, BLOCKS + 2)

    def random_block(key: jax.Array) -> Params:
        wide = {"ask": 3 * WIDTH, "answer": WIDTH, "up": 4 * WIDTH, "down": WIDTH}
        inputs = {name: 4 * WIDTH if name == "down" else WIDTH for name in wide}
        keys = jax.random.split(key, len(wide))
        return {
            name: jax.random.normal(k, (inputs[name], wide[name]))
            / jnp.sqrt(inputs[name])
            for name, k in zip(wide, keys, strict=True)
        }

    return {
        "letters": 0.3 * jax.random.normal(of_letters, (letters, WIDTH)),
        "places": 0.3 * jax.random.normal(of_places, (CONTEXT, WIDTH)),
        "blocks": [random_block(key) for key in of_blocks],
        "say": jnp.zeros((WIDTH, letters)),
    }


def attention(block: Params, z: jax.Array) -> jax.Array:
    """Of every place to those before it."""
    heads = (*z.shape[:2], HEADS, WIDTH // HEADS)
    q, k, v = (part.reshape(heads) for part in jnp.split(z @ block["ask"], 3, -1))
    found = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return found.reshape(z.shape) @ block["answer"]


def transformer(p: Params, x: jax.Array) -> jax.Array:
    """Logits of what follows every letter."""
    z = p["letters"][x] + p["places"]
    for block in p["blocks"]:
        z = z + attention(block, jax.nn.standardize(z))
        z = z + jax.nn.relu(jax.nn.standardize(z) @ block["up"]) @ block["down"]
    return jax.nn.standardize(z) @ p["say"]


@jax.jit
def loss(p: Params, windows: jax.Array) -> jax.Array:
    """Nats a letter, of windows (n, CONTEXT + 1)."""
    each = jax.nn.log_softmax(transformer(p, windows[:, :-1]))
    return -jnp.take_along_axis(each, windows[:, 1:, None], -1).mean()


@partial(jax.jit, static_argnames=("name", "steps"))
def train(
    name: str, rate: jax.Array, params: Params, learn: jax.Array, steps: int
) -> tuple[Params, jax.Array]:
    """The parameters at the end, and the loss of every batch."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, WARM, steps)
    optimizer = OPTIMIZERS[name][0](lambda count: rate * schedule(count))
    starts = jax.random.randint(
        jax.random.key(1), (steps, BATCH), 0, len(learn) - CONTEXT
    )

    def step(state: Any, starts: jax.Array) -> Any:
        params, kept = state
        windows = learn[starts[:, None] + jnp.arange(CONTEXT + 1)]
        value, gradient = jax.value_and_grad(loss)(params, windows)
        updates, kept = optimizer.update(gradient, kept, params)
        return (optax.apply_updates(params, updates), kept), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), starts)
    return params, values


@partial(jax.jit, static_argnums=2)
def written(p: Params, key: jax.Array, count: int, first: jax.Array) -> jax.Array:
    """So many letters, each drawn after the last ones."""

    def one(seen: jax.Array, key: jax.Array) -> tuple:
        drawn = jax.random.categorical(key, transformer(p, seen[None])[0, -1] / 0.7)
        return jnp.append(seen[1:], drawn), drawn

    return jax.lax.scan(one, first, jax.random.split(key, count))[1]


def main() -> None:
    numbers, letters = text()
    learn = jnp.asarray(numbers[:LEARN])
    count = TEST // (CONTEXT + 1)
    unseen = jnp.asarray(numbers[LEARN:][: count * (CONTEXT + 1)]).reshape(count, -1)
    params = random_transformer(jax.random.key(0), len(letters))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{len(letters)} letters, {size:,d} weights, {STEPS} batches of {BATCH}\n")
    print(f"{'nats a letter':16s}{'rate':>8s}{'learned':>10s}{'not seen':>10s}")
    runs: dict[str, Any] = {}
    for name, (_, rates) in OPTIMIZERS.items():
        # Compiled first, so that the times are without that.
        jax.block_until_ready(train(name, 0.0, params, learn, STEPS))
        for rate in rates:
            found, values = train(name, rate, params, learn, STEPS)
            began = time.perf_counter()
            jax.block_until_ready(train(name, rate, params, learn, STEPS))
            took = time.perf_counter() - began
            at_end, new = (
                float(values[-STEPS // 10 :].mean()),
                float(loss(found, unseen)),
            )
            print(f"{name:16s}{rate:8g}{at_end:10.4f}{new:10.4f}")
            if name not in runs or at_end < runs[name][0]:
                runs[name] = at_end, np.asarray(values), took, rate, found
    print()
    for name, (_, _, took, rate, _) in runs.items():
        print(f"{name}, {rate:g}: {1e3 * took / STEPS:.1f} ms a step")
    best = min(runs, key=lambda name: runs[name][0])
    drawn = written(
        runs[best][-1], jax.random.key(2), 150, learn[1000 : 1000 + CONTEXT]
    )
    print(f"\n{best} writes: {''.join(letters[np.asarray(drawn)])!r}")
    draw(runs)


def draw(runs: dict[str, Any]) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.4), sharey=True, layout="constrained"
    )
    for name, (_, values, took, rate, _) in runs.items():
        smooth = np.convolve(values, np.ones(20) / 20, "valid")
        steps = np.arange(20, len(values) + 1)
        left.plot(steps, smooth, STYLES[name], label=f"{name}, {rate:g}")
        right.plot(steps * took / len(values), smooth, STYLES[name])
    left.set(xlabel="step", ylabel="nats a letter, mean of 20 batches", ylim=(1.4, 3))
    right.set(xlabel="seconds")
    left.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/letters_by_soap.png", dpi=150)
    print("\nout/letters_by_soap.png: the losses by step and by second")


if __name__ == "__main__":
    main()
