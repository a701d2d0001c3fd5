"""`ngvi.fit(model, family="mean-field")`: a family for each site on its own support.

1. Each site, or block of joined sites, has candidates (`ngvi.bayes.site_families`).
   Where log p as a function of the site is a combination of a candidate's statistics
   whatever the others are, the block is conjugate (`ngvi.bayes.conditionals`).
2. If all are, sweeps of closed-form updates are the whole fit: exact after the first
   for one block, and for several the fixed point of coordinate ascent.
3. Else a quick fit of a diagonal Gaussian on the unconstrained space tells where the
   posterior is: the members start at the maximum likelihood of its draws, and of two
   families that fit a support the closer one is taken (`ngvi.bayes.mean_field_start`).
4. Sweeps (`ngvi.bayes.sweeps`) until their Fisher length vanishes; draws double while
   unseen ones disagree. With discrete sites, several random starts are tried first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.bayes.blocks import base_sizes
from ngvi.bayes.checkpointing import Attributes, Saver
from ngvi.bayes.diagnostics import INTERRUPTED, Diagnostics
from ngvi.bayes.mean_field_start import Beginning, Settled, own_draws
from ngvi.bayes.product_approximation import ProductApproximation
from ngvi.bayes.record import FitRecord
from ngvi.bayes.site_families import MEAN_FIELD
from ngvi.bayes.sweeps import (
    BaseDraws,
    State,
    Sweeping,
    Unseen,
    advance,
    at_rest,
    check,
    entropy_error,
    start,
    stuck,
)
from ngvi.mirror import loop
from ngvi.mirror.descent import again
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.terminal.progress import Progress

_FEWEST, _MOST = 256, 16384
"""Draws of the free blocks' objective."""
_CHECK_DRAWS = 1024
_FEWEST_OTHERS, _MOST_OTHERS = 64, 512
"""Draws of the other blocks in a closed form."""
_NUMBERS_AT_ONCE = 2**17
_RESTARTS, _RESTART_SWEEPS = 5, 10
# Coordinate ascent creeps up on its fixed point: it has converged later.
_CREEP = 20
_NOT_FINITE = "the log density is not finite at draws around the start"


@dataclass
class _Spent(Attributes):
    """How far the fit has come; kept with the state in checkpoints."""

    draws: int = 0
    """Of the free blocks' objective."""
    of_sweeps: list[int] = field(default_factory=list)
    """The same for each sweep so far."""
    gap: float = float("nan")
    gradients: int = 0
    values: int = 0


