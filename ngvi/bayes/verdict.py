"""How far an answer can be trusted, in words.

Where k-hat is good, q is held against the reweighted draws; where it is not, importance
sampling cannot vouch for anything and the verdict says so.

Source: Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ngvi.bayes.diagnostics import (
    EPOCHS_USED,
    INTERRUPTED,
    ONE_PASS,
    ONE_STEP,
    SHAPES,
    Diagnostics,
)
from ngvi.bayes.importance import EVEN_WEIGHTS, KHAT_LIMIT, Comparison

if TYPE_CHECKING:
    from ngvi.bayes.restarts import Restarts

Level = Literal["do not trust", "means only", "trustworthy"]

_SHORT = {
    ONE_STEP: "Fit to the end: ngvi.fit(model, ..., prior=posterior).",
    EPOCHS_USED: "Allow more: ngvi.Stream(..., epochs=...).",
}
"""What to do about a fit that was asked to be short, by its stop reason."""
MEAN_LIMIT = 0.25
"""Posterior sds by which a mean may differ from the reweighted one."""
SD_LIMIT = 0.15
"""Relative difference of an sd from the reweighted one."""
ERROR_LIMIT = 0.1
"""Standard error of a mean, from the finite draws, in posterior sds."""


@dataclass(frozen=True)
class Verdict:
    """A judgement in words: how far, why, and what to do next."""

    level: Level
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.level}: {' '.join(self.reasons)}"
        return f"{text} {' '.join(self.advice)}".strip()


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
    better = _better(diagnostics)
    if (unfinished := _unfinished(diagnostics, better)) is not None:
        return unfinished
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
    mend = (better,) if by_blocks else (reweigh, better)
    if vouched:
        if means_differ:
            return Verdict("do not trust", tuple(reasons), mend)
        if sds_differ:
            return Verdict("means only", tuple(reasons), mend)
        return Verdict("trustworthy", tuple(reasons), ())
    if not means_differ and khat < 1:
        advice = "Take means as a guide and intervals with caution."
        return Verdict("means only", tuple(reasons), (advice, better))
    return Verdict(
        "do not trust",
        tuple(reasons),
        ("Reparameterise (non-centred, other supports) or simplify the model.", better),
    )


def _better(diagnostics: Diagnostics) -> str:
    """What leads to a better q."""
    advice = (
        "posterior.refine() goes on to a better q until the verdict is good, at last "
        "by NUTS from the fit, posterior.nuts()."
    )
    if diagnostics.covariance == "diagonal":
        return f'Fit with covariance="full". {advice}'
    if diagnostics.covariance == "mean-field":
        return f'Fit with family="gaussian", which has correlations. {advice}'
    return advice


def _unfinished(diagnostics: Diagnostics, better: str) -> Verdict | None:
    """The verdict on a fit that did not come to its end."""
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
    if not diagnostics.converged and diagnostics.stop_reason in _SHORT:
        length = diagnostics.fisher_length
        text = diagnostics.stop_reason
        reason = f"{text[0].upper()}{text[1:]}; the Fisher length left is {length:.2g}."
        advice = _SHORT[diagnostics.stop_reason]
        return Verdict("do not trust", (reason,), (advice,))
    if not diagnostics.converged:
        return Verdict(
            "do not trust",
            (f"The fit did not converge ({diagnostics.stop_reason}).",),
            (
                "Check the model's scales and priors, reparameterise hierarchical "
                "parts (non-centred), or start elsewhere (init_strategy).",
                better,
            ),
        )
    return None


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
