"""Exponential families, in two coordinate systems.

    q_λ(x) = h(x) exp(⟨λ, T(x)⟩ − A(λ)),   μ = E_q[T(x)] = ∇A(λ).

A family says what A, T, log h, a sampler and the map μ → λ are; everything else has one
generic definition here and follows from A by automatic differentiation. A family
overrides such a definition only where a closed form is faster or more accurate.

Parameters are pytrees of arrays; ⟨·,·⟩ sums the products of corresponding entries. What
is not part of λ (a structure, a fixed count) is a static field, so the methods that
make a new member, `with_natural_params` and `with_mean_params`, are called on one.

Source: Wainwright and Jordan (2008), Graphical models, exponential families, and
variational inference, section 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Params = Any
"""A pytree of arrays: natural or mean parameters."""


def pair(x: Params, y: Params) -> Float[Array, ""]:
    """⟨x, y⟩: the sum over all entries of two pytrees of the same structure."""
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), x, y)
    return jax.tree.reduce(jnp.add, products)


class ExponentialFamily(ABC):
    """One distribution of an exponential family; a frozen dataclass and a pytree."""

    # -- what a family defines -----------------------------------------------------

    @property
    @abstractmethod
    def natural_params(self) -> Params:
        """λ."""

    @abstractmethod
    def with_natural_params(self, params: Params) -> Self:
        """The member of the same family with natural parameters λ."""

    @abstractmethod
    def with_mean_params(self, params: Params) -> Self:
        """The member of the same family with mean parameters μ."""

    @abstractmethod
    def log_partition(self, params: Params) -> Float[Array, ""]:
        """A(λ), for any λ of this family's layout."""

    @abstractmethod
    def sufficient_statistics(self, x: Array) -> Params:
        """T(x); leading axes of x are batch axes, of every leaf too."""

    @abstractmethod
    def log_base_measure(self, x: Array) -> Float[Array, "*b"]:
        """log h(x)."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `shape + event shape`."""

    # -- what follows --------------------------------------------------------------

    @property
    def mean_params(self) -> Params:
        """μ = ∇A(λ)."""
        return jax.grad(self.log_partition)(self.natural_params)

    def log_prob(self, x: Array) -> Float[Array, "*b"]:
        """log q(x) = log h(x) + ⟨λ, T(x)⟩ − A(λ)."""
        params = self.natural_params

        def one(statistics: Params) -> Float[Array, ""]:
            return pair(params, statistics)

        base = self.log_base_measure(x)
        for _ in range(jnp.ndim(base)):
            one = jax.vmap(one)
        return base + one(self.sufficient_statistics(x)) - self.log_partition(params)

    def kl(self, other: Self) -> Float[Array, ""]:
        """KL(self ‖ other) = A(λ′) − A(λ) − ⟨λ′ − λ, μ⟩."""
        mine, theirs = self.natural_params, other.natural_params
        difference = jax.tree.map(jnp.subtract, theirs, mine)
        return (
            self.log_partition(theirs)
            - self.log_partition(mine)
            - pair(difference, self.mean_params)
        )

    def expected_log_base_measure(self) -> Float[Array, ""]:
        """E_q[log h(x)]; zero unless a family with a varying h says otherwise."""
        return jnp.zeros(())

    def entropy(self) -> Float[Array, ""]:
        """−E_q[log q] = A(λ) − ⟨λ, μ⟩ − E_q[log h]."""
        return self.cross_entropy(self)

    def cross_entropy(self, other: Self) -> Float[Array, ""]:
        """−E_self[log other] = A(λ′) − ⟨λ′, μ⟩ − E_self[log h]."""
        theirs = other.natural_params
        return (
            self.log_partition(theirs)
            - pair(theirs, self.mean_params)
            - self.expected_log_base_measure()
        )

    def fisher_product(self, direction: Params) -> Params:
        """F(λ) d = ∇²A(λ) d, without forming F: also the derivative ∂μ/∂λ along d."""
        gradient = jax.grad(self.log_partition)
        return jax.jvp(gradient, (self.natural_params,), (direction,))[1]

    def fit(self, x: Array, weights: Float[Array, "n"] | None = None) -> Self:
        """Maximum likelihood: the member whose μ is the weighted mean of T(xᵢ).

        Args:
            x: observations, shape (n, *event).
            weights: non-negative, at least one positive; all equal by default.
        """
        statistics = self.sufficient_statistics(x)
        w = jnp.ones(x.shape[0]) if weights is None else jnp.asarray(weights)
        mean = jax.tree.map(lambda t: jnp.tensordot(w / w.sum(), t, 1), statistics)
        return self.with_mean_params(mean)

    def conjugate_sum(self, *others: Self) -> Self:
        """The normalised product of densities: natural parameters add.

        With a prior and the likelihood terms in the same family's form, this is Bayes'
        rule.
        """
        members = [self.natural_params, *(o.natural_params for o in others)]
        return self.with_natural_params(jax.tree.map(lambda *p: sum(p), *members))
