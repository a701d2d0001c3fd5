"""ngvi's exponential families beside efax's, in one process.

    python benchmarks/families.py [NAME ...] [--batch N ...] [--markdown FILE.md]

Needs efax (Python 3.12 or newer). For every family and each of these functions, and for
the gradient of the sum of its results with respect to its arguments,

    to_mean     λ → μ
    from_mean   μ → λ
    kl          KL(q ‖ p)
    entropy
    sample      one draw of each member

both libraries' compiled programs run in float32 on the same random members, by turns,
and the table shows efax's time over ours, each in its fastest turn: above 1, ours is
faster. `error` is the median and the largest relative difference, over members, between
a library's float32 result and its own float64 result, and `nan` how many of the members
gave a result that is not finite. A dash: efax does not have the function, or draws are
counts, which have no gradient.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from family_cases import CASES, arguments

REPEATS = 40
SECONDS = 1.0
"""About how long a function is timed: the fewer turns, the slower it is."""
SLOW = "Dirichlet-30"
"""Run only if named: efax's inverse of 1,000 members takes half an hour."""
MEMBERS = 1_000
"""How many members accuracy is measured on."""


class Function(NamedTuple):
    """A function in both libraries, of arguments as each has them."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arguments: str
    """Which of q, p, mean and key it takes."""


def functions(q: Any) -> dict[str, Function]:
    return {
        "to_mean": Function(lambda q: q.mean_params, lambda q: q.to_exp(), "q"),
        "from_mean": Function(
            lambda mean: type(q).natural_from_mean(mean, **q.fixed),
            lambda mean: mean.to_nat(),
            "m",
        ),
        "kl": Function(lambda q, p: q.kl(p), lambda q, p: q.kl_divergence(p), "qp"),
        "entropy": Function(lambda q: q.entropy(), lambda q: q.entropy(), "q"),
        "sample": Function(lambda q, k: q.sample(k), lambda q, k: q.sample(k), "qk"),
    }


def summed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient, in the first argument, of the sum of all results."""

    def total(*arguments: Any) -> jax.Array:
        leaves = jax.tree.leaves(function(*arguments))
        return jnp.stack([jnp.sum(leaf) for leaf in leaves]).sum()

    return jax.grad(total, allow_int=True)


