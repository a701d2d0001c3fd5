"""One line on stderr that says how a fit is doing while it runs."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

if TYPE_CHECKING:
    from tqdm import tqdm


class Numbers(TypedDict, total=False):
    """What a line may show; all of it may be left out."""

    epoch: int | None
    """Passes over data that are read in batches, the one under way counted."""
    iteration: int | None
    """Iterations so far."""
    elbo: float | None
    """Evidence lower bound, in nats."""
    fisher_length: float | None
    """Length of the natural gradient in the Fisher metric."""
    step: float | None
    """Step size that the last iteration accepted."""
    draws: int | None
    """Number of base draws in the objective."""
    rows_per_second: float | None
    """Rows of data read in a second."""


_WORDS = {
    "epoch": "epoch {:.0f}",
    "iteration": "iteration {:>3.0f}",
    "elbo": "ELBO {:.3f}",
    "fisher_length": "Fisher length {:.2e}",
    "step": "step {:.3g}",
    "draws": "{:,.0f} draws",
    "rows_per_second": "{:,.0f} rows/s",
}
"""In the order of the line."""


class Progress:
    """A progress line for a loop whose length is not known in advance.

    The line shows the iteration, the ELBO, the Fisher length of the natural
    gradient, the accepted step, the number of draws and the time elapsed.

    Example:
        >>> with Progress(enabled=False, description="eight_schools") as bar:
        ...     bar.update(iteration=1, elbo=-31.5, fisher_length=1e-3)

    Args:
        enabled: True shows the line, False shows nothing, None shows it only when
            stderr is a terminal (so that logs and pipes stay clean).
        description: What is being fitted; the first words of the line.
    """

    def __init__(self, enabled: bool | None = None, description: str = "fit") -> None:
        if enabled is None:
            # stderr is None in windowed interpreters, where there is nowhere to write.
            enabled = sys.stderr is not None and sys.stderr.isatty()
        self.enabled = enabled
        self.description = description
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        if self.enabled:
            from tqdm import tqdm

            self._bar = tqdm(
                total=None,
                # Looked up now, not at import, so that a redirected stderr is honoured.
                file=sys.stderr,
                desc=f"{self.description}: starting",
                bar_format="{desc}  [{elapsed}]",
                dynamic_ncols=True,
                leave=True,
            )
        return self

    def update(self, **numbers: Unpack[Numbers]) -> None:
        """Show new numbers; those left out are left out of the line."""
        if self._bar is None:
            return
        line = status_line(**numbers)
        # refresh=False leaves the decision to tqdm, which redraws about ten times a
        # second: a fast loop must not spend its time on the terminal.
        self._bar.set_description_str(f"{self.description}: {line}", refresh=False)
        self._bar.update(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is None:
            return
        # Closing draws the line once more: the last numbers are the ones to keep.
        self._bar.close()
        self._bar = None


def status_line(**numbers: Unpack[Numbers]) -> str:
    """Return the numbers of one iteration as words, without those that are None."""
    given = {name: value for name, value in numbers.items() if value is not None}
    words = (text.format(given[name]) for name, text in _WORDS.items() if name in given)
    return "  ".join(words)