class MeanField:
    """The fit of a mean field, from its start to its record.

    Args:
        beginning: of the model with its data.
        settled: what it came to.
        observed: how many observations there are.
        bar: shows progress.
        saver: of checkpoints.
    """

    def __init__(
        self,
        beginning: Beginning,
        settled: Settled,
        observed: int,
        bar: Progress,
        saver: Saver,
    ) -> None:
        self.beginning, self.settled = beginning, settled
        self.bar, self.saver = bar, saver
        self.target, self.data = beginning.target, beginning.data
        self.settings, self.seed = beginning.settings, beginning.seed
        self.dtype = beginning.point.dtype
        self.most = self.settings.max_iterations
        creep = _CREEP if any(settled.conjugate) else 1
        self.plan = Sweeping(
            settled.blocks,
            settled.conjugate,
            self.settings.tolerance / creep,
            max(_NUMBERS_AT_ONCE // (self.target.dim + observed), 1),
        )
        self.unseen_eps = self._matched(_CHECK_DRAWS, 0)
        self.state = start(self.plan, settled.members, self.most)
        count = self._first_count()
        self.spent = _Spent(draws=count, gradients=int(beginning.gradients))

    def run(self) -> tuple[ProductApproximation, FitRecord]:
        """Fit, and how it went. Ctrl-C ends it at the best state so far."""
        try:
            if not self._resumed() and self.target.whole:
                self._choose_start()
            stop = self._fit()
        except KeyboardInterrupt:
            stop = INTERRUPTED
            self.saver.save(self.state)
        unseen = self._check()
        variances = np.asarray(unseen.gradient, float) ** 2
        q = ProductApproximation(
            self.plan.blocks,
            self.state.members,
            self.target.dim,
            self.plan.free_blocks,
            variances,
        )
        return q, self._record(unseen, stop)

    def _resumed(self) -> bool:
        """Go on from the last checkpoint, if there is one."""
        self.saver.beside = self.spent
        found = self.saver.resumed(lambda: self.state)
        self.state = self.state if found is None else found
        return found is not None

    # -- draws -----------------------------------------------------------------------

    def _matched(self, count: int, stream: int) -> Array:
        """Base draws for all blocks."""
        size = sum(base_sizes(self.settled.blocks, self.settled.members))
        rng = np.random.default_rng([self.seed, 4, stream, count])
        return jnp.asarray(antithetic(sobol_normals(size, count // 2, rng)), self.dtype)

    def _draws(self, count: int) -> BaseDraws:
        blocks, members = self.settled.blocks, self.settled.members
        rng = np.random.default_rng([self.seed, 5])
        pairs = zip(blocks, members, strict=True)
        own = tuple(own_draws(block, q, rng) for block, q in pairs)
        statistics = sum(q.flatten(q.natural_params).size for q in members)
        # So many that regressions on all statistics, and on their products while those
        # are few, have two draws a coefficient; where there are no others, no matter.
        wanted = _power_of_two(2 * (1 + statistics + statistics**2 // 2))
        others = int(np.clip(wanted, _FEWEST_OTHERS, _MOST_OTHERS))
        if len(blocks) == 1 and not blocks[0].classes:
            others = 4
        return BaseDraws(self._matched(count, 1), self._matched(others, 2), own)

    def _first_count(self) -> int:
        """Draws of the free blocks' objective to begin with."""
        members = [self.settled.members[i] for i in self.plan.free]
        free = sum(q.flatten(q.natural_params).size for q in members)
        return int(np.clip(_power_of_two(16 * max(free, 1)), _FEWEST, _MOST))

    # -- sweeps ----------------------------------------------------------------------

    def _choose_start(self) -> None:
        """Of several random starts of the discrete sites, the one whose ELBO is the
        highest after a few sweeps."""
        draws, best, highest = self._draws(self._first_count()), self.state, -np.inf
        for number in range(_RESTARTS):
            members = self.beginning.at_random(self.settled, number)
            begun = start(self.plan, members, self.most)
            tried = self._advance(begun, draws, _RESTART_SWEEPS)
            elbo = float(tried.trace[int(tried.sweeps) - 1, 0])
            if elbo > highest:
                best, highest = tried, elbo
        self.state = best

    def _fit(self) -> str:
        """Sweeps until they have converged; the reason of the end."""
        while True:
            draws = self._draws(self.spent.draws)
            self._until_rest(draws)
            state = self.state
            if not np.isfinite(self._elbo()):
                return _NOT_FINITE
            unseen = self._check()
            near = float(state.length) <= 10 * self.plan.tolerance
            rest = bool(at_rest(state, self.plan)) or (bool(stuck(state)) and near)
            error = entropy_error(self.target, self.plan, state.members, draws.free)
            gap = self._elbo() + float(error) - float(unseen.elbo)
            agree = abs(gap) < self.settings.gap_tolerance + float(unseen.error)
            self.spent.gap = gap
            if rest and (agree or not self.plan.free):
                return loop.STOP_REASONS[loop.CONVERGED]
            if int(state.sweeps) >= self.most:
                return loop.STOP_REASONS[loop.ITERATIONS_EXHAUSTED]
            if self.spent.draws >= _MOST or not self.plan.free:
                status = loop.DRAWS_EXHAUSTED if rest else loop.STUCK
                return loop.STOP_REASONS[status]
            self.spent.draws *= 2
            assert state.descent is not None
            unknown = jnp.full_like(state.length, jnp.inf)
            self.state = replace(state, descent=again(state.descent), length=unknown)

    def _elbo(self) -> float:
        """Of the last sweep, on its own draws."""
        return float(self.state.trace[max(int(self.state.sweeps) - 1, 0), 0])

    def _check(self) -> Unseen:
        self.spent.values += _CHECK_DRAWS
        members = self.state.members
        return check(self.target, self.plan, self.data, members, self.unseen_eps)

    def _advance(self, state: State, draws: BaseDraws, limit: int) -> State:
        """Sweeps, counted."""
        moved = advance(
            self.target, self.plan, self.data, state, draws, jnp.asarray(limit)
        )
        sweeps = int(moved.sweeps) - int(state.sweeps)
        trials = int(moved.trials) - int(state.trials)
        self.spent.gradients += trials * len(draws.free)
        pairs = zip(self.plan.blocks, self.plan.conjugate, draws.own, strict=True)
        for block, exact, own in pairs:
            others = sweeps * len(draws.conjugate)
            if block.classes:
                self.spent.values += others * block.count * block.classes
            elif exact:
                self.spent.gradients += others * len(own)
        return moved

    def _until_rest(self, draws: BaseDraws) -> None:
        stride = 1
        while not self._over():
            limit = min(int(self.state.sweeps) + stride, self.most)
            self.saver.save_if_due(self.state)
            limit = min(limit, int(self.state.sweeps) + self.saver.every)
            self.state = self._advance(self.state, draws, limit)
            sweeps = int(self.state.sweeps)
            self.spent.of_sweeps += [self.spent.draws] * (
                sweeps - len(self.spent.of_sweeps)
            )
            self.bar.update(
                iteration=sweeps,
                elbo=self._elbo(),
                fisher_length=float(self.state.length),
                step=1.0,
                draws=len(draws.free),
            )
            stride = min(2 * stride, 32)
        self.saver.save(self.state)

    def _over(self) -> bool:
        """With these draws there is nothing more to do."""
        rest = bool(at_rest(self.state, self.plan)) or bool(stuck(self.state))
        return rest or int(self.state.sweeps) >= self.most

    def _record(self, unseen: Unseen, stop: str) -> FitRecord:
        state, sweeps = self.state, int(self.state.sweeps)
        trace = np.asarray(state.trace[:sweeps])
        descent = state.descent
        counts = [*self.spent.of_sweeps, *[0] * sweeps][:sweeps]
        diagnostics = Diagnostics(
            elbo=float(unseen.elbo),
            iterations=sweeps,
            gradient_evaluations=self.spent.gradients,
            value_evaluations=self.spent.values,
            rejected_steps=0 if descent is None else int(descent.rejected),
            draws=counts[-1] if counts else 0,
            seconds_compiling=0.0,
            seconds_running=0.0,
            fisher_length=float(state.length),
            gap=self.spent.gap,
            khat=float("nan"),
            converged=stop == loop.STOP_REASONS[loop.CONVERGED],
            stop_reason=stop,
            covariance=MEAN_FIELD,
            dimension=self.target.dim,
            seed=self.seed,
        )
        history = {
            "iteration": np.arange(1, sweeps + 1),
            "elbo": trace[:, 0],
            "fisher_length": trace[:, 1],
            "step": np.ones(sweeps),
            "draws": np.array(counts),
        }
        return FitRecord(diagnostics, history, np.zeros(self.target.dim), "")


def _power_of_two(number: float) -> int:
    """The next one."""
    return 1 << max(int(np.ceil(number)) - 1, 0).bit_length()
