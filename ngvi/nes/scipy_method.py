"""The search as a method of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.nes.minimize import minimize
from ngvi.nes.stopping import Stopping

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


def scipy_method(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    maxiter: int | None = None,
    maxfev: int | None = None,
    **options: Any,
) -> OptimizeResult:
    """For `scipy.optimize.minimize(fun, x0, method=ngvi.nes.scipy_method)`.

    Args:
        fun: as SciPy calls it, as are the arguments up to `callback`; derivatives are
            not used.
        maxiter: generations.
        maxfev: evaluations.
        **options: those of `ngvi.minimize`.

    Example:
        >>> import numpy as np, scipy.optimize, ngvi
        >>> found = scipy.optimize.minimize(
        ...     lambda x: np.sum((x - 3) ** 2), [0.0, 0.0],
        ...     method=ngvi.nes.scipy_method, options={"ftarget": 1e-4},
        ... )
        >>> found.x.round(1).tolist()
        [3.0, 3.0]
    """
    del jac, hess, hessp
    if np.size(constraints):
        options["constraints"] = constraints
    if maxiter is not None:
        given = options.get("stopping") or Stopping()
        options["stopping"] = replace(given, maxiter=maxiter)
    if maxfev is not None:
        options["budget"] = maxfev
    if callback is not None:
        options["callback"] = _as_scipy_calls(callback)
    return minimize(fun, x0, args=args, bounds=bounds, **options)


def _as_scipy_calls(callback: Callable[..., Any]) -> Callable[[OptimizeResult], Any]:
    """A callback of SciPy's: of x, unless its parameter is `intermediate_result`."""
    if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
        return lambda sofar: callback(intermediate_result=sofar)
    return lambda sofar: callback(sofar.x)
