"""A posterior that is given a verdict: what is computed to judge it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from ngvi.bayes.blockwise import Blockwise, blockwise
from ngvi.bayes.diagnostics import Diagnostics
from ngvi.bayes.importance import (
    EVEN_WEIGHTS,
    KHAT_LIMIT,
    Comparison,
    compare,
    site_khats,
)
from ngvi.bayes.restarts import Restarts, elsewhere
from ngvi.bayes.sampled import Sampled
from ngvi.bayes.summaries import columns
from ngvi.bayes.verdict import Verdict, judge, judge_restarts
from ngvi.bayes.weighted_draws import WeightedDraws


class Judged(Sampled):
    """Draws of a q that are held against the density that it stands for."""

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """What the fit did, and k-hat."""
        return replace(self.record.diagnostics, khat=self._weighed.khat)

    @property
    def log_weights(self) -> np.ndarray:
        """log p − log q of the draws that k-hat and the verdict are computed from."""
        return self._weighed.log_weight

    @property
    def log_evidence(self) -> float:
        """log ∫p by importance: the log of the mean weight of the verdict's draws,
        never less than the ELBO on them. NaN where q is draws."""
        if isinstance(self.approximation, WeightedDraws):
            return float("nan")
        weights = self.log_weights
        largest = weights.max()
        return float(largest + np.log(np.mean(np.exp(weights - largest))))

    @cached_property
    def site_khats(self) -> dict[str, float]:
        """k-hat for each site: of the weights times the squared deviations of its
        entries, whose reweighted sum is the site's variance; that of the worst entry.

        Where it is above 0.7 the reweighted moments of this site are of no use, though
        the joint k-hat may be below. NaN where q is draws.
        """
        if isinstance(self.approximation, WeightedDraws):
            return dict.fromkeys(self._weighed.sites, float("nan"))
        return site_khats(self.log_weights, self._weighed.sites)

    @cached_property
    def comparison(self) -> Comparison:
        """Means and sds of every quantity held against the reweighted draws."""
        _, weights, _, sites = self._weighed
        if not np.isfinite(weights).all():
            weights = np.full(weights.shape, 1 / weights.size)
        return compare(self._flat[0], columns(sites), weights)

    @cached_property
    def blockwise(self) -> Blockwise | None:
        """Weights of the border and of each block, where q is structured by plates and
        the joint weights say nothing; see `ngvi.bayes.blockwise`. Else None."""
        khat = self.diagnostics.khat
        even = self.comparison.efficiency > EVEN_WEIGHTS and np.isfinite(khat)
        return None if khat < KHAT_LIMIT or even else blockwise(self)

    @cached_property
    def elsewhere(self) -> Restarts | None:
        """Fits begun near and far, which the verdict looks at, see
        `ngvi.bayes.restarts`; None for data in batches, without gradients, where q is
        no Gaussian, or where they would cost too much."""
        return elsewhere(self)

    @cached_property
    def verdict(self) -> Verdict:
        """How far the answer can be trusted, why, and what to do next."""
        if isinstance(self.approximation, WeightedDraws):
            return self.approximation.evidence.verdict
        sd = self._flat[1].std(0)
        errors = self._standard_errors[sd > 0] / sd[sd > 0]
        # One that was not computed is NaN.
        largest = float(np.nan_to_num(errors).max(initial=0))
        if self.blockwise is not None:
            diagnostics = replace(self.diagnostics, khat=self.blockwise.khat)
            verdict = judge(diagnostics, self.blockwise.comparison, largest, True)
        else:
            verdict = judge(self.diagnostics, self.comparison, largest)
        # Weights see only what is near q.
        others = None if verdict.level == "do not trust" else self.elsewhere
        return verdict if others is None else judge_restarts(verdict, others)
