"""Generalised linear models, fitted by natural gradients; see `scoring`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular

from ngvi.fisher.likelihoods import (
    Elementwise,
    Gamma,
    Gaussian,
    NegativeBinomial,
    as_likelihood,
)
from ngvi.fisher.regression import endings, scoring
from ngvi.fisher.regression.design import Design, design, rows
from ngvi.fisher.regression.links import Link, as_link
from ngvi.fisher.regression.result import GLMResult

DEFAULTS = {"gamma": Gamma, "negative_binomial": NegativeBinomial}
"""Names that stand for a fixed shape here, where one output is a linear predictor."""


def glm(
    x: Any,
    y: Any,
    likelihood: Any,
    link: Link | str | None = None,
    *,
    weights: Float[Array, "n"] | None = None,
    offset: Float[Array, "n"] | None = None,
    intercept: bool = True,
    l2: float = 0.0,
    dispersion: float | str | None = None,
    start: Float[Array, "q"] | None = None,
    tol: float = 1e-8,
    max_iterations: int = 100,
    names: Sequence[str] | None = None,
) -> GLMResult:
    """Fit a generalised linear model: g(E[yᵢ]) = xᵢᵀ β + intercept + offsetᵢ.

    A second fit of equal shapes is not compiled again.

    Args:
        x: shape (n, p); a data frame's columns name the coefficients.
        y: labels, shape (n,).
        likelihood: a likelihood of one number with one output, or its name: "gaussian",
            "bernoulli", "poisson", "gamma", "exponential", "negative_binomial" (of
            concentration 1), or such as `Binomial(trials)`, `StudentT(2.0, 4.0)`,
            `NegativeBinomial(2.5)`.
        link: g: "identity", "log", "inverse", "sqrt", "logit", "probit", "cloglog",
            "cauchit" or a `Link`. By default the one of the likelihood's own output:
            identity, log or logit.
        weights: how often each row was seen; once by default.
        offset: known parts of the linear predictors.
        intercept: whether there is one.
        l2: penalty ½ l2 ‖β‖² on the coefficients, not on the intercept, against the log
            likelihood at dispersion one: scikit-learn's `alpha` of `Ridge`, 1/C of
            `LogisticRegression`.
        dispersion: φ, what variances are times the likelihood's own: a number, or
            "pearson" for χ²/(n − p), NaN without more rows than columns. By default
            Pearson's for Gaussian and gamma likelihoods, else 1.
        start: intercept and coefficients to begin with; from the labels by default.
        tol: the length of the last step, in standard errors of the estimate.
        max_iterations: the most steps.
        names: of the columns of x.

    Returns:
        The fit. Its `message` says whether and how it converged; `print` shows a table.

    Raises:
        ValueError: shapes do not fit, x is not finite, a label lies outside the
            support, columns are collinear and there is no penalty, the likelihood is
            none of one output with a deviance, or the link does not allow the start.

    Example:
        >>> import numpy as np
        >>> x = np.arange(6.0)[:, None]
        >>> fit = glm(x, np.array([1, 1, 4, 6, 15, 22]), "poisson")
        >>> fit.converged, round(float(fit.coefficients[0]), 3)
        (True, 0.643)
    """
    where = "glm"
    likelihood = _likelihood(likelihood)
    chosen = as_link(link, likelihood.outputs[0])
    matrix = design(where, x, intercept=intercept, l2=l2, names=names)
    n, p = matrix.basis.shape
    dtype = matrix.basis.dtype
    likelihood.check_labels(jax.ShapeDtypeStruct((n,), dtype), y)
    given = rows(where, n, dtype, y, weights, offset)
    free = dispersion == "pearson" or (
        dispersion is None and isinstance(likelihood, Gaussian | Gamma)
    )
    if not free and dispersion is not None and not _positive(dispersion):
        raise ValueError(
            f'{where}: dispersion must be a positive number or "pearson", got '
            f"{dispersion!r}"
        )
    limits = jnp.asarray(tol, dtype), jnp.asarray(max_iterations)
    problem = scoring.Problem(matrix.basis, matrix.penalty_basis, given)
    first = _start(where, matrix, start)
    fit, root, pearson = scoring.solve(
        likelihood,
        chosen,
        problem,
        first,
        jnp.asarray(start is not None),
        *limits,
        free=free,
    )
    if int(fit.iterations) == 0 and int(fit.status) == endings.SINGULAR:
        raise ValueError(
            f"{where}: the deviance is not finite at the start: with the link "
            f"{chosen.name!r} some mean is outside what the likelihood allows; pass "
            "start="
        )
    null, _, _ = scoring.solve(
        likelihood,
        chosen,
        _constant(problem),
        first,
        jnp.asarray(False),
        *limits,
        free=free,
    )
    count = float(given.weights.sum())
    left = count - p
    estimate = float(pearson) / left if left > 0 else np.nan
    phi = estimate if free else float(dispersion or 1)
    log_likelihood = _log_likelihood(likelihood, chosen, problem, fit, phi, free)
    triangle = np.asarray(matrix.triangle)
    # β = R⁻¹ γ, and (F + P)⁻¹ = M Mᵀ with M = R⁻¹ L⁻ᵀ.
    solve = partial(solve_triangular, check_finite=False)
    parameters = solve(triangle, np.asarray(fit.coefficients))
    spread = solve(triangle, solve(np.asarray(root), np.eye(p), trans=1, lower=True))
    covariance = phi * spread @ spread.T
    return GLMResult(
        coefficients=parameters[1:] if intercept else parameters,
        intercept=float(parameters[0]) if intercept else 0.0,
        names=matrix.names,
        parameters=parameters,
        standard_errors=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        deviance=float(fit.deviance),
        null_deviance=float(null.deviance),
        log_likelihood=log_likelihood,
        dispersion=phi,
        aic=2 * p - 2 * log_likelihood,
        bic=float(np.log(count)) * p - 2 * log_likelihood,
        rows=count,
        iterations=int(fit.iterations),
        converged=int(fit.status) == endings.CONVERGED,
        message=endings.explain(
            int(fit.status),
            int(fit.iterations),
            matrix,
            np.asarray(fit.step)[:, None],
            np.abs(np.asarray(matrix.basis @ fit.step)) > endings.MOVING / 2,
        ),
        likelihood=likelihood,
        link=chosen,
        estimated=free,
    )


def linear_regression(x: Any, y: Any, **options: Any) -> GLMResult:
    """Least squares: `glm` with a Gaussian likelihood; its options.

    Example:
        >>> import numpy as np
        >>> x = np.arange(4.0)[:, None]
        >>> fit = linear_regression(x, np.array([1.0, 3.0, 5.0, 7.5]))
        >>> round(fit.intercept, 3), round(float(fit.coefficients[0]), 3)
        (0.9, 2.15)
    """
    return glm(x, y, "gaussian", **options)


def logistic(x: Any, y: Any, **options: Any) -> GLMResult:
    """Logistic regression of labels 0 and 1: `glm` with a Bernoulli likelihood.

    Natural-gradient steps are Newton's, and iteratively reweighted least squares.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> fit = logistic(x, np.array([0, 1, 0, 1]))
        >>> fit.predict([[1.5]]).round(4).tolist()
        [0.5]
    """
    return glm(x, y, "bernoulli", **options)


def poisson(x: Any, y: Any, **options: Any) -> GLMResult:
    """Poisson regression of counts, with log means: `glm`'s options."""
    return glm(x, y, "poisson", **options)


