"""Averaging a small transformer over its posterior: a text of Python's own, by letters.

A decoder with one block of attention reads 24 letters and says for each what follows.
IVON trains a Gaussian over its weights at about the price of Adam, once as Bayes' rule
has it and once cold, with a fifth of the KL divergence's weight. Predictions averaged
over draws of the weights are compared with those of the mean alone, and with Adam's, on
the end of the text, which no training saw.

    loss of the mixture of S draws = −mean log (1/S) Σ_s p(letter | w_s, letters before)

Source: Shen et al. (2024), Variational learning is effective for large deep networks.

    python examples/transformer_averaging.py
"""

import pydoc_data.topics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from ngvi.fisher.likelihoods import Categorical
from ngvi.nets import ivon
from ngvi.nets.baselines import maximum_a_posteriori

CONTEXT, WIDTH, HEADS = 24, 32, 2
LEARN, TEST = 24_000, 12_000
EPOCHS, BATCH = 40, 64
WEIGHTS = {"IVON": 1.0, "IVON, cold": 0.2}
"""Of the KL divergence."""
DRAWS = (1, 2, 4, 8, 16, 32)
Params = dict[str, jax.Array]


def text() -> tuple[np.ndarray, int]:
    """The language reference as numbers of letters, and how many letters there are."""
    topics = pydoc_data.topics.topics
    whole = "".join(topics[name] for name in sorted(topics)).lower()[: LEARN + TEST]
    letters, numbers = np.unique(list(whole), return_inverse=True)
    return numbers, len(letters)


def windows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Letters and those that follow each, side by side."""
    count = (len(numbers) - 1) // CONTEXT
    cut = [numbers[i : i + count * CONTEXT].reshape(count, CONTEXT) for i in (0, 1)]
    return cut[0], cut[1]


def start(key: jax.Array, letters: int) -> Params:
    shapes = {
        "letters": (letters, WIDTH),
        "places": (CONTEXT, WIDTH),
        "attend": (WIDTH, 3 * WIDTH),
        "join": (WIDTH, WIDTH),
        "up": (WIDTH, 4 * WIDTH),
        "down": (4 * WIDTH, WIDTH),
        "say": (WIDTH, letters),
    }
    tables = ("letters", "places")
    sds = {n: 0.3 if n in tables else shape[0] ** -0.5 for n, shape in shapes.items()}
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    return {n: sds[n] * jax.random.normal(keys[n], shapes[n]) for n in shapes}


def normal(z: jax.Array) -> jax.Array:
    """A layer norm without parameters."""
    centred = z - z.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def apply(p: Params, x: jax.Array) -> jax.Array:
    """Logits of what follows every letter."""
    z = p["letters"][x] + p["places"]
    split = (*z.shape[:2], 3, HEADS, WIDTH // HEADS)
    q, k, v = jnp.moveaxis((normal(z) @ p["attend"]).reshape(split), 2, 0)
    scores = jnp.einsum("bihc,bjhc->bhij", q, k) * (WIDTH // HEADS) ** -0.5
    seen = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e9))
    heads = jnp.einsum("bhij,bjhc->bihc", weights, v).reshape(z.shape)
    z = z + heads @ p["join"]
    z = z + jax.nn.relu(normal(z) @ p["up"]) @ p["down"]
    return normal(z) @ p["say"]


@jax.jit
def log_probabilities(p: Params, data: Any) -> jax.Array:
    """Of the letters that were next."""
    x, y = data
    each = jax.nn.log_softmax(apply(p, x))
    return jnp.take_along_axis(each, y[..., None], -1)[..., 0]


def trained(kl_weight: float, params: Params, learn: Any, **sizes: Any) -> Any:
    """The posterior, and the losses on the way."""
    row = ivon(
        apply,
        Categorical(),
        len(learn[0]),
        learning_rate=0.1,
        initial_curvature=1.0,
        kl_weight=kl_weight,
    )
    state = row.init(params, tuple(part[:4] for part in learn))
    state, losses = row.run(state, learn, jax.random.key(1), **sizes)
    return row.posterior(state), losses


def main() -> None:
    numbers, letters = text()
    learn, test = windows(numbers[:LEARN]), windows(numbers[LEARN:])
    params, size = start(jax.random.key(0), letters), len(learn[0])
    sizes: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH}
    weights = sum(leaf.size for leaf in params.values())
    print(f"{letters} letters, {weights:,d} weights, {size:,d} windows of {CONTEXT}\n")
    print(f"{'nats a letter, text not seen':32s}{'the mean':>10s}", end="")
    print("".join(f"{f'{s} draws':>10s}" for s in DRAWS))

    adam = maximum_a_posteriori(apply, Categorical(), size, learning_rate=0.003)
    state = adam.init(params, tuple(part[:4] for part in learn))
    state, losses = adam.run(state, learn, jax.random.key(1), **sizes)
    point = adam.posterior(state).params
    alone = {"Adam": -float(log_probabilities(point, test).mean())}
    print(f"{'Adam':32s}{alone['Adam']:10.4f}")
    training, mixed = {"Adam": losses}, {}
    for name, kl_weight in WEIGHTS.items():
        posterior, training[name] = trained(kl_weight, params, learn, **sizes)
        alone[name] = -float(log_probabilities(posterior.params, test).mean())
        draws = posterior.sample(jax.random.key(2), (max(DRAWS),))
        each = jax.lax.map(lambda p: log_probabilities(p, test), draws)
        mixed[name] = [
            -float((jax.nn.logsumexp(each[:s], 0) - np.log(s)).mean()) for s in DRAWS
        ]
        cells = [alone[name], *mixed[name]]
        print(f"{name:32s}" + "".join(f"{cell:10.4f}" for cell in cells))
    draw(training, alone, mixed)


def draw(
    training: dict[str, Any], alone: dict[str, float], mixed: dict[str, list[float]]
) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    colours = dict(zip(training, ("C1", "C0", "C2"), strict=True))
    for name, losses in training.items():
        each = np.convolve(np.asarray(losses) / CONTEXT, np.ones(20) / 20, "valid")
        left.plot(each, colours[name], label=name)
    left.set(xlabel="step", ylabel="nats a letter", title="training, smoothed")
    left.legend(frameon=False)
    for name, loss in alone.items():
        right.axhline(
            loss, color=colours[name], linestyle="--", label=f"{name}: a point"
        )
    for name, each in mixed.items():
        right.plot(DRAWS, each, ".-", color=colours[name], label=f"{name}: draws")
    right.set(xscale="log", xlabel="draws", title="text not seen")
    right.set_xticks(DRAWS, [str(s) for s in DRAWS])
    right.minorticks_off()
    right.legend(frameon=False, fontsize="small")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/transformer_averaging.png", dpi=150)
    print("\nout/transformer_averaging.png: the training, and what averaging is worth")


if __name__ == "__main__":
    main()
