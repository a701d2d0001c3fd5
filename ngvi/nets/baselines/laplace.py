"""Laplace's approximation at the mode, as a posterior of weights like the others.

See `ngvi.fisher.laplace`, which finds the curvature; of the last layer alone, the other
weights stay at the mode.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
from jaxtyping import Array, Float

from ngvi.fisher import laplace
from ngvi.fisher.engine import StructureName
from ngvi.nets.baselines.descent import DescentState
from ngvi.nets.posterior import PartialPosterior, WeightPosterior
from ngvi.nets.prior import Prior


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
