"""Families on the sites' own supports: exact where the model is conjugate, the fixed
point of coordinate ascent where its conditionals are, and refused where none fits."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import ngvi
from ngvi import families, zoo
from ngvi.bayes.black_box import HostTarget
from ngvi.mirror import loop

SCORES = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def fit(model, *args, family="mean-field", **kwargs):
    return ngvi.fit(model, *args, family=family, progress=False, **kwargs)


def three_conjugate(successes, counts, classes):
    """Beta–binomial, Gamma–Poisson and Dirichlet–multinomial side by side."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
    numpyro.sample("successes", dist.Binomial(10, p), obs=successes)
    numpyro.sample("counts", dist.Poisson(rate), obs=counts)
    numpyro.sample("classes", dist.Multinomial(20, shares), obs=classes)


@pytest.fixture(scope="module")
def conjugate():
    counts = np.array([[3, 50], [5, 60], [4, 55]])
    return fit(three_conjugate, np.array([3, 5, 4]), counts, np.array([3, 5, 12]))


def test_conjugate_models_are_exact_in_three_iterations(conjugate):
    q = conjugate.approximation.factors
    p, rate, shares = q["p"], q["rate"], q["shares"]
    assert isinstance(p, families.Beta)
    np.testing.assert_allclose([p.concentration1, p.concentration0], [[14], [21]], 1e-9)
    np.testing.assert_allclose(rate.concentration, [14, 167], 1e-9)
    np.testing.assert_allclose(rate.rate, [4, 4], 1e-9)
    np.testing.assert_allclose(shares.concentration, [[4, 7, 12.5]], 1e-9)
    assert conjugate.diagnostics.iterations <= 3
    assert conjugate.diagnostics.converged


def test_the_evidence_is_exact_and_the_verdict_knows(conjugate):
    # All importance weights are equal: each is the evidence.
    assert np.ptp(conjugate.log_weights) < 1e-7
    evidence = float(conjugate.log_weights.mean())
    assert conjugate.diagnostics.elbo == pytest.approx(evidence, abs=1e-6)
    assert conjugate.diagnostics.khat == 0
    assert conjugate.verdict.level == "trustworthy"
    assert (conjugate.summary()["mcse"] == 0).all()
    assert "a mean field" in repr(conjugate)


@pytest.mark.slow
def test_draws_and_files_are_those_of_any_posterior(conjugate, tmp_path):
    shares = conjugate.sample(500, seed=1)["shares"]
    assert shares.shape == (500, 3)
    np.testing.assert_allclose(shares.sum(-1), 1)
    assert conjugate.predictive(num_samples=7)["counts"].shape == (7, 3, 2)
    conjugate.save(tmp_path / "run.nc")
    loaded = ngvi.load(tmp_path / "run.nc")
    np.testing.assert_allclose(loaded.mean["p"], conjugate.mean["p"])
    assert loaded.verdict.level == "trustworthy"


def normal(y):
    tau = numpyro.sample("tau", dist.Gamma(3.0, 4.0))
    mu = numpyro.sample("mu", dist.Normal(1.0, 1 / jnp.sqrt(2 * tau)))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1 / jnp.sqrt(tau)), obs=y)


Y = 500 + np.random.default_rng(0).normal(3, 0.5, 20)


def test_a_mean_and_a_precision_share_their_conjugate_family():
    posterior = fit(normal, Y)
    q = posterior.approximation.factors["mu, tau"]
    exact = families.NormalGamma(1.0, 2.0, 3.0, 4.0).observe(families.Normal, Y)
    for name in ("loc", "kappa", "concentration", "rate"):
        found, expected = getattr(q, name)[0], getattr(exact, name)
        np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert posterior.diagnostics.iterations <= 3


def test_apart_they_come_to_the_fixed_point_of_coordinate_ascent():
    """q(mu) = N(m, 1/s), q(tau) = Gamma(a, b), each its conditional's expectation."""
    posterior = fit(normal, Y, family={"mu": "conjugate", "tau": "gamma"})
    mean, a = (2 + Y.sum()) / 22, 3 + 21 / 2
    b = 4.0
    for _ in range(200):
        s = 22 * a / b
        spread = ((Y - mean) ** 2).sum() + 2 * (mean - 1) ** 2 + 22 / s
        b = 4 + spread / 2
    q = posterior.approximation.factors
    np.testing.assert_allclose(q["mu"].mean, [[mean]], rtol=1e-7)
    np.testing.assert_allclose(q["mu"].variance, [[1 / s]], rtol=1e-4)
    np.testing.assert_allclose(q["tau"].concentration, [a], rtol=1e-7)
    np.testing.assert_allclose(q["tau"].rate, [b], rtol=1e-4)


