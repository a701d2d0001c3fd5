"""A search driven to its end: stretch by stretch, with all who watch it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from ngvi.executors import ExecutorError
from ngvi.nes import log
from ngvi.nes.attempt import ROWS
from ngvi.nes.campaign import Campaign
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.progress import SearchProgress
from ngvi.nes.result import so_far
from ngvi.nes.snapshot import Saver

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Callback = Callable[["OptimizeResult"], Any]

INTERRUPTED = "interrupted: by the keyboard"
CALLED_OFF = "callback: it asked to stop"


def drive(
    search: Campaign,
    callback: Callback | None,
    saver: Saver | None,
    bar: SearchProgress,
) -> tuple[str, bool]:
    """Run a search to its end.

    Returns:
        Why it ended, and whether by itself.
    """
    stride = 1
    try:
        while True:
            number = search.schedule.number
            log.run_begins(search)
            while search.goes_on:
                limit = stride if saver is None else min(stride, saver.generations_left)
                before = time.perf_counter()
                search.advance(limit)
                # The clocks of several processes differ, and all must go as far.
                quick = jax.process_count() > 1 or time.perf_counter() - before < 0.1
                stride = min(2 * stride, ROWS) if quick else max(stride // 2, 1)
                _warn_if_all_raised(search)
                if saver is not None:
                    saver.save_if_due()
                bar.show(search)
                if callback is not None and _asks_to_stop(callback, search):
                    return CALLED_OFF, False
            reason = search.next_run()
            if reason is not None:
                return reason, True
            log.run_ends(search, number, search.stops[-1])
    except KeyboardInterrupt:
        return INTERRUPTED, False
    except ExecutorError as error:
        if not search.nfev:
            raise
        return f"executor: {error}", False
    finally:
        search.attempt.exchange.pause()


def _warn_if_all_raised(search: Campaign) -> None:
    """After the first generation: it may be the objective that is wrong."""
    objective = search.plan.objective
    if search.nit != 1 or not isinstance(objective, HostObjective):
        return
    tally = objective.tally
    if tally.raised and tally.raised >= search.nfev - tally.extra:
        warnings.warn(
            "every evaluation of the first generation raised an error; the first one: "
            f"{tally.first_error}",
            RuntimeWarning,
            stacklevel=4,
        )


def _asks_to_stop(callback: Callback, search: Campaign) -> bool:
    try:
        return bool(callback(so_far(search)))
    except StopIteration:
        return True
