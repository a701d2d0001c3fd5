"""What curvature costs: ngvi.fisher beside naive JAX and other libraries.

    python benchmarks/fisher.py [--parts NAME ...] [--peers NAME ...] [--seconds S]
        [--out FILE.json]

In float32 on one batch of 1,000 examples of 10 classes, all in one process and by
turns; the table shows the median time of each, the median over turns of its ratio to
the first line's time, and the seconds of the first call, which compiles and is in
neither. Other libraries (kfac-jax, and curvlinops-for-pytorch, nngeometry and
asdfghjkl, which need torch) are timed if they are installed.

    products   F v over one gradient: of 0.9 and 10 million parameters, fresh
               (`fisher_vector_product`), linearised once (`F @ v`), and one iteration
               of conjugate gradients in `F.solve`; beside what matrix products alone
               make of the first two
    dense      all entries, of a 64-64-10 network, over naive JAX: rows by `vmap(grad)`
               or `vmap(jacrev)`, and one matrix product; and those in the order of
               `ravel_pytree`, which is not that of the layers here: `.dense()`
    factors    the diagonal and the Kronecker factors of that network, and of the one of
               0.9 million parameters
    memory     what the compiled program needs beside its arguments and results, by
               structure, N and batch_size
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# Threads of torch that wait by spinning would slow down whoever's turn is next.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jax
import numpy as np
from fisher_cases import NAIVE, Case, gradient, mlp
from fisher_peers import PEERS

from ngvi.fisher import Curvature, fisher, fisher_vector_product

EXAMPLES = 1_000
SMALL = (64, 64, 10)
MIDDLE = (784, 1_000, 128, 10)
WIDE = (784, 11_000, 128, 10)
DEEP = (784, 3_000, 2_550, 10)
ITERATIONS = 20
"""Of conjugate gradients."""
LARGEST = 5e8
"""Numbers in an array of naive JAX: what would need more is left out."""
TURNS = 5
"""At least."""
PART = 200
"""A batch size."""
LEAST = 0.01
"""Seconds of a turn: of quick calls there are many in it."""


@dataclass
class Row:
    """One line of the table."""

    part: str
    case: str
    who: str
    milliseconds: float
    ratio: float
    """To the first of the case."""
    first_call: float
    """Seconds."""
    turns: int


@dataclass
class Need:
    """One line of the table of memory."""

    structure: str
    parameters: int
    examples: int
    batch_size: int | None
    megabytes: float


@dataclass
class Timed:
    """A call, and how many of what is counted it does."""

    call: Callable[[], Any]
    count: int = 1

    def seconds(self, least: float = 0.0) -> float:
        """Of one call, the mean over as many as take this long together."""
        start, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - start < least:
            jax.block_until_ready(self.call())
            calls += 1
        return (time.perf_counter() - start) / calls


def by_turns(
    part: str, case: str, entries: dict[str, Timed], budget: float
) -> Iterator[Row]:
    """Rows of the entries; those that fail are told and left out."""
    first, works = {}, []
    for who, timed in entries.items():
        try:
            first[who] = timed.seconds()
        except Exception as error:
            print(f"{case}: {who} failed: {type(error).__name__}: {error}"[:200])
        else:
            works.append(who)
    times: dict[str, list[float]] = {who: [] for who in works}
    start, turns, rng = time.perf_counter(), 0, np.random.default_rng(0)
    while turns < TURNS or time.perf_counter() - start < budget:
        # In another order every time: what comes after another finds its caches.
        for who in rng.permutation(works):
            # What is slow has fewer turns, one at least.
            if sum(times[who]) < budget:
                times[who].append(entries[who].seconds(LEAST))
        turns += 1
    reference = np.array(times[works[0]]) / entries[works[0]].count
    for who, total in times.items():
        spent = np.array(total) / entries[who].count
        ratio = float(np.median(spent / reference[: len(spent)]))
        middle = 1e3 * float(np.median(spent))
        yield Row(part, case, who, middle, ratio, first[who], len(spent))


def of_peers(case: Case, what: str, kind: str, peers: list[str]) -> dict[str, Timed]:
    calls = {name: PEERS[name](case, what, kind) for name in peers}
    return {f"{name} {what}": Timed(call) for name, call in calls.items() if call}


def ours(
    case: Case, structure: str, kind: str, batch_size: int | None = None
) -> Curvature:
    data = (case.x, case.y) if kind == "empirical" else case.x
    options: dict[str, Any] = {
        "kind": kind,
        "structure": structure,
        "batch_size": batch_size,
    }
    return fisher(mlp, case.params, data, likelihood="categorical", **options)


# -- the parts -------------------------------------------------------------------------


def least(widths: tuple[int, ...]) -> tuple[float, float]:
    """The multiplications of a product over those of a gradient, fresh and linearised
    once: of a layer's kernel 5 and 4 over 3; of the first, whose inputs have no
    derivatives, 3 and 2 over 2."""
    first, *others = (i * o for i, o in pairwise(widths))
    rest = sum(others)
    gradient = 2 * first + 3 * rest
    return (3 * first + 5 * rest) / gradient, (2 * first + 4 * rest) / gradient


def products(peers: list[str], budget: float) -> Iterator[Row]:
    rules = {"tolerance": 0.0, "max_iterations": ITERATIONS}
    for widths in (MIDDLE, WIDE, DEEP):
        case = Case.of(widths, EXAMPLES)
        free = ours(case, "matrix-free", "true")
        entries = {
            "gradient": Timed(lambda c=case: gradient(c.params, c.x, c.y)),
            "ngvi fresh": Timed(
                lambda c=case: fisher_vector_product(
                    mlp, c.params, c.x, c.v, likelihood="categorical"
                )
            ),
            "ngvi linearised once": Timed(lambda c=case, f=free: f @ c.v),
            "ngvi solve, 1 iteration": Timed(
                lambda c=case, f=free: f.solve(c.v, 1e-2, **rules), ITERATIONS
            ),
            **of_peers(case, "gradient", "true", peers),
            **of_peers(case, "product", "true", peers),
        }
        fresh, once = least(widths)
        name = f"F v, P = {case.size:,}, at least {fresh:.2f} and {once:.2f}"
        yield from by_turns("products", name, entries, budget)


def entries_of(case: Case, what: str, kind: str, peers: list[str]) -> dict[str, Timed]:
    """Naive JAX, ours, and those peers."""
    entries = {}
    rows = EXAMPLES * case.size * (1 if kind == "empirical" else case.classes)
    if what == "kronecker" or rows < LARGEST:
        naive = NAIVE[what]
        entries["naive JAX"] = Timed(lambda: naive(kind, case.params, case.x, case.y))
    entries["ngvi"] = Timed(lambda: ours(case, what, kind))
    if what == "dense":
        entries["ngvi, .dense()"] = Timed(lambda: ours(case, what, kind).dense())
    else:
        entries[f"ngvi, batch_size={PART}"] = Timed(
            lambda: ours(case, what, kind, PART)
        )
    return entries | of_peers(case, what, kind, peers)


def dense(peers: list[str], budget: float) -> Iterator[Row]:
    case = Case.of(SMALL, EXAMPLES)
    for kind in ("empirical", "true"):
        name = f"dense, {kind}, P = {case.size:,}"
        entries = entries_of(case, "dense", kind, peers)
        yield from by_turns("dense", name, entries, budget)


def factors(peers: list[str], budget: float) -> Iterator[Row]:
    for widths in (SMALL, MIDDLE):
        case = Case.of(widths, EXAMPLES)
        for what in ("diagonal", "kronecker"):
            for kind in ("empirical", "true"):
                name = f"{what}, {kind}, P = {case.size:,}"
                entries = entries_of(case, what, kind, peers)
                yield from by_turns("factors", name, entries, budget)


def memory() -> Iterator[Need]:
    for structure in ("dense", "diagonal", "kronecker"):
        for batch_size in (PART, None):
            for n in (EXAMPLES, 20 * EXAMPLES):
                case = Case.of(SMALL, n)

                @jax.jit
                def matrix(
                    params: Any, x: Any, structure: Any = structure, b: Any = batch_size
                ) -> Any:
                    options = {"structure": structure, "batch_size": b}
                    return fisher(mlp, params, x, likelihood="categorical", **options)

                compiled = matrix.lower(case.params, case.x).compile()
                needed = compiled.memory_analysis().temp_size_in_bytes
                yield Need(structure, case.size, n, batch_size, needed / 2**20)


PARTS = {"products": products, "dense": dense, "factors": factors}


def installed(names: list[str]) -> list[str]:
    """Those of the peers that can be imported; says which cannot."""
    found = []
    probe = Case.of((2, 2), 1)
    for name in names:
        try:
            PEERS[name](probe, "gradient", "true")
        except ImportError as error:
            print(f"absent: {name} ({error})")
        else:
            found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [*PARTS, "memory"]
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for one case")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, N = {EXAMPLES:,}")
    peers = installed(arguments.peers)
    rows: list[Row | Need] = []
    for part in arguments.parts:
        if part == "memory":
            print(f"\n{'':12}{'P':>8}{'N':>8}{'batch_size':>12}{'MiB':>10}")
            for need in memory():
                rows.append(need)
                shown = need.batch_size or "default"
                print(
                    f"{need.structure:12}{need.parameters:8,}{need.examples:8,}"
                    f"{shown:>12}{need.megabytes:10.1f}",
                    flush=True,
                )
            continue
        case = ""
        for row in PARTS[part](peers, arguments.seconds):
            rows.append(row)
            if row.case != case:
                case = row.case
                print(f"\n{case:44}{'ms':>10}{'ratio':>8}{'first s':>9}{'turns':>7}")
            print(
                f"  {row.who:42}{row.milliseconds:10.2f}{row.ratio:8.3f}"
                f"{row.first_call:9.2f}{row.turns:7}",
                flush=True,
            )
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
