"""Horner's rule, sums, and functions that are told their own derivatives.

A special function differentiated through its implementation loses digits at every
branch and every cancellation; told its derivative as another special function it keeps
them to any order. An inverse function is the same case: its derivative is one over the
slope at the solution, whatever iteration found the solution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float


def polynomial(
    coefficients: Sequence[float], x: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """Σ_k c_k x^k, coefficients from the constant upwards."""
    value = coefficients[-1] + 0 * x
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def rational(
    numerator: Sequence[float], denominator: Sequence[float], x: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """The ratio of two polynomials, coefficients from the constants upwards."""
    return polynomial(numerator, x) / polynomial(denominator, x)


def summed(
    term: Callable[[Array], Array], count: int, like: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """Σ_{j<count} term(j), a loop whose every pass is vectorised over the elements."""
    return lax.fori_loop(
        0,
        count,
        lambda j, total: total + term(j),
        jnp.zeros_like(like),
        unroll=min(count, 4),
    )


def with_partials(
    *partials: Callable[..., Array], fixed: int = 0
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Decorate an elementwise function with its partial derivatives.

    Args:
        partials: one per differentiable argument, each a function of the function's
            value, followed by all of its arguments. Being given the value, the
            derivative of an inverse y ↦ x(y) is `lambda x, y: 1 / slope(x)`.
        fixed: how many trailing arguments are Python values, not arrays.
    """

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        settings_at = tuple(range(len(partials), len(partials) + fixed))
        # Compiled as one program also when called outside any other.
        compiled = jax.jit(function, static_argnums=settings_at, inline=True)
        wrapped = jax.custom_jvp(
            functools.update_wrapper(compiled, function), nondiff_argnums=settings_at
        )

        def rule(*args: Any) -> tuple[Array, Array]:
            *settings, primals, tangents = args
            value = wrapped(*primals, *settings)
            terms = [
                partial(value, *primals, *settings) * tangent
                for partial, tangent in zip(partials, tangents, strict=True)
                if not isinstance(tangent, SymbolicZero)
            ]
            total = sum(terms[1:], terms[0])
            # Of one argument alone it has that argument's shape and dtype.
            return value, jnp.broadcast_to(total, value.shape).astype(value.dtype)

        wrapped.defjvp(rule, symbolic_zeros=True)
        return wrapped

    return decorate
