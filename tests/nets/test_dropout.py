"""Dropout as draws of weights, against what it is in the units."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import MLP
from ngvi.nets import GammaPrior, Predictive
from ngvi.nets.baselines import mc_dropout
from ngvi.nets.baselines.dropout import WithDropout

NET, RATE, N = MLP((2, 5, 4, 1)), 0.25, 40
X = jax.random.normal(jax.random.key(0), (N, 2))
Y = jnp.sin(X[:, :1])
KEY = jax.random.key(1)


def trained(epochs: int) -> Any:
    training = mc_dropout(
        NET, "gaussian", N, rate=RATE, prior_precision=2.0, learning_rate=0.02
    )

    state = training.init(NET.init(KEY), (X, Y))
    state, losses = training.run(state, (X, Y), KEY, epochs=epochs, batch_size=20)
    return training, state, losses


def test_a_draw_leaves_out_units() -> None:
    training, state, losses = trained(100)
    assert losses[-20:].mean() < losses[:20].mean() - 0.05
    posterior = training.posterior(state)
    params, n = posterior.params, 4000
    drawn = posterior.sample(KEY, (n,))
    for layer, one in zip(drawn, params, strict=True):
        assert (layer["b"] == one["b"]).all()
    assert (drawn[0]["w"] == params[0]["w"]).all()
    # The outputs are those of a net whose hidden units are multiplied by z/(1 − p).
    z1, z2 = (drawn[k]["w"][..., 0] / params[k]["w"][:, 0] for k in (1, 2))
    for z in (z1, z2):
        np.testing.assert_allclose(z[z != 0], 1 / (1 - RATE), rtol=1e-6)
        error = np.sqrt(RATE * (1 - RATE) / n)
        assert np.abs((z > 0).mean(0) - (1 - RATE)).max() < 4.5 * error
    outputs = jax.vmap(NET, (0, None))(drawn, X)
    hidden = NET.activation(X @ params[0]["w"] + params[0]["b"]) * z1[:, None]
    hidden = NET.activation(hidden @ params[1]["w"] + params[1]["b"]) * z2[:, None]
    expected = hidden @ params[2]["w"] + params[2]["b"]
    np.testing.assert_allclose(outputs, expected, atol=1e-9)
    assert (Predictive(NET, posterior).moments(X, KEY).sd_of_mean > 0).all()


def test_the_penalty_is_that_of_the_draws_on_average() -> None:
    training, state, _ = trained(1)
    objective, prior = training.rule.objective, state.prior
    draws = prior.layout.vector(training.posterior(state).sample(KEY, (20_000,)))
    each = (draws**2).sum(1)
    error = float(each.std() / len(each) ** 0.5)
    found = objective.penalty(state.variables, prior)
    assert abs(float(found) - float(each.mean())) < 4.5 * error
    none = WithDropout(0.0).penalty(state.variables, prior)
    np.testing.assert_allclose(none, (state.variables**2).sum())


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="rate must be from 0 to less than 1, got 1"):
        mc_dropout(NET, "gaussian", N, rate=1.0)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        mc_dropout(NET, "gaussian", N, samples=0)
    with pytest.raises(ValueError, match="leave out hyperprior"):
        mc_dropout(NET, "gaussian", N, hyperprior=GammaPrior())
