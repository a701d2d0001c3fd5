"""One line on stderr that says how a search is doing while it runs."""

from __future__ import annotations

from ngvi.nes.campaign import Campaign
from ngvi.nes.history import geometric_mean_sd
from ngvi.terminal.progress import Progress


class SearchProgress(Progress):
    """The line of a search: evaluations, the best value, σ, the population."""

    def show(self, search: Campaign) -> None:
        """Show what a search has come to."""
        if self._bar is None:
            return
        best = search.plan.objective.sign * search.best()[1]
        sigma = float(geometric_mean_sd(search.attempt.run.state.q))
        line = (
            f"{search.nfev:,d} evaluations  best {best:.6g}  σ {sigma:.2e}  "
            f"population {search.attempt.strategy.popsize}"
        )
        self._bar.set_description_str(f"{self.description}: {line}", refresh=False)
        self._bar.update(1)
