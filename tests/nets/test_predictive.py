"""Predictions against what is known of linear nets, and against plain averages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ngvi.nets import ObservationNoise
from ngvi.nets.predictive import Predictive
from ngvi.pytrees import pytree
from tests.nets.linear_nets import exact, posterior_of
from tests.nets.unoptimised import quick_predictions  # noqa: F401

KEY = jax.random.key(7)
SD = 0.6


def labels(n: int = 12, outputs: int = 1) -> Any:
    return jax.random.normal(jax.random.key(4), (n, outputs))


def test_moments_and_intervals_of_a_linear_model():
    net, x, posterior, rows = exact(SD, labels())
    draws = 8192
    mean, sd, sd_of_mean = Predictive(net, posterior, draws, 2**14).moments(x, KEY)
    of_mean = np.sqrt(
        np.diag(rows @ np.linalg.inv(posterior.precision.dense()) @ rows.T)
    )
    of_y = np.hypot(of_mean, SD)
    # Five standard errors: one false alarm in a million.
    error = 5 / np.sqrt(draws)
    assert (abs(mean[:, 0] - rows @ posterior.mean) < error * of_mean).all()
    np.testing.assert_allclose(sd_of_mean[:, 0], of_mean, rtol=error)
    np.testing.assert_allclose(sd[:, 0], of_y, rtol=error)
    lower, upper = Predictive(net, posterior, draws).interval(x, 0.8, KEY)
    half = scipy.stats.norm.ppf(0.9) * of_y
    # The sd of a quantile is √(p (1 − p)/S)/density, here at most 1.8 of y's over √S.
    centre = rows @ np.asarray(posterior.mean)
    assert (abs(lower[:, 0] - (centre - half)) < 2 * error * of_y).all()
    assert (abs(upper[:, 0] - (centre + half)) < 2 * error * of_y).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_density_with_learned_noise_is_student_t(outputs: int):
    y = labels(outputs=outputs)
    net, x, posterior = posterior_of(ObservationNoise.begin(3.0, 2.0), y, outputs)
    predictive = Predictive(net, posterior, 8)
    found = predictive.log_density(x, y, KEY)
    f = np.asarray(predictive.outputs(x, KEY))
    assert f.shape == (8, 12, outputs)
    each = [
        [
            scipy.stats.multivariate_t(m, 2.0 / 3.0 * np.eye(outputs), df=6).logpdf(row)
            for m, row in zip(of_draw, np.asarray(y), strict=True)
        ]
        for of_draw in f
    ]
    expected = scipy.special.logsumexp(each, 0) - np.log(8)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # E[1/γ] = b/(a − 1).
    sd = predictive.moments(x, KEY).sd
    np.testing.assert_allclose(sd, np.sqrt(f.var(0) + 1.0), rtol=1e-9)


def test_draws_of_noise_that_is_learned():
    y = labels()
    net, x, posterior = posterior_of(ObservationNoise.begin(8.0, 4.0), y)
    predictive = Predictive(net, posterior, 4096)
    left = predictive.sample(x, KEY) - predictive.outputs(x, KEY)
    assert left.shape == (4096, 12, 1)
    t = scipy.stats.t(16, scale=np.sqrt(0.5))
    for row in (0, 11):
        assert scipy.stats.kstest(np.asarray(left[:, row, 0]), t.cdf).pvalue > 1e-4
    # Rows share γ: the squares are correlated, over draws.
    squares = np.asarray(left[..., 0]) ** 2
    kurtosis = t.moment(4) / t.var() ** 2
    expected = (kurtosis / 3 - 1) / (kurtosis - 1)
    off = np.corrcoef(squares.T)[np.triu_indices(12, 1)]
    np.testing.assert_allclose(off.mean(), expected, atol=5 / np.sqrt(4096))


def test_classes():
    y = jnp.arange(12) % 3
    net, x, posterior = posterior_of("categorical", y, 3)
    predictive = Predictive(net, posterior, 16)
    p = scipy.special.softmax(np.asarray(predictive.outputs(x, KEY)), -1)
    found = predictive.probabilities(x, KEY)
    np.testing.assert_allclose(found, p.mean(0), rtol=1e-9)
    chosen = p[:, np.arange(12), np.asarray(y)].mean(0)
    np.testing.assert_allclose(
        predictive.log_density(x, y, KEY), np.log(chosen), rtol=1e-9
    )
    drawn = predictive.sample(x, KEY)
    assert drawn.shape == (16, 12) and set(np.unique(drawn)) == {0, 1, 2}


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "student_t"])
def test_variance_of_other_labels(name: str):
    y = jnp.asarray(labels() > 0, float)
    net, x, posterior = posterior_of(name, y)
    predictive = Predictive(net, posterior, 4096)
    means = np.asarray(
        jax.vmap(jax.vmap(posterior.likelihood.mean))(predictive.outputs(x, KEY))
    )
    within = {
        "bernoulli": means * (1 - means),
        "poisson": means,
        "student_t": np.full_like(means, 2.0),
    }[name].mean(0)
    expected = np.sqrt(means.var(0) + within)
    # A square of Student's t with four degrees of freedom has no variance.
    rtol = 0.3 if name == "student_t" else 1e-9
    np.testing.assert_allclose(predictive.moments(x, KEY).sd, expected, rtol=rtol)


def test_batches_change_nothing():
    net, x, posterior = posterior_of(ObservationNoise.begin(), labels())
    # All rows at once, five of them, one.
    whole, *others = (Predictive(net, posterior, 8, size) for size in (10**6, 40, 1))
    drawn = whole.sample(x, KEY)
    for other in others:
        np.testing.assert_allclose(other.sample(x, KEY), drawn, rtol=1e-9)
    # Nor do the other rows.
    np.testing.assert_allclose(whole.sample(x[:3], KEY), drawn[:, :3], rtol=1e-9)


def test_anything_with_draws_and_compiled_once():
    @pytree
    class Two:
        members: Any
        likelihood: Any
        noise: Any = None

        def sample(self, key: Any, shape: tuple[int, ...] = ()) -> Any:
            chosen = jax.random.randint(key, shape, 0, 2)
            return jax.tree.map(lambda leaf: leaf[chosen], self.members)

    traces = []

    def apply(params: Any, x: Any) -> Any:
        traces.append(1)
        return x * params

    x = jnp.ones((4, 1))
    _, _, posterior = posterior_of("gaussian", labels())
    for members in ([1.0, 3.0], [2.0, 6.0]):
        two = Two(jnp.array(members), posterior.likelihood)
        values = np.unique(Predictive(apply, two, 32).outputs(x, KEY))
        np.testing.assert_allclose(values, members)
    assert len(traces) == 1


def test_settings_out_of_range():
    net, x, posterior = posterior_of("gaussian", labels())
    with pytest.raises(ValueError, match="draws must be positive, got 0"):
        Predictive(net, posterior, 0)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 90"):
        Predictive(net, posterior).interval(x, 90, KEY)