def leaves_of(tree: Any) -> list[np.ndarray]:
    arrays = [np.asarray(x) for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    return [a.astype(float) for a in arrays if np.issubdtype(a.dtype, np.floating)]


@dataclass
class Row:
    """One function of one family."""

    family: str
    function: str
    ratio: dict[int, float]
    microseconds: dict[int, float]
    error_ours: tuple[float, float]
    error_theirs: tuple[float, float]
    nan_ours: int
    nan_theirs: int

    def line(self, batches: list[int]) -> str:
        times = "".join(
            f"{self.ratio[b]:8.2f}{self.microseconds[b]:11.1f}" for b in batches
        )
        sides = ((self.error_ours, self.nan_ours), (self.error_theirs, self.nan_theirs))
        return f"{self.family:22s}{self.function:14s}{times}" + "".join(
            f"   {median:8.1e} {worst:8.1e} {nan:4d}" for (median, worst), nan in sides
        )


def widened(tree: Any) -> Any:
    """The same numbers in float64."""

    def convert(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.float64) if floating else leaf

    return jax.tree.map(convert, tree)


def time_of(program: Callable[..., Any], arguments: list[Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = program(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def race(ours: Any, theirs: Any, mine: list, other: list) -> tuple[float, float]:
    """Seconds of both, running by turns: of the fastest turn, as what else the machine
    does only adds to them."""
    jax.block_until_ready((ours(*mine), theirs(*other)))
    first = time_of(ours, mine, 1), time_of(theirs, other, 1)
    once = max(*first, 1e-6)
    if once > SECONDS:
        return first
    calls = int(np.clip(0.005 / once, 1, 200))
    repeats = int(np.clip(SECONDS / (once * calls), 2, REPEATS))
    times = [
        (time_of(ours, mine, calls), time_of(theirs, other, calls))
        for _ in range(repeats)
    ]
    fastest = np.min(np.asarray(times), axis=0)
    return float(fastest[0]), float(fastest[1])


def errors(single: Any, double: Any) -> tuple[tuple[float, float], int]:
    """Median and largest relative error by member, and how many are not finite."""
    worst = np.zeros(MEMBERS)
    for s, d in zip(leaves_of(single), leaves_of(double), strict=True):
        s, d = s.reshape(MEMBERS, -1), d.reshape(MEMBERS, -1)
        scale = np.maximum(np.abs(d).max(-1), 1e-6)
        worst = np.maximum(worst, np.abs(s - d).max(-1) / scale)
    finite = np.isfinite(worst)
    if not finite.any():
        return (float("nan"), float("nan")), MEMBERS
    return (float(np.median(worst[finite])), float(worst[finite].max())), int(
        (~finite).sum()
    )


def accuracy(program: Callable[..., Any], chosen: list[Any]) -> tuple:
    """Float32 against float64 of one library, from the same float32 numbers."""
    single = jax.jit(program)(*chosen)
    with jax.enable_x64(True):
        double = jax.jit(program)(*widened(chosen))
    return errors(single, double)


def absent(function: Function, mine: list[Any], other: list[Any]) -> str:
    """Why a function has no row: efax lacks it, or draws are counts."""
    try:
        theirs = jax.eval_shape(function.theirs, *other)
    except (AttributeError, NotImplementedError) as error:
        return f"efax: {error}"
    ours = jax.eval_shape(function.ours, *mine)
    for result in (ours, theirs):
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(result)]
        if not any(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
            return "counts"
    return ""


def compare(name: str, batches: list[int]) -> list[Row]:
    rows = []
    at = {n: arguments(CASES[name], n) for n in {*batches, MEMBERS}}
    for f, function in functions(at[MEMBERS][0]["q"]).items():
        chosen = {
            n: [[side[a] for a in function.arguments] for side in sides]
            for n, sides in at.items()
        }
        reason = absent(function, *chosen[MEMBERS])
        for label, wrap in ((f, lambda function: function), (f"∇ {f}", summed)):
            if reason.startswith("efax") or (reason and wrap is summed):
                print(f"{name:22s}{label:14s}  –  ({reason})", flush=True)
            else:
                programs = (wrap(function.ours), wrap(function.theirs))
                rows.append(measure(name, label, programs, chosen, batches))
                print(rows[-1].line(batches), flush=True)
    return rows


def measure(
    family: str,
    label: str,
    programs: tuple[Callable[..., Any], Callable[..., Any]],
    chosen: dict[int, list],
    batches: list[int],
) -> Row:
    ratio, micro = {}, {}
    for batch in batches:
        a, b = race(*map(jax.jit, programs), *chosen[batch])
        ratio[batch], micro[batch] = b / a, 1e6 * a
    if label.endswith("sample"):
        found = [((float("nan"), float("nan")), 0)] * 2
    else:
        found = [
            accuracy(*pair) for pair in zip(programs, chosen[MEMBERS], strict=True)
        ]
    (ours, nan_ours), (theirs, nan_theirs) = found
    return Row(family, label, ratio, micro, ours, theirs, nan_ours, nan_theirs)


def markdown(rows: list[Row], batches: list[int]) -> str:
    """A table of ratios by batch and one of largest errors, a family a line."""
    names = list(dict.fromkeys(row.family for row in rows))
    labels = list(dict.fromkeys(row.function for row in rows))
    at = {(row.family, row.function): row for row in rows}

    def table(title: str, labels: list[str], cell: Callable[[Row], str]) -> str:
        lines = [
            f"| {title} | " + " | ".join(labels) + " |",
            "|---" * (len(labels) + 1) + "|",
        ]
        for name in names:
            found = [at.get((name, label)) for label in labels]
            cells = [cell(row) if row else "–" for row in found]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def error(row: Row) -> str:
        sides = ((row.error_ours, row.nan_ours), (row.error_theirs, row.nan_theirs))
        return " / ".join(
            f"{worst:.0e}" + (f" ({nan} NaN)" if nan else "")
            for (_, worst), nan in sides
        )

    tables = [
        table(
            f"times as fast, batch {n:,}",
            labels,
            lambda row, n=n: f"{row.ratio[n]:.2f}",
        )
        for n in batches
    ]
    exact = [label for label in labels if not label.endswith("sample")]
    tables.append(table("largest error in float32: ngvi / efax", exact, error))
    return "\n\n".join(tables) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100_000])
    parser.add_argument("--out", type=Path, help="where to write all numbers, JSON")
    parser.add_argument("--markdown", type=Path, help="where to write the tables")
    options = parser.parse_args()
    times = "".join(f"{f'×{b}':>8s}{'ours µs':>11s}" for b in options.batch)
    print(f"{'family':22s}{'function':14s}{times}   error, nan: ours       efax")
    rows = []
    for name in options.names or (name for name in CASES if name != SLOW):
        rows += compare(name, options.batch)
        jax.clear_caches()
    for batch in options.batch:
        ratios = np.asarray([row.ratio[batch] for row in rows])
        print(
            f"batch {batch}: geometric mean {np.exp(np.log(ratios).mean()):.2f}, "
            f"{(ratios < 0.95).sum()} of {len(ratios)} slower than efax"
        )
    if options.markdown:
        options.markdown.write_text(markdown(rows, options.batch))
    if options.out:
        options.out.write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
