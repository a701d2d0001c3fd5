"""Where the training of a net is, and what a step is told and tells."""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import PositiveDefinite
from ngvi.nets.measures import Site
from ngvi.nets.net import Net
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree


@pytree
class State:
    """Where the training is; a pytree, that goes through `jit`, `scan` and `vmap`."""

    mean: Float[Array, "p"]
    """m, in the order of the net's layout."""
    precision: PositiveDefinite
    """S, as it was factorised last."""
    site: Site
    """s."""
    momentum: Float[Array, "p"]
    """The average of ĝ, without correction for its start."""
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None
    """q of the noise's precision, where it is learned."""
    scale: Float[Array, ""]
    """N/κ."""
    data_size: Float[Array, ""]
    """N."""
    steps: Int[Array, ""]
    away: Float[Array, "s p"] | None
    """A ε of the last draws, where a rule keeps them for several steps."""
    net: Net = field(metadata={"static": True})

    @property
    def params(self) -> Any:
        """m, a pytree like the parameters."""
        return self.net.layout.tree(self.mean)


class Phase(IntEnum):
    """What a step does beside moving the mean."""

    PLAIN = 0
    MEASURE = 1
    """It estimates the curvature, and averages it."""
    RENEW = 2
    """And it factorises S, and learns the prior."""


class Info(NamedTuple):
    """Of one step, for progress."""

    loss: Float[Array, ""]
    """The mean of −log p(y | f) over the batch, at the weights drawn."""
