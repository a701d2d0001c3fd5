"""Baselines against exact posteriors, and against what they are, written naively."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest

from ngvi.fisher import MLP, laplace
from ngvi.fisher.likelihoods import Gaussian
from ngvi.nets import ObservationNoise, Prior, noisy_adam
from ngvi.nets.baselines import (
    bayes_by_backprop,
    deep_ensemble,
    ensemble,
    laplace_posterior,
    maximum_a_posteriori,
    swag,
)
from ngvi.nets.train import shuffled_batches

RNG = np.random.default_rng(0)
N, P, SD = 40, 3, 0.5
X = RNG.standard_normal((N, P))
X[:, 1] += X[:, 0]
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + SD * RNG.standard_normal((N, 1))
DELTA = 2.0
PRECISION = X.T @ X / SD**2 + DELTA * np.eye(P)
MODE = np.linalg.solve(PRECISION, X.T @ Y / SD**2)

NET = MLP((P, 4, 1))
KEY = jax.random.key(0)
RUN = {"epochs": 3, "batch_size": 10}


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"]


ZERO = {"w": np.zeros((P, 1))}


def test_bayes_by_backprop_finds_the_best_diagonal() -> None:
    # The mean-field optimum for a Gaussian posterior: its mean and its diagonal.
    training = bayes_by_backprop(
        linear,
        Gaussian(SD),
        N,
        prior_precision=DELTA,
        samples=8,
        learning_rate=optax.exponential_decay(0.05, 1000, 0.05),
    )
    state = training.init(ZERO, (X, Y))
    state, losses = training.run(state, (X, Y), KEY, epochs=2000, batch_size=N)
    q = training.posterior(state)
    best = np.diag(PRECISION)
    # Steps end at 1e-4; the mean over the last thousand of them is far closer.
    np.testing.assert_allclose(q.params["w"], MODE, atol=0.05 / np.sqrt(best.min()))
    np.testing.assert_allclose(q.precision.diagonal(), best, rtol=0.05)
    # E_q of the loss is a constant once q is: mean over draws, with its own error.
    residual = ((Y - X @ MODE) ** 2).mean() + (X**2).mean(0) @ (1 / best)
    expected = residual / (2 * SD**2) + np.log(SD) + np.log(2 * np.pi) / 2
    last = np.asarray(losses[-500:])
    error = last.std() / np.sqrt(len(last))
    assert abs(last.mean() - expected) < 4 * error


def test_bayes_by_backprop_starts_where_the_rows_do() -> None:
    settings = {"initial_curvature": 1e-3, "prior_precision": 3.0, "kl_weight": 0.5}
    params = NET.init(KEY)
    training = bayes_by_backprop(NET, "gaussian", N, **settings)
    found = training.posterior(training.init(params, (X, Y)))
    row = noisy_adam(NET, "gaussian", N, **settings)
    expected = row.posterior(row.init(params, (X, Y)))
    np.testing.assert_allclose(
        found.precision.diagonal(), expected.precision.diagonal(), rtol=1e-10
    )
    np.testing.assert_allclose(found.kl(), expected.kl())


def test_the_mode_and_the_noise() -> None:
    # γ's posterior, with the weights at their mode, is conjugate.
    training = maximum_a_posteriori(
        linear,
        ObservationNoise.begin(2.0, 1.0),
        N,
        prior_precision=DELTA,
        prior_mean=jax.tree.map(np.ones_like, ZERO),
        learning_rate=0.02,
    )
    state = training.init(ZERO, (X, Y))
    state, _ = training.run(state, (X, Y), KEY, epochs=2000, batch_size=N)
    point = training.posterior(state)
    a = 2 + N / 2
    b = 1 + ((Y - X @ np.asarray(point.params["w"])) ** 2).sum() / 2
    np.testing.assert_allclose(point.noise.q.concentration, a, rtol=1e-5)
    np.testing.assert_allclose(point.noise.q.rate, b, rtol=1e-3)
    mode = np.linalg.solve(
        a / b * X.T @ X + DELTA * np.eye(P), a / b * X.T @ Y + DELTA * np.ones((P, 1))
    )
    np.testing.assert_allclose(point.params["w"], mode, atol=1e-3)
    draws = point.sample(KEY, (2, 3))["w"]
    np.testing.assert_array_equal(
        draws, np.broadcast_to(point.params["w"], (2, 3, 3, 1))
    )


def test_a_hyperprior_needs_variances() -> None:
    with pytest.raises(ValueError, match="leave out hyperprior"):
        maximum_a_posteriori(NET, "gaussian", N, hyperprior=(1.0, 1.0))
    with pytest.raises(ValueError, match="'adam', 'sgd' or a transformation"):
        maximum_a_posteriori(NET, "gaussian", N, optimizer="momentum").init(
            NET.init(KEY), (X, Y)
        )


def test_data_that_do_not_fit_are_refused() -> None:
    training = maximum_a_posteriori(NET, "gaussian", N)
    state = training.init(NET.init(KEY), (X, Y))
    with pytest.raises(ValueError, match=r"as many examples, got lengths \[39, 40\]"):
        training.run(state, (X, Y[:-1]), KEY, **RUN)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        training.run(state, (X, Y), KEY, epochs=0, batch_size=10)


def trained() -> tuple[Any, Any]:
    noise = ObservationNoise.begin()
    training = maximum_a_posteriori(NET, noise, N, learning_rate=0.01)
    state = training.init(NET.init(KEY), (X, Y))
    return training, training.run(state, (X, Y), KEY, **RUN)[0]


def test_the_members_of_an_ensemble_are_separate_runs() -> None:
    training, _ = trained()
    found = deep_ensemble(
        NET,
        ObservationNoise.begin(),
        NET.init,
        (X, Y),
        KEY,
        members=3,
        learning_rate=0.01,
        **RUN,
    )
    of_starts, of_training = jax.random.split(KEY)
    keys = zip(
        jax.random.split(of_starts, 3), jax.random.split(of_training, 3), strict=True
    )
    for k, (start, key) in enumerate(keys):
        state = training.init(NET.init(start), (X, Y))
        state, _ = training.run(state, (X, Y), key, **RUN)
        alone = training.posterior(state)
        np.testing.assert_allclose(found[k].mean, alone.mean, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found[k].noise.q.rate, alone.noise.q.rate)
    # As many draws as members: each member once.
    draws = np.sort(np.asarray(found.sample(KEY, (3,))[1]["w"][:, 0, 0]))
    np.testing.assert_allclose(draws, np.sort(found.components.params[1]["w"][:, 0, 0]))


def test_an_ensemble_of_a_row() -> None:
    row = noisy_adam(NET, "gaussian", N, learning_rate=0.01)
    starts = jax.vmap(NET.init)(jax.random.split(KEY, 2))
    found = ensemble(row, starts, (X, Y), KEY, **RUN)
    assert found.noise is None and found.likelihood.scale == 1
    assert found.sample(KEY, (2, 2))[0]["w"].shape == (2, 2, P, 4)
    assert not np.allclose(found[0].mean, found[1].mean)


def test_swag_is_the_naive_formula() -> None:
    training, state = trained()
    settings = {"learning_rate": 0.1, "batch_size": 20}
    found = swag(training, state, (X, Y), KEY, collections=6, rank=4, **settings)

    layout, noise = state.prior.layout, state.noise

    @jax.jit
    def loss_and_gradient(w: Any, precision: Any, x: Any, y: Any) -> Any:
        def loss(w: jax.Array) -> tuple[jax.Array, jax.Array]:
            squared = ((NET(layout.tree(w), x) - y) ** 2).mean()
            return precision * squared / 2 + w @ w / (2 * N), squared

        return jax.grad(loss, has_aux=True)(w)

    iterates = []
    w = state.variables
    for key in jax.random.split(KEY, 6):
        for rows in shuffled_batches(jax.random.split(key)[0], N, 1, 20):
            gradient, squared = loss_and_gradient(w, noise.q.mean, X[rows], Y[rows])
            w = w - 0.1 * gradient
            noise = noise.step(squared, N, 0.01)
        iterates.append(np.asarray(w))
    ws = np.array(iterates)
    np.testing.assert_allclose(found.mean, ws.mean(0), rtol=1e-9)
    np.testing.assert_allclose(
        found.variances, (ws**2).mean(0) - ws.mean(0) ** 2, rtol=1e-6, atol=1e-12
    )
    means = np.cumsum(ws, 0) / np.arange(1, 7)[:, None]
    np.testing.assert_allclose(found.deviations, (ws - means)[-4:], atol=1e-10)
    np.testing.assert_allclose(found.noise.q.rate, noise.q.rate)

    n = 20_000
    draws = layout.vector(found.sample(KEY, (n,)))
    d = np.asarray(found.deviations)
    covariance = np.diag(found.variances) / 2 + d.T @ d / (2 * 3)
    variances = np.diag(covariance)
    errors = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * errors).all()
    assert (np.abs(draws.mean(0) - ws.mean(0)) < 5 * np.sqrt(variances / n)).all()
    with pytest.raises(ValueError, match="at least 2 iterates"):
        swag(training, state, (X, Y), KEY, collections=1, **settings)


@pytest.mark.parametrize(
    ("structure", "layers"), [("dense", "last"), ("kronecker", "all")]
)
def test_laplace_is_that_of_the_fisher_engine(structure: str, layers: str) -> None:
    _, state = trained()
    params = state.prior.layout.tree(state.variables)
    settings = {"structure": structure, "layers": layers}
    found = laplace_posterior(state, (X, Y), **settings)
    expected = laplace(NET, params, (X, Y), likelihood=state.likelihood, **settings)
    inner = found if layers == "all" else found.posterior
    jax.tree.map(
        lambda sd, variance: np.testing.assert_allclose(sd**2, variance),
        inner.standard_deviations,
        expected.precision.inverse_diagonal(),
    )
    jax.tree.map(np.testing.assert_allclose, inner.params, expected.params)
    assert found.noise is state.noise
    if layers == "last":
        draws, of_last = found.sample(KEY, (2,)), inner.sample(KEY, (2,))
        np.testing.assert_array_equal(draws[0]["w"], np.stack([params[0]["w"]] * 2))
        np.testing.assert_array_equal(draws[1]["w"], of_last[0])
        np.testing.assert_array_equal(draws[1]["b"], of_last[1])


def test_laplace_with_a_precision_for_each_layer() -> None:
    _, state = trained()
    layout = state.prior.layout
    of_leaves = [{"b": 1.0, "w": 1.0}, {"b": 5.0, "w": 5.0}]
    state = replace(state, prior=Prior.of(of_leaves, layout))
    found = laplace_posterior(state, (X, Y), structure="kronecker")
    plain = laplace_posterior(
        replace(state, prior=Prior.of(1.0, layout)), (X, Y), structure="kronecker"
    )
    more = found.precision.dense() - plain.precision.dense()
    np.testing.assert_allclose(more, np.diag([0.0] * 16 + [4.0] * 5), atol=1e-9)


def test_a_prior_about_another_mean_pulls_a_row_there() -> None:
    # m⁺ = m − α S⁻¹((N/κ) ĝ + δ (m − m₀)): m₀ adds α S⁻¹ δ m₀.
    params, about = NET.init(KEY), NET.init(jax.random.key(1))
    settings = {"prior_precision": DELTA, "learning_rate": 0.1, "momentum": 0.0}
    moved = {}
    for name, mean in (("zero", None), ("about", about)):
        row = noisy_adam(NET, "gaussian", N, prior_mean=mean, **settings)
        moved[name], _ = row.step(row.init(params, (X, Y)), (X, Y), KEY)
    state = moved["about"]
    pull = state.precision.solve(DELTA * state.prior.mean)
    np.testing.assert_allclose(state.mean - moved["zero"].mean, 0.1 * pull, atol=1e-12)
