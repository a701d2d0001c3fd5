"""The prior: one precision for each layer, or for each weight; given or learned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.fisher import MLP
from ngvi.linalg import (
    Diagonal,
    KroneckerFactors,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)
from ngvi.nets import GammaPrior, Prior
from ngvi.nets.net import Net
from tests.nets.problems import DIM, PARAMS, SIZES, X, apply, close

LAYOUT = Net.of(apply, PARAMS, X[0]).layout
RNG = np.random.default_rng(1)
ROOT = RNG.standard_normal((DIM, DIM))
CURVATURE = ROOT @ ROOT.T / DIM


def test_precisions_are_given_for_all_for_leaves_or_for_weights() -> None:
    one = Prior.of(0.5, LAYOUT)
    np.testing.assert_array_equal(one.vector, np.full(DIM, 0.5))
    layers = Prior.of({"first": {"w": 2.0, "b": 2.0}, "last": 3.0}, LAYOUT)
    assert [p.ndim for p in layers.precisions] == [0, 0]
    np.testing.assert_array_equal(layers.vector, np.repeat([2.0, 3.0], SIZES))
    last = jnp.asarray(np.exp(RNG.standard_normal((3, 3))))
    leaves = Prior.of({"first": {"w": 2.0, "b": 1.0}, "last": last}, LAYOUT)
    expected = [*[2.0] * 6, *[1.0] * 3, *np.reshape(last, -1)]
    np.testing.assert_array_equal(leaves.vector, expected)


def test_numbers_that_are_known_stay_known_under_jit() -> None:
    # K-FAC's factors take one precision for a layer, and can see that there is one.
    tree = {"first": {"w": 2.0, "b": 2.0}, "last": 3.0}
    prior = jax.jit(lambda _: Prior.of(tree, LAYOUT))(0.0)
    assert [p.ndim for p in prior.precisions] == [0, 0]


@pytest.mark.parametrize("factored", [False, True])
def test_it_is_added_to_any_structure(factored: bool) -> None:
    prior = Prior.of({"first": {"w": 2.0, "b": 2.0}, "last": 3.0}, LAYOUT)
    delta = np.diag(np.asarray(prior.vector) + 0.25)
    dense = SemidefiniteDense(jnp.asarray(CURVATURE))
    close(prior.add_to(dense, factored, 0.25).dense(), CURVATURE + delta)
    diagonal = SemidefiniteDiagonal(jnp.asarray(np.diag(CURVATURE)))
    added = prior.add_to(diagonal, factored, 0.25)
    close(added.diagonal(), np.diag(CURVATURE + delta))
    kron = KroneckerFactors(*jnp.asarray([CURVATURE[:3, :3], CURVATURE[3:6, 3:6]]))
    corner = SemidefiniteDense(jnp.asarray(CURVATURE[9:, 9:]))
    both = prior.add_to(SemidefiniteBlocks((kron, corner)), factored, 0.25)
    first = kron.damp_factored(2.25) if factored else kron.damp(2.25)
    close(both.blocks[0].dense(), first.dense())
    close(both.blocks[1].dense(), (CURVATURE + delta)[9:, 9:])


def test_its_divergence_is_that_of_the_family() -> None:
    prior = Prior.of({"first": {"w": 2.0, "b": 1.0}, "last": 3.0}, LAYOUT)
    mean = jnp.asarray(RNG.standard_normal(DIM))
    precision = SemidefiniteDense(jnp.asarray(CURVATURE)).damp(0.5)
    p = Gaussian(jnp.zeros(DIM), Diagonal.from_entries(prior.vector))
    expected = Gaussian(mean, precision).kl(p)
    np.testing.assert_allclose(prior.kl(mean, precision), expected, rtol=1e-12)


def test_precisions_are_learned_layer_by_layer() -> None:
    hyperprior = GammaPrior(1.5, 0.3)
    prior = Prior.of({"first": {"w": 2.0, "b": 2.0}, "last": 3.0}, LAYOUT, hyperprior)
    mean = RNG.standard_normal(DIM)
    precision = SemidefiniteDense(jnp.asarray(CURVATURE)).damp(0.5)
    covariance = np.linalg.inv(np.asarray(precision.dense()))
    learned = prior.learned(jnp.asarray(mean), precision)
    squares = np.split(mean**2 + np.diag(covariance), [SIZES[0]])
    expected = [(1.5 + 9 / 2) / (0.3 + part.sum() / 2) for part in squares]
    np.testing.assert_allclose(learned.precisions, expected, rtol=1e-12)
    assert learned.hyperprior == hyperprior
    fixed = Prior.of(2.0, LAYOUT)
    assert fixed.learned(jnp.asarray(mean), precision) is fixed


@pytest.mark.parametrize(
    ("precision", "hyperprior", "message"),
    [
        (0.0, None, "must be positive, got 0.0"),
        (float("nan"), None, "must be positive, got nan"),
        ({"first": 1.0}, None, "a pytree like the parameters"),
        (1.0, GammaPrior(-1.0, 0.0), "must not be negative, got -1.0 and 0.0"),
        (
            {"first": {"w": 2.0, "b": 1.0}, "last": 3.0},
            GammaPrior(),
            "give each layer one number",
        ),
    ],
)
def test_bad_priors(precision: Any, hyperprior: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prior.of(precision, LAYOUT, hyperprior)


def test_groups_share_a_learned_precision() -> None:
    params = MLP((2, 3, 1)).init(jax.random.key(0))
    net = Net.of(MLP((2, 3, 1)), params, jnp.zeros((1, 2)))
    by_input = np.broadcast_to(np.arange(2)[:, None], (2, 3))
    groups = [{"w": by_input, "b": 2}, {"w": 0, "b": 1}]
    prior = Prior.of(1.0, net.layout, GammaPrior(0.5, 0.1), net.dtype, groups=groups)
    mean = net.layout.vector(params)
    learned = prior.learned(mean, Diagonal(jnp.full(net.dim, 2.0)))
    found = net.layout.tree(learned.vector)
    for layer, group, weights in zip(found, groups, params, strict=True):
        for name in ("w", "b"):
            of_leaf = np.broadcast_to(group[name], weights[name].shape)
            for g in np.unique(of_leaf):
                squares = np.asarray(weights[name])[of_leaf == g] ** 2 + 0.25
                expected = (0.5 + squares.size / 2) / (0.1 + squares.sum() / 2)
                np.testing.assert_allclose(layer[name][of_leaf == g], expected, 1e-12)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"w": 0, "b": 0}], "groups must be a pytree like the parameters"),
        ([{"w": 0.5, "b": 0}, {"w": 0, "b": 0}], "groups must be integers"),
        ([{"w": 9, "b": 0}, {"w": 0, "b": 0}], "got 0 to 9"),
    ],
)
def test_groups_that_are_none(groups, message: str) -> None:
    params = MLP((2, 3, 1)).init(jax.random.key(0))
    net = Net.of(MLP((2, 3, 1)), params, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=message):
        Prior.of(1.0, net.layout, GammaPrior(), net.dtype, groups=groups)
