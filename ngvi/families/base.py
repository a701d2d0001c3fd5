"""Exponential families, in two coordinate systems.

    q_λ(x) = h(x) exp(⟨λ, T(x)⟩ − A(λ)),   μ = E_q[T(x)] = ∇A(λ).

A family says what A, T, log h, a sampler and the map μ → λ are; everything else has one
generic definition here and follows from A by automatic differentiation. A family
overrides such a definition only where a closed form is faster or more accurate.

λ and μ are pytrees of arrays; ⟨·,·⟩ sums the products of corresponding entries. Leading
axes are batch axes: a family with parameters of shape (*batch, *event) is a batch of
independent members, and whatever is one number for a member has shape `batch`.
Observations have shape (*sample, *batch, *event); of a joint distribution they are a
pytree of such arrays. A batch may also be had by `jax.vmap`
over a member whose leaves carry an extra axis. What is not part of λ (a structure, a
fixed count) is static, see `fixed`.

Source: Wainwright and Jordan (2008), Graphical models, exponential families, and
variational inference, section 3.
"""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import coordinates
from ngvi.families.coordinates import Params, pair
from ngvi.families.data import check_data, nan_unless
from ngvi.families.interface import Interface
from ngvi.families.parameters import is_concrete
from ngvi.linalg import Dense, PositiveDefinite


