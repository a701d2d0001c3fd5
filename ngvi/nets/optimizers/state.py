"""Where an optimisation is, and what a step tells."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import PositiveDefinite
from ngvi.nets.optimizers.model import Model
from ngvi.pytrees import pytree


class Anchor(NamedTuple):
    """Weights whose gradient over all data is known, for variance reduction."""

    weights: Float[Array, "p"]
    gradient: Float[Array, "p"]


@pytree
class State:
    """Where it is; a pytree, that goes through `jit`, `scan` and `vmap`, and whose
    leaves are all there is to save."""

    weights: Float[Array, "p"]
    """θ, in the order of the model's layout."""
    velocity: Float[Array, "p"]
    """The last step."""
    average: Float[Array, "p"] | None
    """The running average of the gradient, without correction for its start."""
    site: Any
    """The running average of the curvature; None where it is not kept."""
    damped: PositiveDefinite | None
    """F + λ, as it was factorised last."""
    damping: Float[Array, ""]
    """λ."""
    steps: Int[Array, ""]
    warm: Float[Array, "p"] | None
    """Where the next solve by conjugate gradients starts."""
    anchor: Anchor | None
    decayed: Float[Array, "p"] | None
    """1 where weights decay, else 0; None if all do."""
    trainable: Float[Array, "p"] | None
    """1 where weights move, else 0; None if all do."""
    likelihood: Likelihood
    model: Model = field(metadata={"static": True})

    @property
    def params(self) -> Any:
        """θ, a pytree like the parameters."""
        return self.model.params(self.weights)


class Info(NamedTuple):
    """Of one step. What was not measured is NaN; `diagnostics=True` measures all."""

    loss: Float[Array, ""]
    """L(θ) over the batch, before the step."""
    reduction_ratio: Float[Array, ""]
    """The change of the objective over that of its quadratic model."""
    damping: Float[Array, ""]
    """λ, of this step."""
    learning_rate: Float[Array, ""]
    """α."""
    momentum: Float[Array, ""]
    """μ."""
    length: Float[Array, ""]
    """√(sᵀ F s) of the step s: the root of twice its divergence."""
    cosine: Float[Array, ""]
    """Of the angle between the step and steepest descent."""
    accepted: Bool[Array, ""]
    """Whether it moved: a step that is not finite, or finds no descent where it is
    halved until it does, is not taken."""
