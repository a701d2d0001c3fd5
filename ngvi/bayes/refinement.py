"""`posterior.refine`: one rung after the other, until the verdict is good.

| rung                | what it can mend                                               |
|---------------------|----------------------------------------------------------------|
| full or structured  | sds that correlations make too small                           |
| importance weights  | any moments, where q is near the posterior (k-hat, efficiency) |
| mixture             | several modes, skew, curvature, in up to 50 dimensions         |
| NUTS                | what no Gaussian follows, at the cost of a Markov chain        |

Each begins from what the ones before have found, and the ladder ends with the first
whose verdict is good.

Source: Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work?; Vehtari et al.
(2024), Pareto smoothed importance sampling.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from ngvi.bayes.approximation import GaussianApproximation
from ngvi.bayes.importance import Comparison, pareto_smoothed
from ngvi.bayes.mixed import mixed
from ngvi.bayes.mixture_approximation import MixtureApproximation
from ngvi.bayes.nuts import nuts_points
from ngvi.bayes.plan import LARGEST_FULL
from ngvi.bayes.verdict import Level
from ngvi.bayes.weighted_draws import WeightedDraws, from_chains, from_weights, vouched

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior

# What is good, beyond a verdict that is: errors that the reweighted draws show.
_MEAN_LIMIT, _SD_LIMIT = 0.05, 0.05
# A mixture's components have full covariances, and more dimensions need more of them.
_LARGEST_MIXTURE = 50
_EFFECTIVE = 2000
"""Effective draws at which no more are weighed."""
_BLOCKS = 32
_NUMBERS = 30_000_000
_CHAINS, _DRAWS = 4, 1000
_WARMUP, _LONGER_WARMUP = 300, 1000


class Rung(NamedTuple):
    """One rung of the ladder, as it was reached."""

    name: str
    level: str
    """Of the verdict."""
    khat: float
    mean_moved: float
    """Largest change of a mean from the rung before, in sds of this one."""
    sd_moved: float
    """Largest change of an sd, relative."""
    gradients: int
    """Gradients and values of the log density that it took."""
    seconds: float


@dataclass(frozen=True)
class Refinement:
    """The rungs in order; printing it shows them as a table."""

    rungs: tuple[Rung, ...]

    def __str__(self) -> str:
        titles = "rung", "verdict", "k-hat", "mean moved", "sd moved", "calls", "s"
        rows = [titles, *(_cells(rung) for rung in self.rungs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            pairs = list(zip(row, widths, strict=True))
            words = [cell.ljust(width) for cell, width in pairs[:2]]
            numbers = [cell.rjust(width) for cell, width in pairs[2:]]
            lines.append("  ".join(words + numbers))
        return "\n".join(lines)

    __repr__ = __str__


def _cells(rung: Rung) -> tuple[str, ...]:
    def number(value: float, text: str) -> str:
        return format(value, text) if np.isfinite(value) else "-"

    return (
        rung.name,
        rung.level,
        number(rung.khat, ".2f"),
        number(rung.mean_moved, ".2f")
        + (" sd" if np.isfinite(rung.mean_moved) else ""),
        number(rung.sd_moved, ".0%"),
        f"{rung.gradients:,d}",
        f"{rung.seconds:.1f}",
    )


def refine(
    posterior: Posterior, budget: float | None, progress: bool | None
) -> Posterior:
    """See `ngvi.Posterior.refine`."""
    if budget is not None and not budget > 0:
        raise ValueError(f"budget must be a positive number of seconds, not {budget}.")
    deadline = time.perf_counter() + (np.inf if budget is None else budget)
    best = current = posterior
    rungs = [_rung(current.approximation.kind, None, current, 0.0)]
    for name, climb in _ladder(posterior, deadline, progress):
        if _good(best) or time.perf_counter() > deadline:
            break
        started = time.perf_counter()
        reached = climb(current)
        if reached is None:
            continue
        rungs.append(_rung(name, current, reached, time.perf_counter() - started))
        if _rank(reached) >= _rank(best):
            best = reached
        if not isinstance(reached.approximation, WeightedDraws):
            current = reached
    record = replace(best.record, refinement=Refinement(tuple(rungs)))
    return best.with_approximation(best.approximation, record)


Climb = Callable[["Posterior"], "Posterior | None"]


def _ladder(
    posterior: Posterior, deadline: float, progress: bool | None
) -> Iterator[tuple[str, Climb]]:
    """Every rung: from the posterior so far to the next, None if it does not apply."""
    if not posterior.target.differentiable:
        yield "importance weights", _reweighed
        return
    yield "fuller covariance", lambda p: _fuller(p, progress)
    yield "importance weights", _reweighed
    yield "mixture", lambda p: _mixture(p, deadline, progress)
    yield "mixture, reweighed", lambda p: _reweighed(p) if _is_mixture(p) else None
    yield "NUTS", lambda p: _chains(p, _WARMUP, 0.9)
    yield "NUTS, longer", lambda p: _chains(p, _LONGER_WARMUP, 0.99)


def _is_mixture(posterior: Posterior) -> bool:
    return isinstance(posterior.approximation, MixtureApproximation)


def _fuller(posterior: Posterior, progress: bool | None) -> Posterior | None:
    from ngvi.bayes.run import run_again

    gaussian = isinstance(posterior.approximation, GaussianApproximation)
    narrow = posterior.record.diagnostics.covariance in ("diagonal", "low-rank")
    if _is_mixture(posterior) or (gaussian and not narrow):
        return None
    small = posterior.approximation.dim <= LARGEST_FULL
    return run_again(
        posterior,
        posterior.gaussian.mean,
        covariance="full" if small else "auto",
        progress=progress,
    )


def _reweighed(posterior: Posterior) -> Posterior | None:
    """Draws by importance, where the weights may vouch for them."""
    if isinstance(posterior.approximation, WeightedDraws):
        return None
    weighed, drawn = posterior._weighed, posterior._drawn
    if not vouched(weighed.khat, posterior.comparison.efficiency):
        return None
    if posterior.elsewhere is not None and posterior.elsewhere.rival is not None:
        return None  # weights of draws near q say nothing of the other part
    log_weight = weighed.log_weight
    blocks = len(log_weight) // drawn.count
    points = [np.asarray(drawn.block(number)) for number in range(blocks)]
    weights, khat = weighed.weights, weighed.khat
    while 1 / (weights**2).sum() < _EFFECTIVE and len(points) < _BLOCKS:
        if len(points) * points[0].size > _NUMBERS:
            break
        new = drawn.block(len(points))
        log_p = drawn.log_p(new)
        log_q = np.asarray(drawn.q.log_prob(new))
        points.append(np.asarray(new))
        log_weight = np.concatenate([log_weight, (log_p - log_q).astype(float)])
        weights, khat = pareto_smoothed(log_weight)
    if not np.isfinite(weights).all():
        return None
    q = from_weights(np.concatenate(points), weights.astype(points[0].dtype), khat)
    return _of_draws(posterior, q, values=len(weights) - len(weighed.log_weight))


def _mixture(
    posterior: Posterior, deadline: float, progress: bool | None
) -> Posterior | None:
    is_gaussian = isinstance(posterior.approximation, GaussianApproximation)
    if not is_gaussian or posterior.approximation.dim > _LARGEST_MIXTURE:
        return None
    return mixed(posterior, deadline=deadline, progress=progress)


def _chains(posterior: Posterior, warmup: int, target_accept: float) -> Posterior:
    points, diverging, gradients = nuts_points(
        posterior,
        _DRAWS,
        warmup,
        _CHAINS,
        posterior.record.diagnostics.seed,
        target_accept_prob=target_accept,
    )
    return _of_draws(posterior, from_chains(points, diverging), gradients=gradients)


def _of_draws(
    posterior: Posterior, q: WeightedDraws, gradients: int = 0, values: int = 0
) -> Posterior:
    before = posterior.record.diagnostics
    diagnostics = replace(
        before,
        covariance="draws",
        converged=True,
        gradient_evaluations=before.gradient_evaluations + gradients,
        value_evaluations=before.value_evaluations + values,
        draws=len(q.points),
        stop_reason=f"draws by {q.evidence.source}",
    )
    record = replace(posterior.record, diagnostics=diagnostics, structure=None)
    return posterior.with_approximation(q, record)


def _good(posterior: Posterior) -> bool:
    comparison: Comparison = posterior.comparison
    means = np.abs(comparison.mean_error).max(initial=0.0)
    sds = np.abs(np.log(comparison.sd_ratio)).max(initial=0.0)
    near = means < _MEAN_LIMIT and sds < np.log1p(_SD_LIMIT)
    return near and posterior.verdict.level == "trustworthy"


def _rank(posterior: Posterior) -> tuple[int, bool]:
    return get_args(Level).index(posterior.verdict.level), _good(posterior)


def _rung(name: str, before: Posterior | None, now: Posterior, seconds: float) -> Rung:
    counts = now.record.diagnostics
    calls = counts.gradient_evaluations + counts.value_evaluations
    mean_moved = sd_moved = float("nan")
    if before is not None:
        old = before.record.diagnostics
        spent = old.gradient_evaluations + old.value_evaluations
        calls -= spent if calls >= spent else 0
        was, has = before._flat[1], now._flat[1]
        sd, old_sd = has.std(0), was.std(0)
        varies = (sd > 0) & (old_sd > 0)
        mean_moved = float(
            np.abs((has - was).mean(0)[varies] / sd[varies]).max(initial=0.0)
        )
        sd_moved = float(np.abs(sd[varies] / old_sd[varies] - 1).max(initial=0.0))
    level = now.verdict.level
    return Rung(name, level, now.diagnostics.khat, mean_moved, sd_moved, calls, seconds)
