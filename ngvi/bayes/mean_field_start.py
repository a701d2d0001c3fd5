"""Where a mean field starts: families of its blocks, which are conjugate, members."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.blocks import (
    DISCRETE,
    Block,
    Blocks,
    base_sizes,
    independent,
    start_member,
)
from ngvi.bayes.conditionals import own_points, residuals
from ngvi.bayes.model_trace import Trace
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import Independent
from ngvi.bayes.programs import compiled_advance, compiled_begin
from ngvi.bayes.site_families import MEAN_FIELD, Options, natural_pair, options
from ngvi.bayes.target import Data
from ngvi.bayes.traced import traced
from ngvi.families import Bernoulli, Categorical, Gaussian
from ngvi.mirror import loop
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.frames import Members

# Draws of the other sites at which conjugacy is tried stay near the middle: an exact
# combination is one everywhere, and far out numbers overflow.
_TEST_DRAWS, _TEST_SPREAD = 32, 0.3
_START_DRAWS = 512
_ROUGH_STEPS = 200


class Left(NamedTuple):
    """What a family's statistics leave of the gradients, over draws of the others."""

    most: float
    mean: float


@dataclass(frozen=True)
class Settled:
    """Blocks with the members a fit starts from."""

    blocks: Blocks
    conjugate: tuple[bool, ...]
    members: Members


def own_draws(block: Block, q: Any, rng: np.random.Generator) -> Float[Array, "p m b"]:
    """Base draws of the points at which a continuous block is measured."""
    if block.classes:
        return jnp.zeros((0, block.count, 0), q.dtype)
    size = q.flatten(q.natural_params).shape[-1]
    shape = (own_points(block, size), block.count, q.base_size)
    # Evenly spread: two of few random draws could all but coincide.
    eps = rng.permutation(sobol_normals(q.base_size, shape[0] * block.count, rng))
    return jnp.asarray(eps.reshape(shape), q.dtype)


