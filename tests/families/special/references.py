"""Many-digit references and the comparisons of the special functions' tests."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

mpmath.mp.dps = 40

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def exact(function: Callable, *arguments: np.ndarray) -> np.ndarray:
    """The function of mpmath numbers at each element, rounded to double."""
    columns = [np.asarray(a, np.float64) for a in arguments]
    rows = zip(*columns, strict=True)
    return np.array([float(function(*map(mpmath.mpf, row))) for row in rows])


def computed(function: Callable, *arguments: np.ndarray) -> np.ndarray:
    """The compiled function; its dtype must be its arguments'."""
    value = jax.jit(function)(*arguments)
    assert value.dtype == arguments[0].dtype
    return np.asarray(value, np.float64)


def assert_close(value, expected, units: float, dtype, floor=0.0) -> None:
    """Relative (below `floor` absolute) errors, in units of the dtype's rounding."""
    off = np.abs(np.asarray(value, np.float64) - expected)
    scale = np.maximum(np.abs(expected), floor)
    error = np.divide(off, scale, out=off, where=off != 0)
    worst = np.argmax(np.where(np.isnan(error), np.inf, error))
    assert error[worst] <= units * np.finfo(dtype).eps, (worst, value[worst])


def derivatives(function: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First derivative in reverse, second forward over reverse."""
    first = jax.grad(function)

    def second(value: jax.Array) -> jax.Array:
        return jax.jvp(first, (value,), (jnp.ones_like(value),))[1]

    return jax.jit(jax.vmap(first))(x), jax.jit(jax.vmap(second))(x)
