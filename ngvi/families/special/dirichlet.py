"""The parameters of a Dirichlet family from its mean parameters, in O(K).

    inverse_dirichlet(m)           α with ψ(α_k) − ψ(α₀) = m_k, α₀ = Σ_k α_k
    dirichlet_fisher_remainder(α)  1 − ψ'(α₀) Σ_k 1/ψ'(α_k) > 0

over the last axis, of length K ≥ 2; m_k = E log x_k is valid when Σ_k exp m_k < 1. The
Jacobian is diag ψ'(α_k) − ψ'(α₀) 1 1ᵀ, so a Newton step is a division and two sums. The
remainder is its pivot: about (K − 1)/(2α₀) for large parameters, and lost by
subtraction; with e(a) = a ψ'(a) − 1, decreasing, it is a sum of positive terms,

    Σ_k (α_k/α₀) (e(α_k) − e(α₀)) / (1 + e(α_k)).

The iteration is Newton's, started at the limit of large parameters and moved along exp
of the relative step, which stays in α > 0; a row stops at its first step below √ε or
residual at rounding level. NaN where Σ_k exp m_k ≥ 1, which in float32 parameters
beyond 1e6 may round to.

Source: Minka, Estimating a Dirichlet distribution (2000).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ngvi.families.special.differences import digamma_difference, trigamma_difference
from ngvi.families.special.gamma import log_minus_digamma, trigamma, trigamma_excess
from ngvi.families.special.inverses import inverse_digamma

Vectors = Float[Array, "*b K"]
Scalars = Float[Array, "*b 1"]
_MAX_STEPS = 40  # random parameters of any size took at most 16


def dirichlet_fisher_remainder(alpha: Vectors) -> Float[Array, "*b"]:
    """1 − ψ'(α₀) Σ_k 1/ψ'(α_k) > 0: the Fisher determinant over Π_k ψ'(α_k)."""
    return _remainder(_parts(alpha))[..., 0]


class Split(NamedTuple):
    """A sum of positive numbers, its largest term apart."""

    largest: Bool[Array, "*b K"]  # marks one largest term
    top: Scalars  # that term
    rest: Scalars  # the sum of all others
    total: Scalars


def split(alpha: Vectors) -> Split:
    """α₀ and its parts."""
    largest = _largest(alpha)
    # One entry of those that tie, as in `rest`: the maximum's derivative is split.
    top = jnp.sum(jnp.where(largest, alpha, 0), -1, keepdims=True)
    rest = jnp.sum(jnp.where(largest, 0, alpha), -1, keepdims=True)
    return Split(largest, top, rest, top + rest)


class _Parts(NamedTuple):
    alpha: Vectors
    sum: Split
    excess: Vectors  # e(α_k)
    total_excess: Scalars


def _parts(alpha: Vectors) -> _Parts:
    parts = split(alpha)
    return _Parts(alpha, parts, trigamma_excess(alpha), trigamma_excess(parts.total))


def _largest(x: Vectors) -> Bool[Array, "*b K"]:
    return jnp.arange(x.shape[-1]) == jnp.argmax(x, -1, keepdims=True)


def _remainder(p: _Parts) -> Scalars:
    largest, top, rest, total = p.sum
    drop = p.excess - p.total_excess
    # Where one parameter is nearly the total, e(top) − e(top + rest) from differences.
    near = jnp.minimum(rest, 1)
    change = top * trigamma_difference(top, near) + near * trigamma(top + near)
    drop = jnp.where(largest & (rest < 1), -change, drop)
    return jnp.sum(p.alpha / total * drop / (1 + p.excess), -1, keepdims=True)


def _solve(p: _Parts, right: Vectors) -> Vectors:
    """(diag ψ'(α) − ψ'(α₀) 1 1ᵀ)⁻¹ right, by Sherman and Morrison."""
    weight = p.alpha / (1 + p.excess)  # 1/ψ'(α_k)
    pivot = p.sum.total / (1 + p.total_excess) * _remainder(p)  # remainder / ψ'(α₀)
    return weight * (right + jnp.sum(weight * right, -1, keepdims=True) / pivot)


def _residual(p: _Parts, mean_log: Vectors) -> Vectors:
    """m_k − (ψ(α_k) − ψ(α₀)), as a difference where one parameter is the total."""
    largest, top, rest, total = p.sum
    gap = log_minus_digamma(p.alpha) - log_minus_digamma(total)
    others = gap - jnp.log(p.alpha / total)
    return mean_log + jnp.where(largest, digamma_difference(top, rest), others)


class _State(NamedTuple):
    steps: Int[Array, ""]
    alpha: Vectors
    done: Bool[Array, "*b 1"]  # a step would not improve on rounding
    close: Bool[Array, "*b 1"]  # the residual is small


@jax.custom_jvp
@jax.jit
def inverse_dirichlet(mean_log: Vectors) -> Vectors:
    """α > 0 with ψ(α_k) − ψ(Σ_j α_j) = m_k; differentiable, each derivative in O(K)."""
    epsilon = float(jnp.finfo(mean_log.dtype).eps)
    largest = _largest(mean_log)
    top = jnp.max(mean_log, -1, keepdims=True)
    rest = jnp.where(largest, 0, jnp.exp(mean_log - top)).sum(-1, keepdims=True)
    # −log Σ exp m, which is (K − 1)/(2α₀) for large α₀.
    near_one = jnp.log1p(jnp.expm1(top) + jnp.exp(top) * rest)
    slack = -jnp.where(top > -1, near_one, top + jnp.log1p(rest))
    total = (mean_log.shape[-1] - 1) / 2 / jnp.maximum(slack, epsilon)
    start = inverse_digamma(mean_log + (jnp.log(total) - log_minus_digamma(total)))
    size = jnp.maximum(jnp.abs(mean_log), jnp.finfo(mean_log.dtype).tiny)

    def step(state: _State) -> _State:
        parts = _parts(state.alpha)
        residual = _residual(parts, mean_log)
        worst = jnp.max(jnp.abs(residual) / size, -1, keepdims=True)
        change = jnp.clip(_solve(parts, residual) / state.alpha, -3, 3)
        still = state.done | (worst <= 4 * epsilon) | jnp.isnan(change)
        alpha = jnp.where(still, state.alpha, state.alpha * jnp.exp(change))
        last = jnp.max(jnp.abs(change), -1, keepdims=True) < epsilon**0.5 / 4
        done = state.done | (worst <= 4 * epsilon) | last
        return _State(state.steps + 1, alpha, done, worst <= epsilon**0.5)

    valid = slack > 0
    found = lax.while_loop(
        lambda state: (state.steps < _MAX_STEPS) & ~jnp.all(state.done),
        step,
        _State(jnp.asarray(0), start, ~valid, valid),
    )
    return jnp.where(valid & found.close, found.alpha, jnp.nan)


@inverse_dirichlet.defjvp
def _(primals: tuple[Vectors], tangents: tuple[Vectors]) -> tuple[Vectors, Vectors]:
    alpha = inverse_dirichlet(*primals)
    return alpha, _solve(_parts(alpha), *tangents)
