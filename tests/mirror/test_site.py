"""The step of a site is the one update, of a prior times a site."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import SemidefiniteDense, SemidefiniteDiagonal
from ngvi.mirror import Direction, mirror_step
from ngvi.mirror.retractions import second_order
from ngvi.mirror.site import natural_mean_step, retracted_site, site_step
from ngvi.mirror.step import gaussian_path

RNG = np.random.default_rng(0)
DIM, SCALE, RHO = 4, 7.0, 0.3
DELTA = jnp.asarray(RNG.uniform(0.5, 2.0, DIM))
MEAN, OF_DATA = jnp.asarray(RNG.standard_normal((2, DIM)))
G = OF_DATA + DELTA * MEAN


def sites(dense: bool) -> tuple[Any, Any]:
    """s and ĥ."""
    roots = jnp.asarray(RNG.standard_normal((2, DIM, DIM)))
    if dense:
        s, h = (SemidefiniteDense(root @ root.T) for root in roots)
        return s, h
    return SemidefiniteDiagonal(roots[0, 0] ** 2), SemidefiniteDiagonal(roots[1, 0])


@pytest.mark.parametrize("dense", [True, False])
def test_it_is_the_mirror_step(dense: bool) -> None:
    site, found = sites(dense)
    if not dense:
        found = SemidefiniteDiagonal(found.values**2)
    q = Gaussian(MEAN, site.scale(SCALE).damp(DELTA))
    h = SCALE * found.dense() + jnp.diag(DELTA)
    half = h / 2 if dense else jnp.diagonal(h) / 2
    expected = mirror_step(q, (G - h @ MEAN, half), RHO)

    moved, _ = site_step((site, found), (found, found), RHO)
    precision = moved.scale(SCALE).damp(DELTA)
    mean = natural_mean_step(MEAN, G, precision, RHO)
    np.testing.assert_allclose(precision.dense(), expected.precision.dense(), 1e-12)
    np.testing.assert_allclose(mean, expected.mean, 1e-12)


def test_a_site_of_any_sign_moves_by_the_retraction_of_second_order() -> None:
    site, found = sites(dense=False)
    assert found.values.min() < 0
    precision = site.scale(SCALE).damp(DELTA)
    change = SCALE * (found.values - site.values)
    q, a = Gaussian(MEAN, precision), 1 / jnp.sqrt(precision.entries())
    direction = Direction(a * G, a**2 * change)
    expected = gaussian_path(q, direction, second_order)(jnp.asarray(RHO)).q

    moved = retracted_site(precision, RHO * change, DELTA, SCALE, second_order)
    new = moved.scale(SCALE).damp(DELTA)
    mean = natural_mean_step(MEAN, G, new, RHO)
    np.testing.assert_allclose(new.entries(), expected.precision.entries(), 1e-12)
    np.testing.assert_allclose(mean, expected.mean, 1e-12)


@pytest.mark.parametrize("trust", [0.01, 1e3])
def test_a_step_of_the_mean_is_no_longer_than_is_trusted(trust: float) -> None:
    precision = sites(dense=True)[0].scale(SCALE).damp(DELTA)
    free = natural_mean_step(MEAN, G, precision, RHO) - MEAN
    held = natural_mean_step(MEAN, G, precision, RHO, trust) - MEAN
    length = jnp.sqrt(free @ precision.mv(free))
    share = min(1.0, trust * DIM**0.5 / float(length))
    assert (share < 1) == (trust < 1)
    np.testing.assert_allclose(held, share * free, 1e-12)
