"""Multinomial logistic regression, fitted by natural gradients; see
`multinomial_solver`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtr, ndtri

from ngvi.families.special.softmax import softmax
from ngvi.fisher.regression import endings, multinomial_solver
from ngvi.fisher.regression.design import design, predictors, rows
from ngvi.fisher.regression.multinomial_fisher import Problem
from ngvi.fisher.regression.result import coefficient_table

LARGEST_DENSE = 600
"""Up to so many free coefficients "auto" forms the Fisher matrix."""


@dataclass(frozen=True)
class MultinomialResult:
    """A fitted multinomial logistic regression.

    Attributes:
        classes: the labels, sorted, shape (k,).
        coefficients: of the columns of x, shape (k, p); they sum to zero over classes.
        intercept: shape (k,), zeros where there is none.
        names: of the columns of `parameters`: the intercept first, if there is one.
        parameters: intercepts and coefficients, shape (k, q).
        covariance: of `parameters` in row-major order, of rank (k − 1) q, shape (k q,
            k q); None after a matrix-free fit.
        standard_errors: of `parameters`, shape (k, q); None likewise.
        deviance: −2 log likelihood.
        null_deviance: that of intercepts alone.
        log_likelihood: Σ w log p(y | f).
        aic: −2 log likelihood + 2 (k − 1) q.
        bic: the same with log(number of rows) in place of 2.
        iterations: natural-gradient steps.
        products: of the Fisher matrix with a vector, in all.
        converged: whether a maximum was found.
        message: how it went, in words.
    """

    classes: np.ndarray
    coefficients: Float[np.ndarray, "k p"]
    intercept: Float[np.ndarray, "k"]
    names: tuple[str, ...]
    parameters: Float[np.ndarray, "k q"]
    covariance: Float[np.ndarray, "kq kq"] | None
    standard_errors: Float[np.ndarray, "k q"] | None
    deviance: float
    null_deviance: float
    log_likelihood: float
    aic: float
    bic: float
    iterations: int
    products: int
    converged: bool
    message: str

    def predict(self, x: Any) -> Float[np.ndarray, "n k"]:
        """The classes' probabilities at new rows.

        Raises:
            ValueError: x is no finite matrix of p columns.
        """
        return np.asarray(softmax(predictors(x, self.coefficients, self.intercept)))

    def relative_to(
        self, label: Any
    ) -> tuple[Float[np.ndarray, "k q"], Float[np.ndarray, "k q"]]:
        """Parameters less those of one class, and their standard errors.

        Raises:
            ValueError: the label is no class, or the fit was matrix-free.
        """
        at = np.flatnonzero(self.classes == label)
        if not len(at):
            raise ValueError(f"relative_to: {label!r} is none of {self.classes}")
        if self.covariance is None:
            raise ValueError('relative_to: fit with method="dense" for errors')
        count, q = self.parameters.shape
        c = self.covariance.reshape(count, q, count, q)
        own = np.einsum("kiki->ki", c)
        cross = np.einsum("kili->kli", c)[:, at[0]]
        variance = own + own[at[0]] - 2 * cross
        errors = np.sqrt(np.maximum(variance, 0))
        return self.parameters - self.parameters[at[0]], errors

    def __str__(self) -> str:
        lines = [f"Multinomial, {len(self.classes)} classes: {self.message}", ""]
        if self.covariance is None:
            lines += [f"{len(self.names)} coefficients a class", ""]
        else:
            base, *others = range(len(self.classes))
            estimates, errors = self.relative_to(self.classes[base])
            keep = (estimates[others].ravel(), errors[others].ravel())
            half = ndtri(0.975) * keep[1]
            interval = np.stack([keep[0] - half, keep[0] + half], 1)
            names = [f"{self.classes[k]}: {n}" for k in others for n in self.names]
            p_values = 2 * ndtr(-np.abs(keep[0] / keep[1]))
            table = coefficient_table(tuple(names), *keep, interval, p_values)
            lines += [table, "", f"relative to class {self.classes[base]}", ""]
        lines.append(
            f"deviance {self.deviance:.6g}   null deviance {self.null_deviance:.6g}   "
            f"AIC {self.aic:.6g}   BIC {self.bic:.6g}"
        )
        return "\n".join(lines)


def multinomial(
    x: Any,
    y: Any,
    *,
    weights: Float[Array, "n"] | None = None,
    intercept: bool = True,
    l2: float = 0.0,
    method: str = "auto",
    tol: float = 1e-8,
    max_iterations: int = 100,
    names: Sequence[str] | None = None,
) -> MultinomialResult:
    """Fit class probabilities softmax(W x + b).

    A second fit of equal shapes is not compiled again.

    Args:
        x: shape (n, p); a data frame's columns name the coefficients.
        y: labels of two classes or more, shape (n,), numbers or strings.
        weights: how often each row was seen; once by default.
        intercept: whether there is one for each class.
        l2: penalty ½ l2 ‖W‖², intercepts excepted: 1/C of scikit-learn.
        method: "dense" forms the Fisher matrix of (k − 1) q coefficients, which gives
            standard errors too; "cg" does not; "auto" forms up to 600 squared.
        tol: the length of the last step, in standard errors of the estimate.
        max_iterations: the most steps.
        names: of the columns of x.

    Raises:
        ValueError: shapes do not fit, x is not finite, there is one class only, or
            columns are collinear and there is no penalty.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [1.5], [2.5]])
        >>> fit = multinomial(x, np.array([0, 0, 1, 2, 2, 1]), l2=1.0)
        >>> fit.converged, fit.predict(x).shape
        (True, (6, 3))
    """
    where = "multinomial"
    if method not in ("auto", "dense", "cg"):
        raise ValueError(
            f'{where}: method must be "auto", "dense" or "cg", got {method!r}'
        )
    matrix = design(where, x, intercept=intercept, l2=l2, names=names)
    n, p = matrix.basis.shape
    if np.shape(y) != (n,):
        raise ValueError(f"{where}: y must have shape ({n},), got {np.shape(y)}")
    classes, labels = np.unique(np.asarray(y), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{where}: y must have two classes or more, got {classes}")
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError(f"{where}: y must not have labels {classes[-1]}")
    given = rows(where, n, matrix.basis.dtype, labels, weights, None)
    problem = Problem(matrix.basis, matrix.penalty_basis, given.y, given.weights)
    free = (len(classes) - 1) * p
    dense = method == "dense" or (method == "auto" and free <= LARGEST_DENSE)
    fit, fisher = multinomial_solver.solve(
        problem,
        jnp.asarray(tol, matrix.basis.dtype),
        jnp.asarray(max_iterations),
        classes=len(classes),
        dense=dense,
    )
    triangle = np.asarray(matrix.triangle)
    back = partial(solve_triangular, triangle, check_finite=False)
    gamma = np.asarray(fit.coefficients)
    parameters = back(gamma.T).T
    covariance = errors = None
    if fisher is not None:
        covariance = _covariance(np.asarray(fisher), triangle)
        variance = np.diag(covariance).reshape(parameters.shape)
        errors = np.sqrt(np.maximum(variance, 0))
    penalty = ((gamma @ np.asarray(matrix.penalty_basis).T) ** 2).sum() / 2
    log_likelihood = float(penalty - fit.objective)
    share = np.bincount(labels, np.asarray(given.weights))
    total = share.sum()
    share = share[share > 0]
    return MultinomialResult(
        classes=classes,
        coefficients=parameters[:, 1:] if intercept else parameters,
        intercept=parameters[:, 0] if intercept else np.zeros(len(classes)),
        names=matrix.names,
        parameters=parameters,
        covariance=covariance,
        standard_errors=errors,
        deviance=-2 * log_likelihood,
        null_deviance=float(-2 * (share * np.log(share / total)).sum()),
        log_likelihood=log_likelihood,
        aic=2 * free - 2 * log_likelihood,
        bic=float(np.log(total)) * free - 2 * log_likelihood,
        iterations=int(fit.iterations),
        products=int(fit.products),
        converged=int(fit.status) == endings.CONVERGED,
        message=endings.explain(
            int(fit.status), int(fit.iterations), matrix, np.asarray(fit.step).T
        ),
    )


def _covariance(fisher: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Of the parameters, from the Fisher matrix with one class held at zero."""
    p = len(triangle)
    free = len(fisher) // p
    try:
        factor = cho_factor(fisher, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(fisher)), check_finite=False)
    except np.linalg.LinAlgError:
        inverse = np.full_like(fisher, np.nan)
    # R⁻¹ on each class; then a class of zeros is appended, and the mean taken off.
    back = solve_triangular(triangle, np.eye(p))
    blocks = inverse.reshape(free, p, free, p).swapaxes(1, 2)
    blocks = back @ blocks @ back.T
    center = np.eye(free + 1)[:, :-1] - 1 / (free + 1)
    blocks = np.tensordot(center, blocks, (1, 0))
    blocks = np.moveaxis(np.tensordot(center, blocks, (1, 1)), 0, 1)
    return blocks.swapaxes(1, 2).reshape((free + 1) * p, (free + 1) * p)
