"""How well each weight is known, and which of them can go.

The signal-to-noise ratio of a weight is |m|/σ. Those of the lowest carry the fewest
nats: set to zero, they are missed least.

Source: Graves (2011), Practical variational inference for neural networks; Blundell,
Cornebise, Kavukcuoglu and Wierstra (2015), Weight uncertainty in neural networks.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ngvi.fisher.likelihoods import Likelihood
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior
from ngvi.pytrees import pytree


@pytree
class Pruned:
    """A posterior some of whose weights are zero for certain. Made by `prune`."""

    posterior: WeightPosterior
    kept: Bool[Array, "p"]
    """Which weights are not zero, in the order of the prior's layout."""

    @property
    def likelihood(self) -> Likelihood:
        return self.posterior.likelihood

    @property
    def noise(self) -> ObservationNoise | None:
        return self.posterior.noise

    @property
    def params(self) -> Any:
        """The mean, a pytree like the parameters."""
        return self._masked(self.posterior.params)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes."""
        return self._masked(self.posterior.sample(key, shape))

    def _masked(self, params: Any) -> Any:
        masks = self.posterior.prior.layout.tree(self.kept)
        return jax.tree.map(lambda mask, leaf: jnp.where(mask, leaf, 0), masks, params)


def signal_to_noise(posterior: WeightPosterior) -> Any:
    """|m|/σ of every weight, a pytree like the parameters."""
    return posterior.prior.layout.tree(_ratios(posterior))


def prune(posterior: WeightPosterior, fraction: float) -> Pruned:
    """The weights of the lowest signal-to-noise ratio set to zero.

    Args:
        posterior: of all weights.
        fraction: of them to set to zero, from 0 to 1.

    Raises:
        ValueError: another fraction.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction}")
    ratios = _ratios(posterior)
    order = jnp.argsort(ratios)
    kept = jnp.ones(len(ratios), bool)
    return Pruned(posterior, kept.at[order[: round(fraction * len(ratios))]].set(False))


def _ratios(posterior: WeightPosterior) -> Float[Array, "p"]:
    variances = posterior.precision.inverse_diagonal()
    return jnp.abs(posterior.mean) / jnp.sqrt(variances)
