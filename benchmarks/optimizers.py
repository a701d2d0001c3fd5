"""How soon curvature gets to where Adam ends, in steps and in time.

    python benchmarks/optimizers.py [--seeds 3] [--problems full batches classifier]
        [--methods kfac ekfac …] [--rounds 5] [--out optimizers.json]

    full        a deep autoencoder 64-100-50-25-6-25-50-100-64 of scikit-learn's 1,797
                digits, cross-entropy of the grey levels, all images at every step
    batches     the same in shuffled batches of 256, 100 epochs
    classifier  a net 64-100-100-10 of tanh units on their labels, batches of 128, 20
                epochs

Every method has a grid of five numbers for its one setting: the learning rate, or the
damping it starts from where the learning rate is the quadratic model's. The target of a
seed is the loss over all data that Adam ends with, at its best learning rate. A method
is shown at the number that gets there in the fewest steps, over all seeds: how many,
and the time they take over that of all of Adam's steps. Times are those of whole
trainings compiled as one program, by turns in one process, the fastest of so many
rounds, and beside them those of the processor; compiling, in the latter, is told apart.
A loss that was not reached is a dash.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# Threads of LAPACK that wait for each other on a busy machine are not what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from ngvi.fisher import MLP
from ngvi.fisher.likelihoods import Likelihood, as_likelihood
from ngvi.nets.optimizers import ekfac, kfac, shampoo, soap
from ngvi.nets.optimizers.step import step
from ngvi.nets.train import shuffled_batches


@dataclass(frozen=True)
class Problem:
    """A net with its data, and how long the others are trained."""

    name: str
    net: MLP
    likelihood: Likelihood
    x: Any
    y: Any
    batch_size: int
    look_every: int
    """Steps between two looks at the loss over all data."""
    looks: int
    share: float
    """Of these steps that methods by curvature are given."""

    @property
    def steps(self) -> int:
        return self.look_every * self.looks

    def loss(self, params: Any, x: Any, y: Any) -> Any:
        return -jax.vmap(self.likelihood.log_prob)(self.net(params, x), y).mean()

    def rows(self, seed: int, steps: int) -> Any:
        """Of every step; None for all."""
        n = len(self.x)
        if self.batch_size == n:
            return jnp.zeros((steps, 0), int)
        epochs = -(-steps // (n // self.batch_size))
        key = jax.random.key(100 + seed)
        return shuffled_batches(key, n, epochs, self.batch_size)[:steps]

    def batch(self, rows: Any, x: Any, y: Any) -> Any:
        return (x[rows], y[rows]) if rows.size else (x, y)


def problems() -> list[Problem]:
    images, labels = load_digits(return_X_y=True)
    x = jnp.asarray(images / 16, jnp.float32)
    deep = MLP((64, 100, 50, 25, 6, 25, 50, 100, 64))
    soft, classes = as_likelihood("soft_bernoulli"), as_likelihood("categorical")
    wide = MLP((64, 100, 100, 10))
    return [
        Problem("full", deep, soft, x, x, len(x), 1, 600, 0.2),
        Problem("batches", deep, soft, x, x, 256, 7, 100, 0.2),
        Problem("classifier", wide, classes, x, jnp.asarray(labels), 128, 14, 20, 1.0),
    ]


# -- the methods -----------------------------------------------------------------------

Begin = Callable[[Problem, Any, Any], Any]
"""Of a problem, parameters and the setting's number: a state."""
Step = Callable[[Problem, Any, Any, Any, Any], tuple[Any, Any]]
"""Of a problem, the number, a state, a batch and a key: the state, and a loss."""


@dataclass(frozen=True)
class Method:
    """An optimiser with a grid for its one setting."""

    grid: tuple[float, ...]
    begin: Begin
    step: Step
    params: Callable[[Any], Any]
    by_curvature: bool = False


