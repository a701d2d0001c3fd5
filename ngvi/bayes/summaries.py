"""What is asked of the draws of a posterior, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ngvi.bayes.diagnostics import Diagnostics
from ngvi.bayes.verdict import Verdict
from ngvi.names import scalar_names

if TYPE_CHECKING:
    import pandas as pd

Sites = dict[str, np.ndarray]
"""For each latent and deterministic site an array, (S, *site shape)."""


def _real(sites: Mapping[str, np.ndarray]) -> Sites:
    """The sites that a table can show: a deterministic one may be complex."""
    return {name: v for name, v in sites.items() if np.isrealobj(v)}


def columns(sites: Mapping[str, np.ndarray]) -> np.ndarray:
    """Every scalar quantity of every real site as a column, (S, K)."""
    parts = [np.reshape(v, (v.shape[0], -1)) for v in _real(sites).values()]
    return np.concatenate(parts, axis=1).astype(np.float64)


class Summaries(ABC):
    """Moments, quantiles and the printed form of a posterior given by draws.

    Printing it shows the table of `summary` and the verdict.
    """

    name: str

    @property
    @abstractmethod
    def _sites(self) -> Sites:
        """The draws that every summary is computed from."""

    @property
    @abstractmethod
    def diagnostics(self) -> Diagnostics:
        """What the fit did, and k-hat."""

    @property
    @abstractmethod
    def verdict(self) -> Verdict:
        """How far the answer can be trusted, why, and what to do next."""

    @abstractmethod
    def summary(self) -> pd.DataFrame:
        """A row for every scalar quantity: mean, sd, 5 %, 50 %, 95 % quantiles, and the
        standard error of the mean that comes from the fit's finite draws."""

    def _per_site(self, function: Callable[[np.ndarray], np.ndarray]) -> Sites:
        return {name: function(draws) for name, draws in self._sites.items()}

    @property
    def mean(self) -> Sites:
        """The mean of each site."""
        return self._per_site(lambda v: v.mean(0))

    @property
    def sd(self) -> Sites:
        """The standard deviation of each site."""
        return self._per_site(lambda v: v.std(0))

    def quantile(self, q: float | Sequence[float]) -> Sites:
        """Quantiles of each site; shape (len(q), *site shape) for a list."""
        return self._per_site(lambda v: np.quantile(v, q, axis=0))

    @cached_property
    def _flat(self) -> tuple[list[str], np.ndarray]:
        """Every real scalar quantity: its name, and its draws, (S, K)."""
        sites = _real(self._sites)
        names = [n for k, v in sites.items() for n in scalar_names(k, v.shape[1:])]
        return names, columns(sites)

    def table(self) -> str:
        """What was fitted, and the table of `summary`."""
        from ngvi.terminal.table import text_table

        d = self.diagnostics
        head = (
            f"{self.name}: {d.dimension} dimensions, {d.shape}, "
            f"ELBO {d.elbo:.2f}, {d.iterations} iteration{'s' * (d.iterations != 1)}, "
            f"{d.gradient_evaluations} gradients"
        )
        return f"{head}\n\n{text_table(self.summary())}"

    def __repr__(self) -> str:
        return f"{self.table()}\n\n{self.verdict}"
