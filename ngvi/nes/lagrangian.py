"""Constraints, by an augmented Lagrangian whose coefficients follow the search.

With c(x) ≤ 0, or c(x) = 0 for an equality, what is minimised and ranked is

    L(x) = f(x) + Σ_k φ_k(c_k(x)),
    φ_k(c) = γ_k c + ½ ω_k c²   if c ≥ −γ_k/ω_k or for an equality,  else −½ γ_k²/ω_k.

Once the γ_k are the Lagrange multipliers, L has the constrained optimum as its free
one, whatever ω_k; it is smooth there, and the search learns its shape as that of any
other function. After each generation, from its draws alone,

    γ_k ← γ_k + ω_k max(c̄_k, −γ_k/ω_k) / d,        c̄_k = Σᵢ wᵢ c_k(xᵢ),
    ω_k → 5 s / ((D/μ + √D + a) s_k²),

where wᵢ are CMA-ES's weights by rank and 1/μ = Σ wᵢ², so that c̄_k is a linear c_k at
the new mean; s and s_k are the spreads of L and c_k in the generation, from quartile to
quartile, and a constraints are active. Near an optimum s is about D/μ + √D times the
curvature of L in the frame of the distribution, and s_k the slope of c_k there: the
penalty bends L across the border as strongly as it is bent elsewhere, and the penalties
together do not drive s up. No unit of f, of c_k or of x matters.

The better of two points violates less, beyond the tolerance; within it, it has the
smaller f + 2 Σ |γ_k| v_k with the violations v_k. By f alone the best point would lie
at the far edge of what is tolerated.

Source: Atamna, Auger and Hansen (2017), Linearly convergent evolution strategies via
augmented Lagrangian constraint handling; Dufossé and Hansen (2021), Augmented
Lagrangian, penalty techniques and surrogate modeling for constrained optimization with
CMA-ES. Theirs are L and the multipliers. The rule for the penalties is ours, and c̄
stands for c at the mean, which would cost an evaluation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ngvi.nes.shaping import Ranking, rank, recombination_weights, weigh
from ngvi.nes.stopping import Stopping
from ngvi.pytrees import pytree

_DAMPING = 5.0
"""d."""
_SHARE = 5.0
"""Below 4 a linear f between linear constraints is lost, beyond 7 ω can run away."""
_RATE = 0.2
"""Of the way that log ω goes in a generation."""
_FASTEST = 2.0
"""The largest factor on ω in a generation."""


@pytree
class Lagrangian:
    """The coefficients, and what the constraints are at two points.

    Values come in rows: f, then the constraints, m + 1 numbers.
    """

    equality: Bool[Array, "m"]
    tolerance: Float[Array, ""]
    """Of each constraint."""
    multiplier: Float[Array, "m"]
    """γ."""
    penalty: Float[Array, "m"]
    """ω; 0 until the constraint has been seen to vary."""
    best: Float[Array, "c"]
    """At the best point."""
    first: Float[Array, "c"]
    """At the point that ranked first in the last generation."""
    median: Float[Array, ""]
    """f at the point that ranked in its middle."""

    @classmethod
    def start(cls, equality: np.ndarray, tolerance: float, dtype: Any) -> Self:
        """Before the first generation.

        Args:
            equality: which of the constraints are equalities.
            tolerance: of a violation.
            dtype: of the points.
        """
        zeros = jnp.zeros(equality.size, dtype)
        unknown = jnp.full(equality.size + 1, jnp.inf, dtype)
        return cls(
            equality=jnp.asarray(equality, bool),
            tolerance=jnp.asarray(tolerance, dtype),
            multiplier=zeros,
            penalty=zeros,
            best=unknown,
            first=unknown,
            median=unknown[0],
        )

    @property
    def violation(self) -> Float[Array, ""]:
        """The largest at the best point."""
        return self.violations(self.best).max()

    @property
    def feasible(self) -> Bool[Array, ""]:
        """Whether the best point is, within the tolerance."""
        return self.violation <= self.tolerance

    def violations(self, rows: Float[Array, "*n c"]) -> Float[Array, "*n m"]:
        """By how much each constraint is violated."""
        c = rows[..., 1:]
        return jnp.where(self.equality, jnp.abs(c), jnp.maximum(c, 0))

    @property
    def best_value(self) -> Float[Array, ""]:
        """f at the best point if it is feasible, else +∞."""
        return jnp.where(self.feasible, self.best[0], jnp.inf)

    def values(self, rows: Float[Array, "n c"]) -> Float[Array, "n"]:
        """L."""
        c = self.felt(rows[:, 1:])
        return rows[:, 0] + (self.multiplier * c + self.penalty * c**2 / 2).sum(1)

    def felt(self, c: Float[Array, "*n m"]) -> Float[Array, "*n m"]:
        """max(c, −γ/ω), and equalities: as much of c as changes L."""
        reach = self.multiplier / _nonzero(self.penalty)
        return jnp.where(self.equality, c, jnp.maximum(c, -reach))

    def choose(self, rows: Float[Array, "n c"]) -> Int[Array, ""]:
        """Which row is best, 0 if none is better than the best point's."""
        rows = jnp.concatenate([self.best[None], rows])
        violations = self.violations(rows)
        largest = jnp.maximum(violations.max(1), self.tolerance)
        merit = rows[:, 0] + 2 * (jnp.abs(self.multiplier) * violations).sum(1)
        least = jnp.nanmin(largest)
        merit = jnp.where((largest <= least) & ~jnp.isnan(merit), merit, jnp.inf)
        return merit.argmin()


