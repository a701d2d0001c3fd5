"""Kernels against scikit-learn's, and what they refuse."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from sklearn.gaussian_process import kernels as theirs

from ngvi.bayes.gaussian_process import (
    RBF,
    Constant,
    Linear,
    Matern12,
    Matern32,
    Matern52,
)

X, Z = np.random.default_rng(0).normal(size=(2, 5, 2))
SCALES = np.array([0.7, 1.9])
PAIRS = [
    (RBF(2.0, SCALES), 2.0 * theirs.RBF(SCALES)),
    (Matern12(2.0, SCALES), 2.0 * theirs.Matern(SCALES, nu=0.5)),
    (Matern32(2.0, 0.6), 2.0 * theirs.Matern(0.6, nu=1.5)),
    (Matern52(2.0, 0.6), 2.0 * theirs.Matern(0.6, nu=2.5)),
    (Linear(3.0, 1.0), 3.0 * theirs.DotProduct(0.0)),
    (
        RBF(1.0, 0.5) + Constant(0.3) * Matern32(),
        theirs.RBF(0.5) + 0.3 * theirs.Matern(1.0, nu=1.5),
    ),
]


@pytest.mark.parametrize(("mine", "other"), PAIRS)
def test_against_scikit_learn(mine: Any, other: Any) -> None:
    np.testing.assert_allclose(mine(X, Z), other(X, Z), rtol=1e-12)
    np.testing.assert_allclose(mine.diagonal(X), other.diag(X), rtol=1e-12)


def test_derivatives_where_inputs_coincide() -> None:
    def total(kernel: Any) -> Any:
        return kernel(X, X).sum()

    for cls in (Matern12, Matern32, Matern52):
        slope = jax.grad(total)(cls(1.0, 0.5))
        step = 1e-6
        ends = [total(cls(1.0, 0.5 + s)) for s in (-step, step)]
        expected = (ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(slope.lengthscale, expected, rtol=1e-6)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="RBF: variance must be positive"):
        RBF(-1.0)
    with pytest.raises(ValueError, match="Matern32: lengthscale must be positive"):
        Matern32(1.0, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="one for each of the 2 columns"):
        RBF(1.0, np.ones(3))(X, Z)
