"""Tails of the normal and the exponential kind against many digits."""

from __future__ import annotations

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ngvi.families.special import tails
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
    exact,
)


def _mills(x):
    return mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2))


def _exp1(x):
    return mp.exp(x) * mp.e1(x)


# name: (reference, derivative, second derivative), each of mpmath numbers
FUNCTIONS = {
    "mills_ratio": (
        _mills,
        lambda x: x * _mills(x) - 1,
        lambda x: _mills(x) + x * (x * _mills(x) - 1),
    ),
    "scaled_exp1": (
        _exp1,
        lambda x: _exp1(x) - 1 / x,
        lambda x: _exp1(x) - 1 / x + 1 / x**2,
    ),
}


@dtypes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives(name, dtype):
    function = getattr(tails, name)
    x = np.r_[np.logspace(-8, 8, 80), np.linspace(0.5, 10, 40)].astype(dtype)
    found = (computed(function, x), *derivatives(function, x))
    for value, units, reference in zip(
        found, (12, 12, 40), FUNCTIONS[name], strict=True
    ):
        with mp.workdps(80):
            expected = exact(reference, x)
        assert_close(value, expected, units, dtype)


def test_ends():
    ends = jnp.array([0.0, 1e30, jnp.inf], jnp.float32)
    expected = [np.sqrt(np.pi / 2), 1e-30, 0]
    np.testing.assert_allclose(tails.mills_ratio(ends), expected, rtol=1e-6)
    np.testing.assert_allclose(tails.scaled_exp1(ends), [np.inf, 1e-30, 0], rtol=1e-6)
    for function in (tails.mills_ratio, tails.scaled_exp1):
        assert jnp.isnan(function(jnp.array([-1.0, jnp.nan]))).all()
