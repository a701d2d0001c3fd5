"""Noisy natural gradients: the one update, on the weights of a net.

A Gaussian q(w) = N(m, S⁻¹) descends, for N examples of mean loss ℓ̄, a prior
N(0, diag(δ)⁻¹) and a weight κ of the KL divergence,

    N E_q[ℓ̄] + κ KL(q ‖ prior).

Its precision is that of the prior and of a *site*, S = (N/κ) s + δ. A step of
`ngvi.mirror.site` moves the site to a running average of the estimated curvature, and
the mean with the new S:

    s⁺ = (1 − ρ) s + ρ ĥ,     m⁺ = m − α S⁻¹ ((N/κ) ĝ + δ m).

At α = ρ it is `ngvi.mirror.mirror_step`; deep learning takes the two apart, averages
ĝ (momentum), and lets some weights wait for a new factorisation of S. Where ĥ may be
negative, S moves by a retraction of second order instead, which keeps it positive:

    S⁺ = S R(ρM),   M = S⁻¹ (N/κ)(ĥ − s),   R(x) = 1 + x + ½x².

Every published algorithm is a choice of these, see `ngvi.nets.rows`.

Source: Khan and Rue (2023), The Bayesian learning rule; Zhang, Sun, Duvenaud and Grosse
(2018), Noisy natural gradient as variational inference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import Batch
from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import Diagonal, PositiveDefinite, SemidefiniteDiagonal
from ngvi.linalg.batching import join, split
from ngvi.mirror.retractions import second_order
from ngvi.mirror.site import natural_mean_step, retracted_site
from ngvi.nets.draws import normals, signs
from ngvi.nets.gradient_measures import gradient_alone
from ngvi.nets.measures import Draw, Estimate, Site
from ngvi.nets.pieces import over_draws
from ngvi.nets.prior import Prior
from ngvi.nets.schedules import number_at
from ngvi.nets.settings import Settings
from ngvi.nets.state import Info, Phase, State


@dataclass(frozen=True)
class Rule(Settings):
    """How q moves: a row of the table but for the numbers of a problem.

    For its arguments see `ngvi.nets.settings.Settings`.
    """

    def away(self, state: State, key: Key[Array, ""]) -> Float[Array, "s p"]:
        """A ε of new draws: how far from m they are."""
        number = self.samples // 2 if self.antithetic else self.samples
        eps = normals(key, (number, state.net.dim), state.mean.dtype)
        if self.antithetic:
            eps = jnp.concatenate([eps, -eps])
        away = state.precision.unwhiten(eps)
        drawn = self.measure.random_part(state.net)
        if drawn is None:
            return away
        parts = enumerate(split(away, state.net.layout.sizes))
        return join([part if k == drawn else jnp.zeros_like(part) for k, part in parts])

    def nothing_kept(self, mean: Float[Array, "p"]) -> Float[Array, "s p"] | None:
        """What `State.away` begins as."""
        if self.fresh_every == 1:
            return None
        return jnp.zeros((self.samples, len(mean)), mean.dtype)

    def draws(
        self, state: State, key: Key[Array, ""]
    ) -> tuple[Float[Array, "s p"], Float[Array, "s p"] | None]:
        """Weights from q, of A ε anew or of the last one, and what is kept of it."""
        if state.away is None:
            return state.mean + self.away(state, key), None
        turn = state.steps % self.fresh_every
        away = jax.lax.cond(
            turn == 0, lambda: self.away(state, key), lambda: jnp.asarray(state.away)
        )
        turned = signs(turn, state.net.layout.sizes, away.dtype) * away
        return state.mean + turned, away

    def measured(
        self,
        phase: Phase,
        state: State,
        ws: Float[Array, "s p"],
        x: Any,
        y: Any,
        key: Key[Array, ""],
    ) -> Estimate:
        """The estimates at the draws: mean gradient and curvature, and all outputs."""

        def one(w: Float[Array, "p"], key: Key[Array, ""]) -> Estimate:
            draw = Draw(state.net, state.likelihood, w, state.mean, state.precision)
            if phase == Phase.PLAIN:
                return gradient_alone(draw, Batch(x, y), self.accumulate)
            batch = self.measure.batch(x, y, key)
            return self.measure.measure_in_parts(
                draw, batch, state.site, self.accumulate
            )

        if self.samples == 1:
            only = one(ws[0], key)
            outputs = jax.tree.map(lambda leaf: leaf[None], only.outputs)
            return only._replace(outputs=outputs)
        keys = jax.random.split(key, self.samples)
        gradients, curvatures, outputs = over_draws(one, ws, keys, self.mesh)
        curvature = None if curvatures is None else self.measure.mean(curvatures)
        return Estimate(gradients.mean(0), curvature, outputs)

    def moved_site(self, state: State, curvature: Site) -> Site:
        """s⁺."""
        rate: Any = self.precision_rate
        if self.corrected:
            rate = rate / correction(1 - rate, state.steps // self.measure_every + 1)
        if self.retraction == "first":
            return self.measure.average(state.site, curvature, rate)
        change = state.scale * (curvature.values - state.site.values)
        return self._retracted(state, rate * change, state.prior, state.scale)

    def joined_site(
        self, state: State, curvature: Site, share: Any, scale: Float[Array, ""]
    ) -> Site:
        """s⁺ of the data so far and of this share of new ones, at the new N/κ."""
        if self.retraction == "first":
            return self.measure.average(state.site, curvature, share)
        change = share * scale * curvature.values
        return self._retracted(state, change, state.prior, scale)

    def _retracted(
        self,
        state: State,
        change: Float[Array, "p"],
        prior: Prior,
        scale: Float[Array, ""],
    ) -> SemidefiniteDiagonal:
        """The site, beside this prior and at this N/κ, of S moved by about so much."""
        # Not of the S that draws are from, which may be older than the site.
        old: Any = self.precision(state.site, state.prior, state.scale)
        return retracted_site(old, change, prior.vector, scale, second_order)

    def precision(self, site: Site, prior: Prior, scale: Any) -> PositiveDefinite:
        """S = (N/κ) s + δ, factorised."""
        matrix = self.measure.curvature(site).scale(scale)
        return prior.add_to(matrix, self.factored)

    def renewed(self, state: State) -> State:
        """With S factorised anew, and what is learned from it."""
        prior = state.prior.learned(state.mean, state.precision)
        site = self.measure.refresh(state.site)
        if self.retraction == "second" and prior is not state.prior:
            # s may be negative: beside a smaller δ, S would be too.
            change = prior.vector - state.prior.vector
            site = self._retracted(state, change, prior, state.scale)
        precision = self.precision(site, prior, state.scale)
        return replace(state, site=site, prior=prior, precision=precision)

    def preconditioner(self, state: State) -> PositiveDefinite:
        """What the mean's step is divided by."""
        if self.root:
            measured = (state.steps - 1) // self.measure_every + 1
            corrected = state.site.values / correction(
                1 - self.precision_rate, measured
            )
            entries = state.scale * (jnp.sqrt(corrected) + self.damping)
            return Diagonal.from_entries(entries + state.prior.vector)
        if self.damping == 0:
            return state.precision
        more = state.scale * self.damping
        if self.factored:
            # The factors of a Kronecker product share the damping: they take it whole.
            matrix = self.measure.curvature(state.site).scale(state.scale)
            return state.prior.add_to(matrix, self.factored, more)
        damped: Any = state.precision
        return damped.damp(more)

    def moved_mean(
        self, state: State, gradient: Float[Array, "p"], ws: Float[Array, "s p"]
    ) -> State:
        """m⁺ and the momentum, once S⁺ and its step are in the state."""
        at = ws.mean(0) if self.prior_at_draw else state.mean
        of_prior = state.prior.gradient(at) / state.scale
        if self.prior_in_momentum:
            gradient = gradient + of_prior
        decay = self.momentum
        momentum = decay * state.momentum + (1 - decay) * gradient
        direction = momentum / correction(decay, state.steps)
        if not self.prior_in_momentum:
            direction = direction + of_prior
        alpha = number_at(self.learning_rate, state.steps - 1)
        alpha = jnp.asarray(alpha, state.mean.dtype)
        mean = natural_mean_step(
            state.mean,
            state.scale * direction,
            self.preconditioner(state),
            alpha,
            self.trust,
        )
        return replace(state, mean=mean, momentum=momentum)


