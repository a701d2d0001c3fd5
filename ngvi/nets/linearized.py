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

from typing import Any

import jax
import jax.numpy as jnp

from ngvi.fisher.problem import Apply
from ngvi.nets.algorithm import checked_net
from ngvi.nets.linearized_fit import Linearized, Settings, fit_linearized
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import GammaPrior, Prior


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
        **settings: of `ngvi.nets.linearized_fit.Settings`.

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
