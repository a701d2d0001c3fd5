"""The softmax function and its kin, kept to their digits up to its corners.

For logits l of K classes, p = softmax(l):

    log_sum_exp(l)         log Σ exp lᵢ
    log_softmax(l)         log p
    softmax(l)             p
    softmax_entropy(l)     −Σ pᵢ log pᵢ
    softmax_kl(l, m)       Σ pᵢ log(pᵢ / softmax(m)ᵢ)

Near a corner, where one class k has all but r of the probability, 1 − p_k = r is what
carries the information. So logarithms are log1p of a sum over the other classes, and
changes of logits are taken relative to that of class k.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.special.ratios import expm1_minus_series

Logits = Float[Array, "*s k"]
Values = Float[Array, "*s"]


def _below_top(logits: Logits, axis: int = -1) -> tuple[Logits, Values]:
    """The logits less the largest, and Σ over the other classes of exp of these."""
    below = logits - logits.max(axis, keepdims=True)
    others = below < 0
    ties = (~others).sum(axis).astype(below.dtype) - 1
    return below, jnp.where(others, jnp.exp(below), 0).sum(axis) + ties


def _weights(logits: Logits) -> Logits:
    """exp(l) relative to the largest one."""
    return jnp.exp(logits - logits.max(-1, keepdims=True))


def _less_mean(logits: Logits, p: Logits, change: Logits) -> Logits:
    """x − Σ pᵢ xᵢ."""
    likeliest = jnp.arange(p.shape[-1]) == jnp.argmax(logits, -1, keepdims=True)
    change = change - jnp.where(likeliest, change, 0).sum(-1, keepdims=True)
    return change - (p * change).sum(-1, keepdims=True)


@jax.custom_jvp
def log_sum_exp(logits: Logits) -> Values:
    """log Σ exp lᵢ."""
    _, rest = _below_top(logits)
    return logits.max(-1) + jnp.log1p(rest)


@log_sum_exp.defjvp
def _log_sum_exp_jvp(primals: tuple, tangents: tuple) -> tuple[Values, Values]:
    (logits,), (change,) = primals, tangents
    return log_sum_exp(logits), (softmax(logits) * change).sum(-1)


@jax.custom_jvp
def log_softmax(logits: Logits) -> Logits:
    """l − log Σ exp lᵢ."""
    below, rest = _below_top(logits)
    return below - jnp.log1p(rest)[..., None]


@log_softmax.defjvp
def _log_softmax_jvp(primals: tuple, tangents: tuple) -> tuple[Logits, Logits]:
    (logits,), (change,) = primals, tangents
    return log_softmax(logits), _less_mean(logits, softmax(logits), change)


@jax.custom_jvp
def softmax(logits: Logits) -> Logits:
    """exp lᵢ / Σ exp lⱼ."""
    weights = _weights(logits)
    return weights / weights.sum(-1, keepdims=True)


@softmax.defjvp
def _softmax_jvp(primals: tuple, tangents: tuple) -> tuple[Logits, Logits]:
    (logits,), (change,) = primals, tangents
    p = softmax(logits)
    return p, p * _less_mean(logits, p, change)


@jax.custom_jvp
def softmax_entropy(logits: Logits) -> Values:
    """−Σ pᵢ log pᵢ ≥ 0."""
    below, rest = _below_top(jnp.moveaxis(logits, -1, 0), 0)
    return jnp.log1p(rest) - (jnp.exp(below) * below).sum(0) / (1 + rest)


@softmax_entropy.defjvp
def _softmax_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[Values, Values]:
    (logits,), (change,) = primals, tangents
    p = softmax(logits)
    below = logits - logits.max(-1, keepdims=True)
    slope = p * ((p * below).sum(-1, keepdims=True) - below)
    return softmax_entropy(logits), (slope * change).sum(-1)


@jax.custom_jvp
def softmax_kl(logits: Logits, others: Logits) -> Values:
    """KL(softmax of the first ‖ softmax of the second)."""
    return _divergence(logits, others).value


@softmax_kl.defjvp
def _softmax_kl_jvp(primals: tuple, tangents: tuple) -> tuple[Values, Values]:
    d = _divergence(*primals)
    slope = -d.p * (d.gap + d.value[..., None])
    return d.value, (slope * tangents[0]).sum(-1) + (d.moved * tangents[1]).sum(-1)


class _Divergence(NamedTuple):
    value: Values
    p: Logits  # softmax of the first logits
    gap: Logits  # log q − log p
    moved: Logits  # q − p


def _divergence(logits: Logits, others: Logits) -> _Divergence:
    """Σ p G(log q − log p), G(g) = eᵍ − 1 − g: a sum of positive terms.

    It is stationary in a common error of all log q, so the rounding of their
    normalisation does not count. That is relative to the likeliest class under p,
    unless q makes it so rare that it might overflow.
    """
    # Sums over a leading axis are vectorised.
    logits, others = jnp.moveaxis(logits, -1, 0), jnp.moveaxis(others, -1, 0)
    top = logits.max(0)
    at_top = jnp.where(logits == top, others, -jnp.inf).max(0)
    lead = others.max(0) - at_top
    shift = at_top + jnp.where(lead > 30, lead, 0)
    weights = jnp.exp(logits - top)
    total = weights.sum(0)
    scaled = jnp.exp(others - shift)
    grown = (scaled - weights).sum(0) / total
    p, q = weights / total, scaled / (total * (1 + grown))
    gap = ((others - logits) - (shift - top)) - jnp.log1p(grown)
    near = jnp.abs(gap) < 1
    excess = expm1_minus_series(gap)
    moved = jnp.where(near, p * (gap + excess), q - p)
    terms = jnp.where(near, p * excess, (q - p) - p * gap)
    return _Divergence(terms.sum(0), *(jnp.moveaxis(x, 0, -1) for x in (p, gap, moved)))
