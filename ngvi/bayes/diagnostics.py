"""How far an answer can be trusted, in numbers and in words.

Draws from q are weighed by p/q. Pareto smoothing of the weights' tail gives k-hat:
below 0.7 the weighted draws estimate the posterior itself, so q's means and standard
deviations can be held against theirs, quantity by quantity. Above, importance sampling
cannot vouch for anything and the verdict says so.

Source: Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work?; Vehtari et al.
(2024), Pareto smoothed importance sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ngvi.bayes.psis import smoothed

if TYPE_CHECKING:
    from ngvi.bayes.restarts import Restarts

Level = Literal["trustworthy", "means only", "do not trust"]

INTERRUPTED = "interrupted: the best state so far is kept"
ONE_STEP = "one natural step was taken"
ONE_PASS = "each batch was read once"
EPOCHS_USED = "the epochs allowed were used up"
_MOST_ENTRIES = 100
"""Of a site, whose k-hat is computed."""
SHORT = {
    ONE_STEP: "Fit to the end: ngvi.fit(model, ..., prior=posterior).",
    EPOCHS_USED: "Allow more: ngvi.Stream(..., epochs=...).",
}
"""What to do about a fit that was asked to be short, by its stop reason."""
SHAPES = {
    "mixture": "a mixture of Gaussians",
    "mean-field": "a mean field",
    "draws": "draws",
}
"""Of what q may be beside a Gaussian."""
KHAT_LIMIT = 0.7
MEAN_LIMIT = 0.25
"""Posterior sds by which a mean may differ from the reweighted one."""
SD_LIMIT = 0.15
"""Relative difference of an sd from the reweighted one."""
EVEN_WEIGHTS = 0.9
"""Relative effective sample size above which the weights are so even that the shape of
their tail, which is all k-hat measures, carries no weight."""
ERROR_LIMIT = 0.1
"""Standard error of a mean, from the finite draws, in posterior sds."""


@dataclass(frozen=True)
class Diagnostics:
    """What a fit did and how it ended; plain Python values."""

    elbo: float
    iterations: int
    gradient_evaluations: int
    value_evaluations: int
    rejected_steps: int
    draws: int
    seconds_compiling: float
    seconds_running: float
    fisher_length: float
    gap: float
    khat: float
    converged: bool
    stop_reason: str
    covariance: str
    dimension: int
    seed: int
    epochs: int = 0
    """Passes over data that were read in batches; 0 for data in memory."""

    @property
    def shape(self) -> str:
        """Of q, in words."""
        return SHAPES.get(self.covariance, f"{self.covariance} covariance")


@dataclass(frozen=True)
class Verdict:
    """A judgement in words: how far, why, and what to do next."""

    level: Level
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.level}: {' '.join(self.reasons)}"
        return f"{text} {' '.join(self.advice)}".strip()


@dataclass(frozen=True)
class Comparison:
    """q held against the reweighted draws, one entry a scalar quantity."""

    names: tuple[str, ...]
    efficiency: float
    mean_error: np.ndarray
    """(mean of q − reweighted mean) / reweighted sd."""
    sd_ratio: np.ndarray
    """sd of q / reweighted sd."""


def pareto_smoothed(log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised, Pareto-smoothed weights and k-hat.

    Args:
        log_weight: log p − log q of S draws, shape (S,).

    Returns:
        Weights that sum to 1, shape (S,), and k-hat: infinite, with NaN weights, where
        a log weight is not finite, and 0 where all are equal.
    """
    if not np.isfinite(log_weight).all():
        return np.full(log_weight.shape, np.nan), float("inf")
    if np.ptp(log_weight) < 1e-5:  # q is the posterior; a tail of rounding has no shape
        return np.full(log_weight.shape, 1 / log_weight.size), 0.0
    log_weights, khat = smoothed(log_weight)
    return np.exp(log_weights), khat


