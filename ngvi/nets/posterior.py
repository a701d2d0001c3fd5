"""The posterior over a net's weights."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import Gaussian
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import BlockOperators, PositiveDefinite
from ngvi.linalg.batching import split
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


@pytree
class PartialPosterior:
    """Some of the leaves are random, the others known.

    Made by `ngvi.nets.last_layer` and by `ngvi.nets.baselines.laplace_posterior`.
    """

    posterior: WeightPosterior
    """Of the tuple of the random leaves."""
    params: Any
    """The mean of all, a pytree like the parameters."""
    leaves: tuple[int, ...] = field(metadata={"static": True})
    """Which of `jax.tree.leaves(params)` are random."""

    @classmethod
    def of_layer(cls, whole: WeightPosterior, k: int) -> Self:
        """The k-th layer's block of a posterior is random, all else at its mean."""
        prior, precision = whole.prior, whole.precision
        assert isinstance(precision, BlockOperators)
        layer = prior.layout.layers[k]
        own = replace(layer, leaves=tuple(range(len(layer.leaves))))
        tree = jax.tree.structure(own.leaves)
        layout = Layout(tree, layer.shapes, (own,), ())

        def chosen(vector: Float[Array, "*b p"]) -> Float[Array, "*b k"]:
            return split(vector, prior.layout.sizes)[k]

        about = None if prior.mean is None else chosen(prior.mean)
        posterior = replace(
            whole,
            mean=chosen(whole.mean),
            precision=precision.blocks[k],
            prior=Prior((prior.precisions[k],), layout, mean=about),
        )
        return cls(posterior, whole.params, layer.leaves)

    @property
    def likelihood(self) -> Likelihood:
        return self.posterior.likelihood

    @property
    def noise(self) -> ObservationNoise | None:
        return self.posterior.noise

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes."""
        leaves, treedef = jax.tree.flatten(self.params)
        drawn = [jnp.broadcast_to(leaf, (*shape, *leaf.shape)) for leaf in leaves]
        random = self.posterior.sample(key, shape)
        for i, leaf in zip(self.leaves, random, strict=True):
            drawn[i] = leaf
        return jax.tree.unflatten(treedef, drawn)

    def kl(self) -> Float[Array, ""]:
        """KL(q ‖ prior) of the random leaves, the others given; and of the noise."""
        return self.posterior.kl()
