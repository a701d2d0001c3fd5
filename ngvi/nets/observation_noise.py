"""Observation noise that is learned, with a posterior of its own.

    y ~ N(f, 1/γ),   γ ~ Gamma(a₀, b₀),   q(γ) = Gamma(a, b).

Given the weights it is conjugate: E_q(w)[−log p(y | f, γ)] is linear in log γ and γ, so
its gradient in their expectations is (−n/2, ½ Σ E (y − f)²), and the one update is

    (a, b)⁺ = (1 − ρ)(a, b) + ρ (a₀ + n/2, b₀ + ½ Σ E (y − f)²),

with the sum over all n numbers of the data, estimated from a batch.

Source: Khan and Lin (2017), Conjugate-computation variational inference.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import Gamma
from ngvi.families.special import digamma
from ngvi.fisher.likelihoods.normal import HALF_LOG_2PI
from ngvi.fisher.likelihoods.normal import Gaussian as GaussianLikelihood
from ngvi.mirror.step import mirror_step
from ngvi.pytrees import pytree


@pytree
class ObservationNoise:
    """q(γ) of the precision of the noise, one for all outputs.

    Made by `ObservationNoise.begin`.
    """

    prior: Gamma
    q: Gamma

    @classmethod
    def begin(cls, concentration: float = 6.0, rate: float = 6.0) -> Self:
        """At the prior Gamma(concentration, rate)."""
        prior = Gamma(jnp.asarray(concentration, float), jnp.asarray(rate, float))
        return cls(prior, prior)

    @property
    def likelihood(self) -> GaussianLikelihood:
        """That whose gradients and curvature are the expected ones: γ at its mean."""
        return GaussianLikelihood(jax.lax.rsqrt(self.q.mean))

    def step(
        self,
        squared_residual: Float[Array, ""],
        count: float | Float[Array, ""],
        step_size: float | Float[Array, ""],
    ) -> Self:
        """The one update.

        Args:
            squared_residual: E (y − f)², the mean over a batch, its outputs and draws.
            count: n, the numbers y in all data.
            step_size: ρ.
        """
        # ℓ is −log of likelihood and prior: its gradient in (E log γ, E γ).
        of_prior = self.prior.natural_params
        gradient = (
            -(of_prior[0] + count / 2),
            -of_prior[1] + count * squared_residual / 2,
        )
        return replace(self, q=mirror_step(self.q, gradient, step_size))

    def step_on_batch(
        self,
        outputs: Float[Array, "s b *o"],
        y: Float[Array, "b *o"],
        scale: float | Float[Array, ""],
        step_size: float | Float[Array, ""],
    ) -> Self:
        """The one update, from the outputs of a batch at draws of the weights.

        Args:
            outputs: f, the draws first.
            y: the batch's labels.
            scale: N/κ, with N the examples in all data and κ the weight of the KL
                divergence, that of q(γ) among it.
            step_size: ρ.
        """
        squared = ((outputs - y) ** 2).mean()
        return self.step(squared, scale * (y.size / len(y)), step_size)

    def absorb(self, outputs: Float[Array, "s b *o"], y: Float[Array, "b *o"]) -> Self:
        """q(γ) of what it was of, and of these rows: their part is added once.

        Args:
            outputs: f, the draws first.
            y: labels that were not seen before.
        """
        squares = ((outputs - y) ** 2).sum() / len(outputs)
        gradient = -jnp.asarray(y.size / 2), squares / 2
        return replace(self, q=mirror_step(self.q, gradient, 1.0, temperature=0.0))

    def expected_log_prob(self, f: Array, y: Array) -> Float[Array, "n"]:
        """E_q(γ)[log N(y | f, 1/γ)] of every example."""
        log_precision = digamma(self.q.concentration) - jnp.log(self.q.rate)
        each = log_precision / 2 - HALF_LOG_2PI - self.q.mean * (y - f) ** 2 / 2
        return each.reshape(len(each), -1).sum(-1)

    def log_predictive(self, f: Array, y: Array) -> Float[Array, "*s n"]:
        """log ∫ N(y | f, 1/γ) q(γ) dγ: Student's t, with the axes of f before y's.

        The outputs of an example share γ, so that theirs is one multivariate t.
        """
        a, b = self.q.concentration, self.q.rate
        outputs = math.prod(y.shape[1:])
        squares = (y - f) ** 2
        distance = squares.reshape(*squares.shape[: f.ndim - y.ndim + 1], -1).sum(-1)
        gammaln = jax.scipy.special.gammaln
        return (
            gammaln(a + outputs / 2)
            - gammaln(a)
            - outputs / 2 * jnp.log(2 * math.pi * b)
            - (a + outputs / 2) * jnp.log1p(distance / (2 * b))
        )

    def kl(self) -> Float[Array, ""]:
        """KL(q(γ) ‖ p(γ)), in nats."""
        return self.q.kl(self.prior)
