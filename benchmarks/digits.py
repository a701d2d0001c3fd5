"""How well nets predict handwritten digits, and how well they know it.

    python benchmarks/digits.py [--methods noisy_ekfac map …] [--seeds 5]
        [--members 10] [--weight 0.003] [--held-out]

scikit-learn's 1,797 images of 8 × 8 pixels, split into 1,437 and 360, stratified, once
for each seed; a net 64-64-10 of relu units. All pixels have one mean and one scale, for
some at the border never change. The prior's precisions are those that EK-FAC learns at
the KL divergence's full weight, rounded: near the maximum of the evidence lower bound.

    a row by its name   the posterior, at the KL divergence's full weight
    cold kfac           a mixture of such posteriors at `--weight` of it
    cold ekfac          the same of EK-FAC's
    map                 one net trained to its mode by Adam, the prior weighted by 0.1
    deep ensemble       several of them

At full weight a step has four draws in pairs, the weight rises from 0.1 to 1 over the
first half, and the learning rate falls to zero over the last. Where the data determine
the mean, batches of B shake it with a variance of about α (N/κ) / 2B in units of q's:
cold posteriors take a lower rate α, and a tighter `trust` for their steps. `--held-out`
tests on a fifth of the training rows in place of the test's: κ and the settings of the
cold mixtures were chosen so.

Reported are accuracy, the mean of −log p of the test's labels (NLL) with its standard
error over the seeds, the expected calibration error (ECE, 15 bins), and the evidence
lower bound of a row at full weight, in nats a training row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ngvi import nets
from ngvi.fisher import MLP
from ngvi.nets import Predictive, elbo, metrics
from ngvi.nets.baselines import ensemble, maximum_a_posteriori

NET = MLP((64, 64, 10), jax.nn.relu)
PRIOR = [{"w": one, "b": one} for one in (7.0, 9.0)]
BATCH, EPOCHS, PARTS, FIRST_WEIGHT, DRAWS = 128, 200, 20, 0.1, 200

FACTORS = {"kind": "empirical", "measure_every": 5, "refresh": 50}
WARM = {"learning_rate": 0.2, "samples": 4, "antithetic": True}
COLD = {"learning_rate": 0.01, "samples": 2, "antithetic": True, "trust": 0.03}
ROWS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "noisy_kfac": (nets.noisy_kfac, WARM | FACTORS),
    "noisy_ekfac": (nets.noisy_ekfac, WARM | FACTORS),
    "vogn": (nets.vogn, WARM | {"trust": 0.3}),
    "ivon": (nets.ivon, WARM | {"curvature": "per-example"}),
    "cold kfac": (nets.noisy_kfac, COLD | FACTORS),
    "cold ekfac": (nets.noisy_ekfac, COLD | FACTORS),
}
POINTS = ("map", "deep ensemble")


class Digits(NamedTuple):
    """Training and test rows; those of all seeds, along a first axis."""

    x: jax.Array
    y: jax.Array
    x_test: jax.Array
    y_test: jax.Array


def load(seeds: int, held_out: bool) -> Digits:
    images, labels = load_digits(return_X_y=True)

    def part(x: np.ndarray, y: np.ndarray, seed: int) -> list[np.ndarray]:
        return train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)

    found = []
    for seed in range(seeds):
        x, x_test, y, y_test = part(images, labels, seed)
        if held_out:
            x, x_test, y, y_test = part(x, y, seed)
        center, scale = x.mean(), x.std()
        x, x_test = ((z - center) / scale for z in (x, x_test))
        found.append(Digits(x.astype(np.float32), y, x_test.astype(np.float32), y_test))
    return Digits(*map(np.stack, zip(*found, strict=True)))


def of_rate(rate: float, total: int) -> Callable[[Any], Any]:
    """It falls to zero over the last half of the steps."""
    return lambda t: rate * jnp.minimum(1.0, 2 * (1 - t / total))


def posteriors(
    row: str, weight: float, data: Digits, members: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of every seed: the probabilities, and the bound a training row."""
    make, chosen = ROWS[row]
    n = data.x.shape[1]
    epochs = EPOCHS // PARTS
    total = PARTS * epochs * (n // BATCH)
    rate = of_rate(chosen["learning_rate"], total)
    algorithm = make(
        NET,
        "categorical",
        n,
        prior_precision=PRIOR,
        precision_rate=0.01,
        kl_weight=weight,
        **(chosen | {"learning_rate": rate}),
    )
    begun = min(FIRST_WEIGHT / weight, 1.0)
    weights = weight * begun ** np.clip(1 - 2 * np.arange(PARTS) / PARTS, 0, 1)

    def trained(of_net: tuple[Digits, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x, y, x_test, _), key = of_net
        of_start, of_training, of_draws = jax.random.split(key, 3)
        state = algorithm.init(NET.init(of_start), (x, y))

        def part(state: Any, of_part: Any) -> Any:
            weight, key = of_part
            state = replace(state, scale=(n / weight).astype(state.scale.dtype))
            sizes = {"epochs": epochs, "batch_size": BATCH}
            return algorithm.run(state, (x, y), key, **sizes)[0], None

        keys = jax.random.split(of_training, PARTS)
        state, _ = jax.lax.scan(part, state, (jnp.asarray(weights), keys))
        posterior = algorithm.posterior(state)
        bound = elbo(NET, posterior, x, y, of_draws, draws=DRAWS).value / n
        predictive = Predictive(NET, posterior, DRAWS)
        return predictive.probabilities(x_test, of_draws), bound

    # One program for all members of all seeds, one after the other.
    seeds = len(data.x)
    repeated = jax.tree.map(lambda leaf: np.repeat(leaf, members, 0), data)
    keys = jax.random.split(jax.random.key(0), seeds * members)
    found = jax.jit(lambda *nets: jax.lax.map(trained, nets))(repeated, keys)
    p, bounds = (np.asarray(z).reshape(seeds, members, *z.shape[1:]) for z in found)
    return p.mean(1), bounds.mean(1)


def points(data: Digits, members: int) -> np.ndarray:
    """The probabilities of every seed."""
    n, epochs, batch = data.x.shape[1], 100, 32
    training = maximum_a_posteriori(
        NET,
        "categorical",
        n,
        prior_precision=PRIOR,
        kl_weight=0.1,
        learning_rate=of_rate(3e-3, epochs * (n // batch)),
    )

    def trained(of_seed: tuple[Digits, jax.Array]) -> jax.Array:
        (x, y, x_test, _), key = of_seed
        of_starts, of_training = jax.random.split(key)
        starts = jax.vmap(NET.init)(jax.random.split(of_starts, members))
        sizes = {"epochs": epochs, "batch_size": batch}
        mixture = ensemble(training, starts, (x, y), of_training, **sizes)
        return Predictive(NET, mixture, members).probabilities(x_test, key)

    keys = jax.random.split(jax.random.key(0), len(data.x))
    return np.asarray(jax.jit(lambda *seeds: jax.lax.map(trained, seeds))(data, keys))


def scores(labels: Any, probabilities: np.ndarray) -> np.ndarray:
    """Accuracy, NLL and ECE of every seed."""
    pairs = zip(labels, probabilities, strict=True)
    return np.array(
        [
            (
                (p.argmax(1) == y).mean(),
                metrics.negative_log_likelihood(y, p),
                metrics.expected_calibration_error(y, p),
            )
            for y, p in pairs
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [*ROWS, *POINTS]
    parser.add_argument("--methods", nargs="+", default=every, choices=every)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--weight", type=float, default=0.003)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    data = load(args.seeds, args.held_out)
    print("| method | KL weight | members | accuracy | NLL | ECE | bound | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for method in args.methods:
        start, bound = time.perf_counter(), ""
        cold = method.startswith("cold")
        members = args.members if cold or method == "deep ensemble" else 1
        if method in POINTS:
            weight, p = "", points(data, members)
        else:
            kappa = args.weight if cold else 1.0
            p, bounds = posteriors(method, kappa, data, members)
            weight = f"{kappa:g}"
            bound = "" if cold else f"{bounds.mean():.3f}"
        found = scores(data.y_test, p)
        accuracy, nll, ece = found.mean(0)
        error = found[:, 1].std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0
        numbers = f"{accuracy:.4f} | {nll:.4f} ± {error:.4f} | {ece:.4f} | {bound}"
        seconds = time.perf_counter() - start
        print(
            f"| {method} | {weight} | {members} | {numbers} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
