"""Fisher scoring of generalised linear models: natural-gradient steps of length one.

With linear predictors η = X β + offset, a likelihood's output f = f(η), its score s and
information Λ in f, and weights w,

    F = Xᵀ diag(w f'² Λ) X + P,   g = Xᵀ (w f' s) − P β,   β⁺ = β + t F⁻¹ g.

t is the first of 1, ½, ¼, … that does not raise the penalised deviance D + βᵀ P β. For
t = 1 this is iteratively reweighted least squares, and Newton's method if f = η is a
natural parameter. All of it is one compiled loop, which ends as `endings` says;
coordinates are those of `design`.

Source: Green (1984), Iteratively reweighted least squares for maximum likelihood
estimation.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.likelihoods import Elementwise
from ngvi.fisher.regression.design import Rows
from ngvi.fisher.regression.endings import RUNNING, SINGULAR, ending
from ngvi.fisher.regression.links import Link

SHORTEST = 2.0**-30
"""The least part of a step that is tried."""


class Fit(NamedTuple):
    """Where the loop stands; at its end, what it found."""

    coefficients: Float[Array, "p"]  # γ
    deviance: Float[Array, ""]  # without the penalty
    objective: Float[Array, ""]
    iterations: Int[Array, ""]
    status: Int[Array, ""]
    step: Float[Array, "p"]  # the last one, whole


class Local(NamedTuple):
    """The data as they look from one β, row by row."""

    score: Float[Array, "n"]  # f' s
    weight: Float[Array, "n"]  # f'² Λ
    pearson: Float[Array, "n"]  # s²/Λ, the squared Pearson residual


class Problem(NamedTuple):
    """A regression, but for its likelihood and its link."""

    basis: Float[Array, "n p"]
    penalty_basis: Float[Array, "p p"]
    rows: Rows


@partial(jax.jit, static_argnames=("link", "free"))
def solve(
    likelihood: Elementwise,
    link: Link,
    problem: Problem,
    start: Float[Array, "p"],
    started: Bool[Array, ""],
    tolerance: Float[Array, ""],
    max_iterations: Int[Array, ""],
    *,
    free: bool,
) -> tuple[Fit, Float[Array, "p p"], Float[Array, ""]]:
    """Maximise the penalised likelihood.

    Args:
        likelihood: whose one output is the linear predictor through the link.
        link: g.
        problem: the data.
        start: γ to begin with, if `started`; else from the labels.
        started: whether `start` counts.
        tolerance: the length of a last step, in standard errors.
        max_iterations: the most steps.
        free: whether the dispersion is estimated, and so scales standard errors.

    Returns:
        The fit, the Cholesky factor of F there, and Pearson's χ².
    """
    basis, penalty, rows = problem
    eps = jnp.finfo(basis.dtype).eps
    count = rows.weights.sum()

    def deviance(gamma: Array) -> tuple[Array, Array]:
        return _deviance(likelihood, link, problem, gamma)

    def step(fit: Fit) -> Fit:
        gamma = fit.coefficients
        eta = basis @ gamma + rows.offset
        local = look(likelihood, link, rows.y, eta)
        weights = rows.weights * local.weight
        root = factor(basis, penalty, weights)
        gradient = basis.T @ (rows.weights * local.score)
        gradient = gradient - penalty.T @ (penalty @ gamma)
        direction = cho_solve((root, True), gradient)
        square = gradient @ direction
        rounding = 8 * eps * (1 + jnp.abs(fit.objective))

        def refused(trial: tuple[Array, Array, Array]) -> Array:
            length, _, objective = trial
            # True for NaN: such a step leaves what the link allows.
            worse = ~(objective <= fit.objective + rounding)
            return worse & (length > SHORTEST)

        def shorter(trial: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            length = trial[0] / 2
            return length, *deviance(gamma + length * direction)

        # Twice the whole step, refused unseen: the whole one comes first.
        unseen = (jnp.full_like(square, 2), square, jnp.full_like(square, jnp.nan))
        length, value, objective = jax.lax.while_loop(refused, shorter, unseen)
        moved = gamma + length * direction
        accepted = length > SHORTEST

        status = ending(
            square,
            basis @ direction,
            accepted,
            tolerance=tolerance,
            noise=(8 * eps) ** 2 * (weights * eta**2).sum(),
            penalty=penalty,
            dispersion=fit.deviance / count if free else 1.0,
        )
        taken = accepted & jnp.isfinite(square)
        return Fit(
            jnp.where(taken, moved, gamma),
            jnp.where(taken, value, fit.deviance),
            jnp.where(taken, objective, fit.objective),
            fit.iterations + 1,
            status,
            direction,
        )

    def going(fit: Fit) -> Array:
        return (fit.status == RUNNING) & (fit.iterations < max_iterations)

    first = jnp.where(started, start, _start(likelihood, link, problem))
    value, objective = deviance(first)
    status = jnp.where(jnp.isfinite(objective), RUNNING, SINGULAR)
    nothing = jnp.zeros_like(first)
    initial = Fit(first, value, objective, jnp.asarray(0), status, nothing)
    fit = jax.lax.while_loop(going, step, initial)
    local = look(likelihood, link, rows.y, basis @ fit.coefficients + rows.offset)
    root = factor(basis, penalty, rows.weights * local.weight)
    return fit, root, (rows.weights * local.pearson).sum()


@partial(jax.jit, static_argnames="link")
def log_likelihood(
    likelihood: Elementwise, link: Link, problem: Problem, gamma: Float[Array, "p"]
) -> Float[Array, ""]:
    """Σ w log p."""
    rows = problem.rows
    f = link.output(likelihood.outputs[0])(problem.basis @ gamma + rows.offset)
    return (rows.weights * likelihood.log_prob_each(rows.y.astype(f.dtype), f)).sum()


def look(
    likelihood: Elementwise, link: Link, y: Array, eta: Float[Array, "n"]
) -> Local:
    """Scores and information of each row."""
    output = link.output(likelihood.outputs[0])
    f, slope = jax.jvp(output, (eta,), (jnp.ones_like(eta),))
    score = likelihood.gradient(f, y)
    information = likelihood.information(f)[0][0]
    return Local(slope * score, slope**2 * information, score**2 / information)


def factor(basis: Array, penalty: Array, weights: Array) -> Float[Array, "p p"]:
    """The Cholesky factor of F."""
    fisher = basis.T @ (weights[:, None] * basis) + penalty.T @ penalty
    return jnp.linalg.cholesky(fisher)


def _deviance(
    likelihood: Elementwise, link: Link, problem: Problem, gamma: Float[Array, "p"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The deviance without and with the penalty."""
    rows = problem.rows
    f = link.output(likelihood.outputs[0])(problem.basis @ gamma + rows.offset)
    y = rows.y.astype(f.dtype)
    value = (rows.weights * likelihood.unit_deviance(y, f)).sum()
    return value, value + ((problem.penalty_basis @ gamma) ** 2).sum()


def _start(likelihood: Elementwise, link: Link, problem: Problem) -> Float[Array, "p"]:
    """Weighted least squares on the link of means near the labels; where that leaves
    what the link allows, on the link of one mean for all."""
    rows = problem.rows
    y = rows.y.astype(problem.basis.dtype)
    average = (rows.weights * y).sum() / rows.weights.sum()
    kind = likelihood.outputs[0]
    if kind == "logit mean":
        near = far = jnp.full_like(y, 0.5)
    else:
        near = y if kind == "mean" else (y + average) / 2
        far = jnp.full_like(y, average)

    def fitted(mean: Float[Array, "n"]) -> Float[Array, "p"]:
        eta = link.of_mean(mean)
        weights = rows.weights * look(likelihood, link, rows.y, eta).weight
        root = factor(problem.basis, problem.penalty_basis, weights)
        working = weights * (eta - rows.offset)
        return cho_solve((root, True), problem.basis.T @ working)

    first, second = jax.vmap(fitted)(jnp.stack([near, far]))
    usable = jnp.isfinite(_deviance(likelihood, link, problem, first)[1])
    return jnp.where(usable, first, second)
