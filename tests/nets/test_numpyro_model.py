"""NumPyro models of nets, taken apart: against the same net written plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

from ngvi.fisher.likelihoods import Gaussian, HeteroscedasticGaussian, as_likelihood
from ngvi.nets import ObservationNoise, from_numpyro, noisy_kfac, run_epochs
from tests.programs import compiled

RNG = np.random.default_rng(0)
N = 24
X = jnp.asarray(RNG.standard_normal((N, 2)))
Y = jnp.asarray(RNG.standard_normal((N, 3)))
WIDE = jnp.full((4, 3), 2.0).at[0].set(0.5)


def weights() -> Any:
    """Sites with priors: one number, about another mean, and one for each weight."""
    first = numpyro.sample("first", dist.Normal(0, 0.5).expand([2, 4]).to_event())
    bias = numpyro.sample("bias", dist.Normal(1, 0.5).expand([4]).to_event())
    last = numpyro.sample("last", dist.Normal(0, WIDE).to_event())
    return first, bias, last


def outputs(x: Any) -> Any:
    first, bias, last = weights()
    return jnp.tanh(x @ first + bias) @ last


def labelled(labels: Callable[[Any], Any]) -> Callable[..., None]:
    """The model of a net with such labels."""

    def model(x: Any, y: Any = None) -> None:
        fn = labels(outputs(x))
        fn = fn.to_event(len(fn.batch_shape) - 1)
        with numpyro.plate("examples", len(x)):
            numpyro.sample("y", fn, obs=y)

    return model


CLASSES = jnp.asarray(RNG.integers(0, 3, N))
COUNTS = jnp.asarray(RNG.integers(0, 5, (N, 3)))
COINS = jnp.asarray(RNG.integers(0, 2, (N, 3)))
SDS = jnp.array([0.5, 1.0, 2.0])
MODELS: dict[str, Any] = {
    "categorical": (lambda f: dist.Categorical(logits=f), CLASSES),
    "probabilities": (lambda f: dist.Categorical(jax.nn.softmax(f)), CLASSES),
    "bernoulli": (lambda f: dist.Bernoulli(logits=f), COINS),
    "coins": (lambda f: dist.Bernoulli(jax.nn.sigmoid(f)), COINS),
    "poisson": (lambda f: dist.Poisson(jnp.exp(f)), COUNTS),
    "gaussian": (lambda f: dist.Normal(f, 0.7), Y),
    "sds": (lambda f: dist.Normal(f, SDS), Y),
    "learned sd": (lambda f: dist.Normal(f[:, :1], jnp.exp(f[:, 1:2])), Y[:, :1]),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_it_has_the_density_of_the_model(name: str) -> None:
    labels, y = MODELS[name]
    model = labelled(labels)
    net = from_numpyro(model, X, y)
    expected, _ = log_density(model, (X, y), {}, net.params)
    each = jax.vmap(as_likelihood(net.likelihood).log_prob)(net.apply(net.params, X), y)
    prior = sum(
        dist.Normal(
            net.prior_mean[site], jnp.asarray(net.prior_precision[site]) ** -0.5
        )
        .log_prob(w)
        .sum()
        for site, w in net.params.items()
    )
    np.testing.assert_allclose(each.sum() + prior, expected, rtol=1e-5)
    assert net.prior_precision["first"] == 4.0
    kinds = {"gaussian": Gaussian, "learned sd": HeteroscedasticGaussian}
    assert isinstance(net.likelihood, kinds.get(name, object))


def test_a_flax_module_is_trained_with_its_noise() -> None:
    nn = pytest.importorskip("flax.linen")
    from numpyro.contrib.module import random_flax_module

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(1)(jnp.tanh(nn.Dense(6, name="first")(x)))[:, 0]

    def model(x: Any, y: Any = None) -> None:
        precision = numpyro.sample("precision", dist.Gamma(1.0, 0.1))
        net = random_flax_module("net", Net(), dist.Normal(0, 1), input_shape=(1, 2))
        mean = net(x)
        with numpyro.plate("examples", len(x)):
            numpyro.sample("y", dist.Normal(mean, precision**-0.5), obs=y)

    x = jnp.asarray(RNG.standard_normal((200, 2)))
    y = jnp.sin(2 * x[:, 0])
    net = from_numpyro(model, x, y)
    assert isinstance(net.likelihood, ObservationNoise)
    settings = {"learning_rate": 0.2, "precision_rate": 0.1, "samples": 4, "refresh": 1}
    algorithm = net.algorithm(noisy_kfac, len(x), **settings)

    @compiled
    def run(params: Any, x: Any, y: Any) -> Any:
        state, key = algorithm.init(params, (x, y)), jax.random.key(0)
        state, losses = run_epochs(
            algorithm.rule, state, x, y, key, epochs=60, batch_size=len(x)
        )
        return algorithm.posterior(state), losses

    posterior, losses = run(net.params, x, y)
    assert {block.dim for block in posterior.precision.blocks} == {18, 7}
    assert losses[-20:].mean() < 0.4 < 1.0 < losses[:5].mean()
    # Its draws are what NumPyro predicts with.
    draws = posterior.sample(jax.random.key(1), (100,))
    draws["precision"] = posterior.noise.q.sample(jax.random.key(2), (100,))
    predicted = numpyro.infer.Predictive(model, draws)(jax.random.key(3), x)["y"]
    assert ((predicted.mean(0) - y) ** 2).mean() < 0.3 * y.var()


def plain(x: Any, y: Any, sd: Any = 1.0) -> None:
    numpyro.sample("y", dist.Normal(outputs(x), sd).to_event(1), obs=y)


def other_prior(x: Any, y: Any) -> None:
    plain(x, y, numpyro.sample("sd", dist.HalfNormal(1.0)))


def other_noise(x: Any, y: Any) -> None:
    plain(x, y, numpyro.sample("sd", dist.Gamma(2.0, 1.0)))


def hierarchical(x: Any, y: Any) -> None:
    level = numpyro.sample("level", dist.Normal(0, 1))
    w = numpyro.sample("w", dist.Normal(level, 1).expand([2, 3]).to_event())
    numpyro.sample("y", dist.Normal(x @ w, 1.0).to_event(1), obs=y)


def dropped(x: Any, y: Any) -> None:
    kept = jax.random.bernoulli(numpyro.prng_key(), 0.5, x.shape)
    numpyro.sample("y", dist.Normal(outputs(x * kept), 1.0).to_event(1), obs=y)


def parameter(x: Any, y: Any) -> None:
    scale = numpyro.param("scale", jnp.ones(3))
    numpyro.sample("y", dist.Normal(scale * outputs(x), 1.0).to_event(1), obs=y)


def subsampled(x: Any, y: Any) -> None:
    with numpyro.plate("examples", len(x), subsample_size=6) as rows:
        plain(x[rows], y[rows])


def twice(x: Any, y: Any) -> None:
    plain(x, y)
    numpyro.sample("again", dist.Normal(0, 1), obs=0.3)


def laplace(x: Any, y: Any) -> None:
    numpyro.sample("y", dist.Laplace(outputs(x)).to_event(1), obs=y)


def no_weights(x: Any, y: Any) -> None:
    numpyro.sample("y", dist.Normal(x[:, :1], jnp.ones(3)).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (other_prior, "site 'sd' has a prior of class HalfNormal"),
        (other_noise, r"'sd' must be the precision of 'y', whose scale is sd\*\*-0.5"),
        (hierarchical, "the prior of 'w' depends on other sites"),
        (dropped, "the distribution of 'y' depends on more than the weights and x"),
        (parameter, "scale has no prior: give every parameter"),
        (subsampled, "site 'y' is scaled, as by subsampling"),
        (twice, r"one observed site, got \['y', 'again'\]"),
        (laplace, "site 'y' is of class Laplace; known are Normal, BernoulliLogits"),
        (no_weights, "no site with a normal prior"),
    ],
)
def test_other_models_are_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_numpyro(model, X, Y)
