"""Logarithms of ratios and their distance from the tangent, against many digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from ngvi.families.special import ratios
from tests.families.special.references import (
    assert_close,
    computed,
    derivatives,
    dtypes,
    exact,
)

RATIOS = 1 + np.array([-0.6, -1e-2, -1e-6, 0, 1e-6, 1e-2, 0.9, 1.1])
RATIOS = np.r_[RATIOS, np.logspace(-20, 20)]

OF_TWO = {
    "log_ratio": lambda x, y: mp.log(x / y),
    "log_ratio_gap": lambda x, y: mp.log(x / y) - (x - y) / y,
    "poisson_divergence": lambda x, y: x * mp.log(x / y) - x + y,
}
# name: (reference, derivative, second derivative), each of mpmath numbers
OF_ONE = {
    "log1p_minus": (
        lambda r: mp.log1p(r) - r,
        lambda r: -r / (1 + r),
        lambda r: -1 / (1 + r) ** 2,
    ),
    "expm1_minus": (lambda z: mp.expm1(z) - z, mp.expm1, mp.exp),
}


@dtypes
def test_of_two_numbers(dtype):
    y = np.full(RATIOS.shape, 3, dtype)
    x = (RATIOS * 3).astype(dtype)
    for name, reference in OF_TWO.items():
        with mp.workdps(60):
            expected = exact(reference, x, y)
        assert_close(computed(getattr(ratios, name), x, y), expected, 8, dtype)


@dtypes
def test_of_one_number(dtype):
    sizes = 10 ** np.linspace(-10, 1.9, 60)
    numbers = {
        "log1p_minus": np.r_[sizes, -sizes[sizes < 1], -0.999, -0.5, 1.0],
        "expm1_minus": np.r_[sizes, -sizes, 1.0, -1.0],
    }
    for name, references in OF_ONE.items():
        function, x = getattr(ratios, name), numbers[name].astype(dtype)
        found = (computed(function, x), *derivatives(function, x))
        # A second derivative is a difference of two terms of the first's size.
        floors = (0, 0, np.abs(found[1]) / (1 + np.abs(x)))
        for value, reference, floor in zip(found, references, floors, strict=True):
            with mp.workdps(60):
                expected = exact(reference, x)
            assert_close(value, expected, 8, dtype, floor)


def test_second_derivatives_of_the_gaps():
    x, y = np.array([1e-3, 1.0, 2.0, 5e2]), np.array([0.7, 1.0, 3.0, 1.0])
    ((xx, xy), (yx, yy)) = jax.jit(jax.vmap(jax.hessian(ratios.log_ratio_gap, (0, 1))))(
        x, y
    )
    entries = [
        (xx, -(x**-2.0)),
        (xy, y**-2.0),
        (yx, y**-2.0),
        (yy, y**-2.0 - 2 * x / y**3),
    ]
    # Each is a difference of terms of this size.
    terms = 1 / (x * y) + y**-2.0
    for found, wanted in entries:
        assert_close(found, wanted, 8, np.float64, floor=terms)


def test_outside_the_domain():
    assert jnp.isnan(ratios.log1p_minus(jnp.array([-1.0, -2.0, jnp.nan]))).all()
    assert ratios.log_ratio_gap(3.0, 3.0) == ratios.expm1_minus(0.0) == 0
