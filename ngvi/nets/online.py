"""Bayes' rule, batch after batch: the posterior of earlier rows is the prior of later.

    p(w | D₁, D₂) ∝ p(D₂ | w) p(w | D₁)

With q₁ = N(m₁, S₁⁻¹) in place of p(w | D₁), the b rows of a batch add a site of their
own; it is the mirror step of length 1 on a distribution whose prior is q₁,

    S⁺ = S₁ + (b/κ) ĥ,     m⁺ = m − (1/t) S⁺⁻¹ ((b/κ) ĝ + S₁ (m − m₁)),   from m = m₁,

for t = 1 … T, with ĝ at draws of the q before and ĥ the mean of those so far. Where the
model is linear it has the exact posterior at t = 1, however the rows are cut into
batches. Every row counts once: N grows by b, and S = (N/κ) s + δ has for s⁺ the average
of s₁ and ĥ with the weights N₁ and b. So S keeps its structure; Kronecker factors are
averaged each by itself, which is an approximation.

Source: Jones, Chang and Murphy (2024), Bayesian online natural gradient (BONG).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import count
from ngvi.mirror.site import natural_mean_step
from ngvi.nets.measures import Site
from ngvi.nets.state import Info, Phase, State
from ngvi.nets.update import Rule, mean_loss


@partial(jax.jit, static_argnames=("rule", "repeats"))
def absorb(
    rule: Rule,
    state: State,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    *,
    repeats: int = 4,
) -> tuple[State, Info]:
    """The posterior of what it was of, and of this batch.

    Args:
        rule: its measure, draws, trust region and retraction; its rates are not used.
        state: q₁; after training, or before any.
        x, y: b new rows.
        key: of all that is drawn.
        repeats: T.
    """
    rows = count(x)
    # S₁ may be older than its site.
    old = rule.precision(state.site, state.prior, state.scale)
    state = replace(state, precision=old)
    n = state.data_size + rows
    size = jnp.asarray(rows / state.data_size * state.scale, state.scale.dtype)
    first = replace(state, data_size=n, scale=state.scale + size)

    def once(
        carry: tuple[State, Site], at_step: tuple[Array, Key[Array, ""]]
    ) -> tuple[tuple[State, Site], Float[Array, ""]]:
        (at, curvature), (t, key) = carry, at_step
        of_weights, of_labels = jax.random.split(key)
        ws = at.mean + rule.away(at, of_weights)
        found = rule.measured(Phase.RENEW, at, ws, x, y, of_labels)
        loss = mean_loss(at.likelihood, found.outputs, y)
        curvature = rule.measure.average(curvature, found.curvature, 1 / t)
        site = rule.joined_site(state, curvature, rows / n, first.scale)
        site = rule.measure.refresh(site)
        precision = rule.precision(site, state.prior, first.scale)
        pull = state.precision.mv(at.mean - state.mean)
        force = size * found.gradient + pull
        mean = natural_mean_step(at.mean, force, precision, 1 / t, rule.trust)
        moved = replace(first, site=site, precision=precision, mean=mean)
        if state.noise is not None:
            noise = state.noise.absorb(found.outputs, y)
            moved = replace(moved, noise=noise, likelihood=noise.likelihood)
        return (moved, curvature), loss

    # At t = 1 nothing is left of the curvature that the average begins with.
    times = jnp.arange(1, repeats + 1, dtype=state.mean.dtype)
    steps = times, jax.random.split(key, repeats)
    (after, _), losses = jax.lax.scan(once, (first, state.site), steps)
    return after, Info(losses[0])
