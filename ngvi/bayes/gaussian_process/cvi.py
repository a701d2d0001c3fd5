"""Conjugate-computation variational inference for latent Gaussian models.

f = A u + rest, u ~ N(0, I), y_i ~ p(y | f_i). The likelihood of each datum is stood for
by a site exp(λ̃₁ f + λ̃₂ f²), and the sites move by

    λ̃ ← (1 − ρ) λ̃ + ρ ∇_μ E_q[log p(y_i | f_i)],

which is `mirror_step` on q(u), whose natural parameters are those of the prior and of
all sites: with g₁, g₂ of `expectations`,

    ∇_μ E_q[ℓ] = (−Aᵀ g₁,  ½ I − Aᵀ diag(g₂) A).

For a Gaussian likelihood the step ρ = 1 is Bayes' rule: exact, and with inducing points
the optimum of the collapsed bound. With a minibatch the sums are scaled by N/B.

Where log p is not concave (Student's t), g₂ may be positive and a site's precision
negative. No step is taken that leaves S no precision: the whole S⁺ = (1 − ρ) S + ρ (…)
is positive for ρ small enough, as S is. The same rule holds the bound: a step that
would lower it is refused and ρ halved, one that does not is taken and doubles ρ, up to
1. The fixed point is that of the plain iteration.

Source: Khan and Lin (2017), Conjugate-computation variational inference; Chang,
Wilkinson, Khan and Solin (2020), Fast variational learning in state-space Gaussian
process models, for the sites.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.bayes.gaussian_process.expectations import Expected, Values, expected
from ngvi.bayes.gaussian_process.prior import Marginals, Rows, divergence, marginals
from ngvi.families import Gaussian
from ngvi.fisher.likelihoods import Elementwise
from ngvi.mirror import mirror_step

SHORTEST = 2.0**-20
"""Where even so short a step is refused, rounding is all that is left."""


class Look(NamedTuple):
    """All that is known about a q(u)."""

    q: Gaussian
    f: Marginals
    sites: Expected
    elbo: Float[Array, ""]


class Fit(NamedTuple):
    """A q(u), and how it came about."""

    look: Look
    iterations: Int[Array, ""]
    rejected: Int[Array, ""]
    change: Float[Array, ""]
    """Of the last step, over ρ: the largest of a marginal mean in its sd and of a log
    variance."""
    step_size: Float[Array, ""]

    @property
    def q(self) -> Gaussian:
        return self.look.q

    @property
    def elbo(self) -> Float[Array, ""]:
        return self.look.elbo


def look_at(
    q: Gaussian,
    rows: Rows,
    likelihood: Elementwise,
    y: Values,
    scale: float | Float[Array, ""] = 1.0,
) -> Look:
    """The bound, scale · Σ E_q[log p(y_i | f_i)] − KL, and what it consists of."""
    f = marginals(q, rows)
    sites = expected(likelihood, y, f)
    return Look(q, f, sites, scale * sites.value.sum() - divergence(q))


def natural_step(
    look: Look,
    rows: Rows,
    step_size: float | Float[Array, ""],
    scale: float | Float[Array, ""] = 1.0,
) -> Gaussian:
    """q(u) after one step ρ; its precision has NaN roots where it would be none.

    Args:
        look: at the q(u) it starts from.
        rows: of the data.
        step_size: ρ.
        scale: N/B of a minibatch.
    """
    weights = rows.weights
    first = -scale * (look.sites.first @ weights)
    second = weights.T @ (scale * look.sites.second[:, None] * weights)
    half = jnp.eye(len(second), dtype=second.dtype) / 2
    return mirror_step(look.q, (first, half - second), step_size)


def fit(
    q: Gaussian,
    rows: Rows,
    likelihood: Elementwise,
    y: Values,
    tol: float | Float[Array, ""],
    most: int | Int[Array, ""],
) -> Fit:
    """Iterate steps that do not lower the bound.

    Args:
        q: to start from.
        rows: of the data.
        likelihood: of each datum.
        y: the data.
        tol: stop when a step changes no marginal by more.
        most: iterations, at most.
    """
    eps = jnp.finfo(y.dtype).eps

    def keep_on(state: Fit) -> Bool[Array, ""]:
        moving = (state.change > tol) & (state.step_size > SHORTEST)
        return (state.iterations < most) & moving

    def again(state: Fit) -> Fit:
        now, rho = state.look, state.step_size
        tried = look_at(natural_step(now, rows, rho), rows, likelihood, y)
        slack = 10 * eps * (jnp.abs(now.elbo) + len(y))
        good = tried.elbo >= now.elbo - slack  # false for NaN
        change = _change(now.f, tried.f) / rho
        return Fit(
            jax.tree.map(lambda a, b: jnp.where(good, a, b), tried, now),
            state.iterations + 1,
            state.rejected + ~good,
            jnp.where(good, change, state.change),
            jnp.where(good, jnp.minimum(2 * rho, 1), rho / 2),
        )

    start = look_at(q, rows, likelihood, y)
    zero, far = jnp.asarray(0), jnp.asarray(jnp.inf, y.dtype)
    one = jnp.ones((), y.dtype)
    return jax.lax.while_loop(keep_on, again, Fit(start, zero, zero, far, one))


def _change(old: Marginals, new: Marginals) -> Float[Array, ""]:
    mean = jnp.abs(new.mean - old.mean) / jnp.sqrt(old.variance)
    spread = jnp.abs(jnp.log(new.variance / old.variance))
    return jnp.maximum(mean, spread).max()
