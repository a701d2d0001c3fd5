"""What a Fisher matrix costs, in each of its structures, as a network grows.

A network 64–w–10 for digits with more and more hidden units w, and for every structure
the time to make it, the time to solve a system with it, factorisation included, and
the memory that it keeps. A dense matrix of P parameters takes P² numbers, and P³
operations to solve with. The matrix-free one keeps what the model's derivatives need,
with which it solves by conjugate gradients, tens to hundreds of products. What the
approximations are worth is in kfac_blocks.py.

    python examples/fisher_costs.py
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Threads of LAPACK that wait for each other on a busy machine are not what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ngvi.fisher import MLP, fisher

WIDTHS = (4, 12, 36, 108, 324)
STYLES = {
    "dense": "C3-o",
    "block-diagonal": "C1-s",
    "low-rank": "C4-v",
    "matrix-free": "C0-x",
    "kronecker-eigen": "C2--D",
    "kronecker": "C2-^",
    "diagonal": "C7-d",
}
LARGEST = {"dense": 3_000, "block-diagonal": 3_000}
"""P, beyond which there is no patience left."""
DAMPING = 1e-2


def seconds(function: Callable[[], Any]) -> float:
    """The best of a few calls, after one that compiles."""
    jax.block_until_ready(function())
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < 0.2):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    x, _ = load_digits(return_X_y=True)
    x = jnp.asarray(x[:1000] / 8 - 1, jnp.float32)
    costs: dict[str, list[tuple]] = {name: [] for name in STYLES}
    print(f"{'structure':17s}{'P':>8s}{'make, ms':>12s}{'solve, ms':>12s}{'MB':>10s}")
    for name in STYLES:
        for width in WIDTHS:
            net = MLP((64, width, 10))
            params = net.init(jax.random.key(0), jnp.float32)
            dim = sum(leaf.size for leaf in jax.tree.leaves(params))
            if dim > LARGEST.get(name, np.inf):
                continue
            options = {"likelihood": "categorical", "structure": name}
            make = partial(fisher, net, params, x, **options)
            f = make()
            made = seconds(make)
            solved = seconds(lambda f=f, v=params: f.solve(v, DAMPING))
            memory = sum(leaf.nbytes for leaf in jax.tree.leaves(f))
            costs[name].append((dim, 1e3 * made, 1e3 * solved, memory / 1e6))
            row = costs[name][-1]
            print(
                f"{name:17s}{dim:8,}{row[1]:12.2f}{row[2]:12.2f}{row[3]:10.3f}",
                flush=True,
            )
    draw({name: np.array(rows) for name, rows in costs.items()})


def draw(costs: dict[str, np.ndarray]) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    titles = ["time to make it, ms", "time to solve with it, ms", "memory, MB"]
    for i, (axes, title) in enumerate(zip(panels, titles, strict=True), 1):
        for name, rows in costs.items():
            axes.plot(rows[:, 0], rows[:, i], STYLES[name], markersize=4, label=name)
        axes.set(xscale="log", yscale="log", xlabel="parameters", title=title)
        axes.set_xlim(100, 100_000)
    panels[2].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/fisher_costs.png", dpi=150)
    print("\nout/fisher_costs.png: time and memory of each structure")


if __name__ == "__main__":
    main()
