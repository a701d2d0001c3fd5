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

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ngvi.families import coordinates
from ngvi.families.coordinates import Params, pair
from ngvi.families.domains import Domain, Joint
from ngvi.families.parameters import (
    check_parameters,
    fixed_fields,
    is_concrete,
    parameter_fields,
)
from ngvi.linalg import Dense, PositiveDefinite


class Lacking:
    """An attribute that some families have; reading it in another says so.

    Not a property: a family may have a field of the same name.
    """

    def __init__(self, meaning: str) -> None:
        self.__doc__ = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, member: Any, owner: type) -> Any:
        if member is None:
            return self
        raise NotImplementedError(f"{owner.__name__} has no {self.name}")


class ExponentialFamily(ABC):
    """One distribution of an exponential family, or a batch of them."""

    general_matrices: ClassVar[bool | tuple[bool, ...]] = False
    """Whether matrices among λ lack symmetry, all of them or leaf by leaf; symmetric
    ones have d(d+1)/2 entries."""

    numpyro_names: ClassVar[tuple[str, ...]] = ()
    """The classes of `numpyro.distributions` that `from_numpyro` takes."""

    def __post_init__(self) -> None:
        check_parameters(self)

    # -- what a family defines -----------------------------------------------------

    @property
    @abstractmethod
    def support(self) -> Domain | Joint:
        """The set that observations lie in."""

    @property
    @abstractmethod
    def natural_params(self) -> Params:
        """λ."""

    @classmethod
    @abstractmethod
    def from_natural(cls, params: Params, *args: Any, **fixed: Any) -> Self:
        """The member with natural parameters λ, given what is fixed, by keyword."""

    @classmethod
    @abstractmethod
    def from_mean(cls, params: Params, *args: Any, **fixed: Any) -> Self:
        """The member with mean parameters μ, given what is fixed, by keyword."""

    @abstractmethod
    def log_partition(self, params: Params) -> Float[Array, "*b"]:
        """A(λ), for any λ of this family's layout."""

    @abstractmethod
    def sufficient_statistics(self, x: Any) -> Params:
        """T(x); leading axes of x are leading axes of every leaf too."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws of shape `shape + batch shape + event shape`."""

    def log_base_measure(self, x: Any) -> Float[Array, "*b"]:
        """log h(x); zero by default."""
        return jnp.zeros(self.support.batch_shape(x), self.dtype)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        """E_q[log h(x)]; zero by default."""
        return jnp.zeros(self.batch_shape, self.dtype)

    def relations(self) -> list[tuple[Array, Bool[Array, "*b"], str]]:
        """What must hold between parameters, besides each one's own domain: a value to
        show, whether it is right, and a message such as "df must exceed p - 1"."""
        return []

    # -- shapes and copies -----------------------------------------------------------

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a batch of members; () for one."""
        first = parameter_fields(self)[0]
        shape = jnp.shape(getattr(self, first.name))
        return shape[: len(shape) - first.metadata["domain"].ndim]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one observation; a number by default."""
        return ()

    @property
    def dtype(self) -> Any:
        """The floating dtype of the parameters."""
        return jax.tree.leaves(self)[0].dtype

    @property
    def fixed(self) -> dict[str, Any]:
        """What is not part of λ, as the keywords of `from_natural` and `from_mean`."""
        return {f.name: getattr(self, f.name) for f in fixed_fields(self)}

    def with_natural_params(self, params: Params) -> Self:
        """The member of the same family, fixed parameters included, with these λ."""
        return type(self).from_natural(params, **self.fixed)

    def with_mean_params(self, params: Params) -> Self:
        """The member of the same family, fixed parameters included, with these μ."""
        return type(self).from_mean(params, **self.fixed)

    def same_family(self, other: ExponentialFamily) -> None:
        """Check that another member shares T, h and A with this one.

        Raises:
            TypeError: it belongs to another family.
            ValueError: it has other fixed parameters.
        """
        if type(other) is not type(self):
            raise TypeError(
                f"expected another {type(self).__name__}, got {type(other).__name__}"
            )
        if self.fixed != other.fixed:
            raise ValueError(
                f"two {type(self).__name__} members need the same fixed parameters, "
                f"got {self.fixed} and {other.fixed}"
            )

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
                the support, or no member has these mean parameters (too few distinct
                observations).
        """
        x = self.as_floats(x)
        count = jax.tree.leaves(x)[0].shape[0]
        w = jnp.ones(count, self.dtype) if weights is None else jnp.asarray(weights)
        inside = self.support.holds(x)
        wrong = ~inside & (w > 0).reshape(-1, *[1] * (inside.ndim - 1))
        if is_concrete(wrong):
            self._explain_fit(wrong, w)
        x = self.support.replace_outside(x, inside)
        return self._fit(x, jnp.where(wrong.any(), jnp.nan, w / w.sum()))

    def _explain_fit(self, wrong: Array, weights: Array) -> None:
        name = f"{type(self).__name__}.fit"
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: {int(wrong.sum())} of {wrong.size} observations are not "
                f"{self.support.description}"
            )
        if not bool((weights >= 0).all() & (weights > 0).any()):
            raise ValueError(
                f"{name}: the weights must be zero or more, one of them positive"
            )

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
        """
        for other in others:
            self.same_family(other)
        members = [self.natural_params, *(o.natural_params for o in others)]
        return self.with_natural_params(jax.tree.map(lambda *p: sum(p), *members))

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
            ValueError: outside `jit`, an observation lies outside the support.

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

    # -- moments of x: where a family has them -----------------------------------------

    mean: Any = Lacking("E[x], shape (*batch, *event)")
    variance: Any = Lacking("Var[x], entry by entry, shape (*batch, *event)")
    mode: Any = Lacking("where the density is largest; NaN where it is unbounded")

    def cdf(self, x: Array) -> Float[Array, "*b"]:
        """P(X ≤ x), for numbers."""
        raise self._lacks("cdf")

    def to_numpyro(self) -> Any:
        """The same distribution of `numpyro.distributions`.

        By default the first of `numpyro_names`, with parameters of the same names.
        """
        import numpyro.distributions as dist

        if not self.numpyro_names:
            raise self._lacks("counterpart in numpyro.distributions")
        names = [f.name for f in parameter_fields(self)]
        counterpart = getattr(dist, self.numpyro_names[0])
        return counterpart(**{name: getattr(self, name) for name in names})

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        """The member equal to a distribution named in `numpyro_names`."""
        names = [f.name for f in parameter_fields(cls)]
        return cls(*(getattr(distribution, name) for name in names))

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {what}")
