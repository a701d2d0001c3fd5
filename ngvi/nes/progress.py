"""One line on stderr that says how a search is doing while it runs."""

from __future__ import annotations

from ngvi.terminal.progress import Progress


class SearchProgress(Progress):
    """The line of a search: evaluations, the best value, σ, the population."""

    def show(self, evaluations: int, best: float, sigma: float, popsize: int) -> None:
        """Show new numbers.

        Args:
            evaluations: so far.
            best: the best value so far.
            sigma: the geometric mean of the standard deviations.
            popsize: of this run.
        """
        if self._bar is None:
            return
        line = (
            f"{evaluations:,d} evaluations  best {best:.6g}  σ {sigma:.2e}  "
            f"population {popsize}"
        )
        self._bar.set_description_str(f"{self.description}: {line}", refresh=False)
        self._bar.update(1)