def site_khats(
    log_weight: np.ndarray, sites: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """k-hat of w (z − z̄)², the worst over the entries of each site.

    Args:
        log_weight: log p − log q of S draws, shape (S,).
        sites: the draws, (S, *site shape). Of very many entries some are looked at.
    """
    found = {}
    for name, draws in sites.items():
        entries = np.reshape(draws, (len(draws), -1))
        if not np.isrealobj(entries) or not np.isfinite(log_weight).all():
            found[name] = float("nan")
            continue
        stride = -(-entries.shape[1] // _MOST_ENTRIES)
        khats = [0.0]
        for column in entries[:, ::stride].T.astype(np.float64):
            deviation = np.abs(column - column.mean())
            if (deviation > 0).any():
                size = np.maximum(deviation, np.finfo(float).tiny)
                khats.append(pareto_smoothed(log_weight + 2 * np.log(size))[1])
        found[name] = max(khats)
    return found


def efficiency(weights: np.ndarray) -> float:
    """Effective sample size of normalised weights over their number, 1/(S Σw²)."""
    return float(1 / (len(weights) * (weights**2).sum()))


def compare(names: list[str], values: np.ndarray, weights: np.ndarray) -> Comparison:
    """Means and sds of q against the reweighted ones.

    Args:
        names: of K scalar quantities.
        values: draws from q, shape (S, K).
        weights: normalised, shape (S,).
    """
    mean, sd = values.mean(0), values.std(0)
    reweighted = weights @ values
    spread = np.sqrt(np.maximum(weights @ (values - reweighted) ** 2, 0))
    varies = (spread > 0) & (sd > 0)
    safe = np.where(varies, spread, 1.0)
    return Comparison(
        tuple(names),
        efficiency(weights),
        np.where(varies, (mean - reweighted) / safe, 0.0),
        np.where(varies, sd / safe, 1.0),
    )


def _worst(comparison: Comparison, size: np.ndarray, limit: float) -> str:
    order = np.argsort(-size)
    named = [comparison.names[i] for i in order[:3] if size[i] > limit]
    more = int((size > limit).sum()) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def judge(
    diagnostics: Diagnostics,
    comparison: Comparison,
    mean_error: float,
    by_blocks: bool = False,
) -> Verdict:
    """The verdict on a fit.

    Args:
        diagnostics: of the fit.
        comparison: q held against the reweighted draws.
        mean_error: the largest standard error of a mean that comes from the finite
            draws, in posterior sds.
        by_blocks: k-hat and the comparison are of the weights of blocks and border,
            not of the joint ones, see `ngvi.bayes.blockwise`.
    """
    mcmc = (
        "posterior.refine() goes on to a better q until the verdict is good, at last "
        "by NUTS from the fit, posterior.nuts()."
    )
    if diagnostics.covariance == "diagonal":
        mcmc = f'Fit with covariance="full". {mcmc}'
    if diagnostics.covariance == "mean-field":
        mcmc = f'Fit with family="gaussian", which has correlations. {mcmc}'
    if diagnostics.stop_reason == INTERRUPTED:
        reason = f"The fit was {INTERRUPTED}."
        return Verdict("do not trust", (reason,), ("Run it to its end.",))
    if diagnostics.stop_reason == ONE_PASS:
        reason = (
            "One pass: the batches could be read only once and were absorbed one after "
            "the other; nothing was measured on all of the data."
        )
        advice = "Give batches that can be read again: a list, a function, columns."
        return Verdict("means only", (reason,), (advice,))
    if not diagnostics.converged and diagnostics.stop_reason in SHORT:
        length = diagnostics.fisher_length
        text = diagnostics.stop_reason
        reason = f"{text[0].upper()}{text[1:]}; the Fisher length left is {length:.2g}."
        advice = SHORT[diagnostics.stop_reason]
        return Verdict("do not trust", (reason,), (advice,))
    if not diagnostics.converged:
        return Verdict(
            "do not trust",
            (f"The fit did not converge ({diagnostics.stop_reason}).",),
            (
                "Check the model's scales and priors, reparameterise hierarchical "
                "parts (non-centred), or start elsewhere (init_strategy).",
                mcmc,
            ),
        )
    khat = diagnostics.khat
    name = "Pareto k-hat, block by block," if by_blocks else "Pareto k-hat"
    # Weights that are not finite were replaced by even ones, which vouch for nothing.
    even = comparison.efficiency > EVEN_WEIGHTS and np.isfinite(khat)
    vouched = khat < KHAT_LIMIT or even
    means = np.abs(comparison.mean_error)
    sds = np.abs(np.log(comparison.sd_ratio))
    sd_limit = np.log1p(SD_LIMIT)
    means_differ, sds_differ = (means > MEAN_LIMIT).any(), (sds > sd_limit).any()
    reasons = []
    if even:
        reasons.append(
            f"The importance weights are even (efficiency {comparison.efficiency:.0%})."
        )
    elif vouched:
        reasons.append(f"{name} is {khat:.2f}, below {KHAT_LIMIT}.")
    else:
        follower = SHAPES.get(diagnostics.covariance, "a Gaussian")
        cause = f"the posterior has tails or curvature that {follower} does not follow"
        if diagnostics.covariance == "structured" and not by_blocks:
            # Weights multiply over blocks.
            cause = (
                f"in {diagnostics.dimension:,d} dimensions it may be so although every "
                "block is followed well, but nothing else vouches for the fit"
            )
        reasons.append(f"{name} is {khat:.2f}, above {KHAT_LIMIT}: {cause}.")
    if means_differ:
        which = _worst(comparison, means, MEAN_LIMIT)
        reasons.append(
            f"Reweighted draws move a mean by up to {means.max():.2f} sd ({which})."
        )
    if sds_differ:
        which = _worst(comparison, sds, sd_limit)
        worst = comparison.sd_ratio[np.argmax(sds)]
        reasons.append(f"An sd is {worst:.2f} times the reweighted one ({which}).")
    if mean_error > ERROR_LIMIT:
        reasons.append(
            f"The finite draws leave a standard error of {mean_error:.2f} sd in a mean."
        )
    reweigh = "posterior.sample(n, resample=True) corrects the draws by their weights."
    # Joint weights, which draws would be corrected by, say nothing then.
    mend = (mcmc,) if by_blocks else (reweigh, mcmc)
    if vouched:
        if means_differ:
            return Verdict("do not trust", tuple(reasons), mend)
        if sds_differ:
            return Verdict("means only", tuple(reasons), mend)
        return Verdict("trustworthy", tuple(reasons), ())
    if not means_differ and khat < 1:
        advice = "Take means as a guide and intervals with caution."
        return Verdict("means only", tuple(reasons), (advice, mcmc))
    return Verdict(
        "do not trust",
        tuple(reasons),
        ("Reparameterise (non-centred, other supports) or simplify the model.", mcmc),
    )


def judge_restarts(verdict: Verdict, restarts: Restarts) -> Verdict:
    """A verdict from the neighbourhood of q, with what fits from elsewhere found."""
    rival = restarts.rival
    if rival is None:
        return verdict
    gain = restarts.elbos[rival] - restarts.elbos[0]
    way = "higher" if gain > 0 else "lower"
    reason = (
        f"A fit begun elsewhere ended {restarts.apart[rival]:.1f} sd away, its ELBO "
        f"{abs(gain):.2g} nats {way}: q leaves out a part of the posterior."
    )
    advice = (
        'ngvi.fit(..., family="mixture") fits several modes, and posterior.refine() '
        "tries it; posterior.restarts() looks farther."
    )
    return Verdict("do not trust", (reason, *verdict.reasons), (advice,))
