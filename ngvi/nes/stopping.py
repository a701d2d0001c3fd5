"""When a search has come to its end, and why.

The tests and their names are pycma's. Each looks at one number:

| name         | stops when                                                            |
|--------------|-----------------------------------------------------------------------|
| ftarget      | the best value is at most the target                                  |
| tolfun       | the values of a generation, and the best of recent ones, span less    |
| tolfunhist   | the best values of recent generations span less                       |
| tolx         | every standard deviation has shrunk by more than this factor          |
| stagnation   | over a long window neither the best nor the median value got better   |
| conditioncov | tr C · tr C⁻¹ exceeds this; it bounds C's condition number, C being   |
|              | measured in the first standard deviations                             |
| noeffectaxis | a tenth of a standard deviation along an axis does not change the mean|
| noeffectcoord| a fifth of a standard deviation does not change a coordinate          |
| hopeless     | by its model the valley ends above the best value of earlier runs     |
| maxfevals    | the budget does not suffice for another generation                    |
| maxiter      | so many generations have passed                                       |

Source: Hansen (2016), The CMA evolution strategy: a tutorial, appendix B.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ngvi.families import Gaussian
from ngvi.pytrees import pytree

TESTS = (
    "ftarget",
    "tolfun",
    "tolfunhist",
    "tolx",
    "stagnation",
    "conditioncov",
    "noeffectaxis",
    "noeffectcoord",
)
# After these, the same search again would come to nothing else.
CONVERGED = frozenset({"tolfun", "tolfunhist", "tolx", "noeffectaxis", "noeffectcoord"})

_BLOCKS = 20
_ENDS = 6
_LONGEST = 20_000


@pytree
class Stopping:
    """The limits of the tests; numbers only, so that new ones compile nothing anew.

    Args:
        ftarget: a value that is good enough.
        tolfun: values nearer than this are equal.
        tolfunhist: the same for the best values of recent generations.
        tolx: relative to the first standard deviations.
        stagnation: 0 switches the test off.
        conditioncov: the limit in double precision; in single it is at most 1e10.
        maxfevals: evaluations.
        maxiter: generations.
    """

    ftarget: float | Float[Array, ""] = -math.inf
    tolfun: float | Float[Array, ""] = 1e-11
    tolfunhist: float | Float[Array, ""] = 1e-12
    tolx: float | Float[Array, ""] = 1e-11
    stagnation: float | Float[Array, ""] = 1.0
    conditioncov: float | Float[Array, ""] = 1e14
    maxfevals: int | Int[Array, ""] = 2**31 - 1
    maxiter: int | Int[Array, ""] = 2**31 - 1

    def condition_limit(self, dtype: jnp.dtype) -> float | Float[Array, ""]:
        """`conditioncov` in this precision."""
        most = math.inf if dtype == jnp.float64 else 1e10
        return jnp.minimum(self.conditioncov, most)


@pytree
class Record:
    """What the tests remember of past generations, in fixed memory."""

    recent: Float[Array, "h"]
    """The best values of the last generations, a ring."""
    blocks: Float[Array, "2 b"]
    """The least best and the least median value of each block of generations, or their
    least violations, a ring: a window too long to be sorted in every generation."""


def empty_record(dim: int, popsize: int, dtype: jnp.dtype) -> Record:
    """A record of no generation."""
    length = min(10 + math.ceil(30 * dim / popsize), _LONGEST)
    inf = jnp.asarray(jnp.inf, dtype)
    return Record(jnp.full(length, inf), jnp.full((2, _BLOCKS), inf))


def block_length(dim: int, popsize: int) -> int:
    """Generations in a block: twenty make 100 + 100 D√D/n generations."""
    window = min(100 + 100 * dim * math.sqrt(dim) / popsize, _LONGEST)
    return math.ceil(window / _BLOCKS)


def remember(
    record: Record,
    generation: Int[Array, ""],
    best: Float[Array, ""],
    progress: Float[Array, "2"],
    length: int,
) -> Record:
    """The record after another generation.

    Args:
        record: before it.
        generation: its number, counted from 0.
        best: its best value.
        progress: what should fall, at its best and at its median point.
        length: of a block.
    """
    recent = record.recent.at[generation % record.recent.size].set(best)
    at = (generation // length) % _BLOCKS
    begins = generation % length == 0
    least = jnp.where(begins, progress, jnp.minimum(record.blocks[:, at], progress))
    return Record(recent, record.blocks.at[:, at].set(least))


def measure(
    q: Gaussian,
    scale: Float[Array, "d"],
    record: Record,
    generation: Int[Array, ""],
    length: int,
    worst: Float[Array, ""],
    best: Float[Array, ""],
    stopping: Stopping,
    size: Float[Array, ""],
) -> tuple[Float[Array, "t"], Bool[Array, "t"]]:
    """The number each of `TESTS` looks at, and whether it says stop.

    Args:
        q: the distribution after the generation.
        scale: the standard deviations at the start.
        record: with the generation in it.
        generation: its number, counted from 0.
        length: of a block.
        worst: the generation's worst value.
        best: the best value so far.
        stopping: the limits.
        size: a value as large as those recorded.
    """
    dtype = q.dtype
    eps = jnp.finfo(dtype).eps
    # Values that differ by rounding alone are equal.
    rounding = jnp.where(jnp.isfinite(size), 4 * eps * jnp.abs(size), 0)
    full = generation + 1 >= record.recent.size
    lowest = record.recent.min()
    past = jnp.where(full, record.recent.max() - lowest, jnp.inf)
    span = jnp.maximum(past, worst - lowest)

    sd = jnp.sqrt(q.variance)
    shrunk = (sd / scale).max()
    spread = (q.variance / scale**2).sum()
    condition = spread * (q.precision.diagonal() * scale**2).sum()

    gained, stale = _stagnation(record, generation, length)
    axis = 0.1 * q.precision.unwhiten(
        (jnp.arange(q.dim) == generation % q.dim).astype(dtype)
    )
    measured = jnp.stack(
        [best, span, past, shrunk, gained, condition, jnp.abs(axis).max(), sd.min()]
    )
    fired = jnp.stack(
        [
            best <= stopping.ftarget,
            span <= jnp.maximum(stopping.tolfun, rounding),
            past <= jnp.maximum(stopping.tolfunhist, rounding),
            shrunk < stopping.tolx,
            stale & (jnp.asarray(stopping.stagnation) > 0),
            ~(condition <= stopping.condition_limit(dtype)),
            (q.mean == q.mean + axis).all(),
            (q.mean == q.mean + 0.2 * sd).any(),
        ]
    )
    return measured.astype(dtype), fired


def _stagnation(
    record: Record, generation: Int[Array, ""], length: int
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """By how much best and median got better over the window, the larger of the two,
    and whether neither did."""
    at = (generation // length) % _BLOCKS
    oldest, newest = at + 1 + jnp.arange(_ENDS), at - jnp.arange(_ENDS)
    ends = record.blocks[:, jnp.stack([oldest, newest]) % _BLOCKS]
    middle = slice((_ENDS - 1) // 2, _ENDS // 2 + 1)
    medians = jnp.sort(ends, axis=-1)[..., middle].mean(-1)
    first, last = medians[:, 0], medians[:, 1]
    gained = first - last
    whole = generation + 1 >= length * _BLOCKS
    complete = (generation + 1) % length == 0
    return gained.max(), whole & complete & (gained <= 0).all()


def converged(reasons: Iterable[str]) -> bool:
    """Whether a run with these reasons to stop has found what it was looking for."""
    return not {"ftarget", *CONVERGED}.isdisjoint(reasons)


def bounded(stopping: Stopping) -> Stopping:
    """With limits of evaluations and generations that JAX's integers hold."""
    most = 2**31 - 1
    whole = {
        name: int(min(limit, most))
        for name in ("maxfevals", "maxiter")
        if isinstance(limit := getattr(stopping, name), int | float)
    }
    return replace(stopping, **whole)