def by_gradients(make: Callable[[Any], Any], grid: tuple[float, ...]) -> Method:
    """An optimiser of optax, with a grid of learning rates."""

    def begin(problem: Problem, params: Any, rate: Any) -> Any:
        return params, make(rate).init(params)

    def one(problem: Problem, rate: Any, state: Any, batch: Any, key: Any) -> Any:
        params, kept = state
        loss, slopes = jax.value_and_grad(problem.loss)(params, *batch)
        updates, kept = make(rate).update(slopes, kept, params)
        return (optax.apply_updates(params, updates), kept), loss

    return Method(grid, begin, one, lambda state: state[0])


def by_curvature(make: Any, full: dict[str, Any], some: dict[str, Any]) -> Method:
    """One of ours, with a grid of dampings."""

    def optimizer(problem: Problem) -> Any:
        settings = full if problem.name == "full" else some
        return make(problem.net, problem.likelihood, **settings)

    def begin(problem: Problem, params: Any, damping: Any) -> Any:
        state = optimizer(problem).init(params, (problem.x[:256], problem.y[:256]))
        return replace(state, damping=jnp.asarray(damping, jnp.float32))

    def one(problem: Problem, damping: Any, state: Any, batch: Any, key: Any) -> Any:
        state, info = step(optimizer(problem).rule, state, *batch, key)
        return state, info.loss

    grid = (0.0001, 0.0003, 0.001, 0.003, 0.01)
    return Method(grid, begin, one, lambda state: state.params, by_curvature=True)


