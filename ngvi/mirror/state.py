"""What a converging fit carries from step to step, and what it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from ngvi.families import Gaussian
from ngvi.mirror.estimates import Estimate
from ngvi.mirror.memory import Memory
from ngvi.mirror.retractions import safeguarded
from ngvi.mirror.step import Retraction
from ngvi.pytrees import pytree

RUNNING, CONVERGED, DRAWS_EXHAUSTED, STUCK, NOT_FINITE, ITERATIONS_EXHAUSTED = range(6)
STOP_REASONS = (
    "still running",
    "converged: the Fisher length is below its tolerance and unseen draws agree",
    "the natural gradient vanished, but unseen draws still disagree at the largest "
    "number of draws",
    "no step lowers the objective any further, though the natural gradient is not zero",
    "the log density is not finite around the start, however small the covariance",
    "the iterations allowed were used up",
)


@dataclass(frozen=True)
class Settings:
    """What the loop compares with; the defaults need no tuning."""

    tolerance: float = 1e-2
    """Converged at this Fisher length: the ELBO is then within its square's half."""
    loose_tolerance: float = 0.15
    """Fisher length at which a level is first checked against unseen draws."""
    gap_tolerance: float = 0.08
    """Nats by which unseen draws may disagree before the draws double."""
    max_iterations: int = 1000
    """Trial steps in all, over all levels."""
    retraction: Retraction = safeguarded
    memory: int = 12
    """Pairs of the quasi-Newton memory; 0 for the plain natural gradient."""
    from_hessians: bool = False
    """Estimates are of Hessians, which no objective on the level's draws has for its
    gradient."""
    unseen: Literal["values", "estimate"] = "values"
    """What unseen draws are asked for: ℓ alone, or the natural gradient, of which fewer
    draws tell more where the errors of many coordinates add up."""
    gradients_a_draw: int = 1
    """What an estimate takes, for the record."""
    at_once: int = 256
    """Unseen draws at which ℓ is evaluated in one go."""


class Trace(NamedTuple):
    """One row a trial step, of which `State.iteration` are filled in."""

    elbo: Float[Array, "t"]
    fisher_length: Float[Array, "t"]
    step: Float[Array, "t"]
    draws: Int[Array, "t"]


@pytree
class State:
    """Everything a fit needs to go on."""

    q: Gaussian
    objective: Float[Array, ""]
    """L(q) on the draws of the level."""
    estimate: Estimate
    length: Float[Array, ""]
    """The Fisher length of the estimated natural gradient."""
    memory: Memory
    rho: Float[Array, ""]
    """Length of the next trial."""
    radius: Float[Array, ""]
    """The largest KL(q⁺ ‖ q) a trial may have."""
    level: Int[Array, ""]
    fresh: Bool[Array, ""]
    """q has not been evaluated on the draws of this level yet."""
    checked: Bool[Array, ""]
    """Unseen draws agreed with the level when it had converged loosely."""
    gap: Float[Array, ""]
    """L on unseen draws minus L on the level's, when last compared."""
    tries: Int[Array, ""]
    """Rejections since the last accepted step."""
    idle: Int[Array, ""]
    """Trials since one lowered the objective by more than the tolerance is worth."""
    status: Int[Array, ""]
    iteration: Int[Array, ""]
    gradients: Int[Array, ""]
    values: Int[Array, ""]
    rejected: Int[Array, ""]
    trace: Trace