@partial(jax.jit, static_argnums=(0, 5))
def step(
    rule: Rule,
    state: State,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    phase: Phase | None = None,
) -> tuple[State, Info]:
    """One step of a rule: the precision's site, then what depends on it, the mean.

    Args:
        rule: how.
        state: before.
        x, y: a batch, whose mean stands for that of all examples.
        key: of the weights and labels drawn.
        phase: what it does; by default the rule says so, by the number of steps taken.
    """
    if phase is None and not rule.always:
        renew, measure = (
            state.steps % every == 0 for every in (rule.refresh, rule.measure_every)
        )
        phases = [partial(step, rule, phase=phase) for phase in Phase]
        which = jnp.where(renew, Phase.RENEW, jnp.where(measure, Phase.MEASURE, 0))
        return jax.lax.switch(which, phases, state, x, y, key)
    phase = Phase.RENEW if phase is None else phase
    of_weights, of_labels = jax.random.split(key)
    ws, away = rule.draws(state, of_weights)
    state = replace(state, away=away)
    gradient, curvature, outputs = rule.measured(phase, state, ws, x, y, of_labels)
    loss = mean_loss(state.likelihood, outputs, y)
    if phase >= Phase.MEASURE:
        state = replace(state, site=rule.moved_site(state, curvature))
    if phase == Phase.RENEW:
        state = rule.renewed(state)
    state = replace(state, steps=state.steps + 1)
    if state.noise is not None:
        rate = rule.precision_rate if rule.noise_rate is None else rule.noise_rate
        noise = state.noise.step_on_batch(outputs, y, state.scale, rate)
        state = replace(state, noise=noise, likelihood=noise.likelihood)
    return rule.moved_mean(state, gradient, ws), Info(loss)


def mean_loss(likelihood: Likelihood, outputs: Any, y: Any) -> Float[Array, ""]:
    """Over the examples and the draws of the weights."""
    each = jax.vmap(jax.vmap(likelihood.log_prob), (0, None))
    return -each(outputs, y).mean()


def correction(decay: float, t: Int[Array, ""]) -> Any:
    """1 − βᵗ, t ≥ 1, in the precision of what it is multiplied by."""
    # A rate of 0 keeps what was there at the start: nothing to correct.
    return 1 if decay in (0, 1) else 1 - float(decay) ** t
