"""What a search has found, as SciPy says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ngvi.executors import Tally
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
        **({} if search.plan.constraints is None else {"maxcv": search.maxcv}),
    )


def summarize(search: Campaign, reason: str, ended: bool) -> OptimizeResult:
    """The result of a search."""
    sign = search.plan.objective.sign
    value = search.best()[1]
    history = search.history.columns()
    history |= {n: sign * history[n] for n in ("best", "median") if n in history}
    objective = search.plan.objective
    tally = objective.tally if isinstance(objective, HostObjective) else Tally()
    kinds = tally.failures
    kinds["not finite"] = search.nfailed - sum(kinds.values())
    found = so_far(search)
    feasible = search.maxcv <= search.plan.ctol
    if not feasible:
        reason = (
            f"no feasible point was found: the best one violates a constraint by "
            f"{search.maxcv:.3g} (ctol {search.plan.ctol:g}); {reason}"
        )
    found.update(
        success=bool(
            ended and search.best_converged and np.isfinite(value) and feasible
        ),
        message=reason,
        stops=list(search.stops),
        nfailed=search.nfailed,
        failures=kinds,
        first_error=tally.first_error,
        history=history,
        distribution=search.attempt.run.state.q,
        method=search.plan.method,
        maximize=sign < 0,
    )
    if search.plan.noisy:
        found["fun_error"] = search.error()
    return found
