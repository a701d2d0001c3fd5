"""What a search has found, as SciPy says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ngvi.nes.campaign import Campaign
from ngvi.nes.evaluation import HostObjective

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


def so_far(search: Campaign) -> OptimizeResult:
    """The numbers that a callback is shown."""
    from scipy.optimize import OptimizeResult

    point, value = search.best()
    return OptimizeResult(
        x=search.plan.start.layout.unflatten(point.copy()),
        fun=search.plan.objective.sign * value,
        nfev=search.nfev,
        nit=search.nit,
    )


def summarize(search: Campaign, reason: str, ended: bool) -> OptimizeResult:
    """The result of a search."""
    sign = search.plan.objective.sign
    value = search.best()[1]
    history = search.history()
    history |= {n: sign * history[n] for n in ("best", "median") if n in history}
    objective = search.plan.objective
    error = objective.first_error if isinstance(objective, HostObjective) else None
    found = so_far(search)
    found.update(
        success=bool(ended and search.best_converged and np.isfinite(value)),
        message=reason,
        stops=list(search.stops),
        nfailed=search.nfailed,
        first_error=error,
        history=history,
        distribution=search.run.state.q,
        method=search.plan.method,
        maximize=sign < 0,
    )
    return found
