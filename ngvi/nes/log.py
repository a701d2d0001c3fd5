"""What a search tells the logger "ngvi.nes": a line when a run begins or ends."""

from __future__ import annotations

import logging

from ngvi.nes.campaign import Campaign

_log = logging.getLogger("ngvi.nes")


def run_begins(search: Campaign) -> None:
    """Of the run that is on."""
    _log.info(
        "run %d begins%s: population %d, %d evaluations so far",
        search.schedule.number,
        "" if search.axes is None else " along the axes",
        search.attempt.strategy.popsize,
        search.nfev,
    )


def run_ends(search: Campaign, number: int, reason: str) -> None:
    """Of the run of that number, which may have been followed by another."""
    _log.info(
        "run %d ends: %d evaluations so far, best value %.6g; %s",
        number,
        search.nfev,
        search.plan.objective.sign * search.best()[1],
        reason,
    )
