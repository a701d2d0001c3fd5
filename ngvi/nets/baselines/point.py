"""The weights of the highest posterior density, with the noise's posterior beside them.

w* = argmin N ℓ̄(w) + κ ½ (w − m₀)ᵀ diag(δ) (w − m₀)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.linalg import PositiveDefinite
from ngvi.nets.baselines.descent import Descent, DescentState, Objective
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree


@pytree
class Point:
    """All of the posterior's mass on one w. Made by `maximum_a_posteriori`."""

    mean: Float[Array, "p"]
    """w, in the order of the prior's layout."""
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None

    @property
    def params(self) -> Any:
        """w, a pytree like the parameters."""
        return self.prior.layout.tree(self.mean)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """The same weights again and again, with these leading axes."""
        whole = (*shape, *self.mean.shape)
        return self.prior.layout.tree(jnp.broadcast_to(self.mean, whole))


@dataclass(frozen=True)
class MinusLogPosterior(Objective):
    """The penalty of w is −log prior, up to a constant."""

    def begin(
        self, mean: Float[Array, "p"], precision: PositiveDefinite
    ) -> Float[Array, "p"]:
        return mean

    def draws(
        self, variables: Float[Array, "p"], key: Key[Array, ""], layout: Layout
    ) -> Float[Array, "s p"]:
        return variables[None]

    def penalty(self, variables: Float[Array, "p"], prior: Prior) -> Float[Array, ""]:
        return prior.departure(variables) @ prior.gradient(variables) / 2

    def posterior(self, state: DescentState) -> Point:
        return Point(state.variables, state.prior, state.likelihood, state.noise)


def maximum_a_posteriori(
    apply: Apply, likelihood: Any, data_size: int, **settings: Any
) -> Descent:
    """Descent to the mode of the posterior of the weights.

    Args:
        apply, likelihood, data_size: as in `ngvi.nets.vogn`.
        **settings: of `DescentRule`; and prior_precision, prior_mean and kl_weight.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.fisher import MLP
        >>> net, key = MLP((1, 8, 1)), jax.random.key(0)
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> training = maximum_a_posteriori(net, "gaussian", 20, learning_rate=0.01)
        >>> state = training.init(net.init(key), (x, x**2))
        >>> state, losses = training.run(state, (x, x**2), key, epochs=9, batch_size=10)
        >>> losses.shape, training.posterior(state).params[0]["w"].shape
        ((18,), (1, 8))
    """
    if settings.get("hyperprior") is not None:
        raise ValueError(
            "a point has no variances to learn the prior's precision from: leave out "
            "hyperprior"
        )
    return Descent.of(apply, likelihood, data_size, MinusLogPosterior(), settings)
