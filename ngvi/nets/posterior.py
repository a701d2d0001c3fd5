"""The posterior over a net's weights."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import Gaussian
from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import PositiveDefinite
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import Prior
from ngvi.nets.state import State
from ngvi.pytrees import pytree


@pytree
class WeightPosterior:
    """q(w) = N(m, S⁻¹), with its prior and likelihood.

    Made by `Algorithm.posterior`.
    """

    mean: Float[Array, "p"]
    """m, in the order of the prior's layout."""
    precision: PositiveDefinite
    """S."""
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None

    @classmethod
    def of(cls, state: State) -> Self:
        """As the training has it now."""
        return cls(
            state.mean, state.precision, state.prior, state.likelihood, state.noise
        )

    @property
    def q(self) -> Gaussian:
        """The same as a member of `ngvi.families`, in the order of the layout."""
        return Gaussian(self.mean, self.precision)

    @property
    def params(self) -> Any:
        """m, a pytree like the parameters."""
        return self.prior.layout.tree(self.mean)

    @property
    def standard_deviations(self) -> Any:
        """Of every weight, a pytree like the parameters."""
        sd = jnp.sqrt(self.precision.inverse_diagonal())
        return self.prior.layout.tree(sd)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes."""
        eps = jax.random.normal(key, (*shape, len(self.mean)), self.mean.dtype)
        return self.prior.layout.tree(self.mean + self.precision.unwhiten(eps))

    def kl(self) -> Float[Array, ""]:
        """KL(q ‖ prior) of the weights, and of the noise if it is learned; in nats."""
        of_weights = self.prior.kl(self.mean, self.precision)
        return of_weights if self.noise is None else of_weights + self.noise.kl()
