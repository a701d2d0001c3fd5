"""KL divergence and entropy of every family: values and derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from jaxtyping import Array

from ngvi.families import ExponentialFamily
from tests.families.cases import (
    FAMILIES,
    MODERATE,
    WIDE,
    Case,
    double,
    each,
    every_family,
    members,
    seeds,
    single,
)
from tests.families.checks import TOLERANCE, close, roundings
from tests.programs import compiled

BATCH = (64,)
# Every example is a batch: parameters by the hundred.
few = settings(max_examples=4)


class Divergences(NamedTuple):
    """A family's own."""

    kl: Array
    entropy: Array
    cross_entropy: Array


class Generic(NamedTuple):
    """Those that follow from A, and the largest terms that cancel in them."""

    kl: Array
    kl_terms: Array
    entropy: Array
    entropy_terms: Array


@compiled
def _divergences(q: Any, p: Any) -> Divergences:
    return Divergences(q.kl(p), q.entropy(), q.cross_entropy(p))


@compiled
def _generic(q: Any, p: Any) -> Generic:
    mine, theirs = q.flatten(q.natural_params), p.flatten(p.natural_params)
    mean = jnp.abs(q.flatten(q.mean_params))
    own = jnp.abs(q.log_partition(q.natural_params))
    other = jnp.abs(p.log_partition(p.natural_params))
    base = jnp.abs(q.expected_log_base_measure())
    return Generic(
        kl=ExponentialFamily.kl(q, p),
        kl_terms=((jnp.abs(mine) + jnp.abs(theirs)) * mean).sum(-1) + own + other,
        entropy=ExponentialFamily.entropy(q),
        entropy_terms=(jnp.abs(mine) * mean).sum(-1) + own + base,
    )


@every_family
@few
@given(seed=seeds)
def test_divergences(case: Case, seed: int) -> None:
    """Against their generic definitions, up to the digits that cancel in those; and in
    single precision against double, up to a few last digits of those terms."""
    q, p = members(case, seed, BATCH, WIDE)
    for first, second, dtype in (
        (q, p, np.float64),
        (single(q), single(p), np.float32),
    ):
        found = Divergences(
            *(np.asarray(v, float) for v in _divergences(first, second))
        )
        generic = _generic(double(first), double(second))
        exact = found
        if dtype is np.float32:
            exact = _divergences(double(first), double(second))
        tolerance, eps = TOLERANCE[np.dtype(dtype)], np.finfo(dtype).eps
        rounding = roundings(np.float64)
        # The generic one also loses what matrices of condition 10⁴ cost, and single
        # precision what angles of hundreds of radians do.
        near = 10 * tolerance * np.abs(exact.kl) + 4 * rounding * generic.kl_terms
        close(found.kl, generic.kl, near, "generic KL")
        near = tolerance * (1 + np.abs(exact.entropy))
        near = near + rounding * generic.entropy_terms
        close(found.entropy, generic.entropy, near, "generic entropy")
        last = 20 * eps * generic.kl_terms
        close(found.kl, exact.kl, tolerance * np.abs(exact.kl) + last, "KL")
        assert (found.kl >= -last).all()
        last = 10 * eps * generic.entropy_terms
        near = tolerance * (1 + np.abs(exact.entropy)) + last
        close(found.entropy, exact.entropy, near, "entropy")
        # By the same compiled program.
        close(_divergences(first, first).kl, 0, last, "KL(q, q)")
        near = tolerance * (np.abs(found.kl) + np.abs(found.entropy) + 1)
        close(found.cross_entropy, found.entropy + found.kl, near, "cross entropy")


class Derivatives(NamedTuple):
    """Vectors in the units of the standard deviations of T, and what they should be."""

    along: dict[str, Array]
    fisher_times_direction: Array
    slopes: dict[str, tuple[Array, Array]]
    fisher: Array
    generic_fisher: Array


@compiled
def _derivatives(q: Any, p: Any, eps: Array) -> Derivatives:
    """Derivatives at q of KL and of the maps between λ and μ, along d = eps/sd(T)."""
    fisher = q.fisher.dense()
    sd = jnp.sqrt(jnp.diagonal(fisher, axis1=-2, axis2=-1))
    direction = q.unflatten(eps / sd)
    natural, mean = q.natural_params, q.mean_params

    def divergence(first: Any, second: Any) -> Array:
        return q.with_natural_params(first).kl(p.with_natural_params(second)).sum()

    def units(tree: Any) -> Array:
        return q.flatten(tree) / sd

    def product(vector: Array) -> Array:
        return jnp.einsum("...ij,...j->...i", fisher, vector) / sd

    def curvature(moved: Any) -> Any:
        return jax.grad(divergence)(moved, natural)

    # Along d in λ and 2d in λ′: mixed derivatives are −F, those in λ′ alone F.
    twice = jax.tree.map(lambda v: 2 * v, direction)
    slope, both = jax.grad(divergence, 1), (natural, natural)
    bend = jax.jvp(slope, both, (direction, twice))[1]
    in_first, in_second = jax.grad(divergence, (0, 1))(natural, p.natural_params)
    back = jax.vjp(lambda v: q.with_mean_params(v).natural_params, mean)[1]
    along_mean = q.unflatten(product(eps / sd) * sd)
    difference = q.flatten(natural) - p.flatten(p.natural_params)
    return Derivatives(
        along={
            "fisher_product": units(q.fisher_product(direction)),
            "fisher.mv": q.fisher.mv(eps / sd) / sd,
            "Hessian of KL": units(jax.jvp(curvature, (natural,), (direction,))[1]),
            "Hessian of KL, in λ′": units(bend),
            "F F⁻¹ F d": product(q.flatten(q.natural_gradient(along_mean))),
            "F ∂λ/∂μ F d": product(q.flatten(back(along_mean)[0])),
        },
        fisher_times_direction=product(eps / sd),
        slopes={
            "∇KL in λ": (units(in_first), product(difference)),
            "∇KL in λ′": (units(in_second), units(p.mean_params) - units(mean)),
        },
        fisher=fisher,
        generic_fisher=ExponentialFamily.fisher.fget(q).dense(),
    )


@each(FAMILIES, heavy_are_slow=True)
@few
@given(seed=seeds)
def test_derivatives(case: Case, seed: int) -> None:
    """∇²KL = F = ∇²A, ∂λ/∂μ = F⁻¹, ∇KL(q ‖ p) = F (λ_q − λ_p) and μ_p − μ_q.

    So the natural gradient F⁻¹ ∇_λ L is ∇_μ L. All is in the units in which |F_ij| ≤ 1;
    what F⁻¹ would amplify is multiplied by F.
    """
    q, p = members(case, seed, BATCH, MODERATE)
    size = jax.eval_shape(lambda q: q.flatten(q.natural_params), q).shape[-1]
    eps = np.random.default_rng(seed).standard_normal((*BATCH, size))
    found = _derivatives(q, p, jnp.asarray(eps))
    sd = np.sqrt(np.diagonal(found.fisher, axis1=-2, axis2=-1))
    units = sd[..., :, None] * sd[..., None, :]
    close(found.fisher, found.generic_fisher, 1e-9 * units, "fisher")
    largest = np.abs(eps).sum(-1, keepdims=True)
    for what, vector in found.along.items():
        close(vector, found.fisher_times_direction, 1e-8 * largest, what)
    for what, (slope, expected) in found.slopes.items():
        length = np.abs(expected).max(-1, keepdims=True)
        close(slope, expected, 1e-8 * (length + 1e-2), what)