def schools(y=SCORES):
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("school", 8):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, ERRORS), obs=y)


@pytest.mark.slow
def test_eight_schools_gain_by_a_family_of_their_own():
    eight_schools = fit(schools)
    assert eight_schools.diagnostics.converged
    q = eight_schools.approximation.factors
    # The likelihood is normal in each of these, given the others.
    assert isinstance(q["eta"], families.Gaussian) and len(q["eta"].mean) == 8
    assert isinstance(q["tau"], families.Gamma | families.InverseGamma)
    # No better than the truth, and better than the diagonal Gaussian of log tau.
    assert eight_schools.diagnostics.elbo < -31.2
    gaussian = ngvi.fit(schools, covariance="diagonal", progress=False)
    assert eight_schools.diagnostics.elbo > gaussian.diagnostics.elbo - 0.05


def scale_alone(y):
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(0.0, sigma), obs=y)


def test_a_site_that_is_not_conjugate_has_the_best_of_its_family():
    """The evidence by quadrature is above the bound, and hardly."""
    y = np.array([0.4, -1.2, 2.0, 0.3, -0.7, 1.1])
    posterior = fit(scale_alone, y)
    grid = np.linspace(1e-3, 8, 200_001)
    log_p = norm(0, grid[:, None]).logpdf(y).sum(1) + np.log(2) + norm.logpdf(grid)
    p = np.exp(log_p)
    evidence, mean = np.log(p.sum() * (grid[1] - grid[0])), (p @ grid) / p.sum()
    assert posterior.diagnostics.converged
    assert evidence - 0.02 < posterior.diagnostics.elbo < evidence + 0.001
    assert posterior.verdict.level == "trustworthy"
    row = posterior.summary().loc["sigma"]
    assert abs(row["mean"] - mean) < 0.02 * row["sd"] + 3 * row["mcse"]
    assert 0 < row["mcse"] < 0.1 * row["sd"]


def test_joined_sites_are_correlated():
    def ridge(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + b, 0.1), obs=y)

    posterior = fit(ridge, np.array(1.0), family={("a", "b"): "gaussian"})
    covariance = posterior.gaussian.precision.inverse_dense()
    exact = np.linalg.inv(np.eye(2) + 100 * np.ones((2, 2)))
    q = posterior.approximation.factors["a, b"]
    np.testing.assert_allclose(q.precision.inverse_dense()[0], exact, rtol=1e-6)
    np.testing.assert_allclose(covariance, exact, atol=0.02)
    assert posterior.diagnostics.iterations <= 3


def two_kinds(y):
    m = numpyro.sample("m", dist.Normal(jnp.array([-1.0, 1.0]), 1.0).to_event(1))
    with numpyro.plate("row", len(y)):
        kind = numpyro.sample("kind", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(m[kind], 1.0), obs=y)


@pytest.mark.slow
def test_discrete_sites_are_a_part_of_the_mean_field():
    """Against coordinate ascent written out."""
    y = np.array([-2.5, -1.5, 0.1, 0.3, 1.9, 2.2])
    posterior = fit(two_kinds, y)
    prior, r = np.array([-1.0, 1.0]), np.full(6, 0.5)
    q = posterior.approximation.factors
    covariance = np.asarray(q["m"].precision.inverse_dense()[0])
    for _ in range(500):
        weights = np.stack([1 - r, r], 1)
        precision = 1 + weights.sum(0)
        mean = (prior + weights.T @ y) / precision
        squares = (y[:, None] - mean) ** 2 + 1 / precision
        r = 1 / (1 + np.exp((squares[:, 1] - squares[:, 0]) / 2))
    np.testing.assert_allclose(q["m"].mean[0], mean, atol=5e-4)
    np.testing.assert_allclose(covariance, np.diag(1 / precision), atol=5e-4)
    np.testing.assert_allclose(q["kind"].probs, r, atol=5e-4)
    assert posterior.sample(5)["kind"].dtype.kind == "i"
    with pytest.raises(TypeError, match="needs gradients"):
        posterior.nuts()


def everything():
    """A site on each support."""
    numpyro.sample("line", dist.Normal(0.0, 1.0))
    numpyro.sample("positive", dist.HalfNormal(1.0))
    numpyro.sample("matrix", dist.InverseWishart(4.0, scale_matrix=jnp.eye(2)))
    numpyro.sample("unit", dist.Uniform(0.0, 1.0))
    numpyro.sample("odd", dist.Uniform(2.0, 3.0))
    numpyro.sample("angle", dist.VonMises(0.0, 1.0))
    with numpyro.plate("many", 60):
        numpyro.sample("kinds", dist.Categorical(jnp.full(3, 1 / 3)))