class Judged(NamedTuple):
    """What a generation is under constraints."""

    ranking: Ranking
    """By L."""
    lagrangian: Lagrangian
    best: Int[Array, ""]
    """Which draw is the new best point, counted from 1; 0 for none."""
    failed: Int[Array, ""]
    lacking: Float[Array, "2"]
    """The largest violations of the points that ranked first and in the middle."""
    far: Bool[Array, ""]
    """Whether the first one is ten spreads away from what a constraint allows."""

    def limits(self, stopping: Stopping) -> Stopping:
        """The limits of the stop tests, which see values of L.

        L is flat near its optimum while f still changes across an active constraint: as
        long as that is not met, from either side, values that differ at all are not
        equal. L changes with its coefficients: only the violations can stagnate, where
        nothing feasible is near. No infeasible point is a target.
        """
        new = self.lagrangian
        settled = jnp.abs(new.felt(new.first[1:])).max() <= new.tolerance
        return replace(
            stopping,
            ftarget=jnp.where(new.feasible, stopping.ftarget, -jnp.inf),
            tolfun=jnp.where(settled, stopping.tolfun, 0.0),
            tolfunhist=jnp.where(settled, stopping.tolfunhist, 0.0),
            stagnation=jnp.where(self.far, stopping.stagnation, 0.0),
        )


def judge(lagrangian: Lagrangian, rows: Float[Array, "n c"], dim: int) -> Judged:
    """Rank a generation, and follow it with the coefficients.

    Args:
        lagrangian: before the generation.
        rows: f and the constraints at each draw. A row with anything in it that is not
            finite is a failed evaluation and ranks last.
        dim: D.
    """
    count = len(rows)
    good = jnp.isfinite(rows).all(1)
    rows = jnp.where(good[:, None], rows, jnp.nan)
    by_rank = recombination_weights(count)
    axes = float(dim * (by_rank**2).sum() + np.sqrt(dim))
    slope = _spread(rows[:, 1:])

    def balanced(spread: Float[Array, ""], active: Any) -> Float[Array, "m"]:
        bent = jnp.asarray(axes + active, rows.dtype)
        return jnp.where(slope > 0, _SHARE * spread / (bent * _nonzero(slope) ** 2), 0)

    # A constant objective gives penalties no unit: any will do.
    first = balanced(_nonzero(_spread(rows[:, 0])), 0)
    penalty = jnp.where(lagrangian.penalty > 0, lagrangian.penalty, first)
    old = replace(lagrangian, penalty=penalty)
    values = old.values(rows)
    ranking = rank(values)

    weights = weigh(ranking, jnp.asarray(by_rank, rows.dtype)) * good
    c = weights @ jnp.where(good[:, None], rows[:, 1:], 0)
    c = c / _nonzero(weights.sum())
    multiplier = old.multiplier + penalty * old.felt(c) / _DAMPING
    active = old.equality | (c > 0) | (penalty * c > -old.multiplier)
    wanted = balanced(_spread(values), active.sum())
    factor = jnp.where(wanted > 0, wanted, penalty) / _nonzero(penalty)
    factor = jnp.clip(factor**_RATE, 1 / _FASTEST, _FASTEST)
    new = replace(old, multiplier=multiplier, penalty=penalty * factor)

    best = new.choose(rows)
    at = ranking.place[jnp.asarray([0, count // 2])]
    new = replace(
        new,
        best=jnp.where(best > 0, rows[best - 1], new.best),
        first=rows[at[0]],
        median=rows[at[1], 0],
    )
    lacking = jnp.where(good[at, None], old.violations(rows[at]), jnp.inf)
    far = (lacking[0] > 10 * slope).any()
    return Judged(ranking, new, best, (~good).sum(), lacking.max(1), far)


def _spread(values: Float[Array, "n *m"]) -> Float[Array, "*m"]:
    """From quartile to quartile, of those that are numbers; 0 if there are none."""
    low, high = jnp.nanquantile(values, jnp.asarray([0.25, 0.75]), axis=0)
    return jnp.nan_to_num(high - low)


def _nonzero(x: Array) -> Array:
    """x to divide by: 1 in place of 0."""
    return jnp.where(x == 0, 1, x)
