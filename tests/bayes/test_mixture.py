"""Mixtures as posteriors: known evidence and weights, and every question answered."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from models import eight_schools
from ngvi.bayes.mixture_approximation import MixtureApproximation
from ngvi.bayes.pool import Pool
from ngvi.families import Gaussian, Mixture
from ngvi.linalg import Dense, Diagonal

MEANS = np.array([[-5.0, 0.0], [5.0, 3.0], [0.0, -6.0]])
WEIGHTS = np.array([0.5, 0.2, 0.3])


def three(z: jax.Array) -> jax.Array:
    sd = jnp.array([1.0, 0.5, 1.5])
    squares = ((z - MEANS) ** 2).sum(-1) / sd**2
    parts = jnp.log(WEIGHTS) - squares / 2 - 2 * jnp.log(sd) - jnp.log(2 * jnp.pi)
    return jax.nn.logsumexp(parts) + 1.5


@pytest.fixture(scope="module")
def posterior() -> ngvi.Posterior:
    return ngvi.fit(three, init=jnp.zeros(2), family="mixture", progress=False)


def test_three_modes_their_weights_and_the_evidence(posterior):
    assert posterior.verdict.level == "trustworthy"
    assert posterior.diagnostics.converged
    assert abs(posterior.log_evidence - 1.5) < 1e-3
    assert abs(posterior.diagnostics.elbo - 1.5) < 0.01
    points = np.asarray(posterior.at(jnp.zeros((1, 2))).sites["z"])
    assert points.shape == (1, 2)
    z = np.asarray(posterior.sample(8000, seed=1)["z"])
    nearest = ((z[:, None] - MEANS) ** 2).sum(-1).argmin(1)
    shares = np.bincount(nearest, minlength=3) / len(z)
    # Five standard errors of a share.
    np.testing.assert_allclose(shares, WEIGHTS, atol=5 * np.sqrt(0.25 / len(z)))
    text = repr(posterior)
    assert "a mixture of Gaussians" in text and "trustworthy" in text
    assert "mixture of 3" in posterior.approximation.kind


def test_summaries_are_of_the_mixture(posterior):
    mean = WEIGHTS @ MEANS
    second = WEIGHTS @ (MEANS**2 + np.array([[1.0], [0.25], [2.25]]))
    np.testing.assert_allclose(posterior.mean["z"], mean, atol=0.02)
    np.testing.assert_allclose(posterior.sd["z"], np.sqrt(second - mean**2), rtol=0.01)
    gaussian = posterior.gaussian
    np.testing.assert_allclose(gaussian.mean, mean, atol=0.01)
    np.testing.assert_allclose(gaussian.variance, second - mean**2, rtol=0.01)
    errors = posterior.summary()["mcse"]
    assert (errors >= 0).all() and (errors < 0.1).all()


def test_what_needs_a_gaussian_says_so(posterior, tmp_path):
    with pytest.raises(
        TypeError, match=r"as_guide\(\) needs a Gaussian, and q is a mix"
    ):
        posterior.as_guide()
    with pytest.raises(TypeError, match=r"prior=posterior\.gaussian"):
        ngvi.fit(three, init=jnp.zeros(2), prior=posterior)
    posterior.save(tmp_path / "mixture.nc")
    loaded = ngvi.load(tmp_path / "mixture.nc")
    assert loaded.verdict == posterior.verdict
    np.testing.assert_array_equal(loaded.mean["z"], posterior.mean["z"])
    with pytest.raises(ValueError, match="holds no Gaussian"):
        _ = loaded.gaussian


def test_bad_input_is_named():
    with pytest.raises(ValueError, match='family must be one of "gaussian", "mixture"'):
        ngvi.fit(three, init=jnp.zeros(2), family="mixtures")
    with pytest.raises(
        ValueError, match=r"201\s+dimensions are too many \(at most 200"
    ):
        ngvi.fit(lambda z: -(z**2).sum() / 2, init=jnp.zeros(201), family="mixture")
    batches = ngvi.Stream([((np.zeros(3),), {})])
    with pytest.raises(TypeError, match="A mixture needs the data"):
        ngvi.fit(lambda z, x: -(z**2), batches, init=0.0, family="mixture")


def test_an_approximation_by_hand():
    components = Gaussian(
        jnp.array([[0.0, 0.0, 0.0], [4.0, 0.0, -4.0]]),
        Dense.from_dense(jnp.stack([jnp.eye(3), 4 * jnp.eye(3)])),
    )
    q = MixtureApproximation(Mixture(jnp.log(jnp.array([0.25, 0.75])), components))
    points = np.asarray(q.draws(1000, np.random.default_rng(0)))
    assert points.shape == (1000, 3)
    # Matched within each component, which has its share to one pair.
    np.testing.assert_allclose(points.mean(0), [3.0, 0.0, -3.0], atol=0.01)
    np.testing.assert_allclose(q.gaussian.mean, [3.0, 0.0, -3.0])
    expected = 0.25 + 0.75 / 4 + 16 * 0.25 * 0.75
    np.testing.assert_allclose(q.gaussian.variance[0], expected)
    independent = np.asarray(q.sample(jax.random.key(0), 1000))
    assert abs((independent[:, 0] > 2).mean() - 0.75) < 5 * np.sqrt(0.19 / 1000)
    none = q.mean_errors(jnp.asarray(points), points, np.arange(3))
    assert np.isnan(none).all()


def test_a_pool_weighs_draws_by_all_that_they_are_from():
    def member(mean: float, sd: float) -> Mixture:
        precision = Diagonal(jnp.full((1, 1), 1 / sd))
        return Mixture(jnp.zeros(1), Gaussian(jnp.full((1, 1), mean), precision))

    rng = np.random.default_rng(0)
    near, far = member(0.0, 1.0), member(3.0, 2.0)
    pool = Pool()
    for source, mean, sd, count in [(near, 0, 1, 300), (far, 3, 2, 100)]:
        points = mean + sd * rng.standard_normal((count, 1))
        pool.add(source, points, np.asarray(near.marginal_log_prob(points)) + 0.7)
    one, other = (np.asarray(q.marginal_log_prob(pool.points)) for q in (near, far))
    expected = np.log(0.75 * np.exp(one) + 0.25 * np.exp(other))
    np.testing.assert_allclose(pool.log_q, expected)
    weights = np.exp(pool.log_p - pool.log_q)
    error = weights.std() / weights.mean() / np.sqrt(weights.size)
    assert abs(pool.log_evidence - 0.7) < 5 * error


@pytest.mark.slow
def test_a_numpyro_model(schools):
    data = eight_schools.data()
    mixed = ngvi.fit(eight_schools.model, **data, family="mixture", progress=False)
    assert mixed.diagnostics.elbo > schools.diagnostics.elbo + 0.1
    assert mixed.comparison.efficiency > schools.comparison.efficiency + 0.2
    assert set(mixed.predictive()) == set(schools.predictive())