ROWS = {"curvature_rows": 256, "model_rows": 512}
SOME = {"curvature_rows": 64}
METHODS = {
    "adam": by_gradients(optax.adam, (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)),
    "nesterov": by_gradients(
        partial(optax.sgd, momentum=0.9, nesterov=True), (0.003, 0.01, 0.03, 0.1, 0.3)
    ),
    "muon": by_gradients(optax.contrib.muon, (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    "kfac": by_curvature(kfac, ROWS, SOME),
    "ekfac": by_curvature(ekfac, ROWS, SOME),
    "shampoo": by_gradients(shampoo, (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)),
    "soap": by_gradients(soap, (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)),
}


class Training:
    """A method on a problem, as two programs: with looks at the loss, and without."""

    def __init__(self, problem: Problem, method: Method) -> None:
        self.problem, self.method = problem, method
        share = problem.share if method.by_curvature else 1.0
        self.steps = round(problem.looks * share) * problem.look_every
        self.looked = jax.jit(self._looked)
        self.alone = jax.jit(self._alone)

    def begun(self, seed: int, number: float) -> Any:
        params = self.problem.net.init(jax.random.key(seed))
        return self.method.begin(self.problem, params, number)

    def steps_of(self, seed: int) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(seed), self.steps)
        return self.problem.rows(seed, self.steps), keys

    def _one(self, number: Any, x: Any, y: Any, state: Any, of_step: Any) -> Any:
        rows, key = of_step
        batch = self.problem.batch(rows, x, y)
        return self.method.step(self.problem, number, state, batch, key)

    def _alone(self, state: Any, number: Any, x: Any, y: Any, steps: Any) -> Any:
        return jax.lax.scan(partial(self._one, number, x, y), state, steps)

    def _looked(self, state: Any, number: Any, x: Any, y: Any, steps: Any) -> Any:
        def look(state: Any, some: Any) -> Any:
            state, _ = jax.lax.scan(partial(self._one, number, x, y), state, some)
            return state, self.problem.loss(self.method.params(state), x, y)

        every = self.problem.look_every
        looks = self.steps // every
        cut = jax.tree.map(
            lambda leaf: leaf.reshape(looks, every, *leaf.shape[1:]), steps
        )
        return jax.lax.scan(look, state, cut)[1]

    def curve(self, seed: int, number: float) -> np.ndarray:
        """The loss over all data after every look."""
        p = self.problem
        state = self.begun(seed, number)
        return np.asarray(self.looked(state, number, p.x, p.y, self.steps_of(seed)))

    def compile(self, number: float) -> float:
        """CPU seconds that the program without looks takes."""
        p = self.problem
        state, steps = self.begun(0, number), self.steps_of(0)
        lowered = self.alone.lower(state, number, p.x, p.y, steps)
        start = time.process_time()
        compiled = lowered.compile()
        spent = time.process_time() - start
        self.run = partial(compiled, state, jnp.float32(number), p.x, p.y, steps)
        return spent

    def seconds(self) -> np.ndarray:
        """A step's, by the clock and of the processor."""
        start = np.array([time.perf_counter(), time.process_time()])
        jax.block_until_ready(self.run())
        end = np.array([time.perf_counter(), time.process_time()])
        return (end - start) / self.steps


def reached(curve: np.ndarray, target: float) -> float:
    """Looks until a loss is no more than the target."""
    hits = np.flatnonzero(curve <= target)
    return float(hits[0] + 1) if len(hits) else np.inf


def compare(problem: Problem, names: list[str], seeds: int, rounds: int) -> Any:
    trainings = {name: Training(problem, METHODS[name]) for name in names}
    curves = {
        name: np.array(
            [
                [t.curve(seed, number) for seed in range(seeds)]
                for number in np.float32(t.method.grid)
            ]
        )
        for name, t in trainings.items()
    }
    with np.errstate(invalid="ignore"):
        finals = np.nan_to_num(curves["adam"][:, :, -1], nan=np.inf)
    targets = finals.min(0)
    best, looks = {}, {}
    for name, of_grid in curves.items():
        needed = np.array(
            [
                [reached(*pair) for pair in zip(of_number, targets, strict=True)]
                for of_number in of_grid
            ]
        )
        last = np.nan_to_num(of_grid[:, :, -1], nan=np.inf).mean(1)
        order = np.lexsort((last, needed.mean(1)))
        best[name], looks[name] = int(order[0]), needed[order[0]]
    compiling = {
        name: t.compile(np.float32(t.method.grid[best[name]]))
        for name, t in trainings.items()
    }
    spent: dict[str, Any] = {name: [] for name in names}
    for _ in range(rounds):
        for name in np.random.default_rng(0).permutation(names):
            spent[name].append(trainings[name].seconds())
    fastest = {name: np.min(each, 0) for name, each in spent.items()}
    found = []
    for name in names:
        steps = looks[name] * problem.look_every
        a_step = fastest[name] / fastest["adam"]
        found.append(
            {
                "problem": problem.name,
                "method": name,
                "setting": METHODS[name].grid[best[name]],
                "loss": [float(v) for v in curves[name][best[name], :, -1]],
                "steps": [None if np.isinf(v) else int(v) for v in steps],
                "a step": float(a_step[0]),
                "processor": float(a_step[1]),
                "time": float(steps.mean() / problem.steps * a_step[0]),
                "compile": compiling[name],
            }
        )
    return targets, found


def show(problem: Problem, targets: np.ndarray, found: list[dict[str, Any]]) -> None:
    shown = ", ".join(f"{target:.4g}" for target in targets)
    print(f"\n{problem.name}: Adam's loss after {problem.steps} steps, {shown}")
    print(f"{'':10s} setting   loss  steps to it        a step (cpu)   time  compile")
    for row in found:
        steps = " ".join("-" if s is None else str(s) for s in row["steps"])
        ratio = f"{row['time']:.2f}" if np.isfinite(row["time"]) else "-"
        print(
            f"{row['method']:10s} {row['setting']:7g} {np.mean(row['loss']):6.4g}  "
            f"{steps:18s}{row['a step']:6.2f} {row['processor']:6.2f} {ratio:>6s} "
            f"{row['compile']:6.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [problem.name for problem in problems()]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    methods = ["adam", *(name for name in options.methods if name != "adam")]
    print(f"{jax.default_backend()}, jax {jax.__version__}, optax {optax.__version__}")
    rows = []
    for problem in problems():
        if problem.name in options.problems:
            targets, found = compare(problem, methods, options.seeds, options.rounds)
            show(problem, targets, found)
            rows += found
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
