"""What a fit does differently for each shape of covariance: a plan.

A plan is static (hashable, equal for equal shapes), so that it keys the compiled
programs together with the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.linalg import (
    BlockArrow,
    Chain,
    ChainArrow,
    Dense,
    Diagonal,
    LearnedLowRank,
    PositiveDefinite,
    Tree,
)
from ngvi.mirror import loop
from ngvi.mirror.coloured import find_sparse_start, second_order_inside
from ngvi.mirror.draws import Ladder, ladder
from ngvi.mirror.estimates import Estimator, FirstOrder, Potential
from ngvi.mirror.secants import find_low_rank_start, from_secants, secants
from ngvi.mirror.start import Start, find_start

# A full covariance costs D² numbers and D³ operations a step; so do a start from the
# Hessian and a mean that steps with full curvature.
LARGEST_FULL = 1000

SMALLEST_RANK, LARGEST_RANK = 8, 256
"""Of the ranks tried where none is given."""

# Numbers in all base draws of a fit, and in those it is checked with.
_LADDER_NUMBERS = 2**25
_CHECK_NUMBERS = 2**25
# Observations and parameters of all draws that are evaluated in one go: beyond what a
# processor's cache holds, one draw after the other is the faster.
_NUMBERS_AT_ONCE = 2**17
# The same for a model that goes through its steps one by one.
_STEPS_AT_ONCE = 2**24
# Of a low-rank fit's first level, whose secants tell the diagonal.
_SECANT_DRAWS = 64
# The natural gradient tells a gap more sharply than values do, and single sds are known
# only so well as what is left is small.
_SHARPER = 0.25
# Numbers in all base draws of a chain, each with a Hessian.
_CHAIN_NUMBERS = 2**24


class Plan(Protocol):
    """One shape of covariance."""

    @property
    def covariance(self) -> str:
        """Its name: "full", "diagonal", "structured" or "low-rank"."""
        ...

    def draws(self, seed: int, dtype: Any) -> Ladder:
        """The base draws of a fit: a function of the dimension and one integer."""
        ...

    def settings(self, settings: loop.Settings) -> loop.Settings:
        """The settings as they are to be understood in so many dimensions."""
        ...

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        """A descent from `point`, or `point` itself, and a precision there."""
        ...

    def estimator(self) -> Estimator:
        """Of the natural gradient; `FirstOrder` where data may come in batches."""
        ...


@dataclass(frozen=True)
class Full:
    """Every correlation: D numbers and D(D + 1)/2 more."""

    dim: int
    covariance = "full"

    def draws(self, seed: int, dtype: Any) -> Ladder:
        return _exact_draws(self.dim, seed, dtype)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        return settings

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        return find_start(potential, point)

    def estimator(self) -> FirstOrder:
        return FirstOrder()


@dataclass(frozen=True)
class Independent:
    """No correlation: a mean and a variance for every coordinate."""

    dim: int
    covariance = "diagonal"

    def draws(self, seed: int, dtype: Any) -> Ladder:
        if self.dim <= LARGEST_FULL:
            return _exact_draws(self.dim, seed, dtype)
        return ladder(self.dim, 64, 5, 1024, seed, dtype)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        return settings

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        if self.dim <= LARGEST_FULL:
            start = find_start(potential, point)
            full: Any = start.precision
            deviations = jnp.sqrt((full.inverse_root**2).sum(-1))
            return start._replace(precision=Diagonal(1 / deviations))
        value, gradient = jax.value_and_grad(potential)(point)
        return Start(
            point,
            Diagonal(jnp.full(self.dim, 10.0, point.dtype)),
            jnp.ones((), int),
            value,
            jnp.isfinite(value) & jnp.isfinite(gradient).all(),
        )

    def estimator(self) -> FirstOrder:
        return FirstOrder(full_curvature=self.dim <= LARGEST_FULL)


@dataclass(frozen=True)
class Structured:
    """The correlations that a tree of plates leaves; everything linear in its blocks.

    Draws need only match what the precision sees, so their number goes with the
    coordinates in a chain of blocks. What finite draws leave adds up over blocks, and
    so do the tolerances, see `settings`.
    """

    tree: Tree
    observations: int

    covariance = "structured"

    @property
    def dim(self) -> int:
        return self.tree.dim

    @property
    def _at_once(self) -> int:
        return max(_NUMBERS_AT_ONCE // (self.dim + self.observations), 1)

    def draws(self, seed: int, dtype: Any) -> Ladder:
        depth = self.tree.depth
        # Far from the optimum few draws do; each level starts where the last one ended.
        first = max(16, 2 * (depth + 2))
        largest = min(max(64 * depth, 2048), _LADDER_NUMBERS // self.dim)
        levels = 1 + int(np.floor(np.log2(max(largest / first, 1))))
        check = first * int(np.clip(_CHECK_NUMBERS // self.dim // first, 1, 16))
        identity = BlockArrow.identity(self.tree, jnp.result_type(float))
        return ladder(self.dim, first, levels, check, seed, dtype, identity)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        settings = _extensive(settings, self.dim)
        return replace(
            settings,
            unseen="estimate",
            gap_tolerance=_SHARPER * settings.gap_tolerance,
            at_once=self._at_once,
        )

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        return find_sparse_start(potential, point, self.tree)

    def estimator(self) -> FirstOrder:
        return FirstOrder(at_once=self._at_once)


@dataclass(frozen=True)
class Chained:
    """The correlations that a chain of steps leaves; everything linear in the steps.

    Draws do not match q there, and steps are Newton's, from the mean Hessian: it is
    local, so few draws do, and there is no objective that few draws could over-fit.
    """

    chain: Chain
    observations: int
    sequential: bool = False
    """The model goes through its steps one by one: draws side by side cost little."""

    covariance = "structured"

    @property
    def dim(self) -> int:
        return self.chain.dim

    @property
    def _at_once(self) -> int:
        numbers = self.chain.colours * (self.dim + self.observations)
        return max(
            (_STEPS_AT_ONCE if self.sequential else _NUMBERS_AT_ONCE) // numbers, 1
        )

    def draws(self, seed: int, dtype: Any) -> Ladder:
        # Those of a block are matched to two others and the border.
        meeting = 3 * self.chain.size + self.chain.rest
        first = max(32, 3 * meeting)
        largest = min(max(64 * meeting, 1024), _CHAIN_NUMBERS // self.dim)
        levels = 1 + int(np.floor(np.log2(max(largest / first, 1))))
        return ladder(self.dim, first, levels, first, seed, dtype)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        # A product with a Hessian counts as two.
        each = 1 + 2 * self.chain.colours
        settings = _extensive(settings, self.dim)
        return replace(
            settings, from_hessians=True, unseen="estimate", gradients_a_draw=each
        )

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        return find_sparse_start(potential, point, self.chain)

    def estimator(self) -> Estimator:
        return second_order_inside(self.chain, at_once=self._at_once)


@dataclass(frozen=True)
class LowRank:
    """A few directions in which coordinates are correlated, whichever they are.

    Steps are towards the curvature that secants measure, as those of a chain are
    towards the mean Hessian.
    """

    dim: int
    rank: int
    growing: bool = False
    """The rank doubles while that gains."""

    covariance = "low-rank"

    def draws(self, seed: int, dtype: Any) -> Ladder:
        return ladder(self.dim, _SECANT_DRAWS, 5, 256, seed, dtype)

    def settings(self, settings: loop.Settings) -> loop.Settings:
        return replace(
            _extensive(settings, self.dim),
            from_hessians=True,
            unseen="estimate",
            gradients_a_draw=1 + -(-secants(self.rank) // _SECANT_DRAWS),
            memory=0,
        )

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        return find_low_rank_start(potential, point, self.rank)

    def estimator(self) -> Estimator:
        return from_secants

    @property
    def wider(self) -> LowRank | None:
        """With twice the rank, if that may be tried."""
        twice = min(2 * self.rank, self.dim, LARGEST_RANK)
        if not self.growing or twice == self.rank:
            return None
        return replace(self, rank=twice)


def _extensive(settings: loop.Settings, dim: int) -> loop.Settings:
    """Tolerances for what adds up over blocks, in nats: a gap for each hundred
    coordinates; half the squared Fisher length for each hundred on the way, and for
    each thousand at rest."""
    hundreds = max(dim / 100, 1.0)
    return replace(
        settings,
        tolerance=settings.tolerance * max(dim / 1000, 1.0) ** 0.5,
        loose_tolerance=settings.loose_tolerance * hundreds**0.5,
        gap_tolerance=settings.gap_tolerance * hundreds,
    )


def plan_of(precision: PositiveDefinite, observations: int) -> Plan:
    """The plan of fits with precisions like this one."""
    if isinstance(precision, Dense):
        return Full(precision.dim)
    if isinstance(precision, Diagonal):
        return Independent(precision.dim)
    if isinstance(precision, BlockArrow):
        return Structured(precision.tree, observations)
    if isinstance(precision, ChainArrow):
        return Chained(precision.chain, observations)
    if isinstance(precision, LearnedLowRank):
        return LowRank(precision.dim, precision.rank)
    raise TypeError(f"No fit has a precision that is {type(precision).__name__}.")


def _exact_draws(dim: int, seed: int, dtype: Any) -> Ladder:
    """2D + 2 antithetic draws integrate every quadratic exactly."""
    batch = 2 * (dim + 1)
    levels = 1 + int(np.ceil(np.log2(max(64 * dim, 1024) / batch)))
    check = max(1024, 2 ** int(np.ceil(np.log2(4 * dim))))
    return ladder(dim, batch, levels, check, seed, dtype)