class Beginning:
    """The choice of blocks for one model with its data.

    Args:
        target: the model, discrete sites kept.
        data: its arrays.
        point: where it starts, unconstrained.
        trace: its recorded run.
        family: what the user says of families, see `ngvi.bayes.site_families.options`.
        settings: tolerances and limits.
        seed: of all draws.

    Raises:
        ValueError: what `options` raises, or a block that is to be conjugate is not.
    """

    def __init__(
        self,
        target: ModelTarget,
        data: Data,
        point: Float[Array, "d"],
        trace: Trace,
        family: Any,
        settings: loop.Settings,
        seed: int,
    ) -> None:
        self.target, self.data, self.point = target, data, point
        self.settings, self.seed = settings, seed
        self.options = options(target, trace, family)
        self.pair = natural_pair(target, trace) if family == MEAN_FIELD else None
        self.gradients = 0
        """Gradients of the density taken so far."""

    def settle(self) -> Settled:
        """Choose each block's family, find the conjugate ones, and where to start."""
        rng = np.random.default_rng([self.seed, 1])
        self.first = first = tuple(option.candidates[0] for option in self.options)
        members = tuple(self._around(block, rng) for block in first)
        if self.pair is not None:
            q = start_member(self.pair, self.point)
            left = self._left(first, members, (self.pair,), (q,))
            if left[self.pair].most < self._exact:
                return Settled((self.pair,), (True,), (q,))
        self.tried = tried = tuple(
            block
            for option in self.options
            for block in option.candidates
            if block.family not in DISCRETE
        )
        candidates = tuple(start_member(block, self.point) for block in tried)
        left = self._left(first, members, tried, candidates)
        starts = dict(zip(tried, candidates, strict=True))
        starts |= {b: q for b, q in zip(first, members, strict=True) if b.classes}
        left |= {block: Left(0.0, 0.0) for block in first if block.classes}
        blocks, conjugate = [], []
        for option in self.options:
            best = min(option.candidates, key=lambda block: left[block].most)
            exact = left[best].most < self._exact
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

    def _refuse(self, option: Options, left: dict[Block, Left]) -> None:
        families = " or ".join(b.family.__name__ for b in option.candidates)
        share = min(left[block].most for block in option.candidates)
        raise ValueError(
            f"The site '{option.sites[0]}' is not conjugate: given the other sites its "
            f"log density is not that of {families} (their statistics leave "
            f'{share:.2g} of its gradient). Leave it to family="mean-field", or name '
            "another block."
        )

    @property
    def _exact(self) -> float:
        """The share of the gradients that rounding may leave."""
        return 3 * float(jnp.finfo(self.point.dtype).eps) ** 0.5

    def _around(self, block: Block, rng: np.random.Generator) -> Any:
        """Where a block starts; of classes at random, since all alike is a saddle."""
        q = start_member(block, self.point)
        if isinstance(q, Bernoulli | Categorical):
            noise = rng.standard_normal(np.shape(q.logits))
            return replace(q, logits=jnp.asarray(noise, q.dtype))
        return q

    def at_random(self, settled: Settled, number: int) -> Members:
        """The same start, its discrete blocks at random once more."""
        rng = np.random.default_rng([self.seed, 7, number])
        pairs = zip(settled.blocks, settled.members, strict=True)
        return tuple(self._around(b, rng) if b.classes else q for b, q in pairs)

    def _left(
        self,
        blocks: Blocks,
        members: Members,
        tried: Blocks,
        candidates: Members,
        spread: float = _TEST_SPREAD,
    ) -> dict[Block, Left]:
        """Of each candidate, what its statistics leave of the gradients."""
        if not tried:
            return {}
        rng = np.random.default_rng([self.seed, 2])
        size = sum(base_sizes(blocks, members))
        eps = spread * rng.standard_normal((_TEST_DRAWS, size))
        pairs = zip(tried, candidates, strict=True)
        owns = tuple(own_draws(block, q, rng) for block, q in pairs)
        numbers = range(len(tried))
        # Factorisations of several blocks at once wait for each other in XLA's threads.
        apart = traced(self.target, self.data).factorises
        found: list[Any] = []
        for group in [[i] for i in numbers] if apart else [numbers]:
            found += jax.block_until_ready(
                residuals(
                    self.target,
                    blocks,
                    tuple(tried[i] for i in group),
                    self.data,
                    members,
                    tuple(candidates[i] for i in group),
                    jnp.asarray(eps, self.point.dtype),
                    tuple(owns[i] for i in group),
                )
            )
        self.gradients += _TEST_DRAWS * sum(len(own) for own in owns)
        shares = [np.nan_to_num(x, nan=np.inf) for x in found]
        lefts = [Left(float(x.max()), float(x.mean())) for x in shares]
        return dict(zip(tried, lefts, strict=True))

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
        state = compiled_advance(*fixed, state, draws, _ROUGH_STEPS)
        self.gradients += int(state.gradients)
        mean, sd = state.q.mean, jnp.sqrt(state.q.variance)
        if not bool(jnp.isfinite(state.objective)):
            return settled
        rng = np.random.default_rng([self.seed, 3])
        half = antithetic(sobol_normals(self.target.dim, _START_DRAWS // 2, rng))
        z = mean + sd * jnp.asarray(half, mean.dtype)

        def fitted(block: Block) -> Any:
            if block.family is Gaussian:
                return independent(block.take(mean), block.take(sd))
            like = start_member(block, mean)
            return like.fit(block.constrain(block.take(z)))

        of = {block: fitted(block) for block in self.tried}
        blocks = list(settled.blocks)
        undecided = [
            number
            for number, option in enumerate(self.options)
            if len(option.candidates) > 1 and not settled.conjugate[number]
        ]
        if undecided:
            # The same program as at the start.
            members = tuple(of[block] for block in self.first)
            candidates = tuple(of.values())
            left = self._left(self.first, members, self.tried, candidates, spread=1.0)
            for number in undecided:
                choices = self.options[number].candidates
                blocks[number] = min(choices, key=lambda block: left[block].mean)
        members = tuple(of[block] for block in blocks)
        return Settled(tuple(blocks), settled.conjugate, members)
