"""Which weights a net can do without: those it does not know from zero.

A net 64–32–10 learns handwritten digits with a posterior of independent weights (VOGN).
Then weights are set to zero, by one of three orders: the lowest signal-to-noise ratio
|m|/σ first, the smallest |m| first, or at random. The table has the KL divergence of
each layer from its prior, in nats: what the data said about it. The pictures show the
test loss as weights go, and how many of each pixel's weights are left.

Source: Graves (2011), Practical variational inference for neural networks; Blundell,
Cornebise, Kavukcuoglu and Wierstra (2015), Weight uncertainty in neural networks.

    python examples/pruning.py
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ngvi.fisher import MLP
from ngvi.nets import WeightPosterior, vogn
from ngvi.nets.diagnostics import Pruned, prune, shares, signal_to_noise
from ngvi.terminal.table import text_table

NET = MLP((64, 32, 10))
FRACTIONS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
SHOWN, DRAWS = 0.75, 30
STYLES = {"by signal to noise": "C0-", "by size": "C1--", "at random": "C7:"}


def train(x: np.ndarray, y: np.ndarray, epochs: int) -> WeightPosterior:
    row = vogn(
        NET,
        "categorical",
        len(x),
        prior_precision=5.0,
        learning_rate=0.02,
        precision_rate=0.02,
    )
    state = row.init(NET.init(jax.random.key(0)), (x, y))
    key = jax.random.key(1)
    state, _ = row.run(state, (x, y), key, epochs=epochs, batch_size=100)
    return row.posterior(state)


def without(posterior: WeightPosterior, fraction: float, order: str) -> Pruned:
    """The posterior with this fraction of the weights zero, the first of an order."""
    if order == "by signal to noise":
        return prune(posterior, fraction)
    size = len(posterior.mean)
    rank = np.abs(posterior.mean)
    if order == "at random":
        rank = np.random.default_rng(0).permutation(size)
    first = np.argsort(rank)[: round(fraction * size)]
    return Pruned(posterior, jnp.ones(size, bool).at[first].set(False))


@jax.jit
def probabilities(pruned: Pruned, x: np.ndarray) -> jax.Array:
    """Of the classes, averaged over draws."""
    params = pruned.sample(jax.random.key(2), (DRAWS,))
    return jax.nn.softmax(jax.vmap(NET, (0, None))(params, x)).mean(0)


def scores(pruned: Pruned, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy, and the mean of −log p(y | x)."""
    found = np.asarray(probabilities(pruned, x))
    loss = -np.log(found[np.arange(len(y)), y]).mean()
    return float((found.argmax(1) == y).mean()), float(loss)


def main() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=0)
    posterior = train(x, y, epochs=80)
    print(text_table(shares(posterior)))

    found = {
        order: np.array(
            [scores(without(posterior, f, order), x_test, y_test) for f in FRACTIONS]
        )
        for order in STYLES
    }
    print(f"\n{'accuracy without':24s}" + "".join(f"{f:7.0%}" for f in FRACTIONS))
    for order, values in found.items():
        print(f"{order:24s}", end="")
        print("".join(f"{value:7.3f}" for value in values[:, 0]))
    draw(posterior, found)


def draw(posterior: WeightPosterior, found: dict[str, Any]) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.4), layout="constrained"
    )
    for order, values in found.items():
        left.plot(FRACTIONS, values[:, 1], STYLES[order], label=order)
    left.set(xlabel="weights set to zero", title="test loss", ylim=(0, 2.5))
    left.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    left.legend(frameon=False)

    ratios = signal_to_noise(posterior)
    bins = np.geomspace(1e-3, 30, 40)
    for i, colour in enumerate(["C2", "C4"]):
        layer = np.concatenate([np.ravel(leaf) for leaf in ratios[i].values()])
        label = f"layer {i}"
        share = np.full(layer.size, 1 / layer.size)
        middle.hist(layer, bins, weights=share, color=colour, alpha=0.6, label=label)
    middle.set(xscale="log", xlabel="|m|/σ", title="signal to noise: share of a layer")
    middle.legend(frameon=False)

    kept = posterior.prior.layout.tree(prune(posterior, SHOWN).kept)[0]["w"]
    image = right.imshow(np.asarray(kept).sum(1).reshape(8, 8), cmap="viridis")
    right.set(xticks=[], yticks=[])
    right.set_title(f"a pixel's weights left, of 32\n({SHOWN:.0%} of all are zero)")
    figure.colorbar(image, ax=right)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/pruning.png", dpi=150)
    print(
        "\nout/pruning.png: the loss, the ratios, and what is left of the first layer"
    )


if __name__ == "__main__":
    main()