class ExponentialFamily(Interface):
    """One distribution of an exponential family, or a batch of them."""

    # -- what follows from A ---------------------------------------------------------

    def pair(self, params: Params, statistics: Params) -> Float[Array, "*b"]:
        """⟨params, statistics⟩ of each member; statistics may have leading axes."""
        return pair(params, statistics, len(self.batch_shape))

    @property
    def mean_params(self) -> Params:
        """μ = ∇A(λ)."""
        return self._gradient(self.natural_params)

    def _gradient(self, params: Params) -> Params:
        return jax.grad(lambda p: self.log_partition(p).sum())(params)

    def log_prob(self, x: Any) -> Float[Array, "*b"]:
        """log q(x) = log h(x) + ⟨λ, T(x)⟩ − A(λ); −∞ outside the support, NaN at NaN.

        Args:
            x: observations, shape (*sample, *batch, *event).
        """
        x = self.as_floats(x)
        inside = self.support.holds(x)
        elsewhere = jnp.where(self.support.missing(x), jnp.nan, -jnp.inf)
        safe = self.support.replace_outside(x, inside)
        return jnp.where(inside, self._log_density(safe), elsewhere)

    def as_floats(self, x: Any) -> Any:
        """Observations as arrays of a floating dtype; draws of counts are integers."""
        return self.support.as_floats(x, self.dtype)

    def _log_density(self, x: Any) -> Float[Array, "*b"]:
        """log q(x) inside the support."""
        params = self.natural_params
        return (
            self.log_base_measure(x)
            + self.pair(params, self.sufficient_statistics(x))
            - self.log_partition(params)
        )

    def kl(self, other: Self) -> Float[Array, "*b"]:
        """KL(self ‖ other) = A(λ′) − A(λ) − ⟨λ′ − λ, μ⟩."""
        self.same_family(other)
        mine, theirs = self.natural_params, other.natural_params
        difference = jax.tree.map(jnp.subtract, theirs, mine)
        return (
            self.log_partition(theirs)
            - self.log_partition(mine)
            - self.pair(difference, self.mean_params)
        )

    def entropy(self) -> Float[Array, "*b"]:
        """−E_q[log q] = A(λ) − ⟨λ, μ⟩ − E_q[log h]."""
        params = self.natural_params
        return (
            self.log_partition(params)
            - self.pair(params, self.mean_params)
            - self.expected_log_base_measure()
        )

    def cross_entropy(self, other: Self) -> Float[Array, "*b"]:
        """−E_self[log other] = entropy + KL."""
        return self.entropy() + self.kl(other)

    def fisher_product(self, direction: Params) -> Params:
        """F(λ) d = ∇²A(λ) d, without forming F: also the derivative ∂μ/∂λ along d."""
        return jax.jvp(self._gradient, (self.natural_params,), (direction,))[1]

    def _mean_params_along(self, *change: Array) -> Params:
        """The derivative of μ along a change of the parameters, leaf by leaf."""
        tangent = jax.tree.unflatten(jax.tree.structure(self), change)
        return jax.jvp(lambda q: q.mean_params, (self,), (tangent,))[1]

    @property
    def fisher(self) -> PositiveDefinite:
        """F(λ) = ∇²A(λ) = Cov(T), in the coordinates of `flatten`; a batch of them for
        a batch."""
        zero = self.flatten(self.natural_params)
        basis = jnp.eye(zero.shape[-1], dtype=zero.dtype)

        def column(unit: Float[Array, "n"]) -> Float[Array, "*b n"]:
            direction = self.unflatten(jnp.broadcast_to(unit, zero.shape))
            return self.flatten(self.fisher_product(direction))

        return Dense.from_dense(jnp.moveaxis(jax.vmap(column)(basis), 0, -1))

    def natural_gradient(self, gradient: Params) -> Params:
        """F(λ)⁻¹ ∇_λ L: the gradient with respect to μ of what has this one in λ."""
        return self.unflatten(self.fisher.solve(self.flatten(gradient)))

    # -- λ and μ as vectors ----------------------------------------------------------

    def flatten(self, params: Params) -> Float[Array, "*b n"]:
        """λ or μ (or a batch) as vectors whose dot product is ⟨·, ·⟩, see
        `coordinates`."""
        return coordinates.flatten(params, *self._layout())

    def unflatten(self, vector: Float[Array, "*b n"]) -> Params:
        """The inverse of `flatten`."""
        structure = jax.tree.structure(self.natural_params)
        leaves = coordinates.unflatten(vector, *self._layout())
        return jax.tree.unflatten(structure, leaves)

    def _layout(self) -> tuple[list[tuple[int, ...]], list[bool]]:
        batch = len(self.batch_shape)
        leaves = jax.tree.leaves(self.natural_params)
        general = self.general_matrices
        if isinstance(general, bool):
            general = (general,) * len(leaves)
        return [leaf.shape[batch:] for leaf in leaves], list(general)

    # -- data --------------------------------------------------------------------------

    def fit(self, x: Any, weights: Float[Array, "n"] | None = None) -> Self:
        """Maximum likelihood: the member whose μ is the weighted mean of T(xᵢ).

        Args:
            x: observations, shape (n, *batch, *event).
            weights: shape (n,), non-negative, at least one positive; equal by default.

        Raises:
            ValueError: outside `jit`, an observation of positive weight lies outside
                the support, a weight is negative, or no member has these mean
                parameters (too few distinct observations).
        """
        name = f"{type(self).__name__}.fit"
        x, w, usable = check_data(name, x, weights, self.support, self.dtype)
        total = w.sum()
        if is_concrete(total) and not bool(total > 0):
            raise ValueError(f"{name}: the weights must be positive for one or more")
        fitted = self._fit(x, w / total)
        return fitted if is_concrete(usable) else nan_unless(usable, fitted)

    def _fit(self, x: Any, weights: Float[Array, "n"]) -> Self:
        """The fit to observations in the support, weights summing to one."""
        statistics = self.sufficient_statistics(x)
        return self.with_mean_params(
            jax.tree.map(lambda t: jnp.tensordot(weights, t, 1), statistics)
        )

    def conjugate_sum(self, *others: Self) -> Self:
        """The normalised product of densities: natural parameters add.

        With a prior and the likelihood terms in the same family's form, this is Bayes'
        rule.

        Raises:
            TypeError: λ of a member has another layout, as of another structure of
                precisions.
        """
        for other in others:
            self.same_family(other)
        members = (self, *others)
        params = [q.natural_params for q in members]
        shapes = [
            jax.tree.map(lambda leaf, q=q: leaf.shape[len(q.batch_shape) :], p)
            for q, p in zip(members, params, strict=True)
        ]
        if any(s != shapes[0] for s in shapes):
            raise TypeError(
                "conjugate_sum: the members' natural parameters must have the same "
                f"structure, got {' and '.join(str(s) for s in shapes)}"
            )
        return self.with_natural_params(jax.tree.map(lambda *p: sum(p), *params))

    def observe(
        self,
        likelihood: ExponentialFamily | type[ExponentialFamily],
        y: Any,
        weights: Float[Array, "n"] | None = None,
    ) -> Self:
        """The posterior of a likelihood's parameter, with this prior: natural
        parameters add.

        Args:
            likelihood: a class, or a member where something about it is known: its
                fixed parameters, or those this prior does not speak of (the scale of
                a `Normal` whose loc has this `Normal` prior).
            y: observations, shape (n, *batch, *event of the likelihood).
            weights: how often each was seen, shape (n,); once by default.

        Raises:
            TypeError: the pair is not conjugate; `ngvi.families.conjugacy` lists those
                that are.
            ValueError: outside `jit`, an observation of positive weight lies outside
                the support or a weight is negative; or y has the wrong shape.

        Example:
            >>> import jax.numpy as jnp
            >>> from ngvi.families import Gamma, Poisson
            >>> posterior = Gamma(2.0, 1.0).observe(Poisson, jnp.array([3, 5]))
            >>> float(posterior.concentration), float(posterior.rate)
            (10.0, 3.0)
        """
        from ngvi.families import conjugacy

        return conjugacy.observe(self, likelihood, y, weights)

    def predictive(
        self, likelihood: ExponentialFamily | type[ExponentialFamily]
    ) -> Any:
        """The distribution of an observation, this prior integrated over.

        Args:
            likelihood: as in `observe`.

        Returns:
            A distribution of `numpyro.distributions`.

        Raises:
            TypeError: the pair is not conjugate.
            NotImplementedError: it is none of `numpyro.distributions`.
        """
        from ngvi.families import conjugacy

        return conjugacy.predictive(self, likelihood)
