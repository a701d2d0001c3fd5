"""Asking for the labels that teach the most: BALD, against labels at random.

There are pictures of digits and no labels but twenty; ten more are bought at a time,
and the training of a net 64–32–10 goes on with those there are. Which pictures? BALD
asks for those on which draws from the posterior disagree although each is sure of
itself, the label's mutual information with the weights:

    I(y; w) = H[E_w p(y | x, w)] − E_w H[p(y | x, w)].

Entropy takes the first term alone: it also likes what no label would settle. The
posterior is a mean field by natural gradients (VOGN), with a weight of 0.1 on the KL
divergence: at 1 so few labels would say next to nothing about so many weights. A whole
campaign is one program, and several are run side by side.

Source: Houlsby, Huszár, Ghahramani and Lengyel (2011), Bayesian active learning for
classification and preference learning; Gal, Islam and Ghahramani (2017), Deep Bayesian
active learning with image data.

    python examples/active_learning.py
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ngvi.fisher import MLP
from ngvi.nets import vogn

NET = MLP((64, 32, 10))
FIRST, AT_ONCE = 20, 10
STEPS, BATCH, DRAWS = 200, 32, 20
STYLES = {"BALD": "C0-", "entropy": "C2-.", "at random": "C7:"}
KL_WEIGHT = 0.1
ROW = vogn(
    NET,
    "categorical",
    1,
    kl_weight=KL_WEIGHT,
    learning_rate=0.02,
    precision_rate=0.02,
)


def train(state: Any, pool: tuple, bought: Any, count: Any, key: jax.Array) -> Any:
    """The state after training on the first `count` of the pictures bought."""
    images, digits = pool
    of_rows, of_steps = jax.random.split(key)
    number = count.astype(images.dtype)
    state = replace(state, data_size=number, scale=number / KL_WEIGHT)

    def one(state: Any, of_step: tuple) -> tuple[Any, None]:
        places, key = of_step
        rows = bought[places]
        return ROW.step(state, (images[rows], digits[rows]), key)[0], None

    places = jax.random.randint(of_rows, (STEPS, BATCH), 0, count)
    return jax.lax.scan(one, state, (places, jax.random.split(of_steps, STEPS)))[0]


def interest(way: str, probabilities: jax.Array, key: jax.Array) -> jax.Array:
    """Of every picture; probabilities have the shape (draws, pictures, classes)."""

    def entropy(p: jax.Array) -> jax.Array:
        return jax.scipy.special.entr(p).sum(-1)

    mean = probabilities.mean(0)
    if way == "at random":
        return jax.random.uniform(key, mean.shape[:1])
    if way == "entropy":
        return entropy(mean)
    return entropy(mean) - entropy(probabilities).mean(0)


@partial(jax.jit, static_argnames=("way", "rounds"))
def campaign(
    way: str, pool: tuple, test: tuple, key: jax.Array, rounds: int
) -> tuple[jax.Array, jax.Array]:
    """Test accuracy by round, and the pictures in the order they were bought."""
    images = pool[0]
    of_first, of_net, of_rounds = jax.random.split(key, 3)
    total = FIRST + rounds * AT_ONCE
    first = jax.random.permutation(of_first, len(images))[:FIRST]
    bought = jnp.zeros(total, int).at[:FIRST].set(first)
    known = jnp.zeros(len(images), bool).at[first].set(True)
    state = ROW.init(NET.init(of_net), (images[:2], jnp.zeros(2, int)))

    def one(carry: tuple, of_round: tuple) -> tuple[tuple, jax.Array]:
        state, bought, known = carry
        count, key = of_round
        of_training, of_draws, of_luck = jax.random.split(key, 3)
        state = train(state, pool, bought, count, of_training)
        params = ROW.sample(state, of_draws, (DRAWS,))
        predict = jax.vmap(lambda params, x: jax.nn.softmax(NET(params, x)), (0, None))
        found = predict(params, test[0]).mean(0).argmax(1)
        value = interest(way, predict(params, images), of_luck)
        _, chosen = jax.lax.top_k(jnp.where(known, -jnp.inf, value), AT_ONCE)
        bought = jax.lax.dynamic_update_slice(bought, chosen, (count,))
        known = known.at[chosen].set(True)
        return (state, bought, known), (found == test[1]).mean()

    counts = FIRST + AT_ONCE * jnp.arange(rounds)
    keys = jax.random.split(of_rounds, rounds)
    start = state, bought, known
    (_, bought, _), accuracies = jax.lax.scan(one, start, (counts, keys))
    return accuracies, bought


def digits_in_two() -> tuple[tuple, tuple]:
    """The pool, and the test data."""
    x, y = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.4, random_state=0)
    return (jnp.asarray(x), jnp.asarray(y)), (jnp.asarray(x_test), jnp.asarray(y_test))


def main() -> None:
    pool, test = digits_in_two()
    keys, rounds = jax.random.split(jax.random.key(0), 4), 19
    runs = {
        way: jax.vmap(lambda key, way=way: campaign(way, pool, test, key, rounds))(keys)
        for way in STYLES
    }
    accuracies = {way: np.asarray(run[0]) for way, run in runs.items()}
    counts = FIRST + AT_ONCE * np.arange(rounds)
    shown = range(0, rounds, 3)
    print(f"{'test accuracy, labels':24s}" + "".join(f"{counts[i]:8d}" for i in shown))
    for way, found in accuracies.items():
        means = found.mean(0)
        print(f"{way:24s}" + "".join(f"{means[i]:8.3f}" for i in shown))
    draw(counts, accuracies, np.asarray(pool[0])[np.asarray(runs["BALD"][1][0])])


def draw(counts: np.ndarray, accuracies: dict, asked: np.ndarray) -> None:
    figure = plt.figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
    axis = left.subplots()
    for way, found in accuracies.items():
        style = STYLES[way]
        axis.plot(counts, found.mean(0), style, label=way)
        band = found.min(0), found.max(0)
        axis.fill_between(counts, *band, color=style[:2], alpha=0.15, linewidth=0)
    axis.set(xlabel="labels", title="test accuracy: mean and range of four campaigns")
    axis.legend(frameon=False, loc="lower right")
    right.suptitle("what BALD asked for first")
    for panel, image in zip(right.subplots(4, 5).flat, asked[FIRST:], strict=False):
        panel.imshow(image.reshape(8, 8), cmap="gray_r")
        panel.set(xticks=[], yticks=[])
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/active_learning.png", dpi=150)
    print("\nout/active_learning.png: the accuracies, and twenty pictures asked for")


if __name__ == "__main__":
    main()
