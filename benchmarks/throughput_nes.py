"""Generations per second of ngvi's evolution strategies beside evosax's.

    python benchmarks/throughput_nes.py [--dims N ...] [--popsizes N ...]
        [--strategies NAME ...] [--seconds S] [--out FILE.json]

Needs evosax. The whole loop (draws, sphere, update) of each library is one compiled
program of a `lax.scan` in float32; the two run in one process by turns, and the table
shows the median generations per second of each, ours over theirs, and the seconds each
took to compile, which are not in the rates. A run that would need an array larger than
--gigabytes is left out: evosax's xNES holds popsize × D × D numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms import CMA_ES, CR_FM_NES, SNES, xNES

from ngvi.nes import search
from ngvi.nes.strategies import Strategy, cma, cr_fm_nes, snes, xnes

OURS: dict[str, Callable[[int, int], Strategy]] = {
    "SNES": snes,
    "xNES": xnes,
    "CMA-ES": cma,
    "CR-FM-NES": cr_fm_nes,
}
THEIRS = {"SNES": SNES, "xNES": xNES, "CMA-ES": CMA_ES, "CR-FM-NES": CR_FM_NES}
TURNS = 7


@dataclass
class Row:
    """One line of the table."""

    strategy: str
    dim: int
    popsize: int
    ours: float
    """Generations per second."""
    theirs: float | None
    ratio: float | None
    compile_ours: float
    """Seconds."""
    compile_theirs: float | None


def sphere(x: jax.Array) -> jax.Array:
    return (x**2).sum(-1)


@partial(jax.jit, static_argnums=(0, 2))
def our_loop(
    strategy: Strategy, state: search.State, generations: int, key: jax.Array
) -> search.State:
    def generation(state: search.State, key: jax.Array) -> tuple[search.State, None]:
        eps = search.ask(strategy, state, key)
        return search.tell(strategy, state, eps, sphere(state.q.place(eps))), None

    return jax.lax.scan(generation, state, jax.random.split(key, generations))[0]


@partial(jax.jit, static_argnums=(0, 3))
def their_loop(
    algorithm: Any, state: Any, params: Any, generations: int, key: jax.Array
) -> Any:
    def generation(state: Any, key: jax.Array) -> tuple[Any, None]:
        of_ask, of_tell = jax.random.split(key)
        x, state = algorithm.ask(of_ask, state, params)
        state, _ = algorithm.tell(of_tell, x, sphere(x), state, params)
        return state, None

    return jax.lax.scan(generation, state, jax.random.split(key, generations))[0]


Loop = Callable[[int], Any]


def ours(name: str, dim: int, popsize: int) -> Loop:
    strategy = OURS[name](dim, popsize)
    state = search.init(strategy, jnp.ones(dim, jnp.float32), 0.5)
    return lambda n: our_loop(strategy, state, n, jax.random.key(0))


def theirs(name: str, dim: int, popsize: int) -> Loop:
    algorithm = THEIRS[name](popsize, jnp.ones(dim, jnp.float32))
    params = algorithm.default_params
    mean = jnp.ones(dim, jnp.float32)
    state = algorithm.init(jax.random.key(0), mean, params)
    return lambda n: their_loop(algorithm, state, params, n, jax.random.key(0))


def seconds(loop: Loop, generations: int, calls: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = loop(generations)
    jax.block_until_ready(result)
    return time.perf_counter() - start


class Plan(NamedTuple):
    """What of a loop is timed."""

    generations: int
    calls: int
    compile: float
    """Seconds."""


def fitting(loop: Loop, budget: float) -> Plan:
    """A program of 100 generations, called as often as fits into a turn; of 3 where
    they take too long. More would end in subnormal numbers, which are slow."""
    generations = 3
    first, once = seconds(loop, generations), seconds(loop, generations)
    if once < budget / 10:
        generations = 100
        first, once = seconds(loop, generations), seconds(loop, generations)
    return Plan(generations, max(1, int(budget / once)), first - once)


def compare(name: str, dim: int, popsize: int, budget: float, limit: float) -> Row:
    loops = [ours(name, dim, popsize)]
    if name != "xNES" or 4 * popsize * dim**2 < limit * 2**30:
        loops.append(theirs(name, dim, popsize))
    plans = [fitting(loop, budget / TURNS / 2) for loop in loops]
    times: list[list[float]] = [[] for _ in loops]
    for _ in range(TURNS):
        for loop, plan, spent in zip(loops, plans, times, strict=True):
            time_taken = seconds(loop, plan.generations, plan.calls)
            spent.append(time_taken / plan.generations / plan.calls)
    rates = [1 / float(np.median(t)) for t in times]
    other = rates[1] if len(loops) > 1 else None
    return Row(
        name,
        dim,
        popsize,
        rates[0],
        other,
        rates[0] / other if other else None,
        plans[0].compile,
        plans[1].compile if other else None,
    )


def show(row: Row) -> str:
    def number(x: float | None, form: str) -> str:
        return format(x, form) if x is not None else "–"

    return (
        f"{row.strategy:10}{row.dim:6}{row.popsize:8}{row.ours:12.4g}"
        f"{number(row.theirs, '.4g'):>12}{number(row.ratio, '.2f'):>8}"
        f"{row.compile_ours:10.2f}{number(row.compile_theirs, '.2f'):>10}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--popsizes", type=int, nargs="+", default=[64, 4096])
    parser.add_argument("--strategies", nargs="+", default=list(OURS), choices=OURS)
    parser.add_argument("--seconds", type=float, default=6.0, help="for one line")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, generations/second")
    print(
        f"{'':10}{'D':>6}{'popsize':>8}{'ngvi':>12}{'evosax':>12}{'ratio':>8}"
        f"{'compile':>10}{'evosax':>10}"
    )
    rows = []
    for name in arguments.strategies:
        for dim in arguments.dims:
            for popsize in arguments.popsizes:
                row = compare(
                    name, dim, popsize, arguments.seconds, arguments.gigabytes
                )
                rows.append(row)
                print(show(row), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
