"""What a step of a fit costs, on paper and as XLA compiles it.

    python benchmarks/cost_model.py [KIND ...] [--out FILE.json]

On simulated devices, in float64, for a trial step of S = 16 draws, each device:

- operations: those of the estimate from S draws (ℓ and ∇ℓ, whitening, second moments),
  by XLA's count, in which a loop is counted once: so all draws are evaluated in one go;
- kept: bytes of the arguments of a step's program: data, draws, and the state with its
  twelve pairs of memory;
- temporary: bytes that it needs beside them;
- between: bytes that its collectives give, those in loops once;
- seconds: of processor time, for the estimates of all devices together.

The models are a logistic regression of N rows and D columns with a full covariance, the
same in batches of N rows, and counts in G groups with two parameters each and a border
of b. What paper does not tell (operations of an observation beside those of matrices,
temporary copies, seconds of an operation) is taken from the first rows, as many as
there are unknowns; the ratios predicted / measured of the others are the check. The
last rows carry the formulas to 10⁹ observations and 10⁷ groups.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402

from ngvi.bayes.numpyro_model import model_target  # noqa: E402
from ngvi.bayes.plan import Plan  # noqa: E402
from ngvi.bayes.programs import begin, compiled_advance  # noqa: E402
from ngvi.bayes.sharding import shared_out  # noqa: E402
from ngvi.bayes.shared_model import share_out  # noqa: E402
from ngvi.bayes.shares import Shared  # noqa: E402
from ngvi.bayes.structure import choose  # noqa: E402
from ngvi.bayes.sums import added  # noqa: E402
from ngvi.bayes.target import Data, Target, data_part  # noqa: E402
from ngvi.meshes import placed  # noqa: E402
from ngvi.mirror import loop  # noqa: E402
from ngvi.mirror.draws import Ladder  # noqa: E402
from ngvi.mirror.estimates import FirstOrder  # noqa: E402

DRAWS, PAIRS, NUMBER, TRACE = 16, 12, 8, 4_000
MOVES = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
Row = dict[str, Any]


def logistic(x: Any, y: Any) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def counts(group: Any, x: Any, groups: int, border: int, y: Any) -> None:
    shared = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([border]).to_event(1))
    with numpyro.plate("group", groups):
        a = numpyro.sample("a", dist.Normal(shared.sum(), 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(a[group] + b[group] * x)), obs=y)


def arguments(kind: str, size: Row) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    if kind == "full":
        x = rng.normal(size=(size["N"], size["D"]))
        return logistic, x, rng.integers(0, 2, size["N"])
    group = np.repeat(np.arange(size["G"]), size["N"] // size["G"])
    x, y = rng.normal(size=group.size), rng.poisson(2.0, group.size)
    return counts, group, x, size["G"], size["b"], y


# -- on paper --------------------------------------------------------------------------


def terms(kind: str, size: Row, draws: int = DRAWS) -> dict[str, list[float]]:
    """By cost: what is known, and of what else it is a multiple."""
    rows = size["N"] / size["P"]
    if kind == "structured":
        blocks, border, block = size["G"] / size["P"], size["b"], 2
        vector = blocks * block + border
        matrix = blocks * block * (block + border) + border**2
        data, dots = 3 * rows, 0.0
        between = draws * (2 * border + 1) + border
    else:
        blocks, vector, matrix = 0.0, size["D"], size["D"] ** 2
        # x w and xᵀ r of each draw.
        data, dots = rows * (vector + 1), 4 * rows * vector
        between = draws * (vector + 1)
    # A ε, Aᵀ g and ε gᵀ.
    algebra = 6 * matrix
    # q twice its root, the estimate, the memory; draws, those unseen, the trace.
    state = vector + 2 * matrix + 2 * vector + matrix + 2 * PAIRS * (vector + matrix)
    kept = data + state + 2 * draws * vector + TRACE
    if kind == "stream":
        # The points and a compensated sum of their gradients; no matrix.
        algebra, between, kept = 0.0, 0.0, data + 3 * draws * vector + 2 * draws
    temporary = [draws * rows, draws * vector]
    if kind == "structured":
        # As many draws at a time as the plan says.
        at_once = min(draws, max(2**17 // int(vector + rows), 1))
        temporary = [at_once * rows, rows, draws * vector, state]
    return {
        "operations": [draws * (dots + algebra), draws * rows, draws * blocks],
        "kept": [NUMBER * kept],
        "temporary": [0.0, *(NUMBER * x for x in temporary)],
        "between": [NUMBER * between],
        "seconds": [0.0, draws * size["N"], size["P"] * draws * (dots + blocks)],
    }


def fitted(costs: list[list[float]], measured: list[float]) -> np.ndarray:
    """The multiples, from as many sizes as there are of them, none below zero."""
    if not costs:
        return np.zeros(0)
    known, rest = np.array(costs)[:, 0], np.array(costs)[:, 1:]
    return np.maximum(np.linalg.lstsq(rest, np.array(measured) - known)[0], 0)


def on_paper(costs: list[float], multiples: np.ndarray) -> float:
    return costs[0] + float(np.dot(costs[1:], multiples))


# -- as compiled -----------------------------------------------------------------------


def bytes_between(text: str) -> int:
    shapes = re.findall(rf"= ([^=]*?) (?:{MOVES})(?:-start)?\(", text)
    sizes = re.findall(r"([a-z]+[0-9]+)\[([0-9,]*)\]", " ".join(shapes))
    total = 0
    for kind, shape in sizes:
        width = int(re.sub("[a-z]", "", kind)) // 8
        total += width * int(np.prod([int(n) for n in shape.split(",") if n]))
    return total


def one_level(draws: Ladder) -> Ladder:
    return Ladder(draws.batches[:1, :DRAWS], draws.check[:DRAWS])


def compiled(kind: str, size: Row) -> Row:
    if kind == "stream":
        return of_batch(size)
    model, *args = arguments(kind, size)
    target: Target
    target, data, point, trace = model_target(model, tuple(args), {}, None)
    mesh = Mesh(np.array(jax.devices()[: size["P"]]), ("rows",))
    data = shared_out(data, trace, mesh)
    plan: Plan
    plan, structure = choose(kind, target, data, point, trace)
    if kind == "structured":
        plan = share_out(plan, structure.plates, target, data, point, trace, mesh)
        target, point = plan.target, plan.spread(point)
    settings = plan.settings(loop.Settings())
    draws = plan.draws(0, point.dtype)
    draws = Ladder(draws.batches[:1, :DRAWS], draws.check[:DRAWS])
    if not isinstance(plan, Shared):
        point, draws = jax.device_put((point, draws), placed(mesh))
    problem = target, plan, settings, data
    state = jax.eval_shape(partial(begin, *problem), point, draws).state
    step = compiled_advance.lower(*problem, state, draws, 9).compile()
    estimator = FirstOrder()

    def estimate(data: Data, q: Any, eps: Any) -> Any:
        return estimator(partial(target.potential, data), q, eps)

    if isinstance(plan, Shared):
        vectors, results = PartitionSpec(None, plan.axis), plan.of_state.estimate
        estimate = plan.on_devices(estimate, (plan.of_state.q, vectors), results)
    given = data, state.q, draws.batches[0]
    program = jax.jit(estimate).lower(*given).compile()
    memory = step.memory_analysis()
    return {
        "operations": program.cost_analysis()["flops"],
        "kept": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "between": bytes_between(step.as_text()),
        "seconds": seconds(program, given),
    }


def of_batch(size: Row) -> Row:
    """ℓ and ∇ℓ of a batch, added to those of the batches before."""
    model, *args = arguments("full", size)
    target, data, _, _ = model_target(model, tuple(args), {}, None)
    points = jnp.zeros((DRAWS, size["D"]))
    total = added(None, (jnp.zeros(DRAWS), points))

    def batch(data: Data, points: Any, total: Any) -> Any:
        found = FirstOrder().at(partial(data_part, target, data), points)
        return added(total, found)

    program = jax.jit(batch).lower(data, points, total).compile()
    memory = program.memory_analysis()
    return {
        "operations": program.cost_analysis()["flops"],
        "kept": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "between": bytes_between(program.as_text()),
        "seconds": seconds(program, (data, points, total)),
    }


def seconds(program: Any, given: tuple[Any, ...]) -> float:
    """Of processor time: others that share the machine do not count."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), given)
    zeros = jax.device_put(zeros, program.input_shardings[0])
    jax.block_until_ready(program(*zeros))
    runs, start = 0, time.process_time()
    while runs < 5 or time.process_time() - start < 0.5:
        jax.block_until_ready(program(*zeros))
        runs += 1
    return (time.process_time() - start) / runs


