"""What λ, μ, A and F are to one another, in every family, over its whole range."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from jaxtyping import Array

from ngvi.families import ExponentialFamily
from tests.families.cases import (
    WIDE,
    Case,
    double,
    every_family,
    members,
    seeds,
    single,
)
from tests.families.checks import TOLERANCE, close, roundings
from tests.programs import compiled

BATCH = (64,)
# Matrices over six decades are singular, or so nearly that ∇A by derivatives is lost.
REACH = {"Gaussian-Dense": 1.0, "MatrixNormalWishart": 1.0}
# Every example is a batch: parameters by the hundred.
few = settings(max_examples=4)


class Coordinates(NamedTuple):
    """λ and μ as vectors, of a member and of others made from its coordinates."""

    natural: Array
    mean: Array
    gradient: Array
    natural_of_natural: Array
    mean_of_natural: Array
    natural_of_mean: Array
    mean_of_mean: Array


@compiled
def _coordinates(q: ExponentialFamily) -> Coordinates:
    natural, mean = q.natural_params, q.mean_params
    there, back = q.with_natural_params(natural), q.with_mean_params(mean)
    return Coordinates(
        natural=q.flatten(natural),
        mean=q.flatten(mean),
        gradient=q.flatten(ExponentialFamily.mean_params.fget(q)),
        natural_of_natural=q.flatten(there.natural_params),
        mean_of_natural=q.flatten(there.mean_params),
        natural_of_mean=q.flatten(type(q).natural_from_mean(mean, **q.fixed)),
        mean_of_mean=q.flatten(back.mean_params),
    )


@compiled
def _fisher(q: ExponentialFamily) -> Array:
    """∇²A column by column: a matrix that no factorisation need bear."""
    zero = q.flatten(q.natural_params)

    def column(unit: Array) -> Array:
        direction = q.unflatten(jnp.broadcast_to(unit, zero.shape))
        return q.flatten(ExponentialFamily.fisher_product(q, direction))

    columns = jax.vmap(column)(jnp.eye(zero.shape[-1], dtype=zero.dtype))
    return jnp.moveaxis(columns, 0, -1)


def _inverse(fisher: np.ndarray) -> tuple[np.ndarray, ...]:
    """|F⁻¹|, the standard deviations of T, and where F⁻¹ has digits to speak of."""
    sd = np.sqrt(np.diagonal(fisher, axis1=-2, axis2=-1))
    units = sd[..., :, None] * sd[..., None, :]
    correlation = fisher / units
    known = np.linalg.cond(correlation) < 1e10
    safe = np.where(known[..., None, None], correlation, np.eye(sd.shape[-1]))
    return np.abs(np.linalg.inv(safe) / units), sd, known


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", matrix, np.abs(vector))


def _check(found: Coordinates, exact: Coordinates, fisher: Any, dtype: Any) -> None:
    forward, (backward, sd, known) = np.abs(fisher), _inverse(fisher)
    tolerance, rounding = TOLERANCE[np.dtype(dtype)], roundings(dtype)
    near = tolerance * (np.abs(exact.mean) + sd)
    moved = rounding * _times(forward, exact.natural)
    close(found.mean, exact.mean, near, "μ")
    stable = ~(moved > 0.1 * sd).any(-1)
    assert stable.any()
    # Derivatives of factorisations round more than the entries of λ do.
    allowed = (near + 10 * moved)[stable]
    close(found.gradient[stable], exact.mean[stable], allowed, "∇A")
    largest = np.abs(exact.natural).max(-1, keepdims=True)
    natural = tolerance * np.abs(exact.natural) + 4 * np.finfo(dtype).eps * largest
    same = found.natural_of_natural[stable]
    close(same, exact.natural[stable], natural[stable], "λ of λ")
    allowed = (near + moved)[stable]
    close(found.mean_of_natural[stable], exact.mean[stable], allowed, "μ of λ")
    displaced = rounding * _times(backward, exact.mean)
    noticed = np.sqrt(np.diagonal(backward, axis1=-2, axis2=-1))
    belongs = np.isfinite(found.natural_of_mean).all(-1)
    kept = (belongs & stable) | (known & ~(displaced > 0.1 * noticed).any(-1))
    assert kept.mean() > 0.3
    returned = near + moved + rounding * np.abs(exact.mean)
    close(found.mean_of_mean[kept], exact.mean[kept], returned[kept], "μ of μ")
    kept &= known
    allowed = (natural + displaced)[kept]
    close(found.natural_of_mean[kept], exact.natural[kept], allowed, "λ of μ")


@every_family
@few
@given(seed=seeds)
def test_coordinates(case: Case, seed: int) -> None:
    """∇A = μ, and λ → q → λ, μ → q → μ, in double and in single precision.

    A rounding of λ moves μ by F δλ and one of μ moves λ by F⁻¹ δμ: so much is allowed
    besides the tolerance. Where the first is no longer small beside T's standard
    deviation, rounded λ are another distribution's, if any; where the second is not
    small beside the least change of λ that the distribution notices, √diag F⁻¹ (a
    normal variance beside a large squared mean), rounded μ need not belong to any
    member; and where F⁻¹ has no digits in double precision, what comes back is judged
    by its μ alone.
    """
    (q,) = members(case, seed, BATCH, REACH.get(case.name, WIDE), count=1)
    for start, dtype in ((q, np.float64), (single(q), np.float32)):
        found = Coordinates(*(np.asarray(v, float) for v in _coordinates(start)))
        exact = Coordinates(*(np.asarray(v) for v in _coordinates(double(start))))
        fisher = np.asarray(_fisher(double(start)))
        assert np.isfinite(fisher).all()
        _check(found, exact, fisher, dtype)
