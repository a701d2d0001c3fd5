"""What a fit of a Gaussian is made of, and how it ended."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float

from ngvi.bayes.density import Density
from ngvi.bayes.plan import Plan
from ngvi.bayes.stream import StreamError
from ngvi.bayes.target import Data, Target
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder


class Problem(NamedTuple):
    """All that a fit is made of."""

    target: Target
    data: Data
    point: Float[Array, "d"]
    plan: Plan
    settings: loop.Settings
    draws: Ladder


class End(NamedTuple):
    """How a fit ended."""

    state: loop.State
    stop_reason: str | None
    """None where the state's own status tells."""
    density: Density
    converged: bool | None = None
    """None where the state's own status tells."""
    epochs: int = 0
    elbo: float | None = None
    """None where the state's own trace tells."""
    error: StreamError | None = None
    """To be raised with the fit so far."""