@pytest.mark.parametrize(
    "family, message",
    [
        ({"nowhere": "gamma"}, "there is no latent site 'nowhere'.*'line', 'positive'"),
        ({"line": "gamma"}, "Gamma does not fit the site 'line'.*fits: Gaussian"),
        ({"positive": "beta"}, "fit the site 'positive'.*Gamma, InverseGamma, Gauss"),
        ({"odd": families.Beta}, "Beta does not fit the site 'odd'"),
        ({"matrix": "gamma"}, "'matrix'.*InverseWishart, Wishart"),
        ({"kinds": "gaussian"}, "'kinds'.*fits: Categorical"),
        ({"line": "cauchy"}, "'cauchy' for the site 'line' is none of gaussian"),
        ({"line": "gaussian", ("line", "unit"): "gaussian"}, "'line' is named twice"),
        ({("line", "kinds"): "gaussian"}, "cannot hold the discrete site 'kinds'"),
        ({("line", "unit"): "beta"}, "'line', 'unit' cannot share the family Beta"),
        ({("line", "unit"): "normal-gamma"}, "NormalGamma does not fit the sites"),
        ("mean-field", "discrete site 'kinds' has 60 entries of 3 values"),
        ("meanfield", 'family must be one of "gaussian", "mixture", "mean-field"'),
    ],
)
def test_a_family_that_cannot_be_is_named_with_its_site(family, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fit(everything, family=family)


def test_a_site_that_is_to_be_conjugate_and_is_not_is_named():
    with pytest.raises(ValueError, match=r"'tau' is not conjugate.*Gamma or InverseG"):
        fit(schools, family={"tau": "conjugate"})


def test_what_a_mean_field_cannot_have_is_refused():
    with pytest.raises(ValueError, match="With a mean field there can be no rank="):
        fit(schools, rank=3)


CALLS = []


def banana(z):
    """In NumPy, and with a branch that JAX could not trace."""
    CALLS.append(z["x"].shape)
    if z["x"][0] > 1e6:
        return -np.inf
    x, y = float(z["x"][0]), float(z["y"])
    return -((x / 1e-3) ** 2) / 2 - (y - 100 * x - 7.0) ** 2 / 2


@pytest.fixture(scope="module")
def black_box():
    init = {"x": np.zeros(1), "y": 0.0}
    return ngvi.fit(banana, init=init, gradients=False, progress=False)


def test_a_density_that_is_only_evaluated_is_fitted(black_box):
    assert isinstance(black_box.target, HostTarget)
    exact = np.array([[1e-6, 1e-4], [1e-4, 1.01]])
    covariance = black_box.gaussian.precision.inverse_dense()
    np.testing.assert_allclose(covariance, exact, rtol=1e-4)
    np.testing.assert_allclose(black_box.mean["y"], 7.0, atol=1e-4)
    assert black_box.diagnostics.elbo == pytest.approx(
        np.log(2 * np.pi * 1e-3), abs=1e-5
    )
    assert black_box.verdict.level == "trustworthy"


def test_its_budget_is_counted_and_bounded(black_box):
    counts = black_box.diagnostics
    assert counts.gradient_evaluations == 0
    assert 0 < counts.value_evaluations < 5000
    assert set(CALLS) == {(1,)}
    short = loop.Settings(max_iterations=2)
    begun = ngvi.fit(
        banana,
        init={"x": np.ones(1), "y": 0.0},
        gradients=False,
        progress=False,
        settings=short,
    )
    assert begun.verdict.level == "do not trust"


def test_what_it_cannot_do_without_gradients_is_said(black_box):
    with pytest.raises(TypeError, match="needs gradients"):
        black_box.nuts()


def test_a_black_box_that_cannot_start_is_refused():
    options = {"gradients": False, "progress": False}
    with pytest.raises(ValueError, match="give it a start, init="):
        ngvi.fit(banana, **options)
    with pytest.raises(ValueError, match=r"returned shape \(2,\)"):
        ngvi.fit(lambda z: z, init=np.zeros(2), **options)
    with pytest.raises(ValueError, match="at the start is nan"):
        ngvi.fit(lambda z: np.nan, init=0.0, **options)
    with pytest.raises(ValueError, match="no covariance="):
        ngvi.fit(banana, init=0.0, covariance="full", **options)


@pytest.mark.slow
def test_several_sites_of_a_density_that_factorises() -> None:
    """Factorisations of blocks measured at once waited for each other for ever."""
    entry = zoo.load("gaussian_process")
    posterior = ngvi.fit(entry.model, family="mean-field", **entry.data())
    assert posterior.diagnostics.converged
