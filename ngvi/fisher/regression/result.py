"""What a fitted generalised linear model is, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.regression.design import predictors
from ngvi.fisher.regression.links import Link
from ngvi.terminal.table import align_decimals, decimals_for


@dataclass(frozen=True)
class GLMResult:
    """A fitted generalised linear model.

    Attributes:
        coefficients: of the columns of x, shape (p,).
        intercept: 0 where there is none.
        names: of `parameters`: the intercept first, if there is one.
        parameters: intercept and coefficients in one vector.
        standard_errors: of `parameters`.
        covariance: of `parameters`: φ (F + P)⁻¹; with a penalty P, the posterior's
            under a normal prior of precision P/φ.
        deviance: 2 Σ w [max log p − log p], at dispersion one.
        null_deviance: that of an intercept alone.
        log_likelihood: Σ w log p(y | f), at the dispersion estimated: the mean square
            for a Gaussian, Pearson's for a gamma.
        dispersion: φ.
        aic: −2 log likelihood + 2 (number of parameters), φ not counted.
        bic: the same with log(number of rows) in place of 2.
        rows: how many there were: the sum of the weights.
        iterations: of Fisher scoring.
        converged: whether a maximum was found.
        message: how it went, in words.
        likelihood: that of the labels.
        link: from the mean to the linear predictor.
        estimated: whether φ was estimated, so that intervals are Student's.
    """

    coefficients: Float[np.ndarray, "p"]
    intercept: float
    names: tuple[str, ...]
    parameters: Float[np.ndarray, "q"]
    standard_errors: Float[np.ndarray, "q"]
    covariance: Float[np.ndarray, "q q"]
    deviance: float
    null_deviance: float
    log_likelihood: float
    dispersion: float
    aic: float
    bic: float
    rows: float
    iterations: int
    converged: bool
    message: str
    likelihood: Likelihood
    link: Link
    estimated: bool

    def predict(self, x: Any, offset: Any = 0.0) -> Float[np.ndarray, "n"]:
        """The mean at new rows; for a binomial the probability.

        Args:
            x: shape (n, p).
            offset: added to the linear predictor.

        Raises:
            ValueError: x is no finite matrix of p columns.
        """
        eta = predictors(x, self.coefficients, self.intercept) + offset
        return np.asarray(self.link.mean(eta))

    def confidence_interval(self, level: float = 0.95) -> Float[np.ndarray, "q 2"]:
        """Estimates ± quantile × standard error: Student's where φ was estimated."""
        half = self._reference().ppf((1 + level) / 2) * self.standard_errors
        return np.stack([self.parameters - half, self.parameters + half], 1)

    @property
    def p_values(self) -> Float[np.ndarray, "q"]:
        """Of each parameter being zero, two-sided."""
        return 2 * self._reference().sf(np.abs(self.parameters / self.standard_errors))

    def _reference(self) -> Any:
        from scipy import stats

        if self.estimated:
            return stats.t(self.rows - len(self.parameters))
        return stats.norm()

    def __str__(self) -> str:
        interval = self.confidence_interval()
        table = coefficient_table(
            self.names, self.parameters, self.standard_errors, interval, self.p_values
        )
        name = type(self.likelihood).__name__
        head = f"{name}, link {self.link.name}: {self.message}"
        return "\n".join(
            [
                head,
                "",
                table,
                "",
                f"rows {self.rows:g}   deviance {self.deviance:.6g}   "
                f"null deviance {self.null_deviance:.6g}   "
                f"dispersion {self.dispersion:.4g}",
                f"log likelihood {self.log_likelihood:.6g}   AIC {self.aic:.6g}   "
                f"BIC {self.bic:.6g}",
            ]
        )


def coefficient_table(
    names: tuple[str, ...],
    estimates: np.ndarray,
    errors: np.ndarray,
    interval: np.ndarray,
    p_values: np.ndarray,
) -> str:
    """Rows of estimates, with the decimals that their standard errors support."""
    columns = {"estimate": estimates, "se": errors}
    columns |= {"2.5%": interval[:, 0], "97.5%": interval[:, 1]}
    cells = {
        title: align_decimals(
            [_number(v, e) for v, e in zip(values, errors, strict=True)]
        )
        for title, values in columns.items()
    }
    cells["z"] = [f"{v:.2f}" for v in estimates / errors]
    cells["p"] = [f"{p:.3f}" if p >= 0.001 else "<0.001" for p in p_values]
    order = ["estimate", "se", "z", "p", "2.5%", "97.5%"]
    widths = [max(len(title), *map(len, cells[title])) for title in order]
    first = max(map(len, names))
    lines = [" " * first]
    lines += [f"{name:<{first}}" for name in names]
    for title, width in zip(order, widths, strict=True):
        for i, cell in enumerate([title, *cells[title]]):
            lines[i] += f"  {cell:>{width}}"
    return "\n".join(lines)


def _number(value: float, error: float) -> str:
    decimals = decimals_for([error], 3)
    return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