SIZES: dict[str, list[Row]] = {
    "full": [
        {"N": 80_000, "D": 10, "P": 8},
        {"N": 80_000, "D": 40, "P": 8},
        {"N": 320_000, "D": 10, "P": 8},
        {"N": 80_000, "D": 10, "P": 2},
    ],
    "structured": [
        {"N": 40_000, "G": 8_000, "b": 2, "P": 8},
        {"N": 160_000, "G": 8_000, "b": 2, "P": 8},
        {"N": 160_000, "G": 32_000, "b": 2, "P": 8},
        {"N": 40_000, "G": 8_000, "b": 8, "P": 8},
        {"N": 40_000, "G": 8_000, "b": 2, "P": 2},
        {"N": 320_000, "G": 16_000, "b": 5, "P": 8},
    ],
    "stream": [
        {"N": 20_000, "D": 10, "P": 1},
        {"N": 20_000, "D": 40, "P": 1},
        {"N": 80_000, "D": 10, "P": 1},
    ],
}
LARGE: list[tuple[str, Row, int]] = [
    ("full", {"N": 10**9, "D": 100, "P": 256}, 202),
    ("structured", {"N": 10**9, "G": 10**7, "b": 10, "P": 256}, 32),
    ("stream", {"N": 10**5, "D": 100, "P": 1}, 202),
]


