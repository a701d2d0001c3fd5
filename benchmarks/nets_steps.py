"""What a step of a Bayesian net costs, beside Adam's step on the same net.

    python benchmarks/nets_steps.py [--seconds S] [--out FILE.json]

Needs optax. Two nets, random data: a regression (13-50-1, 751 weights, batches of 32,
learned noise) and digits (64-64-10, 4,810 weights, batches of 128). Every row trains by
epochs in one compiled program, as Adam does, with one draw of the weights a step.
Kronecker rows measure their factors every 10 steps and factorise them every 100. The
second number of a row is of what may be shared between steps without a bias: normals
that serve eight steps each (`fresh_every=8`), and VOGN's squares of every second batch.
"noisy_kfac, factored" is the published form, with its own damping. Times are the
fastest of many turns, taken in random order.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ngvi import nets
from ngvi.fisher import MLP
from ngvi.nets.baselines import maximum_a_posteriori

EPOCHS = 20
OFTEN = {"measure_every": 10, "refresh": 100}
SHARED = ", shared"


class Problem(NamedTuple):
    name: str
    sizes: tuple[int, ...]
    examples: int
    batch_size: int
    classes: bool

    @property
    def steps(self) -> int:
        return EPOCHS * (self.examples // self.batch_size)

    def data(self) -> tuple[jax.Array, jax.Array]:
        of_x, of_y = jax.random.split(jax.random.key(0))
        x = jax.random.normal(of_x, (self.examples, self.sizes[0]))
        if self.classes:
            return x, jax.random.randint(of_y, (self.examples,), 0, self.sizes[-1])
        return x, jax.random.normal(of_y, (self.examples, self.sizes[-1]))


PROBLEMS = [
    Problem("regression 13-50-1, batch 32", (13, 50, 1), 455, 32, False),
    Problem("digits 64-64-10, batch 128", (64, 64, 10), 1437, 128, True),
]


def runs(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Adam first, then a training of every row."""
    net = MLP(problem.sizes, jax.nn.relu)
    params = net.init(jax.random.key(1))
    x, y = problem.data()
    likelihood: Any = (
        "categorical" if problem.classes else nets.ObservationNoise.begin()
    )
    kind = "sampled" if problem.classes else "true"
    of_factors = {"kind": kind, **OFTEN}
    rows = {
        "vogn": nets.vogn,
        "noisy_adam": nets.noisy_adam,
        "vadam": nets.vadam,
        "ivon": nets.ivon,
        "noisy_kfac": partial(nets.noisy_kfac, **of_factors),
        "noisy_kfac, factored": partial(nets.noisy_kfac, factored=True, **of_factors),
        "noisy_ekfac": partial(nets.noisy_ekfac, **of_factors),
    }
    sizes = {"epochs": EPOCHS, "batch_size": problem.batch_size}
    adam = maximum_a_posteriori(
        net, "categorical" if problem.classes else "gaussian", len(x)
    )
    begun = adam.init(params, (x, y))
    calls = {"Adam": lambda: adam.run(begun, (x, y), jax.random.key(2), **sizes)}
    for name, row in rows.items():
        shared = {"fresh_every": 8}
        if row is nets.vogn:
            shared |= {"measure_every": 2, "refresh": 2}
        for settings, suffix in (({}, ""), (shared, SHARED)):
            algorithm = row(net, likelihood, len(x), learning_rate=0.01, **settings)
            state = algorithm.init(params, (x, y))
            calls[name + suffix] = partial(
                algorithm.run, state, (x, y), jax.random.key(2), **sizes
            )
    return calls


def measured(problem: Problem, seconds: float) -> dict[str, float]:
    """Microseconds a step."""
    calls = runs(problem)
    for call in calls.values():
        jax.block_until_ready(call())
    best = dict.fromkeys(calls, np.inf)
    rng, start = np.random.default_rng(0), time.perf_counter()
    while time.perf_counter() - start < seconds:
        for name in rng.permutation(list(calls)):
            begun = time.perf_counter()
            jax.block_until_ready(calls[name]())
            spent = (time.perf_counter() - begun) / problem.steps
            best[name] = min(best[name], 1e6 * spent)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(f"{jax.default_backend()}, jax {jax.__version__}, optax {optax.__version__}")
    found = []
    for problem in PROBLEMS:
        times = measured(problem, options.seconds)
        print(f"\n{problem.name:32s} us a step  over Adam")
        for name, spent in times.items():
            print(f"  {name:30s} {spent:9.1f}  {spent / times['Adam']:9.2f}")
            found.append({"problem": problem.name, "row": name, "us": spent})
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
