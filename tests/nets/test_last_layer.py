"""A posterior of the last layer alone, against its update written out naively."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets import (
    Algorithm,
    GammaPrior,
    Mixture,
    PartialPosterior,
    Predictive,
    elbo,
    last_layer,
)
from tests.nets.problems import (
    DATA_SIZE,
    DIM,
    LABELS,
    PARAMS,
    SIZES,
    START,
    X,
    apply,
    begun,
    close,
    gradients,
    matrices,
    normals,
    training,
)
from tests.programs import compiled

N, FIRST = DATA_SIZE, SIZES[0]
DELTA = 1.5
SETTINGS = {"prior_precision": DELTA, "precision_rate": 0.2, "momentum": 0.8}


def made(**settings: Any) -> Algorithm:
    return last_layer(apply, "categorical", N, **SETTINGS, **settings)


def test_only_the_last_layer_is_drawn() -> None:
    alpha, kl, damping, rho, beta1 = 0.02, 0.7, 0.3, 0.2, 0.8
    algorithm = made(
        kind="empirical",
        learning_rate=alpha,
        damping=damping,
        kl_weight=kl,
        samples=2,
    )
    mean, momentum = START, np.zeros(DIM)
    diagonal, dense = np.ones(FIRST), np.eye(DIM - FIRST)
    s2 = N / kl * dense + DELTA * np.eye(DIM - FIRST)
    for k, before, state, batch, key in training(algorithm):
        eps, _ = normals(key, 2)
        # A of the block alone, the same for both draws.
        a = matrices(before.precision)[1][FIRST:, FIRST:]
        close(a @ a.T, np.linalg.inv(s2))
        away = np.column_stack([np.zeros((2, FIRST)), eps[:, FIRST:] @ a.T])
        each = [gradients(mean + e, *batch) for e in away]
        squares = np.mean([(g[:, :FIRST] ** 2).mean(0) for g in each], 0)
        outer = [g[:, FIRST:].T @ g[:, FIRST:] / len(g) for g in each]
        diagonal = (1 - rho) * diagonal + rho * squares
        dense = (1 - rho) * dense + rho * np.mean(outer, 0)
        s1, s2 = (
            N / kl * diagonal + DELTA,
            N / kl * dense + DELTA * np.eye(DIM - FIRST),
        )
        momentum = beta1 * momentum + (1 - beta1) * np.mean(each, (0, 1))
        direction = N / kl * momentum / (1 - beta1**k) + DELTA * mean
        more = N / kl * damping
        first = direction[:FIRST] / (s1 + more)
        last = np.linalg.solve(s2 + more * np.eye(len(s2)), direction[FIRST:])
        mean = mean - alpha * np.concatenate([first, last])
        close(state.mean, mean)
        posterior = algorithm.posterior(state)
        assert isinstance(posterior, PartialPosterior)
        close(posterior.posterior.precision.dense(), s2)


def test_its_posterior_predicts_and_has_a_bound() -> None:
    algorithm = made()
    data = X[0], LABELS[0]
    state = begun(algorithm, PARAMS, data)
    posterior = algorithm.posterior(state)
    jax.tree.map(np.testing.assert_array_equal, posterior.params, PARAMS)
    draws = posterior.sample(jax.random.key(0), (5,))
    np.testing.assert_array_equal(
        draws["first"]["w"], jnp.stack([PARAMS["first"]["w"]] * 5)
    )
    assert draws["last"].std(0).min() > 0
    # N(m, (N + δ)⁻¹ I) before the first step, against N(0, δ⁻¹ I).
    s, m = N + DELTA, np.asarray(PARAMS["last"])
    expected = (DELTA / s - 1 + np.log(s / DELTA)) * m.size + DELTA * (m**2).sum()
    np.testing.assert_allclose(posterior.kl(), expected / 2)
    bound = elbo(apply, posterior, *data, jax.random.key(1))
    np.testing.assert_allclose(bound.kl, posterior.kl())
    probabilities = Predictive(apply, posterior).probabilities(X[0], jax.random.key(2))
    np.testing.assert_allclose(probabilities.sum(-1), 1)


def test_an_ensemble_of_them() -> None:
    algorithm = made()
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    init = compiled(jax.vmap(algorithm.init, (0, None)))
    mixture = Mixture.stacked(algorithm.posterior(init(starts, (X[0], LABELS[0]))))
    jax.tree.map(np.testing.assert_array_equal, mixture[0].params, PARAMS)
    draws = mixture.sample(jax.random.key(0), (4,))["first"]["b"]
    assert len(np.unique(draws[:, 0])) == 2


def test_what_has_no_such_posterior() -> None:
    with pytest.raises(ValueError, match="whose prior cannot be learned"):
        made(hyperprior=GammaPrior(1.0, 1.0))

    def power(p: Any, x: jax.Array) -> jax.Array:
        return jnp.abs(x) ** p["power"]

    algorithm = last_layer(power, "gaussian", N)
    with pytest.raises(ValueError, match="no layer was found in the model"):
        algorithm.init({"power": jnp.ones(2)}, (X[0], X[0]))
