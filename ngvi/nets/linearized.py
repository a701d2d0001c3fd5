"""Variational inference for a linearised net: all covariances, and no step to choose.

About the mean m the net is f(w, x) ≈ f(m, x) + J (w − m). The expected Hessian of that
model is N F(m), with F the Fisher matrix, whatever q is: the mirror step of the
precision is exact at ρ = 1,

    S = (N/κ) F(m) + diag(δ).

So are those of what is conjugate given q(w): the noise's precision γ, and the prior's
precisions δ_k (`ngvi.nets.prior`),

    q(γ) = Gamma(a₀ + n/2κ, b₀ + (‖y − f(m)‖² + tr J S⁻¹ Jᵀ) / 2κ).

The mean steps by m⁺ = m − (S + λ diag S)⁻¹ ((N/κ) ∇ℓ̄ + δ(m − m₀)), and λ, which q
knows nothing of, adapts until the loss with the prior falls (Levenberg and Marquardt).
An iteration takes all N examples and O(N C P² + P³) operations for P weights and C
outputs. Predictions are those of the linearised model (`Predictive(linearized=True)`),
and its bound on the log evidence given δ, of this mode alone, is

    Σ log p(y | f(m)) − ½ tr((N F) S⁻¹) − κ KL(q ‖ prior).

Where a net has more weights than there are data, noise and prior go on falling, slowly,
until the net interpolates, and the bound has its maximum before. It counts one mode of
many, and where nets are mixed it stops too soon: of the price of complexity, which is
what the bound is less than the fit Σ log p(y | f(m)), only a part c is charged, and the
iteration is kept that has the highest

    fit − c (fit − bound).

Source: MacKay (1992), A practical Bayesian framework for backpropagation networks;
Foresee and Hagan (1997), Gauss-Newton approximation to Bayesian learning; Immer,
Korzepa and Bauer (2021), Improving predictions of Bayesian neural nets via local
linearization.
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
from ngvi.fisher.problem import Apply
from ngvi.fisher.structures.exact import DenseStructure
from ngvi.linalg import Diagonal, PositiveDefinite, SemidefiniteDense
from ngvi.nets.algorithm import checked_net
from ngvi.nets.estimates import Estimated, FromFisher, Point
from ngvi.nets.net import Net
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior
from ngvi.nets.prior import GammaPrior, Prior
from ngvi.pytrees import pytree

_ESTIMATE = FromFisher(TrueFisher(), DenseStructure())


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
    """What was found. Made by `linearized`."""

    posterior: WeightPosterior
    elbo: Float[Array, ""]
    """The linearised model's bound on the log evidence given δ, in nats; of the net's
    own evidence it is an approximation."""
    history: Float[Array, "iterations"]
    """It at every iteration; nan for those that were not needed."""
    best: Int[Array, ""]
    """The iteration that was kept."""


def linearized(
    apply: Apply,
    likelihood: Any,
    params: Any,
    data: tuple[Any, Any],
    *,
    prior_precision: Any = 1.0,
    prior_mean: Any = None,
    hyperprior: GammaPrior | None = None,
    groups: Any = None,
    **settings: Any,
) -> Linearized:
    """A Gaussian posterior with all covariances, of any small net.

    It is in the precision of the parameters. Double precision is worth its time: where
    there is little noise, S has condition numbers above those that single precision can
    factorise.

    Args:
        apply: (params, x) ↦ outputs, as in `ngvi.fisher.fisher`.
        likelihood: as there; or an `ObservationNoise`, whose precision is learned.
        params: where m starts; small weights, a tenth of the usual, end more often at a
            mode that predicts well.
        data: (x, y), all N examples.
        prior_precision, prior_mean, hyperprior, groups: see `ngvi.nets.prior.Prior.of`.
        **settings: of `Settings`.

    Raises:
        ValueError: as `Algorithm.init`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.fisher import MLP
        >>> from ngvi.nets import ObservationNoise, Predictive, linearized
        >>> net, x = MLP((1, 5, 1)), jnp.linspace(-2, 2, 30)[:, None]
        >>> params = net.init(jax.random.key(0))
        >>> noise = ObservationNoise.begin(1.0, 0.01)
        >>> found = linearized(net, noise, params, (x, jnp.sin(x)), max_iterations=50)
        >>> predictive = Predictive(net, found.posterior, linearized=True)
        >>> mean, sd, _ = predictive.moments(x, jax.random.key(1))
        >>> bool((abs(mean - jnp.sin(x)) < 4 * sd).all())
        True
    """
    params, (x, y) = jax.tree.map(jnp.asarray, (params, data))
    net, used = checked_net(apply, likelihood, params, x, y)
    prior = Prior.of(
        prior_precision,
        net.layout,
        hyperprior,
        net.dtype,
        mean=prior_mean,
        groups=groups,
    )
    learned = isinstance(likelihood, ObservationNoise)
    return fit_linearized(
        Settings(**settings),
        net,
        net.layout.vector(params),
        prior,
        likelihood if learned else used,
        x,
        y,
    )


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
    """The same, of checked arguments: `jax.lax.map` it over starts or data.

    Args:
        settings: see there.
        net: the model.
        mean: where m starts.
        prior: of the weights; its δ are learned if it has a hyperprior.
        likelihood: as in `ngvi.fisher.fisher`; or the noise, to be learned.
        x, y: all N examples.
    """
    noise = None
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

    end = jax.lax.while_loop(unfinished, partial(_iterate, settings, net, x, y), start)
    kept = end.kept
    found = _look(settings, net, x, y, kept)
    posterior = WeightPosterior(
        kept.mean, found.precision, kept.prior, kept.likelihood, kept.noise
    )
    return Linearized(posterior, found.bound, end.history, end.best_iteration)


class _Look(NamedTuple):
    """At the net where the mean is."""

    measured: Estimated
    curvature: SemidefiniteDense
    """(N/κ) F."""
    precision: PositiveDefinite
    explained: Float[Array, ""]
    """tr((N/κ) F S⁻¹): how many weights the data determine."""
    fit: Float[Array, ""]
    bound: Float[Array, ""]


def _look(settings: Settings, net: Net, x: Any, y: Any, at: _Point) -> _Look:
    n, kappa = len(y), settings.kl_weight
    here = Point(at.mean, at.mean, Diagonal.from_entries(at.prior.vector))
    measured = _ESTIMATE.measure(net, at.likelihood, here, Batch(x, y, None), None)
    curvature = measured.curvature.scale(n / kappa)
    precision = at.prior.add_to(curvature)
    of_prior = (at.prior.vector * precision.inverse_diagonal()).sum()
    explained = net.dim - of_prior
    kl = at.prior.kl(at.mean, precision)
    if at.noise is None:
        fit = jax.vmap(at.likelihood.log_prob)(measured.outputs, y).sum()
    else:
        fit = at.noise.expected_log_prob(measured.outputs, y).sum()
        kl = kl + at.noise.kl()
    bound = fit - kappa * (explained / 2 + kl)
    return _Look(measured, curvature, precision, explained, fit, bound)


def _iterate(settings: Settings, net: Net, x: Any, y: Any, state: _State) -> _State:
    look = _look(settings, net, x, y, state.at)
    ready = (state.iteration >= settings.first_learned) & jnp.isfinite(look.bound)
    value = look.fit - settings.complexity * (look.fit - look.bound)
    better = ready & (value > state.best + settings.tol * len(y))
    learned = _learned(settings, look, y, state.at)
    now: _Point = jax.tree.map(partial(jnp.where, ready), learned, state.at)
    moved, falls = _moved(settings, net, x, y, look, state.at, now, state.damping)
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


def _learned(settings: Settings, look: _Look, y: Any, at: _Point) -> _Point:
    """Noise and prior, given q(w)."""
    prior = at.prior.learned(at.mean, look.precision)
    if at.noise is None:
        return replace(at, prior=prior)
    spread = settings.kl_weight * look.explained / at.noise.q.mean
    squares = ((look.measured.outputs - y) ** 2).sum() + spread
    numbers = y.size / settings.kl_weight
    noise = at.noise.step(squares / y.size, numbers, 1.0)
    return replace(at, prior=prior, noise=noise, likelihood=noise.likelihood)


def _moved(
    settings: Settings,
    net: Net,
    x: Any,
    y: Any,
    look: _Look,
    before: _Point,
    now: _Point,
    damping: Float[Array, ""],
) -> tuple[_Point, Bool[Array, ""]]:
    """The mean after a damped step, and whether the loss with the prior falls.

    Args:
        settings, net, x, y: see there.
        look: at the mean, with the noise as it was before.
        before: noise and prior were learned.
        now: where the step starts.
        damping: λ.
    """
    scale = len(y) / settings.kl_weight
    gradient, curvature = look.measured.gradient, look.curvature
    if now.noise is not None and before.noise is not None:
        # Of the same f: both are proportional to γ.
        ratio = now.noise.q.mean / before.noise.q.mean
        gradient, curvature = ratio * gradient, curvature.scale(ratio)

    def penalized(w: Float[Array, "p"]) -> Float[Array, ""]:
        loss = net.loss(w, now.likelihood, x, y)[0]
        return scale * loss + now.prior.gradient(w) @ now.prior.departure(w) / 2

    force = scale * gradient + now.prior.gradient(now.mean)
    diagonal = curvature.diagonal() + now.prior.vector
    damped = curvature.damp(now.prior.vector + damping * diagonal)
    there = now.mean - damped.solve(force)
    return replace(now, mean=there), penalized(there) <= penalized(now.mean)