def _likelihood(spec: Any) -> Any:
    """One that a linear predictor can be the output of."""
    named = isinstance(spec, str) and spec in DEFAULTS
    likelihood = DEFAULTS[spec](1.0) if named else as_likelihood(spec)
    if (
        not isinstance(likelihood, Elementwise)
        or len(likelihood.outputs) != 1
        or type(likelihood).unit_deviance is Elementwise.unit_deviance
    ):
        raise ValueError(
            "glm: the likelihood must be of one output, with a deviance; "
            f"{type(likelihood).__name__} is none. gaussian, bernoulli, poisson, "
            "gamma, exponential, Binomial(total_count), StudentT(scale, df), "
            "NegativeBinomial(concentration) and VonMises(concentration) are; "
            "multinomial takes classes"
        )
    return likelihood


def _positive(value: Any) -> bool:
    return not isinstance(value, str) and np.isfinite(value) and value > 0


def _constant(problem: scoring.Problem) -> scoring.Problem:
    """The model of an intercept alone, for the same compiled program: the other columns
    are zero, and a penalty holds their coefficients there."""
    n, p = problem.basis.shape
    dtype = problem.basis.dtype
    ones = jnp.zeros((n, p), dtype).at[:, 0].set(1 / jnp.sqrt(n))
    return scoring.Problem(
        ones, jnp.diag(jnp.ones(p, dtype).at[0].set(0)), problem.rows
    )


def _start(where: str, matrix: Design, start: Any) -> Float[Array, "p"]:
    p = len(matrix.names)
    if start is None:
        return jnp.zeros(p, matrix.basis.dtype)
    start = jnp.asarray(start, matrix.basis.dtype)
    if start.shape != (p,):
        raise ValueError(
            f"{where}: start must have {p} entries, {', '.join(matrix.names)}, got "
            f"shape {start.shape}"
        )
    return matrix.triangle @ start


def _log_likelihood(
    likelihood: Any,
    link: Link,
    problem: scoring.Problem,
    fit: scoring.Fit,
    phi: float,
    free: bool,
) -> float:
    """Σ w log p, at the dispersion estimated; ∞ where labels are met exactly, NaN
    where there are too few rows for a dispersion."""
    if free and isinstance(likelihood, Gaussian):
        variance = fit.deviance / problem.rows.weights.sum()
        if not bool(variance > 0):
            return float("inf")
        likelihood = Gaussian(likelihood.scale * jnp.sqrt(variance))
    elif free and isinstance(likelihood, Gamma):
        if not phi > 0:
            return float("nan")
        likelihood = Gamma(likelihood.shape / phi)
    return float(scoring.log_likelihood(likelihood, link, problem, fit.coefficients))
