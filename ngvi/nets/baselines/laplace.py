"""Laplace's approximation at the mode, as a posterior of weights like the others.

See `ngvi.fisher.laplace`, which finds the curvature; of the last layer alone, the other
weights stay at the mode.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher import laplace
from ngvi.fisher.engine import StructureName
from ngvi.fisher.likelihoods import Likelihood
from ngvi.nets.baselines.descent import DescentState
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree


@pytree
class PartialPosterior:
    """Some of the leaves are random, the others known. Made by `laplace_posterior`."""

    posterior: WeightPosterior
    """Of the tuple of the random leaves."""
    params: Any
    """The mean of all, a pytree like the parameters."""
    leaves: tuple[int, ...] = field(metadata={"static": True})
    """Which of `jax.tree.leaves(params)` are random."""

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


def laplace_posterior(
    state: DescentState,
    data: tuple[Any, Any],
    *,
    structure: StructureName = "dense",
    kind: Literal["true", "gauss-newton", "empirical"] = "true",
    layers: Literal["all", "last"] = "all",
    batch_size: int | None = None,
) -> WeightPosterior | PartialPosterior:
    """N(w*, (N F + δ)⁻¹) at the weights w* of `maximum_a_posteriori`.

    Args:
        state: at its end.
        data: (x, y), all N examples.
        structure: of F, as in `ngvi.fisher.fisher`.
        kind: of F, as there.
        layers: "last" for the last layer alone.
        batch_size: as in `ngvi.fisher.fisher`.

    Raises:
        ValueError: as `ngvi.fisher.laplace`; or precisions of the prior that vary
            within a layer, where the structure takes one number.
    """
    net, prior = state.net, state.prior
    params = prior.layout.tree(state.variables)
    found = laplace(
        net.apply,
        params,
        data,
        likelihood=state.likelihood,
        structure=structure,
        kind=kind,
        layers=layers,
        batch_size=batch_size,
    )
    # Those that are random, in the order of the curvature's own layout.
    every = tuple(range(len(prior.layout.shapes)))
    leaves = every if layers == "all" else net.network.layers[-1].leaves
    layout = found.curvature.layout

    def chosen(vector: Float[Array, "p"]) -> Any:
        tree = prior.layout.tree(vector)
        if layers == "all":
            return tree
        return tuple(jax.tree.leaves(tree)[i] for i in leaves)

    about = None if prior.mean is None else chosen(prior.mean)
    own = Prior.of(chosen(prior.vector), layout, mean=about)
    posterior = WeightPosterior(
        mean=layout.vector(chosen(state.variables)),
        precision=own.add_to(found.curvature.matrix),
        prior=own,
        likelihood=state.likelihood,
        noise=state.noise,
    )
    return posterior if layers == "all" else PartialPosterior(posterior, params, leaves)