def towards(stopping: Stopping, sign: float) -> Stopping:
    """With the target of what is minimised, sign · fun; an infinite one is none."""
    target = float(stopping.ftarget)
    return replace(
        stopping, ftarget=sign * target if math.isfinite(target) else -math.inf
    )


def reasons(
    measured: np.ndarray,
    fired: np.ndarray,
    generation: int,
    evaluated: int,
    popsize: int,
    stopping: Stopping,
) -> dict[str, float]:
    """Why a run stops, with the number each test has looked at; empty to go on.

    Args:
        measured: see `measure`.
        fired: see `measure`.
        generation: how many there have been.
        evaluated: points, in all of them.
        popsize: of each.
        stopping: the limits; a limit is a reason where no test is one.
    """
    found = {
        name: float(value)
        for name, value, stop in zip(TESTS, measured, fired, strict=True)
        if stop
    }
    if not found and generation >= int(stopping.maxiter):
        found["maxiter"] = generation
    elif not found and evaluated + popsize > int(stopping.maxfevals):
        found["maxfevals"] = evaluated
    return found


def describe(
    name: str, measured: float, stopping: Stopping, dtype: jnp.dtype, sign: float = 1.0
) -> str:
    """A stop reason and its value as a sentence."""
    limit = (
        stopping.condition_limit(dtype)
        if name == "conditioncov"
        else getattr(stopping, name, 0)
    )
    texts = {
        "ftarget": f"the value {sign * measured:.6g} has reached the target "
        f"{sign * limit:.6g}",
        "tolfun": f"the values of a generation and the best of recent ones span "
        f"{measured:.3g} (limit {limit}, or rounding)",
        "tolfunhist": f"the best values of recent generations span {measured:.3g} "
        f"(limit {limit}, or rounding)",
        "tolx": f"the standard deviations are {measured:.3g} of the first ones "
        f"(limit {limit})",
        "stagnation": "over a long window neither the best nor the median value has "
        f"become better (gain {measured:.3g})",
        "conditioncov": f"tr C · tr C⁻¹ is {measured:.3g} (limit {limit:.3g}), in "
        "units of the first standard deviations",
        "noeffectaxis": f"a step of {measured:.3g} along an axis does not change the "
        "mean",
        "noeffectcoord": f"a coordinate of standard deviation {measured:.3g} or more "
        "does not change any longer",
        "hopeless": f"this valley ends near {sign * measured:.6g}, by a model of it, "
        "which is worse than the best value known",
        "maxfevals": f"{measured:,.0f} of {limit:,} evaluations are spent",
        "maxiter": f"{measured:,.0f} generations have passed",
    }
    return f"{name}: {texts[name]}"
