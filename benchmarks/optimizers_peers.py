"""K-FAC beside that of kfac-jax, on the deep autoencoder of optimizers.py.

    python benchmarks/optimizers_peers.py [--seeds 2] [--steps 120] [--rounds 5]
        [--out FILE.json]

All images at every step, down to the loss that Adam has after 600 steps at its best
learning rate. Both adapt learning rate, momentum and damping; each has its library's
defaults and the best of the same dampings to start from, kfac-jax no steps of burning
in, for which it would need more data. Ours has all rows for its factors and its
quadratic model, as kfac-jax has, and once more 256 and 512 of them.

Every method is a loop in Python over compiled steps, as kfac-jax has to be; the time
of a step is the least over rounds, by turns, of the mean of 30 of them. What the first
ten steps take beyond that is compiling: kfac-jax has a program for steps that adapt the
damping, and one for others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optimizers import METHODS, ROWS, Problem, Training, problems, reached

from ngvi.nets.optimizers import kfac

DAMPINGS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
TIMED = 30


@dataclass(frozen=True)
class Loop:
    """Steps in a loop."""

    name: str
    begin: Callable[[Any, float], Any]
    """Of parameters and a number, a state."""
    step: Callable[[Any, int], Any]
    """Of a state and how many were taken, the next."""
    params: Callable[[Any], Any]
    grid: tuple[float, ...] = DAMPINGS


def adam(problem: Problem) -> Loop:
    rate = 0.01
    optimizer = optax.adam(rate)

    @jax.jit
    def one(state: Any, x: Any, y: Any) -> Any:
        params, kept = state
        slopes = jax.grad(problem.loss)(params, x, y)
        updates, kept = optimizer.update(slopes, kept, params)
        return optax.apply_updates(params, updates), kept

    return Loop(
        "adam",
        lambda params, number: (params, optimizer.init(params)),
        lambda state, i: one(state, problem.x, problem.y),
        lambda state: state[0],
        (rate,),
    )


def ours(problem: Problem, name: str, rows: dict[str, int]) -> Loop:
    optimizer = kfac(problem.net, problem.likelihood, **rows)
    batch = problem.x, problem.y

    def begin(params: Any, damping: float) -> Any:
        state = optimizer.init(params, batch)
        return replace(state, damping=jnp.float32(damping))

    def step(state: Any, i: int) -> Any:
        return optimizer.step(state, batch, jax.random.key(i))[0]

    return Loop(name, begin, step, lambda state: state.params)


def kfac_jax(problem: Problem) -> Loop:
    import kfac_jax as k

    def loss(params: Any, batch: tuple[Any, Any]) -> Any:
        x, y = batch
        logits = problem.net(params, x)
        k.register_sigmoid_cross_entropy_loss(logits, y)
        each = optax.sigmoid_binary_cross_entropy(logits, y)
        return each.sum(-1).mean()

    optimizer = k.Optimizer(
        jax.value_and_grad(loss),
        l2_reg=0.0,
        use_adaptive_learning_rate=True,
        use_adaptive_momentum=True,
        use_adaptive_damping=True,
        initial_damping=DAMPINGS[0],
        num_burnin_steps=0,
    )
    batch = problem.x, problem.y

    def begin(params: Any, damping: float) -> Any:
        # A step overwrites what it is given.
        params = jax.tree.map(jnp.copy, params)
        state = optimizer.init(params, jax.random.PRNGKey(0), batch)
        state.damping = jnp.float32(damping)
        return params, state

    def step(state: Any, i: int) -> Any:
        key = jax.random.PRNGKey(i)
        return optimizer.step(*state, key, batch=batch, global_step_int=i)[:2]

    return Loop("kfac-jax", begin, step, lambda state: state[0])


def curve(loop: Loop, problem: Problem, seed: int, number: float, steps: int) -> Any:
    """The loss after every step."""
    looked = jax.jit(problem.loss)
    state = loop.begin(problem.net.init(jax.random.key(seed)), number)
    losses = []
    for i in range(steps):
        state = loop.step(state, i)
        losses.append(looked(loop.params(state), problem.x, problem.y))
    return np.asarray(jnp.stack(losses))


def seconds(loop: Loop, problem: Problem, steps: int) -> float:
    """Of so many steps from the start."""
    state = loop.begin(problem.net.init(jax.random.key(0)), loop.grid[0])
    jax.block_until_ready(loop.params(state))
    start = time.perf_counter()
    for i in range(steps):
        state = loop.step(state, i)
    jax.block_until_ready(loop.params(state))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    problem = next(p for p in problems() if p.name == "full")
    training, rates = Training(problem, METHODS["adam"]), METHODS["adam"].grid
    seeds = range(options.seeds)
    ends = [[training.curve(s, np.float32(rate))[-1] for s in seeds] for rate in rates]
    targets = np.nan_to_num(ends, nan=np.inf).min(0)
    print(f"jax {jax.__version__}: Adam's loss after {problem.steps} steps, {targets}")

    loops = [
        adam(problem),
        ours(problem, "kfac", {}),
        ours(problem, "kfac, some rows", ROWS),
    ]
    if find_spec("kfac_jax"):
        loops.append(kfac_jax(problem))
    else:
        print("Without kfac-jax, which is not installed.")
    first = {loop.name: seconds(loop, problem, 10) for loop in loops}
    spent: dict[str, list[float]] = {loop.name: [] for loop in loops}
    for _ in range(options.rounds):
        for loop in loops:
            spent[loop.name].append(seconds(loop, problem, TIMED) / TIMED)
    a_step = {name: min(each) for name, each in spent.items()}
    columns = "damping  steps to it   a step   over Adam's  time over its  compile"
    print(" " * 16, columns)
    rows: list[dict[str, Any]] = []
    for loop in loops:
        mine = a_step[loop.name]
        needed = np.array([[problem.steps] * options.seeds])
        if loop.name != "adam":
            curves = [
                [curve(loop, problem, s, number, options.steps) for s in seeds]
                for number in loop.grid
            ]
            needed = np.array(
                [
                    [reached(*pair) for pair in zip(each, targets, strict=True)]
                    for each in curves
                ]
            )
        best = int(needed.mean(1).argmin())
        share = needed[best].mean() / problem.steps * mine / a_step["adam"]
        row: dict[str, Any] = {
            "method": loop.name,
            "damping": loop.grid[best],
            "steps": needed[best].tolist(),
            "milliseconds": 1e3 * mine,
            "a step": mine / a_step["adam"],
            "time": share,
            "compile": first[loop.name] - 10 * mine,
        }
        rows.append(row)
        steps = " ".join(f"{n:g}" for n in row["steps"])
        print(
            f"{loop.name:16s} {row['damping']:7g}  {steps:11s} "
            f"{row['milliseconds']:6.1f} ms  {row['a step']:8.2f}  {share:12.2f}  "
            f"{row['compile']:10.1f} s",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
