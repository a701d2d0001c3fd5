"""A low-rank-plus-diagonal matrix that is learned from products with a curvature.

Of all P = diag(D) + U Uᵀ with U of shape (d, r), the precision of the Gaussian nearest
to N(0, H⁻¹) minimises

    KL(N(0, P⁻¹) ‖ N(0, H⁻¹)) = ½ [log det P + tr(P⁻¹ H)] + constant,

which is maximum likelihood in factor analysis, with H for the sample covariance. Two
equations hold at the optimum:

    U = D^½ V (Θ − I)₊^½,   Θ, V the r leading eigenpairs of D^{-½} H D^{-½},
    diag(P) = diag(H).

With the best U for each D the divergence is, up to a constant, half of

    f(D) = log det D + Σᵢ Hᵢᵢ/Dᵢ + Σⱼ (log θⱼ + 1 − θⱼ),   ∂f/∂log Dᵢ = (Pᵢᵢ − Hᵢᵢ)/Dᵢ,

with the leading θⱼ > 1. Descent on it in log D is safe; setting Dᵢ to what solves the
second equation is not: where r is too small, it collapses to single coordinates.

So of H the diagonal is needed, and leading eigenvectors. The latter come from products
Y = H X with few vectors: those that are known to lead, and random ones,

    X = [D⁻¹ U, D^{-½} Ω],   H ≈ Y (XᵀY)⁻¹ Yᵀ    (Nyström).

From step to step that is subspace iteration; what is missing shows in the random ones.
P is of no use for it where r is small: what is known of H is kept beside it, with a few
more columns.

Source: Jöreskog (1967), Some contributions to maximum likelihood factor analysis;
Halko, Martinsson and Tropp (2011), Finding structure with randomness, section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import Retracted
from ngvi.linalg.low_rank import LowRankPlusDiagonal
from ngvi.pytrees import pytree

# Of a descent that goes on where the last step's ended.
_SWEEPS = 8
_SMALLEST_PART = 0.01
"""Of a diagonal entry, what is at least left to D."""
_BEYOND, _RANDOM = 8, 4
"""Columns that are known beside those of P, and random ones."""


def count_probes(rank: int) -> int:
    """k, of a matrix of this rank."""
    return rank + _BEYOND + _RANDOM


class Measured(NamedTuple):
    """What is measured of a symmetric matrix; linear in it."""

    products: Float[Array, "d k"]
    """With the probes of a `LearnedLowRank`."""
    diagonal: Float[Array, "d"]


@pytree
class LearnedLowRank(LowRankPlusDiagonal):
    """diag(D) + U Uᵀ of rank r, and what is known of the curvature that it is to be.

    Its tangents are matrices T, `Measured`: with C the best estimate of P + T, a step
    of length ρ goes to the P⁺ nearest to (1 − ρ) P + ρ C. Made by `from_factor`;
    without leading axes.

    Args:
        known: C of the last step, of a higher rank than P.
    """

    known: LowRankPlusDiagonal

    @classmethod
    def from_factor(
        cls, diagonal: Float[Array, "d"], factor: Float[Array, "d r"]
    ) -> Self:
        """diag(D) + U Uᵀ; zeros in U are room for more."""
        more = jnp.zeros((len(diagonal), _BEYOND), diagonal.dtype)
        wide = jnp.concatenate([factor, more], 1)
        return cls._of(
            diagonal, factor, LowRankPlusDiagonal.from_factor(diagonal, wide)
        )

    @classmethod
    def _of(cls, diagonal: Array, factor: Array, known: LowRankPlusDiagonal) -> Self:
        p = LowRankPlusDiagonal.from_factor(diagonal, factor)
        return cls(p.root_diagonal, p.whitened, p.basis, p.triangle, known)

    @property
    def rank(self) -> int:
        """r."""
        return self.whitened.shape[-1]

    def with_rank(self, rank: int) -> Self:
        """The same matrix, with room for more columns."""
        more = ((0, 0), (0, rank - self.rank))
        factor = jnp.pad(_factor(self), more)
        known = jnp.pad(_factor(self.known), more)
        of_known = LowRankPlusDiagonal.from_factor(self.known.root_diagonal**2, known)
        return self._of(self.root_diagonal**2, factor, of_known)

    def probes(self) -> Float[Array, "d k"]:
        """X, of unit length in P; zero where nothing is known yet."""
        shape = self.dim, _RANDOM
        omega = jax.random.normal(jax.random.key(0), shape, self.whitened.dtype)
        x = jnp.concatenate([self.known.whitened, omega], 1)
        x = x / self.known.root_diagonal[:, None]
        squares = (x.T * self.mv(x.T)).sum(-1)
        return x * jnp.where(squares > 0, jax.lax.rsqrt(squares), 0.0)

    # -- arithmetic --------------------------------------------------------------------

    def scale(self, c: float | Float[Array, ""]) -> Self:
        factor = jnp.sqrt(c) * _factor(self)
        return self._of(c * self.root_diagonal**2, factor, self.known.scale(c))

    def damp(self, damping: float | Float[Array, ""]) -> Self:
        diagonal = self.root_diagonal**2 + damping
        return self._of(diagonal, _factor(self), self.known.damp(damping))

    # -- the tangent space -------------------------------------------------------------

    def tangent_identity(self) -> Measured:
        """Of P: in the frame it is the identity."""
        return Measured(self.mv(self.probes().T).T, self.diagonal())

    def _learned(self, direction: Measured) -> LowRankPlusDiagonal:
        """C, the best estimate of P + T."""
        matrix = jax.tree.map(jnp.add, self.tangent_identity(), direction)
        curve = _nystrom(self.probes(), matrix.products)
        # Of a matrix that is not positive, what a positive one could have.
        entries = jnp.maximum(matrix.diagonal, _SMALLEST_PART * self.diagonal())
        begun, rank = self.known.root_diagonal**2, self.known.whitened.shape[1]
        return LowRankPlusDiagonal.from_factor(*_nearest(curve, entries, rank, begun))

    def _towards(self, c: LowRankPlusDiagonal, rho: float | Array) -> Self:
        """The P⁺ nearest to (1 − ρ) P + ρ C, of those whose U is in the span of theirs:
        without the rest the divergence is larger by a thousandth or so."""
        both = jnp.sqrt(1 - rho) * _factor(self), jnp.sqrt(rho) * _factor(c)
        factor = jnp.concatenate(both, 1)
        own = self.root_diagonal**2
        diagonal = (1 - rho) * own + rho * c.root_diagonal**2
        entries = diagonal + (factor**2).sum(1)
        x = factor / diagonal[:, None]
        curve = _nystrom(x, factor + factor @ (factor.T @ x))
        return self._of(*_nearest(curve, entries, self.rank, own), c)

    def tangent_inner(self, x: Measured, y: Measured) -> Float[Array, ""]:
        """tr(P⁻¹ Δ P⁻¹ Δ′) of the steps Δ, Δ′ that the tangents lead to."""
        one = self._towards(self._learned(x), 1.0)
        other = one if y is x else self._towards(self._learned(y), 1.0)
        return _inner(self, one, other)

    def along(
        self, direction: Measured
    ) -> Callable[[Float[Array, ""], Callable[[Array], Array]], Retracted]:
        """(ρ, R) ↦ P⁺, whatever R; P itself at ρ = 0. What solves is C: where H is much
        larger than P⁺ can be, it alone makes a step of the mean short enough."""
        c = self._learned(direction)

        def solve(v: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
            return self.whiten(c.solve(self.mv(self.unwhiten(v))))

        def retract(rho: Array, _: Callable[[Array], Array]) -> Retracted:
            moved = self._towards(c, rho)
            matrix = jax.tree.map(lambda a, b: jnp.where(rho == 0, a, b), self, moved)
            return Retracted(
                matrix=matrix,
                solve=solve,
                trace_inverse=self.relative_trace(matrix),
                logdet=matrix.logdet() - self.logdet(),
                log=direction,
            )

        return retract


def _factor(p: LowRankPlusDiagonal) -> Float[Array, "d _"]:
    """U."""
    return p.root_diagonal[:, None] * p.whitened


def _nystrom(x: Float[Array, "d k"], y: Float[Array, "d k"]) -> Float[Array, "d k"]:
    """F with F Fᵀ = Y (XᵀY)⁻¹ Yᵀ, of the part of XᵀY that is positive."""
    small = x.T @ y
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    smallest = 10 * jnp.finfo(x.dtype).eps * len(values) * jnp.abs(values).max()
    positive = values > smallest
    scales = jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, values, 1.0)), 0.0)
    return y @ (vectors * scales)


class _Look(NamedTuple):
    """f at one D."""

    diagonal: Float[Array, "d"]
    factor: Float[Array, "d r"]
    """The best U."""
    value: Float[Array, ""]
    slope: Float[Array, "d"]
    """∂f/∂log D."""


def _nearest(
    curve: Float[Array, "d k"],
    entries: Float[Array, "d"],
    rank: int,
    begun: Float[Array, "d"],
) -> tuple[Float[Array, "d"], Float[Array, "d r"]]:
    """D and U of the P nearest to a matrix H.

    Args:
        curve: F, where F Fᵀ has the leading eigenvectors of H.
        entries: diag(H).
        rank: r.
        begun: D where the descent begins.
    """
    least = _SMALLEST_PART * entries

    def look(diagonal: Array) -> _Look:
        scaled = curve / jnp.sqrt(diagonal)[:, None]
        values, vectors = jnp.linalg.eigh(scaled.T @ scaled)
        theta = jnp.maximum(values[::-1][:rank], 1.0)
        # F w of a unit eigenvector w has the squared length θ.
        shares = jnp.sqrt((theta - 1) / theta)
        factor = curve @ (vectors[:, ::-1][:, :rank] * shares)
        gain = (theta - 1 - jnp.log(theta)).sum()
        value = (jnp.log(diagonal) + entries / diagonal).sum() - gain
        slope = 1 + ((factor**2).sum(1) - entries) / diagonal
        return _Look(diagonal, factor, value, slope)

    def sweep(_: int, at: tuple[_Look, Array]) -> tuple[_Look, Array]:
        here, length = at
        change = jnp.clip(-length * here.slope, -1.0, 1.0)
        there = look(jnp.maximum(here.diagonal * jnp.exp(change), least))
        lower = there.value <= here.value
        best = jax.tree.map(lambda a, b: jnp.where(lower, a, b), there, here)
        return best, length * jnp.where(lower, 1.5, 0.3)

    start = look(jnp.maximum(begun, least)), jnp.ones((), curve.dtype)
    found, _ = jax.lax.fori_loop(0, _SWEEPS, sweep, start)
    return found.diagonal, found.factor


def _inner(
    p: LowRankPlusDiagonal, one: LowRankPlusDiagonal, other: LowRankPlusDiagonal
) -> Float[Array, ""]:
    """tr(P⁻¹ (P₁ − P) P⁻¹ (P₂ − P)), from P⁻¹ = D⁻¹ − K Kᵀ."""
    root = p.root_diagonal
    kernel = p.basis / root[:, None]
    variances = p.inverse_diagonal()

    def parts(q: LowRankPlusDiagonal) -> tuple[Array, Array, Array]:
        """Of Δ = diag(δ) + W diag(s) Wᵀ: δ, W and s."""
        wide = jnp.concatenate([_factor(q), _factor(p)], 1)
        signs = jnp.concatenate(
            [jnp.ones(q.whitened.shape[1]), -jnp.ones(kernel.shape[1])]
        )
        return q.root_diagonal**2 - root**2, wide, signs.astype(root.dtype)

    (a, w, s), (b, v, t) = parts(one), parts(other)
    solved_w, solved_v = p.solve(w.T).T, p.solve(v.T).T
    middle_a, middle_b = (kernel.T * a) @ kernel, (kernel.T * b) @ kernel
    # P⁻¹ᵢⱼ² is (K Kᵀ)ᵢⱼ² but on the diagonal.
    squares = variances**2 - (kernel**2).sum(1) ** 2
    diagonals = (a * b * squares).sum() + (middle_a * middle_b).sum()
    crossed = (b[:, None] * solved_w**2 * s).sum() + (
        a[:, None] * solved_v**2 * t
    ).sum()
    both = w.T @ solved_v
    return diagonals + crossed + (s[:, None] * both**2 * t).sum()
