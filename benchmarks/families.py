"""ngvi's exponential families beside efax's, in one process.

    python benchmarks/families.py [NAME ...] [--batch N ...] [--out FILE.json]

Needs efax (Python 3.12 or newer). For every family and each of these functions, and for
the gradient of the sum of its results with respect to its arguments,

    to_mean     λ → μ
    from_mean   μ → λ
    kl          KL(q ‖ p)
    entropy
    sample      one draw of each member

both libraries' compiled programs run in float32 on the same random members, by turns,
and the table shows efax's median time over ours: above 1, ours is faster. `error` is
the median and the largest relative difference, over members, between a library's
float32 result and its own float64 result, and `nan` how many of the members gave a
result that is not finite. A dash: efax does not have the function, or draws are
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

import efax
import jax
import jax.numpy as jnp
import numpy as np

from ngvi import families
from ngvi.linalg import Dense, Diagonal

REPEATS = 15
SECONDS = 1.0
"""About how long a function is timed: fewer repeats of a slow one, at least one."""
MEMBERS = 1_000
"""How many members accuracy is measured on."""


class Case(NamedTuple):
    """A family in both libraries."""

    member: Callable[[np.random.Generator, int], Any]
    """(random generator, batch) ↦ a batch of members of ours."""
    theirs: Callable[[Any], Any]
    """The same members as efax's natural parametrisation, from ours."""


