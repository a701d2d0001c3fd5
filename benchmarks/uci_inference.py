"""Evidence lower bounds of posteriors of nets on UCI's small regression sets.

    python benchmarks/uci_inference.py [--data DIR] [--sets yacht …] [--splits 3]
        [--rows noisy_ekfac vogn …] [--models unit fan-in] [--steps 30000]

The model is fixed, so that the bound says how good the inference is. One hidden layer
of 50 relu units, standardised features and target, and

    unit:     weights N(0, 1),           noise precision Gamma(6, 6);
    fan-in:   weights N(0, 2 / fan-in),  noise precision Gamma(1, 0.001).

All rows have the same training: batches of 100, four draws a step in pairs, the KL
divergence weighted 0.1 at first for Kronecker rows and 1 from half of the steps on, and
the last half with a learning rate that falls to zero. Diagonal rows have the weight 1
from the start, and a slower average of their curvature: so they all end in one optimum,
where from a small weight each run finds one of its own. Reported are the bound in nats
a training row (200 draws) and the log predictive density of the test rows in the
target's units; means over the splits, which train as one program. `noisy_kfac,
factored` is the published damping of each factor by itself.

Where the sets are read from, see `uci_data.py`; nothing is run for those not there.
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
from uci_data import Split, add_arguments, load

from ngvi import nets
from ngvi.fisher import MLP
from ngvi.nets import ObservationNoise, Predictive, elbo

UNITS, BATCH, PARTS = 50, 100, 20


class Row(NamedTuple):
    make: Callable[..., Any]
    settings: dict[str, Any]
    first_weight: float
    """Of the KL divergence."""


def _kronecker(make: Callable[..., Any], **settings: Any) -> Row:
    often = {"measure_every": 5, "refresh": 50, "precision_rate": 0.01}
    return Row(make, {"kind": "true", **often, **settings}, 0.1)


def _diagonal(make: Callable[..., Any], **settings: Any) -> Row:
    return Row(make, {"trust": 0.3, "precision_rate": 0.002, **settings}, 1.0)


ROWS = {
    "noisy_ekfac": _kronecker(nets.noisy_ekfac),
    "noisy_kfac": _kronecker(nets.noisy_kfac),
    "noisy_kfac, factored": _kronecker(nets.noisy_kfac, factored=True),
    "vogn": _diagonal(nets.vogn),
    "ivon": _diagonal(nets.ivon, curvature="per-example"),
    "noisy_adam": _diagonal(nets.noisy_adam),
}


class Model(NamedTuple):
    variance: Callable[[int], float]
    """Of a weight, by the inputs of its layer."""
    noise: tuple[float, float]


MODELS = {
    "unit": Model(lambda inputs: 1.0, (6.0, 6.0)),
    "fan-in": Model(lambda inputs: 2.0 / inputs, (1.0, 1e-3)),
}


def standardised(splits: list[Split]) -> tuple[jax.Array, ...]:
    """x, y, those of the test, all standardised, and the target's scale; splits first.

    The splits of a set are equally large.
    """
    x, y, x_test, y_test = (
        np.stack([split[k].reshape(len(split[k]), -1) for split in splits])
        for k in range(4)
    )
    scales = []
    for known, new in ((x, x_test), (y, y_test)):
        center, scale = known.mean(1, keepdims=True), known.std(1, keepdims=True)
        scale[scale == 0] = 1
        for values in (known, new):
            values -= center
            values /= scale
        scales.append(scale)
    parts = x, y, x_test, y_test, scales[1]
    return tuple(jnp.asarray(part, jnp.float32) for part in parts)


def run(
    row: str, model: Model, data: tuple[jax.Array, ...], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The bound and the test's log density of every split."""
    make, chosen, first_weight = ROWS[row]
    n, inputs = data[0].shape[1:]
    net = MLP((inputs, UNITS, 1), jax.nn.relu)
    batch = min(BATCH, n)
    epochs = max(steps // (n // batch) // PARTS, 1)
    total = PARTS * epochs * (n // batch)
    variances = [model.variance(size) for size in net.sizes[:-1]]
    algorithm = make(
        net,
        ObservationNoise.begin(*model.noise),
        n,
        learning_rate=lambda t: 0.2 * jnp.minimum(1.0, 2 * (1 - t / total)),
        samples=4,
        antithetic=True,
        prior_precision=[{"w": 1 / v, "b": 1 / v} for v in variances],
        momentum=0.9,
        **chosen,
    )
    weights = first_weight ** np.clip(1 - 2 * np.arange(PARTS) / PARTS, 0, 1)

    def split(of_split: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        x, y, x_test, y_test, scale, key = of_split
        of_start, of_training, of_draws = jax.random.split(key, 3)
        state = algorithm.init(net.init(of_start), (x, y))
        # The net begins as if it explained nine tenths: else it may settle for noise.
        noise = state.noise.step(0.1, y.size, 1.0)
        state = replace(state, noise=noise, likelihood=noise.likelihood)

        def part(state: Any, of_part: Any) -> Any:
            weight, key = of_part
            state = replace(state, scale=(n / weight).astype(state.scale.dtype))
            settings = {"epochs": epochs, "batch_size": batch}
            return algorithm.run(state, (x, y), key, **settings)[0], None

        keys = jax.random.split(of_training, PARTS)
        state, _ = jax.lax.scan(part, state, (jnp.asarray(weights), keys))
        posterior = algorithm.posterior(state)
        bound = elbo(net, posterior, x, y, of_draws, draws=200).value / n
        predictive = Predictive(net, posterior, 200)
        density = predictive.log_density(x_test, y_test, of_draws).mean()
        return bound, density - jnp.log(scale[0, 0])

    keys = jax.random.split(jax.random.key(0), len(data[0]))
    found = jax.jit(lambda *parts: jax.lax.map(split, parts))(*data, keys)
    bound, density = map(np.asarray, found)
    return bound, density


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, splits=3)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--steps", type=int, default=30000)
    args = parser.parse_args()
    print("| model | set | row | bound a row | test log density | s |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.sets:
        splits = load(args.data, name, args.splits)
        if not splits:
            continue
        data = standardised(splits)
        for model in args.models:
            for row in args.rows:
                start = time.perf_counter()
                bound, density = run(row, MODELS[model], data, args.steps)
                seconds = time.perf_counter() - start
                numbers = f"{bound.mean():.3f} | {density.mean():.2f} | {seconds:.0f}"
                print(f"| {model} | {name} | {row} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
