"""A family from a log-partition function and its statistics.

μ → λ has no closed form here: A(λ) − ⟨λ, μ⟩ is convex and minimal at the λ sought, and
Newton's method with backtracking goes there from a member of the family. Its derivative
is that of the implicit function, F(λ)⁻¹.

Source: Boyd and Vandenberghe (2004), Convex optimization, section 9.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily, Params
from ngvi.families.data import nan_unless
from ngvi.families.domains import REAL, Domain, Joint
from ngvi.families.parameters import (
    as_floats,
    branch,
    check_fixed,
    family,
    fixed,
    is_concrete,
)

Function = Callable[..., Any]
ITERATIONS = 100


@family
class Custom(ExponentialFamily):
    """A member of a family made by `from_log_partition`, which see."""

    params: Params = branch()
    log_partition_function: Function = fixed("a function", callable)
    statistics_function: Function = fixed("a function", callable)
    base_measure_function: Function = fixed("a function", callable)
    sampler: Function = fixed("a function", callable)
    domain: Domain | Joint = fixed("a domain", lambda d: isinstance(d, Domain | Joint))

    def __post_init__(self) -> None:
        check_fixed(self)
        leaves, structure = jax.tree.flatten(self.params)
        params = jax.tree.unflatten(structure, as_floats(*leaves))
        partition = self.log_partition_function(params)
        if jnp.shape(partition) != ():
            raise ValueError(
                "from_log_partition: A(λ) must be one number, got shape "
                f"{jnp.shape(partition)}"
            )
        if is_concrete(partition) and not bool(jnp.isfinite(partition)):
            raise ValueError(
                f"from_log_partition: A(λ) = {float(partition)} at {params}: these "
                "natural parameters lie outside the family's domain"
            )
        params = nan_unless(jnp.isfinite(partition), params)
        object.__setattr__(self, "params", params)

    @property
    def support(self) -> Domain | Joint:
        return self.domain

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def natural_params(self) -> Params:
        return self.params

    @classmethod
    def from_natural(cls, params: Params, **fixed: Any) -> Self:
        return cls(params, **fixed)

    @classmethod
    def from_mean(cls, params: Params, *, start: Params, **fixed: Any) -> Self:
        """The member with mean parameters μ.

        Args:
            params: μ.
            start: natural parameters inside the family's domain.
            fixed: the functions, as in the constructor.
        """
        flat_start, unravel = ravel_pytree(start)
        partition = fixed["log_partition_function"]

        def log_partition(flat: Float[Array, "n"]) -> Float[Array, ""]:
            return partition(unravel(flat))

        mean = ravel_pytree(params)[0]
        return cls(unravel(_invert(log_partition, mean, flat_start)), **fixed)

    def _sizes(self) -> Any:
        return jax.tree.map(jnp.shape, self.params)

    def with_mean_params(self, params: Params) -> Self:
        return self.from_mean(params, start=self.params, **self.fixed)

    def log_partition(self, params: Params) -> Float[Array, ""]:
        return self.log_partition_function(params)

    def sufficient_statistics(self, x: Any) -> Params:
        return self._batched(self.statistics_function, x)

    def log_base_measure(self, x: Any) -> Float[Array, "*b"]:
        return self._batched(self.base_measure_function, x).astype(self.dtype)

    def _batched(self, function: Function, x: Any) -> Any:
        for _ in self.support.batch_shape(x):
            function = jax.vmap(function)
        return function(x)

    def expected_log_base_measure(self) -> Float[Array, ""]:
        if self.base_measure_function is _flat:
            return jnp.zeros((), self.dtype)
        raise NotImplementedError(
            "from_log_partition: E[log h], and so the entropy, is unknown where a log "
            "base measure was given; kl needs none"
        )

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        return self.sampler(key, self.params, shape)


def _flat(_: Any) -> Float[Array, ""]:
    return jnp.zeros(())


def _no_sampler(key: Any, params: Params, shape: tuple[int, ...]) -> Any:
    raise NotImplementedError(
        "from_log_partition: pass sampler=, a function of (key, natural_params, shape)"
    )


def from_log_partition(
    log_partition: Callable[[Params], Float[Array, ""]],
    sufficient_statistics: Callable[[Any], Params],
    natural_params: Params,
    *,
    log_base_measure: Callable[[Any], Float[Array, ""]] = _flat,
    sampler: Callable[[Array, Params, tuple[int, ...]], Any] = _no_sampler,
    support: Domain | Joint = REAL,
) -> Custom:
    """A member of the family q(x) = h(x) exp(⟨λ, T(x)⟩ − A(λ)) of your own A and T.

    Mean parameters, Fisher matrix, divergences, fits and natural gradients follow from
    A by automatic differentiation; `with_mean_params` inverts ∇A by Newton's method.

    Args:
        log_partition: A, from one λ to a number; NaN or ∞ outside its domain. It must
            be strictly convex: no two λ may be the same distribution.
        sufficient_statistics: T, from one x to a pytree like λ.
        natural_params: λ of the member returned.
        log_base_measure: log h, from one x to a number; zero by default.
        sampler: (key, λ, shape) ↦ draws; needed by `sample` alone.
        support: where x lies; a number by default.

    Returns:
        A member; `with_natural_params` and `with_mean_params` give others. Batches of
        members are had by `jax.vmap`.

    Raises:
        ValueError: A(λ) is not one finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.families.domains import POSITIVE
        >>> q = from_log_partition(  # the half-normal family: T(x) = x²
        ...     lambda v: -jnp.log(-v) / 2, lambda x: x**2, jnp.asarray(-0.5),
        ...     log_base_measure=lambda x: jnp.log(4 / jnp.pi) / 2, support=POSITIVE,
        ... )
        >>> float(q.mean_params), round(float(q.log_prob(1.0)), 4)
        (1.0, -0.7258)
    """
    return Custom(
        natural_params,
        log_partition,
        sufficient_statistics,
        log_base_measure,
        sampler,
        support,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _invert(
    log_partition: Function, mean: Float[Array, "n"], start: Float[Array, "n"]
) -> Float[Array, "n"]:
    """λ with ∇A(λ) = μ, from a start inside the domain; NaN where none is found."""

    def potential(params: Float[Array, "n"]) -> Float[Array, ""]:
        return log_partition(params) - params @ mean

    eps = jnp.finfo(mean.dtype).eps

    def step(state: tuple) -> tuple:
        count, params, value, last, _ = state
        gradient = jax.grad(potential)(params)
        direction = -jnp.linalg.solve(jax.hessian(potential)(params), gradient)
        # The squared Fisher length of the step. Not positive where rounding has made
        # the matrix indefinite, as on the way to an optimum at infinity.
        squared = -gradient @ direction

        # So near, a whole step is right, and A's digits could not tell.
        largest = jnp.where(squared < 1e-4, jnp.finfo(mean.dtype).max, value)

        def rejected(length: Float[Array, ""]) -> Array:
            # False for NaN: a step out of the domain is too long.
            enough = largest - length * squared / 4
            return ~(potential(params + length * direction) <= enough)

        length = jax.lax.while_loop(
            lambda t: rejected(t) & (t > 1e-10), lambda t: t / 2, jnp.ones_like(squared)
        )
        moved = params + length * direction
        # Convergence is quadratic: a step so short is the last; or one that is short
        # and no shorter than that before, for then the gradient is rounding.
        least = (squared < eps) | ((squared < eps**0.5) & (squared >= last))
        found = jnp.where(squared >= 0, potential(moved), jnp.nan)
        return count + 1, moved, found, squared, least & (squared >= 0)

    def searching(state: tuple) -> Array:
        count, _, value, _, done = state
        return (count < ITERATIONS) & ~done & jnp.isfinite(value)

    begun = potential(start)
    initial = (0, start, begun, jnp.full_like(begun, jnp.inf), jnp.asarray(False))
    _, params, _, _, done = jax.lax.while_loop(searching, step, initial)
    return jnp.where(done, params, jnp.nan)


@_invert.defjvp
def _invert_jvp(log_partition: Function, primals: tuple, tangents: tuple) -> tuple:
    mean, start = primals
    params = _invert(log_partition, mean, start)
    fisher = jax.hessian(log_partition)(params)
    return params, jnp.linalg.solve(fisher, tangents[0])
