"""log Γ and its relatives against forty digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ngvi.families import special
from ngvi.families.special.gamma import stirling_remainder_of
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
    exact,
)

# name: (reference, derivative, second derivative), each of mpmath numbers
FUNCTIONS = {
    "log_gamma": (mp.loggamma, lambda a: mp.psi(0, a), lambda a: mp.psi(1, a)),
    "digamma": tuple(lambda a, n=n: mp.psi(n, a) for n in range(3)),
    "trigamma": tuple(lambda a, n=n: mp.psi(n, a) for n in range(1, 4)),
    "tetragamma": tuple(lambda a, n=n: mp.psi(n, a) for n in range(2, 5)),
    "log_minus_digamma": (
        lambda a: mp.log(a) - mp.psi(0, a),
        lambda a: 1 / a - mp.psi(1, a),
        lambda a: -1 / a**2 - mp.psi(2, a),
    ),
    "trigamma_excess": (
        lambda a: a * mp.psi(1, a) - 1,
        lambda a: mp.psi(1, a) + a * mp.psi(2, a),
        lambda a: 2 * mp.psi(2, a) + a * mp.psi(3, a),
    ),
    "stirling_remainder": (
        lambda a: mp.loggamma(a) - (a - 0.5) * mp.log(a) + a - mp.log(2 * mp.pi) / 2,
        lambda a: mp.psi(0, a) - mp.log(a) + 1 / (2 * a),
        lambda a: mp.psi(1, a) - 1 / a - 1 / (2 * a**2),
    ),
}
# Absolute next to a zero.
FLOORS = {"log_gamma": 1.0, "digamma": 1.0}
names = pytest.mark.parametrize("name", FUNCTIONS)


def _grid(dtype, decades: tuple[float, float] = (-8, 10)) -> np.ndarray:
    parts = [10 ** np.linspace(*decades, 60), np.linspace(0.3, 4.5, 60)]
    return np.concatenate(parts).astype(dtype)


@dtypes
@names
def test_values(name, dtype):
    a = _grid(dtype)
    value = computed(getattr(special, name), a)
    assert_close(value, exact(FUNCTIONS[name][0], a), 8, dtype, FLOORS.get(name, 0.0))


@dtypes
@names
def test_derivatives(name, dtype):
    a = _grid(dtype, (-6, 6))
    first, second = derivatives(getattr(special, name), a)
    assert first.dtype == second.dtype == dtype
    floor = 1.0 if name == "log_gamma" else 0.0
    units = 60 if name == "stirling_remainder" else 8  # differentiated as it stands
    assert_close(first, exact(FUNCTIONS[name][1], a), units, dtype, floor)
    assert_close(second, exact(FUNCTIONS[name][2], a), units, dtype)


@names
def test_outside_the_domain(name):
    function = jax.jit(getattr(special, name))
    outside = jnp.array([-3.5, -1.0, 0.0, jnp.nan])
    assert jnp.isnan(function(outside)).all()
    # An element outside spoils no other's derivative.
    mixed = jax.grad(lambda a: function(a)[0])(jnp.array([2.5, -1.0, jnp.nan, 1e30]))
    assert jnp.isfinite(mixed[0])
    assert mixed[3] == 0


def test_stirling_remainder_of_a_python_number():
    n = np.array([1.0, 1.5, 7.0, 16.0, 1e6])
    found = [stirling_remainder_of(v) for v in n.tolist()]
    assert_close(found, exact(FUNCTIONS["stirling_remainder"][0], n), 400, np.float64)


def test_extremes_in_single_precision():
    a = np.array([1e-30, 1e30], np.float32)
    for name in ("log_gamma", "digamma", "log_minus_digamma", "stirling_remainder"):
        value = computed(getattr(special, name), a)
        with mp.workdps(100):
            expected = exact(FUNCTIONS[name][0], a)
        assert_close(value, expected, 8, np.float32)
