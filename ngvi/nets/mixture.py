"""Mixtures of posteriors over weights: an ensemble of any of them.

    q(w) = Σ_k π_k q_k(w)

A deep ensemble is a mixture of points; nets trained from several starts by noisy
natural gradients find several modes, and the width of each.

Source: Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive
uncertainty estimation using deep ensembles; Wilson and Izmailov (2020), Bayesian deep
learning and a probabilistic perspective of generalization.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.families import Gamma
from ngvi.families.parameters import is_concrete
from ngvi.fisher.likelihoods import Likelihood
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.pytrees import pytree


@pytree
class Mixture:
    """Σ_k π_k q_k. Made by `Mixture.of` or `Mixture.stacked`."""

    components: Any
    """One posterior whose leaves have a leading axis K, as `vmap` gives it."""
    weights: Float[Array, "k"]
    """π, that sum to 1."""

    @classmethod
    def of(cls, posteriors: Sequence[Any], weights: Any = None) -> Self:
        """Of posteriors of one kind, for the same net.

        Args:
            posteriors: K of them, such as `WeightPosterior`.
            weights: K numbers ≥ 0, equal by default; they are made to sum to 1.

        Raises:
            ValueError: none at all, of different kinds, or weights that do not fit.
        """
        if not posteriors:
            raise ValueError("a mixture needs at least one posterior")
        first, *others = (_form(posterior) for posterior in posteriors)
        for k, other in enumerate(others, 1):
            if other != first:
                raise ValueError(
                    "the posteriors of a mixture must be of one kind, structure and "
                    f"net: posterior {k} differs from posterior 0"
                )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *posteriors)
        return cls.stacked(stacked, weights)

    @classmethod
    def stacked(cls, components: Any, weights: Any = None) -> Self:
        """Of posteriors that are stacked already, as `vmap` gives them."""
        count = len(jax.tree.leaves(components)[0])
        shares = jnp.ones(count) if weights is None else jnp.asarray(weights, float)
        if shares.shape != (count,):
            raise ValueError(
                f"weights must be {count} numbers, one for each posterior, got shape "
                f"{shares.shape}"
            )
        if is_concrete(shares):
            numbers = np.asarray(shares)
            if not ((numbers >= 0).all() and 0 < numbers.sum() < math.inf):
                raise ValueError(
                    f"weights must be finite, ≥ 0 and not all zero, got {numbers}"
                )
        return cls(components, shares / shares.sum())

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, k: int | Array) -> Any:
        """q_k."""
        return jax.tree.map(lambda leaf: leaf[k], self.components)

    @property
    def likelihood(self) -> Likelihood:
        """That of the noise, if it is learned; else the one that all have."""
        return self[0].likelihood if self.noise is None else self.noise.likelihood

    @property
    def noise(self) -> ObservationNoise | None:
        """The Gamma of the mean parameters of the components' noise: the nearest one to
        their mixture, in KL(mixture ‖ Gamma)."""
        each = self.components.noise
        if each is None:
            return None
        # E[log γ] and E[γ] of each component.
        expected = jax.vmap(lambda q: q.mean_params)(each.q)
        mean = jax.tree.map(lambda leaf: self.weights @ leaf, expected)
        prior = jax.tree.map(lambda leaf: leaf[0], each.prior)
        return ObservationNoise(prior, Gamma.from_mean(mean))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Weights, pytrees like the parameters with these leading axes.

        The draws are shared out evenly: of n, each component has n π_k, rounded up or
        down, in random order. So K draws of an ensemble of K points are its points, and
        each draw by itself is one of the mixture.
        """
        draws, _ = self.draws(key, math.prod(shape))
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), draws)

    @partial(jax.jit, static_argnums=2)
    def draws(self, key: Key[Array, ""], n: int) -> tuple[Any, Int[Array, "n"]]:
        """n of them, and the component of each."""
        of_order, of_draws = jax.random.split(key)
        which = one_of_each(self.weights, n, of_order)
        # One after another: all at once would hold a precision for each draw.
        draws = jax.lax.map(
            lambda draw: self[draw[0]].sample(draw[1]),
            (which, jax.random.split(of_draws, n)),
        )
        return draws, which


def one_of_each(
    weights: Float[Array, "k"], n: int, key: Key[Array, ""] | None = None
) -> Int[Array, "n"]:
    """The components of n draws, shared out evenly: n π_k of each, up or down.

    Args:
        weights: π.
        n: how many.
        key: of which way to round, and of a random order; without one, in order.
    """

    def shared(offset: Any) -> Int[Array, "n"]:
        positions = (jnp.arange(n) + offset) / n
        return jnp.searchsorted(jnp.cumsum(weights)[:-1], positions, side="right")

    if key is None:
        return shared(0.5)
    of_offset, of_order = jax.random.split(key)
    return jax.random.permutation(of_order, shared(jax.random.uniform(of_offset)))


def _form(posterior: Any) -> tuple:
    leaves, structure = jax.tree.flatten(posterior)
    return structure, [jnp.shape(leaf) for leaf in leaves]
