"""A gradient from the pass back that a curvature is had from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher.batches import Batch
from ngvi.fisher.gradient import with_gradient
from ngvi.fisher.kinds import KINDS
from ngvi.fisher.layers import discover
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import as_likelihood
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.exact import DenseStructure
from ngvi.fisher.structures.kronecker import KroneckerStructure
from tests.fisher.reference import MODELS, Model
from tests.programs import compiled


@pytest.mark.parametrize("kind", ["true", "sampled", "empirical", "gauss-newton"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_gradient_curvature_and_outputs(model: Model, kind: str) -> None:
    # Layers used once or at five positions, leaves in none; signed columns, too.
    network = discover(model.apply, model.params, model.x)
    likelihood = as_likelihood(model.likelihood)
    signed = kind == "gauss-newton" and not likelihood.natural
    structure = DenseStructure() if signed else KroneckerStructure()
    keys = jax.random.split(jax.random.key(0), len(model.y))

    @compiled
    def both(params: object) -> tuple:
        batch = Batch(model.x, model.y, keys)
        problem = Problem(
            likelihood, params, batch, model.apply, KINDS[kind](), network, None
        )
        found = with_gradient(problem, lambda sent: structure.sums(problem, sent))
        built = structure.build(problem, found.sums).dense()
        alone = structure.compute(problem, None).dense()

        def loss(params: object) -> jax.Array:
            outputs = model.apply(params, model.x)
            return -jax.vmap(likelihood.log_prob)(outputs, model.y).mean()

        expected = Layout.of(params, network).vector(jax.grad(loss)(params))
        outputs = model.apply(params, model.x)
        return (found.gradient, built, found.outputs), (expected, alone, outputs)

    for actual, expected in zip(*map(jax.tree.leaves, both(model.params)), strict=True):
        assert jnp.abs(expected).max() > 1e-2
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
