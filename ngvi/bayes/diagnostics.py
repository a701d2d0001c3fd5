"""What a fit did and how it ended, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

INTERRUPTED = "interrupted: the best state so far is kept"
ONE_STEP = "one natural step was taken"
ONE_PASS = "each batch was read once"
EPOCHS_USED = "the epochs allowed were used up"
SHAPES = {
    "mixture": "a mixture of Gaussians",
    "mean-field": "a mean field",
    "draws": "draws",
}
"""Of what q may be beside a Gaussian."""


@dataclass(frozen=True)
class Diagnostics:
    """What a fit did and how it ended; plain Python values."""

    elbo: float
    iterations: int
    gradient_evaluations: int
    value_evaluations: int
    rejected_steps: int
    draws: int
    seconds_compiling: float
    seconds_running: float
    fisher_length: float
    gap: float
    khat: float
    converged: bool
    stop_reason: str
    covariance: str
    dimension: int
    seed: int
    epochs: int = 0
    """Passes over data that were read in batches; 0 for data in memory."""

    @property
    def shape(self) -> str:
        """Of q, in words."""
        return SHAPES.get(self.covariance, f"{self.covariance} covariance")
