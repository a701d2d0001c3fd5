"""MC dropout: hidden units left out at random, in training and in predictions.

A draw of the weights has each row of W̄ of a layer after the first, with what a hidden
unit sends on, left out with probability p, the others made larger for it:

    w_ij = z_i m_ij / (1 − p),   z_i ~ Bernoulli(1 − p).

The first layer and all biases stay, and a draw is shared by the examples of a batch.
Training descends E_q[N ℓ̄(w)] − κ E_q[log prior(w)], with E w² = m²/(1 − p): up to a
constant in m it is the evidence lower bound of this q.

Source: Gal and Ghahramani (2016), Dropout as a Bayesian approximation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.layout import Layout
from ngvi.fisher.problem import Apply
from ngvi.linalg.batching import join, split
from ngvi.nets.baselines.descent import Descent, DescentState
from ngvi.nets.baselines.point import MinusLogPosterior, Point
from ngvi.nets.prior import Prior
from ngvi.pytrees import pytree


@pytree
class Dropout(Point):
    """A point, whose hidden units are left out at random. Made by `mc_dropout`."""

    rate: float = field(metadata={"static": True})
    """p."""

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes."""
        layout = self.prior.layout
        return layout.tree(self.mean * factors(layout, self.rate, key, shape))


def factors(
    layout: Layout, rate: float, key: Key[Array, ""], shape: tuple[int, ...] = ()
) -> Float[Array, "*shape p"]:
    """z/(1 − p) of every weight, and 1 of those that stay."""
    parts = []
    for k, size in enumerate(layout.sizes):
        units = _hidden_units(layout, k)
        if not units:
            parts.append(jnp.ones((*shape, size)))
            continue
        of_layer = jax.random.fold_in(key, k)
        kept = jax.random.bernoulli(of_layer, 1 - rate, (*shape, units)) / (1 - rate)
        dropped = jnp.repeat(kept, layout.layers[k].outputs, -1)
        stay = jnp.ones((*shape, size - dropped.shape[-1]))
        parts.append(jnp.concatenate([dropped, stay], -1))
    return join(parts)


def _hidden_units(layout: Layout, k: int) -> int:
    """How many rows of a part of the weights may be left out; they are its first."""
    if not 0 < k < len(layout.layers) or layout.layers[k].kind != "dense":
        return 0
    layer = layout.layers[k]
    return layer.inputs - layer.has_bias if layer.has_kernel else 0


@dataclass(frozen=True)
class WithDropout(MinusLogPosterior):
    """The penalty is −E_q[log prior], up to a constant.

    Args:
        rate: p.
        samples: draws for every step.
    """

    rate: float
    samples: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must be from 0 to less than 1, got {self.rate}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")

    def draws(
        self, variables: Float[Array, "p"], key: Key[Array, ""], layout: Layout
    ) -> Float[Array, "s p"]:
        drawn = factors(layout, self.rate, key, (self.samples,))
        return variables * drawn.astype(variables.dtype)

    def penalty(self, variables: Float[Array, "p"], prior: Prior) -> Float[Array, ""]:
        # E (z m/(1 − p) − m₀)² is the square at the mean, and m² p/(1 − p).
        layout, parts = prior.layout, split(variables**2, prior.layout.sizes)
        spread = []
        for k, part in enumerate(parts):
            units = _hidden_units(layout, k)
            free = units * layout.layers[k].outputs if units else 0
            odds = self.rate / (1 - self.rate)
            spread.append(part * odds * (jnp.arange(len(part)) < free))
        return super().penalty(variables, prior) + prior.vector @ join(spread) / 2

    def posterior(self, state: DescentState) -> Dropout:
        return Dropout(
            state.variables, state.prior, state.likelihood, state.noise, self.rate
        )


def mc_dropout(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    rate: float = 0.1,
    samples: int = 1,
    **settings: Any,
) -> Descent:
    """Hidden units are left out at random; the model itself has no dropout.

    Args:
        apply, likelihood, data_size: as in `ngvi.nets.vogn`.
        rate: p, of the units that dense layers after the first read.
        samples: draws for every step.
        **settings: of `DescentRule`; and prior_precision, prior_mean and kl_weight.
    """
    if settings.get("hyperprior") is not None:
        raise ValueError(
            "dropout has no variances to learn the prior's precision from: leave out "
            "hyperprior"
        )
    objective = WithDropout(rate, samples)
    return Descent.of(apply, likelihood, data_size, objective, settings)
