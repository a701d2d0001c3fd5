"""How a fit went, moved from the device to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ngvi.bayes.diagnostics import Diagnostics
from ngvi.bayes.structure import Structure
from ngvi.mirror import loop

if TYPE_CHECKING:
    from ngvi.bayes.refinement import Refinement


@dataclass(frozen=True)
class FitRecord:
    """How the fit went, moved to the host."""

    diagnostics: Diagnostics
    """k-hat is NaN here: it is computed with the first summary."""
    history: dict[str, np.ndarray]
    mean_variance: np.ndarray
    """Squared standard errors of the whitened mean from the finite draws, (D,)."""
    name: str
    structure: Structure | None = None
    refinement: Refinement | None = None
    """The rungs that led here, if it was refined."""

    @classmethod
    def of(
        cls,
        state: loop.State,
        *,
        name: str,
        structure: Structure | None,
        seed: int,
        seconds: tuple[float, float],
        stop_reason: str | None,
        converged: bool | None = None,
        epochs: int = 0,
        elbo: float | None = None,
    ) -> FitRecord:
        """Read a final state; what it says of its end is true of a whole fit, so one
        that was shorter is told its own. Seconds are those compiling and the others."""
        state = jax.device_get(state)
        steps = int(state.iteration)
        rows = state.trace
        draws = int(rows.draws[max(steps - 1, 0)])
        diagnostics = Diagnostics(
            elbo=(
                float(rows.elbo[max(steps - 1, 0)] - _finite(state.gap))
                if elbo is None
                else elbo
            ),
            iterations=steps,
            gradient_evaluations=int(state.gradients),
            value_evaluations=int(state.values),
            rejected_steps=int(state.rejected),
            draws=draws,
            seconds_compiling=seconds[0],
            seconds_running=seconds[1],
            fisher_length=float(state.length),
            gap=float(state.gap),
            khat=float("nan"),
            converged=(
                stop_reason is None and int(state.status) == loop.CONVERGED
                if converged is None
                else converged
            ),
            stop_reason=stop_reason or loop.STOP_REASONS[int(state.status)],
            covariance=structure.covariance if structure else "full",
            dimension=int(state.q.dim),
            seed=seed,
            epochs=epochs,
        )
        history = {
            "iteration": np.arange(1, steps + 1),
            "elbo": np.asarray(rows.elbo[:steps]),
            "fisher_length": np.asarray(rows.fisher_length[:steps]),
            "step": np.asarray(rows.step[:steps]),
            "draws": np.asarray(rows.draws[:steps]),
        }
        pairs = max(draws // 2, 1)
        variance = np.asarray(state.estimate.spread) / pairs
        return cls(diagnostics, history, variance, name, structure)


def _finite(x: Any) -> float:
    return float(x) if np.isfinite(x) else 0.0
