"""Draws placed by base draws, coordinates without bounds, special quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ngvi.families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Gamma,
    Gaussian,
    InverseGamma,
    InverseWishart,
    LogNormal,
    MatrixNormalWishart,
    Normal,
    NormalGamma,
    NormalInverseWishart,
    Poisson,
    VonMises,
    Wishart,
)
from ngvi.families.charts import from_free, to_free
from ngvi.families.special.quantiles import log_gamma_quantile, von_mises_quantile
from ngvi.mirror.draws import antithetic, sobol_normals
from tests.programs import compiled

MATRIX = jnp.array([[2.0, 0.5], [0.5, 1.0]])
MEMBERS = {
    "normal": Normal(1.0, 2.0),
    "log-normal": LogNormal(0.0, 0.5),
    "gamma below one": Gamma(0.3, 2.0),
    "gamma": Gamma(40.0, 2.0),
    "inverse gamma": InverseGamma(5.0, 2.0),
    "beta": Beta(0.5, 3.0),
    "dirichlet": Dirichlet(jnp.array([0.5, 2.0, 4.0])),
    "wishart": Wishart(5.0, MATRIX),
    "inverse wishart": InverseWishart(9.0, MATRIX),
    "von mises": VonMises(3.0, 2.0),
    "normal gamma": NormalGamma(1.0, 2.0, 3.0, 4.0),
    "normal inverse wishart": NormalInverseWishart(jnp.ones(2), 2.0, 9.0, MATRIX),
    "gaussian": Gaussian.from_covariance(jnp.ones(2), MATRIX),
    "bernoulli": Bernoulli.from_probs(0.3),
    "categorical": Categorical.from_probs(jnp.array([0.2, 0.3, 0.5])),
}
DISCRETE = ("bernoulli", "categorical")
DRAWS = 2048


@compiled
def _moments(q, eps, along):
    """The mean of T at placed draws, and its derivative along a change of λ."""

    def statistics(params):
        x = q.with_natural_params(params).place(eps)
        return q.flatten(q.sufficient_statistics(x))

    direction = q.unflatten(along)
    found, slopes = jax.jvp(statistics, (q.natural_params,), (direction,))
    expected = q.flatten(q.mean_params), q.flatten(q.fisher_product(direction))
    return found.mean(0), slopes.mean(0), *expected, found.std(0)


@pytest.mark.parametrize("name", MEMBERS)
def test_placed_draws_have_the_members_moments_and_move_with_it(name):
    q = MEMBERS[name]
    rng = np.random.default_rng(0)
    eps = jnp.asarray(antithetic(sobol_normals(q.base_size, DRAWS // 2, rng)))
    along = jnp.asarray(rng.standard_normal(q.flatten(q.natural_params).size))
    mean, slope, expected, expected_slope, sd = _moments(q, eps, along)
    # Sobol draws beat the 1/√N of independent ones by far.
    assert np.all(np.abs(mean - expected) < 0.3 * sd / DRAWS**0.5)
    if name not in DISCRETE:
        error = np.linalg.norm(slope - expected_slope)
        assert error < 0.02 * np.linalg.norm(expected_slope)


def test_gamma_quantiles_keep_both_tails():
    a = 10 ** np.linspace(0, 6, 13)[:, None]
    score = np.linspace(-6, 6, 25)
    lower = scipy.stats.gamma.ppf(scipy.stats.norm.cdf(score), a)
    upper = scipy.stats.gamma.isf(scipy.stats.norm.sf(score), a)
    expected = np.where(score < 0, lower, upper)
    found = compiled(log_gamma_quantile)(jnp.asarray(score), jnp.asarray(a))
    np.testing.assert_allclose(found, np.log(expected), atol=3e-9)


def test_von_mises_quantiles_invert_the_distribution_function():
    kappa = 10 ** np.linspace(-3, 1.5, 7)[:, None]
    score = np.linspace(-4, 4, 17)
    found = compiled(von_mises_quantile)(jnp.asarray(score), jnp.asarray(kappa))
    level = scipy.stats.vonmises.cdf(np.asarray(found), kappa)
    expected = np.broadcast_to(scipy.stats.norm.cdf(score), level.shape)
    np.testing.assert_allclose(level, expected, atol=1e-9)


FREE = {
    **{name: q for name, q in MEMBERS.items() if name != "gaussian"},
    "matrix normal wishart": MatrixNormalWishart(
        jnp.ones((3, 2)), jnp.eye(3), 4.0, MATRIX
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_free_coordinates_go_there_and_back_and_have_no_border(name):
    q = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), FREE[name])
    free = to_free(q)
    back = from_free(q, free)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
        back.natural_params,
        q.natural_params,
    )
    far = from_free(q, free + 3.0 * jnp.sign(jnp.sin(jnp.arange(free.shape[-1]) + 1)))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(far))


def test_a_family_without_base_draws_says_so():
    with pytest.raises(NotImplementedError, match="Poisson has no draws placed"):
        _ = Poisson(1.0).base_size
