"""`ngvi.minimize`: the best point of a black box, with no setting to touch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.sharding import Mesh

from ngvi.executors import Executor, make_workers
from ngvi.names import name_of
from ngvi.nes import log
from ngvi.nes.campaign import Campaign
from ngvi.nes.checks import check_whole
from ngvi.nes.constraints import Constraints, checked_ctol
from ngvi.nes.drive import Callback, drive
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.flow import flight_width
from ngvi.nes.methods import choose_method, make_strategy, tries_axes, uses_surrogate
from ngvi.nes.noise import FIRST_GROWTH
from ngvi.nes.objective import make_objective
from ngvi.nes.plan import Plan, make_stopping
from ngvi.nes.progress import SearchProgress
from ngvi.nes.result import summarize
from ngvi.nes.snapshot import Saver
from ngvi.nes.start import Start
from ngvi.nes.stopping import Stopping
from ngvi.nes.tracing import TracedObjective

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    *,
    args: tuple[Any, ...] = (),
    method: str = "auto",
    bounds: Any = None,
    constraints: Any = None,
    integrality: Any = None,
    sigma0: Any = None,
    budget: int | None = None,
    popsize: int | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    mesh: Mesh | None = None,
    asynchronous: bool | int = False,
    timeout: float | None = None,
    retries: int = 0,
    noisy: bool = False,
    vectorized: bool | None = None,
    tol: float | None = None,
    ftarget: float | None = None,
    ctol: float | None = None,
    stopping: Stopping | None = None,
    restarts: int | None = None,
    maximize: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    every: int = 100,
    progress: bool | None = None,
) -> OptimizeResult:
    """Find the minimum of a function by its values alone.

    A Gaussian search distribution moves along the natural gradient of its expected
    utility, by ranks: nothing depends on the scale of the values, nor (with a full
    covariance) on rotations and scales of x. Runs that have come to rest are followed
    by others, with larger and smaller populations, from other places.

    A JAX function is traced, and whole stretches of the search are one compiled loop;
    any other function is called, with NumPy arrays. Computations on points are in the
    precision of x0 (single, unless JAX's x64 is enabled), which also bounds how
    accurate an answer can be. The logger "ngvi.nes" is told, at level INFO, when a run
    begins and why it ended.

    Args:
        fun: x ↦ a number; x is built as `x0` is. What raises, or gives NaN or an
            infinity, ranks last and is counted.
        x0: where to start; an array, a list of numbers, or a pytree of arrays.
        args: further arguments of `fun`. For a JAX function arrays among them may
            change between calls without a new compilation.
        method: one of `ngvi.nes.methods.METHODS`, as "cma", "spiked-cma" for many
            dimensions, "lra-cma" for noise, "xnes", "snes"; or "auto": "cma" up to 200
            dimensions, "sep-cma" beyond. Only "auto" finds out first, by D + 2
            evaluations, whether `fun` is a sum over its numbers, which it then
            minimises axis by axis (`ngvi.nes.axes`), and saves evaluations of a Python
            function of up to 30 numbers by a model of it (`ngvi.nes.surrogate`).
        bounds: a `scipy.optimize.Bounds`, or a pair (low, high) for each number of
            x0, None meaning no bound. Only points within are evaluated.
        constraints: a `scipy.optimize.NonlinearConstraint` or `LinearConstraint`, a
            dict of "type" ("ineq": fun(x) ≥ 0, or "eq") and "fun", or a sequence of
            them, each a function of one point, called in this process; see
            `ngvi.nes.lagrangian`. Points that violate them are evaluated on the way.
        integrality: 1 where a number of x must be an integer, elsewhere 0, one for each
            number of x0 or for all; see `ngvi.nes.lattice`. x0 need not be one.
        sigma0: the first standard deviation, one or one for each number; the optimum
            should be within about three of them. By default .3 of the width between
            two bounds, elsewhere .3 max(1, |x0|).
        budget: evaluations, never exceeded, and spent on restarts unless there are to
            be none; by default 1,000 D², at least 10⁴ and at most 10⁶.
        popsize: evaluations of a generation in the first run; by default 4 + 3 log D.
        seed: the same seed gives the same search, if it is not asynchronous.
        callback: called with an `OptimizeResult` (x, fun, nfev, nit) now and then:
            after every generation if those are slow. To stop it returns True or raises
            StopIteration.
        executor: evaluates points side by side: anything with `submit`, as of
            `concurrent.futures` or a dask client; `ngvi.nes.PoolExecutor` makes one of
            pools like those of `multiprocessing` and Ray.
        workers: the same in so many processes (−1: one a core), replaced when they die
            or hang; `fun` must then be importable.
        mesh: of devices, for a JAX function: the points of a generation are shared out
            over its first axis. All else is done by each.
        asynchronous: True to wait for no straggler: the search moves whenever `popsize`
            values have come in, whichever, and as many evaluations are kept in flight
            as the executor has workers (`popsize` if it does not say); a number, so
            many. Only without it does the same seed give the same search.
        timeout: seconds for one evaluation on an executor or workers; see
            `ngvi.executors.dispatch` for when they begin.
        retries: how often an evaluation that raises is tried again, each time at the
            cost of one; what is lost with its worker is tried again at least once.
        noisy: True if `fun` gives another value each time. Populations then begin at
            six times the usual size and double where noise hides the way; `x` is the
            mean of the distribution, not the luckiest point; `fun` is the mean of fresh
            evaluations there and `fun_error` its standard error. See `ngvi.nes.noise`.
        vectorized: True if `fun` takes the points of a generation at once, (n, D), and
            returns n values; False if it must be called once a point, also if it looks
            like a JAX function; None to find out whether it is one.
        tol: values nearer than this are equal (tolfun, and a tenth of it for
            tolfunhist).
        ftarget: stop at a value as good as this.
        ctol: how far a feasible point may violate a constraint; by default 1e-6, in
            single precision 1e-3.
        stopping: limits of all tests, see `ngvi.nes.Stopping`.
        restarts: at most so many. By default there are restarts until the budget is
            spent; without a budget and an `ftarget`, until three populations of growing
            size have ended at the best value.
        maximize: look for the maximum.
        checkpoint: a folder to write to, and to go on from if it holds a checkpoint: to
            the same draws as without the interruption. `fun` must be the same. See
            `ngvi.checkpoints.Checkpoints`.
        every: generations between checkpoints; more if those would take more than a
            tenth of the time.
        progress: show a line on stderr; by default when it is a terminal.

    Returns:
        A `scipy.optimize.OptimizeResult`: `x`, `fun`, `nfev`, `nit`, `success` (the
        target was reached, or the best run converged), `message` (why the search
        ended), `stops` (why the earlier runs did), `nfailed`, `failures` (how many by
        kind: "raised", "timed out", "lost", "not finite"), `first_error`,
        `history` (a row a generation, see `ngvi.nes.history`; `ngvi.nes.plot` draws
        it), and `distribution`, the last `Gaussian`; near bounds its coordinates are
        those of `ngvi.nes.bounds.Box`. With constraints `maxcv` is the largest
        violation at x: x is the best feasible point, and if there is none the one that
        violates least, which is no success.
        Ctrl-C ends the search and returns what it has found.

    Raises:
        TypeError, ValueError: a bad x0, sigma0, bound, constraint, population, budget
            or name; an objective that does not return one number; a checkpoint of
            another search.

    Example:
        >>> import jax.numpy as jnp, ngvi
        >>> def rosenbrock(x):
        ...     return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
        >>> found = ngvi.minimize(rosenbrock, jnp.zeros(3), ftarget=1e-4)
        >>> [round(float(v), 1) for v in found.x]
        [1.0, 1.0, 1.0]

    Source: Wierstra et al. (2014), Natural evolution strategies; Hansen (2016), The
    CMA evolution strategy: a tutorial; Hansen (2009), Benchmarking a BI-population
    CMA-ES on the BBOB-2009 function testbed.
    """
    start = Start.of(x0, sigma0, bounds, integrality)
    limited = None
    if np.size(constraints) and constraints is not None:
        limited = Constraints(constraints, start.layout, start.x0)
        if noisy or asynchronous:
            raise ValueError(
                "constraints do not go together with noisy or asynchronous evaluations"
            )
    chosen = choose_method(method, start.dim)
    count = make_strategy(chosen, start.dim, popsize).popsize
    if noisy and popsize is None:
        count *= FIRST_GROWTH
    sign = -1.0 if maximize else 1.0
    check_whole("seed", seed, 0)
    if restarts is not None:
        check_whole("restarts", restarts, 0)
    check_whole("every", every, 1)
    limits = make_stopping(stopping, budget, tol, ftarget, sign, start.dim, count)
    if executor is not None and workers is not None:
        raise ValueError("give an executor or a number of workers, not both")
    check_whole("retries", retries, 0)
    pool = None if workers is None else make_workers(workers, fun, args)
    where = executor if pool is None else pool
    in_flight = flight_width(asynchronous, where, count)
    objective = make_objective(
        fun, start, args, sign, vectorized, where, timeout, retries, limited, mesh
    )
    if limited is not None and isinstance(objective, TracedObjective):
        args = (*args, limited.data)
    # Of a compiled objective even a thousand values cost less than a model's.
    called = isinstance(objective, HostObjective) and objective.executor is None
    # Neither a search along the axes nor a model knows of noise, constraints, integers.
    real = limited is None and not start.whole.any()
    waits = not noisy and not in_flight and real
    given = stopping or Stopping()
    unlimited = budget is None and bool(given.maxfevals == Stopping().maxfevals)
    plan = Plan(
        start=start,
        method=chosen,
        popsize=count,
        seed=int(seed),
        objective=objective,
        args=args,
        stopping=limits,
        restarts=restarts,
        axes=waits and tries_axes(method, start.dim, int(limits.maxfevals)),
        surrogate=waits and called and uses_surrogate(method, start.dim),
        settles=unlimited and not np.isfinite(float(limits.ftarget)),
        in_flight=in_flight,
        noisy=bool(noisy),
        constraints=limited,
        ctol=0.0 if limited is None else checked_ctol(ctol, start.x0.dtype),
    )
    search = Campaign(plan)
    saver = None if checkpoint is None else Saver(search, Path(checkpoint), every)
    name = name_of(fun)
    try:
        with SearchProgress(progress, name) as bar, saver or nullcontext():
            reason, ended = drive(search, callback, saver, bar)
            log.run_ends(search, search.schedule.number, reason)
    finally:
        if pool is not None:
            pool.close()
    return summarize(search, reason, ended)
