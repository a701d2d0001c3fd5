"""Slow objectives on a pool: seconds and evaluations to a target, beside peers.

    python benchmarks/executors_nes.py [--dim D] [--threads N] [--seconds S]
        [--tail A] [--runs R] [--out FILE.json]

An ellipsoid sleeps before it answers, for a time of a Pareto distribution: most are
short, a few a hundred times as long. It is evaluated on a pool of threads

- by `ngvi.minimize` generation by generation, and asynchronously;
- by pycma, asked and told with `pool.map`, as its users do;
- by nevergrad's CMA through its executor interface, asynchronously.

Peers that are not installed are left out. All start from the same place with the same
deviation and population; compiled programs are compiled before the clock runs. The
table shows medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import ngvi

TARGET = 1e-3
BUDGET = 20_000


class Objective:
    """An ellipsoid that sleeps, and knows when it has first reached the target."""

    def __init__(self, dim: int, seconds: float, tail: float, seed: int) -> None:
        self.axes = np.logspace(0, 2, dim)
        self.seconds, self.tail = seconds, tail
        self.rng = np.random.default_rng(seed)
        self.lock = threading.Lock()
        self.calls, self.calls_to_target = 0, 0
        self.asleep = 0.0
        self.began, self.reached = time.perf_counter(), np.nan

    def __call__(self, x: np.ndarray) -> float:
        with self.lock:
            self.calls += 1
            pause = self.seconds * min(1 + self.rng.pareto(self.tail), 200)
            self.asleep += pause
        time.sleep(pause)
        value = float(self.axes @ np.asarray(x) ** 2)
        with self.lock:
            if value <= TARGET and np.isnan(self.reached):
                self.reached = time.perf_counter() - self.began
                self.calls_to_target = self.calls
        return value


@dataclass
class Row:
    """One line of the table."""

    search: str
    seconds: float
    """To the target; NaN if more than half of the runs do not reach it."""
    evaluations: float
    busy: float
    """The share of its time that a thread sleeps in the objective."""


Search = Callable[[Objective, ThreadPoolExecutor, int, int], None]


def ours(asynchronous: bool) -> Search:
    def run(fun: Objective, pool: ThreadPoolExecutor, dim: int, seed: int) -> None:
        ngvi.minimize(
            fun,
            np.ones(dim),
            sigma0=0.5,
            method="cma",
            executor=pool,
            asynchronous=asynchronous,
            ftarget=TARGET,
            budget=BUDGET,
            seed=seed,
        )

    return run


def pycma(fun: Objective, pool: ThreadPoolExecutor, dim: int, seed: int) -> None:
    import cma

    options = {"seed": seed + 1, "verbose": -9, "ftarget": TARGET, "maxfevals": BUDGET}
    search = cma.CMAEvolutionStrategy(np.ones(dim), 0.5, options)
    while not search.stop():
        points = search.ask()
        search.tell(points, list(pool.map(fun, points)))


def nevergrad(fun: Objective, pool: ThreadPoolExecutor, dim: int, seed: int) -> None:
    import nevergrad as ng

    space = ng.p.Array(init=np.ones(dim)).set_mutation(sigma=0.5)
    space.random_state.seed(seed)
    workers = pool._max_workers
    search = ng.optimizers.CMA(space, budget=4000, num_workers=workers)
    search.register_callback("ask", ng.callbacks.EarlyStopping(lambda _: met(fun)))
    search.minimize(fun, executor=pool, batch_mode=False)


def met(fun: Objective) -> bool:
    return bool(np.isfinite(fun.reached))


SEARCHES: dict[str, Search] = {
    "ngvi, by generations": ours(False),
    "ngvi, asynchronous": ours(True),
    "pycma, pool.map": pycma,
    "nevergrad CMA": nevergrad,
}


def measure(name: str, arguments: argparse.Namespace) -> Row:
    runs = []
    for seed in range(arguments.runs):
        dim, threads = arguments.dim, arguments.threads
        fun = Objective(dim, arguments.seconds, arguments.tail, seed)
        with ThreadPoolExecutor(threads) as pool:
            SEARCHES[name](fun, pool, dim, seed)
        spent = time.perf_counter() - fun.began
        runs.append((fun.reached, fun.calls_to_target, fun.asleep / spent / threads))
    seconds, evaluations, busy = np.median(runs, axis=0).tolist()
    return Row(name, seconds, evaluations, busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.005, help="shortest sleep")
    parser.add_argument("--tail", type=float, default=1.2, help="Pareto's exponent")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with ThreadPoolExecutor(2) as pool:
        for asynchronous in (False, True):
            fun = Objective(arguments.dim, 1e-4, 10.0, 0)
            ours(asynchronous)(fun, pool, arguments.dim, 0)
    print(f"{'':24}{'seconds':>10}{'evaluations':>14}{'busy':>8}")
    rows = []
    for name in SEARCHES:
        try:
            row = measure(name, arguments)
        except ImportError as error:
            print(f"{name:24} left out: {error}")
            continue
        rows.append(row)
        print(
            f"{name:24}{row.seconds:10.2f}{row.evaluations:14.0f}{row.busy:8.0%}",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
