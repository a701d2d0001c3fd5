"""How sure is a net, and does it know what it has never seen?

Nets learn to tell the handwritten digits 0 to 7 apart. On others' handwriting of the
same digits they should be right as often as they say: the reliability diagram. Shown
the digits 8 and 9, digits whose pixels are shuffled, or noise, they should be unsure:
the entropy of their prediction tells these from digits they know, with the area under
the curve (AUROC) as its mark.

    point                 the mode of the posterior
    deep ensemble         five of them
    K-FAC                 a matrix normal for each layer, by natural gradients
    K-FAC, cold           the same at a tenth of the KL divergence's weight
    ensemble of K-FAC     five of the cold ones, a mixture

The prior makes the logits of inputs like these vary by about 10; no setting was chosen
by the images that are tested on.

Source: Ovadia et al. (2019), Can you trust your model's uncertainty?

    python examples/digits_calibration.py
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ngvi.fisher import MLP
from ngvi.nets import Predictive, noisy_kfac
from ngvi.nets.baselines import ensemble, maximum_a_posteriori
from ngvi.nets.metrics import (
    expected_calibration_error,
    negative_log_likelihood,
    out_of_distribution_auroc,
    predictive_entropy,
    reliability_curve,
)

KNOWN, WIDTH, MEMBERS, EPOCHS = 8, 64, 5, 60
NET = MLP((64, WIDTH, KNOWN), jax.nn.relu)
PRIOR = [{"w": 64.0, "b": 64.0}, {"w": WIDTH / 10, "b": WIDTH / 10}]
SIZES = {"epochs": EPOCHS, "batch_size": 64}
Digits = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Digits, Digits, dict[str, np.ndarray]]:
    """To learn from, to test on, and what is neither."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 8 - 1).astype(np.float32)
    # The writers are in order: the last third of the images are other people's.
    learn, test = np.split(np.arange(len(images)), [2 * len(images) // 3])
    known = labels < KNOWN
    learn, seen = learn[known[learn]], test[known[test]]
    rng = np.random.default_rng(0)
    strange = {
        "8 and 9": images[test[~known[test]]],
        "shuffled": rng.permuted(images[seen], axis=1),
        "noise": rng.uniform(-1, 1, (len(seen), 64)).astype(np.float32),
    }
    return (images[learn], labels[learn]), (images[seen], labels[seen]), strange


def posteriors(data: Digits) -> dict[str, Any]:
    """By name; single nets are the first members of the ensembles."""
    starts = jax.vmap(NET.init)(jax.random.split(jax.random.key(0), MEMBERS))
    settings: dict[str, Any] = {"prior_precision": PRIOR}
    modes = maximum_a_posteriori(
        NET, "categorical", len(data[0]), learning_rate=0.003, **settings
    )
    settings |= {
        "learning_rate": 0.05,
        "precision_rate": 0.02,
        "samples": 2,
        "antithetic": True,
        "trust": 0.1,
    }
    found: dict[str, Any] = {}
    for name, weight in (("K-FAC", 1.0), ("K-FAC, cold", 0.1)):
        row = noisy_kfac(NET, "categorical", len(data[0]), kl_weight=weight, **settings)
        found[name] = ensemble(row, starts, data, jax.random.key(1), **SIZES)
    point = ensemble(modes, starts, data, jax.random.key(1), **SIZES)
    return {
        "point": point[0],
        "deep ensemble": point,
        "K-FAC": found["K-FAC"][0],
        "K-FAC, cold": found["K-FAC, cold"][0],
        "ensemble of K-FAC": found["K-FAC, cold"],
    }


def probabilities(posterior: Any, images: np.ndarray) -> np.ndarray:
    predictive = Predictive(NET, posterior, draws=100)
    return np.asarray(predictive.probabilities(images, jax.random.key(2)))


def main() -> None:
    learn, (images, labels), strange = digits()
    titles = ["accuracy", "NLL", "ECE", *(f"AUROC {name}" for name in strange)]
    print(f"{'':20s}" + "".join(f"{title:>15s}" for title in titles))
    found = {}
    for name, posterior in posteriors(learn).items():
        p = probabilities(posterior, images)
        unsure = {other: probabilities(posterior, x) for other, x in strange.items()}
        entropies = {k: predictive_entropy(v) for k, v in unsure.items()}
        inside = predictive_entropy(p)
        numbers = [
            (p.argmax(1) == labels).mean(),
            negative_log_likelihood(labels, p),
            expected_calibration_error(labels, p),
            *(out_of_distribution_auroc(inside, e) for e in entropies.values()),
        ]
        print(f"{name:20s}" + "".join(f"{number:15.3f}" for number in numbers))
        found[name] = (p, inside, entropies["8 and 9"])
    draw(labels, found)


def draw(labels: np.ndarray, found: dict[str, Any]) -> None:
    figure, axes = plt.subplots(
        2, len(found), figsize=(13, 5), sharey="row", layout="constrained"
    )
    for (name, (p, inside, outside)), (top, low) in zip(
        found.items(), axes.T, strict=True
    ):
        curve = reliability_curve(labels, p, bins=10)
        top.plot([0, 1], [0, 1], "k:", linewidth=1)
        top.plot(curve.confidence, curve.accuracy, "C0.-")
        top.set(title=name, xlabel="confidence", xlim=(0, 1), ylim=(0, 1.03))
        bins = np.linspace(0, np.log(KNOWN), 25)
        for values, label, colour in (
            (inside, "0 to 7", "C0"),
            (outside, "8 and 9", "C1"),
        ):
            low.hist(values, bins, density=True, alpha=0.6, color=colour, label=label)
        low.set(xlabel="entropy, nats", yscale="log")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("density")
    axes[1, -1].legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/digits_calibration.png", dpi=150)
    print("\nout/digits_calibration.png: reliability, and how unsure of known and new")


if __name__ == "__main__":
    main()
