"""The iteration of `ngvi.nets.linearized`: a look, what is learned of it, and a step.

A look at the net where the mean is gives its curvature, S and the bound; noise and
prior are learned from them; then the mean moves, damped. The formulas are there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.batches import Batch
from ngvi.fisher.kinds import TrueFisher
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.structures.exact import DenseStructure
from ngvi.linalg import Diagonal, PositiveDefinite, SemidefiniteDense
from ngvi.nets.measures import Draw, Estimate, FromFisher
from ngvi.nets.net import Net
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree

_MEASURE = FromFisher(TrueFisher(), DenseStructure())


@dataclass(frozen=True)
class Settings:
    """When an iteration does what.

    Args:
        kl_weight: κ.
        max_iterations: at most.
        warm_up: iterations before noise and prior are learned: a net that has not
            begun to fit would call all of the data noise.
        complexity: c; at 1 the iteration of the highest bound is kept.
        patience: iterations without a higher objective, before it stops.
        tol: what counts as higher, in nats an example.
    """

    kl_weight: float = 1.0
    max_iterations: int = 200
    warm_up: int = 10
    complexity: float = 0.5
    patience: int = 20
    tol: float = 1e-4

    def __post_init__(self) -> None:
        if not self.kl_weight > 0:
            raise ValueError(f"kl_weight must be positive, got {self.kl_weight}")
        for name in ("max_iterations", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warm_up", "tol"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"{name} must not be negative, got {getattr(self, name)}"
                )
        if not 0 <= self.complexity <= 1:
            raise ValueError(f"complexity must be from 0 to 1, got {self.complexity}")

    @property
    def first_learned(self) -> int:
        """The iteration at whose end noise and prior are learned first, the last at the
        latest: those before are not kept."""
        return min(self.warm_up, self.max_iterations - 1)


class Linearized(NamedTuple):
    """What was found. Made by `ngvi.nets.linearized`."""

    posterior: WeightPosterior
    elbo: Float[Array, ""]
    """The linearised model's bound on the log evidence given δ, in nats; of the net's
    own evidence it is an approximation."""
    history: Float[Array, "iterations"]
    """It at every iteration; nan for those that were not needed."""
    best: Int[Array, ""]
    """The iteration that was kept."""


@pytree
class _Point:
    """What an iteration moves."""

    mean: Float[Array, "p"]
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None


@pytree
class _State:
    at: _Point
    damping: Float[Array, ""]
    """λ."""
    kept: _Point
    best: Float[Array, ""]
    """The highest objective, and its iteration."""
    best_iteration: Int[Array, ""]
    history: Float[Array, "iterations"]
    iteration: Int[Array, ""]


@partial(jax.jit, static_argnums=(0, 1))
def fit_linearized(
    settings: Settings,
    net: Net,
    mean: Float[Array, "p"],
    prior: Prior,
    likelihood: Likelihood | ObservationNoise,
    x: Any,
    y: Any,
) -> Linearized:
    """The posterior, of checked arguments: `jax.lax.map` it over starts or data.

    Args:
        settings: see there.
        net: the model.
        mean: where m starts.
        prior: of the weights; its δ are learned if it has a hyperprior.
        likelihood: as in `ngvi.fisher.fisher`; or the noise, to be learned.
        x, y: all N examples.
    """
    task, noise = _Task(settings, net, x, y), None
    if isinstance(likelihood, ObservationNoise):
        # All that the net does not yet explain.
        residuals = ((net(mean, x) - y) ** 2).mean()
        noise = likelihood.step(residuals, y.size / settings.kl_weight, 1.0)
        likelihood = noise.likelihood
    point = _Point(mean, prior, likelihood, noise)
    start = _State(
        at=point,
        damping=jnp.ones((), mean.dtype),
        kept=point,
        best=jnp.asarray(-jnp.inf, mean.dtype),
        best_iteration=jnp.asarray(0),
        history=jnp.full(settings.max_iterations, jnp.nan, mean.dtype),
        iteration=jnp.asarray(0),
    )

    def unfinished(state: _State) -> Bool[Array, ""]:
        since = jnp.maximum(state.best_iteration, settings.first_learned)
        last = since + settings.patience
        return (state.iteration < settings.max_iterations) & (state.iteration <= last)

    end = jax.lax.while_loop(unfinished, partial(_iterate, task), start)
    kept = end.kept
    found = _look(task, kept)
    posterior = WeightPosterior(
        kept.mean, found.precision, kept.prior, kept.likelihood, kept.noise
    )
    return Linearized(posterior, found.bound, end.history, end.best_iteration)


class _Task(NamedTuple):
    """What stays."""

    settings: Settings
    net: Net
    x: Any
    y: Any

    @property
    def scale(self) -> float:
        """N/κ."""
        return len(self.y) / self.settings.kl_weight


class _Look(NamedTuple):
    """At the net where the mean is."""

    measured: Estimate
    curvature: SemidefiniteDense
    """(N/κ) F."""
    precision: PositiveDefinite
    explained: Float[Array, ""]
    """tr((N/κ) F S⁻¹): how many weights the data determine."""
    fit: Float[Array, ""]
    bound: Float[Array, ""]


def _look(task: _Task, at: _Point) -> _Look:
    net, y = task.net, task.y
    of_prior = Diagonal.from_entries(at.prior.vector)
    here = Draw(net, at.likelihood, at.mean, at.mean, of_prior)
    measured = _MEASURE.measure(here, Batch(task.x, y), None)
    curvature = measured.curvature.scale(task.scale)
    precision = at.prior.add_to(curvature)
    explained = net.dim - (at.prior.vector * precision.inverse_diagonal()).sum()
    kl = at.prior.kl(at.mean, precision)
    if at.noise is None:
        fit = jax.vmap(at.likelihood.log_prob)(measured.outputs, y).sum()
    else:
        fit = at.noise.expected_log_prob(measured.outputs, y).sum()
        kl = kl + at.noise.kl()
    bound = fit - task.settings.kl_weight * (explained / 2 + kl)
    return _Look(measured, curvature, precision, explained, fit, bound)


def _iterate(task: _Task, state: _State) -> _State:
    settings, look = task.settings, _look(task, state.at)
    ready = (state.iteration >= settings.first_learned) & jnp.isfinite(look.bound)
    value = look.fit - settings.complexity * (look.fit - look.bound)
    better = ready & (value > state.best + settings.tol * len(task.y))
    learned = _learned(task, look, state.at)
    now: _Point = jax.tree.map(partial(jnp.where, ready), learned, state.at)
    moved, falls = _moved(task, look, state.at, now, state.damping)
    factor = jnp.where(falls, 1 / 3, 4.0)
    return _State(
        at=jax.tree.map(partial(jnp.where, falls), moved, now),
        damping=jnp.clip(state.damping * factor, 1e-8, 1e8).astype(value.dtype),
        kept=jax.tree.map(partial(jnp.where, better), state.at, state.kept),
        best=jnp.where(better, value, state.best),
        best_iteration=jnp.where(better, state.iteration, state.best_iteration),
        history=state.history.at[state.iteration].set(look.bound),
        iteration=state.iteration + 1,
    )


def _learned(task: _Task, look: _Look, at: _Point) -> _Point:
    """Noise and prior, given q(w)."""
    prior = at.prior.learned(at.mean, look.precision)
    if at.noise is None:
        return replace(at, prior=prior)
    y, kappa = task.y, task.settings.kl_weight
    spread = kappa * look.explained / at.noise.q.mean
    squares = ((look.measured.outputs - y) ** 2).sum() + spread
    noise = at.noise.step(squares / y.size, y.size / kappa, 1.0)
    return replace(at, prior=prior, noise=noise, likelihood=noise.likelihood)


def _moved(
    task: _Task, look: _Look, before: _Point, now: _Point, damping: Float[Array, ""]
) -> tuple[_Point, Bool[Array, ""]]:
    """The mean after a damped step, and whether the loss with the prior falls.

    Args:
        task: what stays.
        look: at the mean, with the noise as it was before.
        before: noise and prior were learned.
        now: where the step starts.
        damping: λ.
    """
    gradient, curvature = look.measured.gradient, look.curvature
    if now.noise is not None and before.noise is not None:
        # Of the same f: both are proportional to γ.
        ratio = now.noise.q.mean / before.noise.q.mean
        gradient, curvature = ratio * gradient, curvature.scale(ratio)

    def penalized(w: Float[Array, "p"]) -> Float[Array, ""]:
        loss, _ = task.net.loss(w, now.likelihood, task.x, task.y)
        return task.scale * loss + now.prior.gradient(w) @ now.prior.departure(w) / 2

    force = task.scale * gradient + now.prior.gradient(now.mean)
    diagonal = curvature.diagonal() + now.prior.vector
    damped = curvature.damp(now.prior.vector + damping * diagonal)
    there = now.mean - damped.solve(force)
    return replace(now, mean=there), penalized(there) <= penalized(now.mean)
