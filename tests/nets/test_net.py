"""A net as a function of one vector, and what has no posterior."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher.likelihoods import as_likelihood
from ngvi.nets import vogn
from ngvi.nets.net import Net
from tests.nets.problems import DIM, LABELS, PARAMS, START, X, apply, loss, of_examples

NET = Net.of(apply, PARAMS, X[0])


def test_weights_are_one_vector_layer_by_layer() -> None:
    assert (NET.dim, NET.dtype) == (DIM, jnp.float64)
    assert NET.zeros.shape == (DIM,)
    np.testing.assert_array_equal(NET.layout.vector(PARAMS), START)
    np.testing.assert_array_equal(NET(jnp.asarray(START), X[0]), apply(PARAMS, X[0]))


def test_the_loss_is_the_mean_over_examples() -> None:
    w = jnp.asarray(START)
    value, outputs = NET.loss(w, as_likelihood("categorical"), X[0], LABELS[0])
    each = of_examples(loss)(w, X[0], LABELS[0])
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-14)
    np.testing.assert_array_equal(outputs, apply(PARAMS, X[0]))


def test_params_without_a_posterior() -> None:
    with pytest.raises(ValueError, match=r"params\['count'\] must be floating.*int64"):
        Net.of(apply, PARAMS | {"count": jnp.asarray(3)}, X[0])
    with pytest.raises(ValueError, match="do not depend on the parameter idle"):
        Net.of(apply, PARAMS | {"idle": jnp.zeros(2)}, X[0])


def test_examples_that_are_mixed_are_refused() -> None:
    def normalised(p: Any, x: jax.Array) -> jax.Array:
        h = apply(p, x)
        return (h - h.mean(0)) / (h.std(0) + 1e-3)

    NET.check_examples_apart(PARAMS, X[0])
    NET.check_examples_apart(PARAMS, X[0, :1])
    net = Net.of(normalised, PARAMS, X[0])
    with pytest.raises(ValueError, match=r"changes with the others in its batch.*Norm"):
        net.check_examples_apart(PARAMS, X[0])


def test_batch_normalisation_of_flax_is_refused_in_training() -> None:
    nn = pytest.importorskip("flax.linen")

    class Normalised(nn.Module):
        training: bool

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            h = nn.BatchNorm(use_running_average=not self.training)(nn.Dense(3)(x))
            return nn.Dense(3)(nn.tanh(h))

    variables = Normalised(True).init(jax.random.key(0), X[0])
    params = variables["params"]

    def outputs(training: bool) -> Any:
        def run(p: Any, x: jax.Array) -> jax.Array:
            both = {"params": p, "batch_stats": variables["batch_stats"]}
            return Normalised(training).apply(both, x, mutable=["batch_stats"])[0]

        return run

    evaluated = Net.of(outputs(False), params, X[0])
    evaluated.check_examples_apart(params, X[0])
    trained = Net.of(outputs(True), params, X[0])
    with pytest.raises(ValueError, match=r"evaluation mode.*LayerNorm"):
        trained.check_examples_apart(params, X[0])
    labels = jnp.zeros((len(X[0]), 3), X[0].dtype)
    with pytest.raises(ValueError, match="batch normalisation in training"):
        vogn(outputs(True), "gaussian", 100).init(params, (X[0], labels))
