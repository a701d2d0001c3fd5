"""`ngvi.fit(model, family="mean-field")`: a family for each site on its own support.

1. Each site, or block of joined sites, has candidates (`ngvi.bayes.site_families`).
   Where log p as a function of the site is a combination of a candidate's statistics
   whatever the others are, the block is conjugate (`ngvi.bayes.conditionals`).
2. If all are, sweeps of closed-form updates are the whole fit: exact after the first
   for one block, and for several the fixed point of coordinate ascent.
3. Else a quick fit of a diagonal Gaussian on the unconstrained space tells where the
   posterior is: the members start at the maximum likelihood of its draws, and of two
   families that fit a support the closer one is taken.
4. Sweeps (`ngvi.bayes.sweeps`) until their Fisher length vanishes; draws double while
   unseen ones disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.blocks import DISCRETE, Block, Blocks, base_sizes, start_member
from ngvi.bayes.conditionals import own_points, residuals
from ngvi.bayes.diagnostics import INTERRUPTED, Diagnostics
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import Independent
from ngvi.bayes.product_approximation import ProductApproximation
from ngvi.bayes.programs import compiled_advance, compiled_begin
from ngvi.bayes.record import FitRecord
from ngvi.bayes.site_families import Options, natural_pair, options
from ngvi.bayes.sweeps import BaseDraws, State, Sweeping, advance, check, start, stuck
from ngvi.bayes.target import Data
from ngvi.families import Bernoulli, Categorical, Gaussian
from ngvi.linalg import Dense
from ngvi.mirror import loop
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.frames import Members
from ngvi.terminal.progress import Progress

MEAN_FIELD = "mean-field"
_TEST_DRAWS = 8
# Draws of the other sites at which conjugacy is tried stay near the middle: an exact
# combination is one everywhere, and far out numbers overflow.
_TEST_SPREAD = 0.3
_START_DRAWS = 512
_FEWEST, _MOST = 256, 4096
_CHECK_DRAWS = 1024
_NUMBERS_AT_ONCE = 2**17
_NOT_FINITE = "the log density is not finite at draws around the start"


@dataclass(frozen=True)
class Settled:
    """Blocks with the members a fit starts from."""

    blocks: Blocks
    conjugate: tuple[bool, ...]
    members: Members


class MeanField:
    """A fit of independent blocks to one model with its data.

    Args:
        target: the model, discrete sites kept.
        data: its arrays.
        point: where it starts, unconstrained.
        trace: its recorded run.
        family: what the user says of families, see `ngvi.bayes.site_families.options`.
        settings: tolerances and limits.
        seed: of all draws.
        bar: shows progress.

    Raises:
        ValueError: what `options` raises, or a block that is to be conjugate is not.
    """

    def __init__(
        self,
        target: ModelTarget,
        data: Data,
        point: Float[Array, "d"],
        trace: dict[str, Any],
        family: Any,
        settings: loop.Settings,
        seed: int,
        bar: Progress,
    ) -> None:
        self.target, self.data, self.point = target, data, point
        self.settings, self.seed, self.bar = settings, seed, bar
        self.options = options(target, trace, family)
        self.pair = natural_pair(target, trace) if family == MEAN_FIELD else None
        observed = sum(
            np.size(s["value"])
            for s in trace.values()
            if s["type"] == "sample" and s["is_observed"]
        )
        self.at_once = max(_NUMBERS_AT_ONCE // (target.dim + observed), 1)
        self.gradients = 0
        self.values = 0

    # -- what the blocks are -------------------------------------------------------

    def settle(self) -> Settled:
        """Choose each block's family, find the conjugate ones, and where to start."""
        rng = np.random.default_rng([self.seed, 1])
        first = tuple(option.candidates[0] for option in self.options)
        members = tuple(self._around(block, rng) for block in first)
        if self.pair is not None:
            q = start_member(self.pair, self.point)
            if self._left(first, members, (self.pair,), (q,))[0] < self._exact:
                return Settled((self.pair,), (True,), (q,))
        tried = tuple(
            block
            for option in self.options
            for block in option.candidates
            if block.family not in DISCRETE
        )
        candidates = tuple(start_member(block, self.point) for block in tried)
        left = dict(
            zip(tried, self._left(first, members, tried, candidates), strict=True)
        )
        starts = dict(zip(tried, candidates, strict=True))
        starts |= {b: q for b, q in zip(first, members, strict=True) if b.classes}
        left |= {block: 0.0 for block in first if block.classes}
        blocks, conjugate = [], []
        for option in self.options:
            best = min(option.candidates, key=lambda block: left[block])
            exact = left[best] < self._exact
            if option.must_be_conjugate and not exact:
                self._refuse(option, left)
            blocks.append(best)
            conjugate.append(exact)
        settled = Settled(
            tuple(blocks), tuple(conjugate), tuple(starts[b] for b in blocks)
        )
        if all(conjugate) or self.target.whole:
            return settled
        return self._from_gaussian(settled)

    def _refuse(self, option: Options, left: dict[Block, float]) -> None:
        families = " or ".join(b.family.__name__ for b in option.candidates)
        share = min(left[block] for block in option.candidates)
        raise ValueError(
            f"The site '{option.sites[0]}' is not conjugate: given the other sites its "
            f"log density is not that of {families} (their statistics leave "
            f"{share:.2g} of its gradient). Leave it to family=\"mean-field\", or name "
            "another block."
        )

    @property
    def _exact(self) -> float:
        """The share of the gradients that rounding may leave."""
        return 30 * float(jnp.finfo(self.point.dtype).eps) ** 0.5 / (
            10 if self.point.dtype == jnp.float64 else 1
        )

    def _around(self, block: Block, rng: np.random.Generator) -> Any:
        """Where a block starts; of classes at random, since all alike is a saddle."""
        q = start_member(block, self.point)
        if isinstance(q, Bernoulli | Categorical):
            noise = rng.standard_normal(np.shape(q.logits))
            return replace(q, logits=jnp.asarray(noise, q.dtype))
        return q

    def _left(
        self,
        blocks: Blocks,
        members: Members,
        tried: Blocks,
        candidates: Members,
        draws: int = _TEST_DRAWS,
        spread: float = _TEST_SPREAD,
    ) -> list[float]:
        """Of each candidate, what its statistics leave of the gradients."""
        if not tried:
            return []
        rng = np.random.default_rng([self.seed, 2])
        size = sum(base_sizes(blocks, members))
        eps = spread * rng.standard_normal((draws, size))
        owns = tuple(self._own(b, q, rng) for b, q in zip(tried, candidates, strict=True))
        found = residuals(
            self.target,
            blocks,
            tried,
            self.data,
            members,
            candidates,
            jnp.asarray(eps, self.point.dtype),
            owns,
        )
        self.gradients += draws * sum(len(own) for own in owns)
        return [float(np.nan_to_num(x, nan=np.inf)) for x in found]

    def _own(self, block: Block, q: Any, rng: np.random.Generator) -> Array:
        if block.classes:
            return jnp.zeros((0, block.count, 0), self.point.dtype)
        size = q.flatten(q.natural_params).shape[-1]
        shape = (own_points(block, size), block.count, q.base_size)
        # Away from 0, where two of few draws could all but coincide.
        eps = rng.permuted(sobol_normals(q.base_size, shape[0] * block.count, rng))
        return jnp.asarray(eps.reshape(shape), self.point.dtype)

    def _from_gaussian(self, settled: Settled) -> Settled:
        """The same blocks where a diagonal Gaussian finds the posterior, and of two
        families the closer one there."""
        plan = Independent(self.target.dim)
        rough = replace(
            plan.settings(self.settings),
            tolerance=self.settings.loose_tolerance,
            gap_tolerance=float("inf"),
        )
        draws = plan.draws(self.seed, self.point.dtype)
        fixed = self.target, plan, rough, self.data
        state = compiled_begin(*fixed, self.point, draws).state
        state = compiled_advance(*fixed, state, draws, 200)
        self.gradients += int(state.gradients)
        mean, sd = state.q.mean, jnp.sqrt(state.q.variance)
        if not bool(jnp.isfinite(state.objective)):
            return settled
        rng = np.random.default_rng([self.seed, 3])
        half = antithetic(sobol_normals(self.target.dim, _START_DRAWS // 2, rng))
        z = mean + sd * jnp.asarray(half, mean.dtype)

        def fitted(block: Block) -> Any:
            if block.family is Gaussian:
                scale = block.take(sd)
                eye = jnp.eye(scale.shape[-1], dtype=scale.dtype)
                roots = eye / scale[..., None], eye * scale[..., None]
                return Gaussian(block.take(mean), Dense(*roots))
            like = start_member(block, mean)
            return like.fit(block.constrain(block.take(z)))

        members = tuple(fitted(block) for block in settled.blocks)
        open_ = [
            block
            for option, exact in zip(self.options, settled.conjugate, strict=True)
            for block in option.candidates
            if not exact and len(option.candidates) > 1
        ]
        tried = tuple(open_)
        candidates = tuple(fitted(block) for block in tried)
        left = dict(
            zip(
                tried,
                self._left(
                    settled.blocks, members, tried, candidates, draws=64, spread=1.0
                ),
                strict=True,
            )
        )
        of = dict(zip(tried, candidates, strict=True))
        blocks, found = list(settled.blocks), list(members)
        for number, option in enumerate(self.options):
            if option.candidates[0] in left:
                best = min(option.candidates, key=lambda block: left[block])
                blocks[number], found[number] = best, of[best]
        return Settled(tuple(blocks), settled.conjugate, tuple(found))

    # -- the fit -------------------------------------------------------------------

    def _draws(self, settled: Settled, count: int) -> BaseDraws:
        sizes = base_sizes(settled.blocks, settled.members)
        size, dtype = sum(sizes), self.point.dtype

        def matched(count: int, stream: int) -> Array:
            rng = np.random.default_rng([self.seed, 4, stream, count])
            half = sobol_normals(size, count // 2, rng)
            return jnp.asarray(antithetic(half), dtype)

        pairs = zip(settled.blocks, settled.members, strict=True)
        rng = np.random.default_rng([self.seed, 5])
        own = tuple(self._own(block, q, rng) for block, q in pairs)
        statistics = sum(
            q.flatten(q.natural_params).size for q in settled.members
        )
        alone = len(settled.blocks) == 1 and not settled.blocks[0].classes
        # So many that regressions on all statistics, and on their products while those
        # are few, have two draws a coefficient.
        wanted = 2 * (1 + statistics + statistics**2 // 2)
        few = 4 if alone else int(np.clip(2 ** np.ceil(np.log2(wanted)), 64, 512))
        return BaseDraws(matched(count, 0), matched(few, 1), own)

    def run(self) -> tuple[ProductApproximation, FitRecord]:
        """Fit, and how it went. Ctrl-C ends it at the best state so far.

        Raises:
            ValueError: what `settle` raises.
        """
        settled = self.settle()
        plan = Sweeping(
            settled.blocks,
            settled.conjugate,
            self.settings.tolerance / (5 if any(settled.conjugate) else 1),
            self.at_once,
        )
        most = min(self.settings.max_iterations, 1000)
        free = sum(
            q.flatten(q.natural_params).size
            for q, exact in zip(settled.members, settled.conjugate, strict=True)
            if not exact
        )
        count = int(np.clip(2 ** np.ceil(np.log2(16 * max(free, 1))), _FEWEST, _MOST))
        state = start(plan, settled.members, most)
        size = sum(base_sizes(settled.blocks, settled.members))
        rng = np.random.default_rng([self.seed, 6])
        half = sobol_normals(size, _CHECK_DRAWS // 2, rng)
        unseen_eps = jnp.asarray(antithetic(half), self.point.dtype)
        stop, converged = loop.STOP_REASONS[loop.ITERATIONS_EXHAUSTED], False
        gap, counts = float("nan"), []
        try:
            while True:
                state = self._until_rest(plan, state, self._draws(settled, count), most)
                counts += [count] * (int(state.sweeps) - len(counts))
                unseen = check(
                    self.target, plan, self.data, state.members, unseen_eps
                )
                self.values += _CHECK_DRAWS
                last = state.trace[max(int(state.sweeps) - 1, 0), 0]
                gap = float(last - unseen.elbo)
                rest = bool(state.length <= plan.tolerance)
                near = bool(state.length <= 10 * plan.tolerance) and bool(stuck(state))
                limit = self.settings.gap_tolerance + float(unseen.error)
                agree = abs(gap) < limit or not free
                if (rest or near) and agree:
                    stop, converged = loop.STOP_REASONS[loop.CONVERGED], True
                elif int(state.sweeps) >= most:
                    break
                elif not np.isfinite(float(last)):
                    stop = _NOT_FINITE
                elif count >= 4 * _MOST or not free:
                    exhausted = loop.DRAWS_EXHAUSTED if rest or near else loop.STUCK
                    stop = loop.STOP_REASONS[exhausted]
                else:
                    count *= 2
                    state = replace(
                        state,
                        descent=begin(tuple(state.members[i] for i in plan.free)),
                        length=jnp.full_like(state.length, jnp.inf),
                    )
                    continue
                break
        except KeyboardInterrupt:
            stop = INTERRUPTED
            unseen = check(self.target, plan, self.data, state.members, unseen_eps)
        errors = np.asarray(unseen.gradient, float) ** 2
        q = ProductApproximation(
            settled.blocks, state.members, self.target.dim, plan.free_blocks, errors
        )
        return q, self._record(state, counts, unseen, gap, stop, converged)

    def _until_rest(
        self, plan: Sweeping, state: State, draws: BaseDraws, most: int
    ) -> State:
        stride = 1
        while True:
            before = int(state.sweeps)
            limit = jnp.asarray(min(before + stride, most))
            trials = int(state.trials)
            state = advance(self.target, plan, self.data, state, draws, limit)
            self._count(plan, draws, int(state.sweeps) - before)
            self.gradients += (int(state.trials) - trials) * len(draws.free)
            elbo, length = np.asarray(state.trace[int(state.sweeps) - 1])
            self.bar.update(
                iteration=int(state.sweeps),
                elbo=float(elbo),
                fisher_length=float(length),
                step=1.0,
                draws=len(draws.free),
            )
            rest = bool(state.length <= plan.tolerance) or bool(stuck(state))
            if rest or int(state.sweeps) >= most or int(state.sweeps) < int(limit):
                return state
            stride = min(2 * stride, 32)

    def _count(self, plan: Sweeping, draws: BaseDraws, sweeps: int) -> None:
        others = len(draws.conjugate)
        pairs = zip(plan.blocks, plan.conjugate, draws.own, strict=True)
        for block, exact, own in pairs:
            if exact and block.classes:
                self.values += sweeps * others * block.count * block.classes
            elif exact:
                self.gradients += sweeps * others * len(own)

    def _record(
        self,
        state: State,
        counts: list[int],
        unseen: Any,
        gap: float,
        stop: str,
        converged: bool,
    ) -> FitRecord:
        sweeps = int(state.sweeps)
        trace = np.asarray(state.trace[:sweeps])
        rejected = 0 if state.descent is None else int(state.descent.rejected)
        diagnostics = Diagnostics(
            elbo=float(unseen.elbo),
            iterations=sweeps,
            gradient_evaluations=self.gradients,
            value_evaluations=self.values,
            rejected_steps=rejected,
            draws=counts[-1] if counts else 0,
            seconds_compiling=0.0,
            seconds_running=0.0,
            fisher_length=float(state.length),
            gap=gap,
            khat=float("nan"),
            converged=converged,
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
            "draws": np.array(counts[:sweeps] or [0] * sweeps),
        }
        return FitRecord(diagnostics, history, np.zeros(self.target.dim), "")


Timed = Callable[[], tuple[ProductApproximation, FitRecord]]