def wide(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Positive numbers over four orders of magnitude."""
    return np.exp(rng.normal(size=shape) * 1.5)


def matrices(rng: np.random.Generator, batch: int, dim: int) -> np.ndarray:
    factor = rng.normal(size=(batch, dim, 2 * dim))
    return factor @ factor.swapaxes(-1, -2) / dim + 0.1 * np.eye(dim)


def logits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return 2 * rng.normal(size=shape)


def pair(name: str, first: int = 0, second: int = 1) -> Callable[[Any], Any]:
    """efax's class of two natural parameters, taken from ours in this order."""

    def build(q: Any) -> Any:
        params = q.natural_params
        return getattr(efax, name)(params[first], params[second])

    return build


def single(name: str) -> Callable[[Any], Any]:
    return lambda q: getattr(efax, name)(q.natural_params)


CASES = {
    "Normal": Case(
        lambda r, n: families.Normal(r.normal(size=n), wide(r, n)), pair("NormalNP")
    ),
    "LogNormal": Case(
        lambda r, n: families.LogNormal(r.normal(size=n), wide(r, n)),
        lambda q: efax.LogNormalNP(q.natural_params[0] - 1, q.natural_params[1]),
    ),
    "Gamma": Case(
        lambda r, n: families.Gamma(wide(r, n), wide(r, n)), pair("GammaNP", 1, 0)
    ),
    "InverseGamma": Case(
        lambda r, n: families.InverseGamma(wide(r, n), wide(r, n)),
        lambda q: efax.InverseGammaNP(q.natural_params[1], -q.natural_params[0] - 2),
    ),
    "ChiSquared": Case(
        lambda r, n: families.ChiSquared(wide(r, n)),
        lambda q: efax.ChiSquareNP(q.natural_params),
    ),
    "Exponential": Case(
        lambda r, n: families.Exponential(wide(r, n)), single("ExponentialNP")
    ),
    "Rayleigh": Case(lambda r, n: families.Rayleigh(wide(r, n)), single("RayleighNP")),
    "Weibull": Case(
        lambda r, n: families.Weibull(wide(r, n), concentration=1.5),
        lambda q: efax.WeibullNP(jnp.full(q.batch_shape, 1.5), q.natural_params),
    ),
    "InverseGaussian": Case(
        lambda r, n: families.InverseGaussian(wide(r, n), wide(r, n)),
        pair("InverseGaussianNP"),
    ),
    "Beta": Case(
        lambda r, n: families.Beta(wide(r, n), wide(r, n)),
        lambda q: efax.BetaNP(jnp.stack(q.natural_params, -1)),
    ),
    "Dirichlet-3": Case(
        lambda r, n: families.Dirichlet(wide(r, n, 3)), single("DirichletNP")
    ),
    "Dirichlet-30": Case(
        lambda r, n: families.Dirichlet(wide(r, n, 30)), single("DirichletNP")
    ),
    "Bernoulli": Case(
        lambda r, n: families.Bernoulli(logits(r, n)), single("BernoulliNP")
    ),
    "Categorical-10": Case(
        lambda r, n: families.Categorical(logits(r, n, 10)), single("CategoricalNP")
    ),
    "Geometric": Case(
        lambda r, n: families.Geometric(logits(r, n)), single("GeometricNP")
    ),
    "NegativeBinomial": Case(
        lambda r, n: families.NegativeBinomial(logits(r, n), total_count=5),
        lambda q: efax.NegativeBinomialNP(
            q.natural_params, jnp.full(q.batch_shape, 5, jnp.int32)
        ),
    ),
    "Poisson": Case(lambda r, n: families.Poisson(wide(r, n)), single("PoissonNP")),
    "LogSeries": Case(
        lambda r, n: families.LogSeries(logits(r, n)), single("LogarithmicNP")
    ),
    "VonMises": Case(
        lambda r, n: families.VonMises(r.uniform(-3, 3, n), wide(r, n)),
        lambda q: efax.VonMisesFisherNP(jnp.stack(q.natural_params, -1)),
    ),
    "VonMisesFisher-3": Case(
        lambda r, n: families.VonMisesFisher.from_natural(3 * r.normal(size=(n, 3))),
        single("VonMisesFisherNP"),
    ),
    "Wishart-3": Case(
        lambda r, n: families.Wishart(3 + wide(r, n), matrices(r, n, 3)),
        pair("WishartNP", 1, 0),
    ),
    "Gaussian-diagonal-5": Case(
        lambda r, n: families.Gaussian(
            jnp.asarray(r.normal(size=(n, 5))),
            Diagonal.from_entries(jnp.asarray(wide(r, n, 5))),
        ),
        pair("MultivariateDiagonalNormalNP"),
    ),
    "Gaussian-dense-5": Case(
        lambda r, n: families.Gaussian(
            jnp.asarray(r.normal(size=(n, 5))),
            Dense.from_dense(jnp.asarray(matrices(r, n, 5))),
        ),
        pair("MultivariateNormalNP"),
    ),
}


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
            lambda mean: type(q).from_mean(mean, **q.fixed).natural_params,
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


def cast(tree: Any, dtype: Any) -> Any:
    def convert(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(convert, tree)


def both(case: Case, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of every function, in both libraries, in the default dtype."""
    dtype = jnp.result_type(float)
    rng = np.random.default_rng(0)
    # From float32 numbers, so that both precisions speak of the same members.
    ours = [cast(cast(case.member(rng, batch), jnp.float32), dtype) for _ in range(2)]
    theirs = [case.theirs(member) for member in ours]
    key = jax.random.key(0)
    return (
        {"q": ours[0], "p": ours[1], "m": ours[0].mean_params, "k": key},
        {"q": theirs[0], "p": theirs[1], "m": theirs[0].to_exp(), "k": key},
    )


def time_of(program: Callable[..., Any], arguments: list[Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = program(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def race(ours: Any, theirs: Any, mine: list, other: list) -> tuple:
    """Median seconds of both, running by turns."""
    jax.block_until_ready((ours(*mine), theirs(*other)))
    once = max(time_of(ours, mine, 1), time_of(theirs, other, 1), 1e-6)
    calls = int(np.clip(0.02 / once, 1, 200))
    repeats = int(np.clip(SECONDS / (once * calls), 1, REPEATS))
    times = [
        (time_of(ours, mine, calls), time_of(theirs, other, calls))
        for _ in range(repeats)
    ]
    return tuple(np.median(np.asarray(times), axis=0))


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


def accuracy(case: Case, pick: Callable[[Function], Any], f: str, side: int) -> tuple:
    """Float32 against float64 of one library: 0 is ours, 1 efax."""

    def run() -> Any:
        arguments = both(case, MEMBERS)[side]
        function = functions(both(case, MEMBERS)[0]["q"])[f]
        chosen = [arguments[a] for a in function.arguments]
        return jax.jit(pick(function))(*chosen)

    single = run()
    with jax.enable_x64(True):
        double = run()
    return errors(single, double)


def absent(function: Function, arguments: dict[str, Any], gradient: bool) -> str:
    """Why a function has no row: efax lacks it, or draws of counts have no gradient."""
    chosen = [arguments[a] for a in function.arguments]
    try:
        result = jax.eval_shape(function.theirs, *chosen)
    except (AttributeError, NotImplementedError) as error:
        return f"efax: {error}"
    floating = [jnp.issubdtype(r.dtype, jnp.floating) for r in jax.tree.leaves(result)]
    return "" if any(floating) or not gradient else "not differentiable"


def compare(name: str, batches: list[int]) -> list[Row]:
    case, rows = CASES[name], []
    mine, other = both(case, 1)
    for f, function in functions(mine["q"]).items():
        for differentiate in (False, True):
            wrap = summed if differentiate else lambda function: function
            label = f"∇ {f}" if differentiate else f
            reason = absent(function, other, differentiate)
            if reason:
                print(f"{name:22s}{label:14s}  –  ({reason})", flush=True)
            else:
                rows.append(_compare(name, case, f, label, wrap, batches))
    return rows


def _compare(
    name: str,
    case: Case,
    f: str,
    label: str,
    wrap: Callable[..., Any],
    batches: list[int],
) -> Row:
    ratio, micro = {}, {}
    for batch in batches:
        mine, other = both(case, batch)
        function = functions(mine["q"])[f]
        left = [mine[a] for a in function.arguments]
        right = [other[a] for a in function.arguments]
        ours, theirs = jax.jit(wrap(function.ours)), jax.jit(wrap(function.theirs))
        a, b = race(ours, theirs, left, right)
        ratio[batch], micro[batch] = b / a, 1e6 * a
    if f == "sample":
        nothing = (float("nan"), float("nan"))
        row = Row(name, label, ratio, micro, nothing, nothing, 0, 0)
    else:
        error, nan = accuracy(case, lambda g: wrap(g.ours), f, 0)
        error_theirs, nan_theirs = accuracy(case, lambda g: wrap(g.theirs), f, 1)
        row = Row(name, label, ratio, micro, error, error_theirs, nan, nan_theirs)
    times = "".join(f"{ratio[b]:8.2f}{micro[b]:11.1f}" for b in batches)
    print(
        f"{name:22s}{label:14s}{times}   {row.error_ours[0]:8.1e} "
        f"{row.error_ours[1]:8.1e} {row.nan_ours:4d}   {row.error_theirs[0]:8.1e} "
        f"{row.error_theirs[1]:8.1e} {row.nan_theirs:4d}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100_000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    times = "".join(f"{f'×{b}':>8s}{'ours µs':>11s}" for b in arguments.batch)
    print(f"{'family':22s}{'function':14s}{times}   error, nan: ours       efax")
    rows = []
    for name in arguments.names or CASES:
        rows += compare(name, arguments.batch)
        jax.clear_caches()
    for batch in arguments.batch:
        ratios = np.asarray([row.ratio[batch] for row in rows])
        print(
            f"batch {batch}: geometric mean {np.exp(np.log(ratios).mean()):.2f}, "
            f"{(ratios < 0.95).sum()} of {len(ratios)} slower than efax"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(r) for r in rows], indent=1))


if __name__ == "__main__":
    main()