def checked(kind: str) -> Row:
    """The rows of one kind, and what was taken from the first of them."""
    sizes, found, paper = SIZES[kind], [], {}
    for size in sizes:
        found.append(compiled(kind, size))
    multiples = {}
    for name in terms(kind, sizes[0]):
        costs = [terms(kind, size)[name] for size in sizes]
        measured = [row[name] for row in found]
        unknown = len(costs[0]) - 1
        multiples[name] = fitted(costs[:unknown], measured[:unknown])
        paper[name] = [on_paper(cost, multiples[name]) for cost in costs]
    for i, (size, row) in enumerate(zip(sizes, found, strict=True)):
        cells = [f"{row[n]:.3g} ({p[i] / (row[n] or 1):.2f})" for n, p in paper.items()]
        print(f"{kind} {size}: " + " | ".join(cells), flush=True)
    for of, size, draws in LARGE:
        if of == kind:
            large = {
                name: on_paper(cost, multiples[name])
                for name, cost in terms(kind, size, draws).items()
            }
            cells = [f"{name} {value:.3g}" for name, value in large.items()]
            print(f"{kind} {size}, S = {draws}: " + " | ".join(cells), flush=True)
    known = {name: list(map(float, x)) for name, x in multiples.items()}
    print(f"{kind}: multiples {known}", flush=True)
    return {"sizes": sizes, "compiled": found, "paper": paper, "multiples": known}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=list(SIZES))
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    options = parser.parse_args()
    print("measured (predicted / measured): operations, kept, temporary, between, s")
    found = {kind: checked(kind) for kind in options.kinds}
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
