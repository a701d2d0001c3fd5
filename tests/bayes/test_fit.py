"""The main job: fits that are exact where they can be, invariant, honest, robust."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints

import ngvi
from ngvi.bayes import compile_time
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.plan import Full
from ngvi.bayes.programs import solve
from ngvi.mirror import loop


def flat(size):
    return dist.ImproperUniform(constraints.real, (), (size,))


def known_noise_regression(x, y=None):
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, 0.5), obs=y)


def flat_regression(x, y=None):
    beta = numpyro.sample("beta", flat(x.shape[1]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def regression_data(rows=40, columns=4, seed=0):
    rng = np.random.default_rng(seed)
    x = np.c_[np.ones(rows), rng.normal(size=(rows, columns - 1))]
    return x, x @ rng.normal(size=columns) + 0.5 * rng.normal(size=rows)


def test_a_conjugate_regression_is_exact_in_a_few_iterations():
    x, y = regression_data()
    posterior = ngvi.fit(known_noise_regression, x, y)
    precision = x.T @ x / 0.25 + np.eye(4) / 100
    mean = np.linalg.solve(precision, x.T @ y / 0.25)
    covariance = np.linalg.inv(precision)
    q = posterior.gaussian
    np.testing.assert_allclose(q.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(q.precision.inverse_dense(), covariance, rtol=1e-6)
    np.testing.assert_allclose(posterior.mean["beta"], mean, rtol=1e-6)
    np.testing.assert_allclose(
        posterior.sd["beta"], np.sqrt(np.diag(covariance)), rtol=1e-6
    )
    assert posterior.diagnostics.iterations <= 5
    assert posterior.verdict.level == "trustworthy"


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_units_of_a_predictor_do_not_matter(covariance):
    x, y = regression_data()
    scale = np.array([1.0, 1e4, 1e-4, 1e2])
    plain = ngvi.fit(flat_regression, x, y, covariance=covariance)
    scaled = ngvi.fit(flat_regression, x * scale, y, covariance=covariance)
    sd = plain.sd["beta"]
    assert (
        np.abs(scaled.mean["beta"] * scale - plain.mean["beta"]).max() < 1e-2 * sd.min()
    )
    np.testing.assert_allclose(scaled.sd["beta"] * scale, sd, rtol=1e-2)
    ratio = (
        scaled.diagnostics.gradient_evaluations / plain.diagnostics.gradient_evaluations
    )
    assert 0.5 <= ratio <= 2


def test_a_second_fit_of_the_same_shapes_compiles_nothing():
    ngvi.fit(flat_regression, *regression_data(seed=1)).verdict  # noqa: B018
    with compile_time.measure() as watch:
        posterior = ngvi.fit(flat_regression, *regression_data(seed=2), seed=3)
    backend = [end - start for start, end in watch.spans if end - start > 0.05]
    assert not backend
    assert posterior.diagnostics.converged


def test_seeds_vmap():
    x, y = regression_data()
    target, data, point, _ = model_target(flat_regression, (x, y), {}, None)
    settings = loop.Settings()
    plan = Full(target.dim)
    ladders = [plan.draws(s, point.dtype) for s in (0, 1)]

    def run(draws):
        return solve(target, plan, settings, data, point, draws)

    stacked = jax.tree.map(lambda *a: jnp.stack(a), *ladders)
    together = jax.jit(jax.vmap(run))(stacked)
    for i, draws in enumerate(ladders):
        alone = jax.jit(run)(draws)
        np.testing.assert_allclose(together.q.mean[i], alone.q.mean, rtol=1e-8)
        assert int(together.status[i]) == int(alone.status) == loop.CONVERGED


def test_the_same_seed_gives_the_same_answer_and_another_seed_a_close_one():
    x, y = regression_data()
    first, again, other = (ngvi.fit(flat_regression, x, y, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.gaussian.mean, again.gaussian.mean)
    assert not np.array_equal(first.gaussian.mean, other.gaussian.mean)
    gap = np.abs(first.mean["beta"] - other.mean["beta"]) / first.sd["beta"]
    assert gap.max() < 0.05


def test_a_pickled_posterior_still_has_its_model():
    posterior = ngvi.fit(known_noise_regression, *regression_data())
    again = pickle.loads(pickle.dumps(posterior))
    expected = posterior.sample(3)["beta"]
    np.testing.assert_array_equal(again.sample(3)["beta"], expected)
    assert again.target == posterior.target


def test_a_log_density_over_a_pytree():
    def log_density(params, centre):
        shift = params["b"] - params["a"].sum()
        return -jnp.sum((params["a"] - centre) ** 2) / 2 - shift**2

    init = {"a": np.zeros(3), "b": 0.0}
    centre = np.array([1.0, -2.0, 0.5])
    posterior = ngvi.fit(log_density, centre, init=init)
    np.testing.assert_allclose(posterior.mean["a"], centre, atol=1e-6)
    np.testing.assert_allclose(posterior.mean["b"], centre.sum(), atol=1e-6)
    np.testing.assert_allclose(posterior.sd["b"], np.sqrt(3 + 0.5), rtol=1e-6)
    assert posterior.sample(5)["a"].shape == (5, 3)


def test_a_custom_derivative_without_forward_mode():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    posterior = ngvi.fit(lambda z: -square(z - 1.0) / 8, init=0.0)
    np.testing.assert_allclose(posterior.mean["z"], 1, atol=1e-6)
    np.testing.assert_allclose(posterior.sd["z"], 2, rtol=1e-6)


def every_support(n):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([4.0, 5.0, 6.0])))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 3.0))
    low = numpyro.sample("low", dist.Uniform(-1.0, 1.0))
    free = numpyro.sample(
        "free", dist.ImproperUniform(constraints.interval(0, 1), (), ())
    )
    with numpyro.plate("group", 3):
        rate = numpyro.sample("rate", dist.Gamma(5.0, 2.0))
        pairs = numpyro.sample("pairs", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.deterministic("total", rate.sum())
    numpyro.factor("pull", -jnp.sum((pairs - 1) ** 2) - 4 * (free - low) ** 2)
    numpyro.sample("n", dist.Poisson(10 * (weights * rate).sum()), obs=n)
    del factor


def test_supports_shapes_factors_and_deterministic_sites():
    posterior = ngvi.fit(every_support, 30)
    draws = posterior.sample(200)
    assert draws["weights"].shape == (200, 3)
    np.testing.assert_allclose(draws["weights"].sum(-1), 1, rtol=1e-6)
    assert draws["pairs"].shape == (200, 3, 2)
    assert draws["factor"].shape == (200, 2, 2)
    assert (draws["rate"] > 0).all() and (jnp.abs(draws["low"]) < 1).all()
    np.testing.assert_allclose(draws["total"], draws["rate"].sum(-1), rtol=1e-6)
    # pairs ~ N(0, 1) pulled to 1 with precision 2: N(2/3, 1/3), exactly Gaussian.
    np.testing.assert_allclose(posterior.mean["pairs"], 2 / 3, atol=0.02)
    np.testing.assert_allclose(posterior.sd["pairs"], np.sqrt(1 / 3), rtol=0.05)


def test_a_support_that_depends_on_a_latent_site_is_followed():
    def model():
        upper = numpyro.sample("upper", dist.LogNormal(0.0, 0.1))
        numpyro.sample("inner", dist.Uniform(0.0, upper))
        numpyro.factor("pin", -50 * (upper - 2.0) ** 2)

    draws = ngvi.fit(model).sample(500)
    assert (draws["inner"] < draws["upper"]).all()
    assert float(draws["inner"].max()) > 1.2


def test_enumerated_discrete_sites():
    pytest.importorskip("funsor")

    def mixture(y):
        mu = numpyro.sample("mu", dist.Normal(jnp.array([-2.0, 2.0]), 0.5).to_event(1))
        with numpyro.plate("row", y.shape[0]):
            z = numpyro.sample(
                "z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"}
            )
            numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    rng = np.random.default_rng(0)
    y = np.r_[rng.normal(-3, 1, 60), rng.normal(3, 1, 60)]
    posterior = ngvi.fit(mixture, y)
    np.testing.assert_allclose(posterior.mean["mu"], [-3, 3], atol=0.4)
    assert posterior.verdict.level == "trustworthy"
    with pytest.raises(TypeError, match="summed out"):
        posterior.log_likelihood()


def test_a_model_that_branches_on_its_data_still_fits():
    def model(group, y):
        count = int(np.max(group)) + 1
        with numpyro.plate("group", count):
            mu = numpyro.sample("mu", dist.Normal(0, 5))
        numpyro.sample("y", dist.Normal(mu[group], 1.0), obs=y)

    group = np.repeat(np.arange(3), 20)
    posterior = ngvi.fit(model, group, group.astype(float))
    np.testing.assert_allclose(posterior.mean["mu"], [0, 1, 2], atol=0.02)


def test_float32():
    x, y = regression_data()
    exact = ngvi.fit(flat_regression, x * [1, 1e4, 1e-4, 1], y)
    mean, sd = exact.mean["beta"], exact.sd["beta"]
    with jax.enable_x64(False):
        posterior = ngvi.fit(
            flat_regression,
            np.float32(x * [1, 1e4, 1e-4, 1]),
            np.float32(y),
        )
        assert posterior.gaussian.mean.dtype == jnp.float32
        assert posterior.verdict.level == "trustworthy"
        assert np.abs((posterior.mean["beta"] - mean) / sd).max() < 0.02


# -- predictive --------------------------------------------------------------------


def test_predictive_and_log_likelihood():
    x, y = regression_data()
    posterior = ngvi.fit(flat_regression, x, y)
    replicated = posterior.predictive()["y"]
    assert replicated.shape == (2048, 40)
    np.testing.assert_allclose(replicated.mean(0), x @ posterior.mean["beta"], atol=0.1)
    new = posterior.predictive(np.ones((7, 4)), num_samples=50)["y"]
    assert new.shape == (50, 7)
    log_likelihood = posterior.log_likelihood(100)["y"]
    assert log_likelihood.shape == (100, 40)
    draws = posterior.sample(100)
    by_hand = dist.Normal(draws["beta"] @ x.T, draws["sigma"][:, None]).log_prob(y)
    np.testing.assert_allclose(log_likelihood, by_hand, rtol=1e-6)


def test_importance_resampling_moves_towards_the_posterior():
    # Gamma(3, 1) through a log transform: the Gaussian fit's mean is not quite 3.
    def model():
        numpyro.sample("x", dist.Gamma(3.0, 1.0))

    posterior = ngvi.fit(model)
    weighted = posterior.sample(20_000, resample=True)["x"]
    standard_error = np.sqrt(3 / 8192) * 2
    assert abs(float(weighted.mean()) - 3) < 4 * standard_error
    assert abs(float(weighted.std()) - np.sqrt(3)) < 0.1


# -- bad input -----------------------------------------------------------------------


def test_nan_in_observations_names_the_site_and_counts():
    x, y = regression_data()
    y[3:5] = np.nan
    with pytest.raises(ValueError, match=r"'y' holds NaN or infinity in 2 of 40"):
        ngvi.fit(flat_regression, x, y)


def test_masked_nan_is_accepted():
    def model(y, seen):
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        with handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.where(seen, y, 0.0))

    y = np.array([1.0, np.nan, 3.0])
    assert abs(float(ngvi.fit(model, y, ~np.isnan(y)).mean["mu"]) - 2) < 0.05


def test_nan_in_a_predictor_is_reported():
    x, y = regression_data()
    x[0, 1] = np.inf
    with pytest.raises(ValueError, match=r"argument number 0 \(1 of 160 values"):
        ngvi.fit(flat_regression, x, y)
    with pytest.raises(ValueError, match=r"argument 'x' \(1 of 160 values"):
        ngvi.fit(flat_regression, x=x, y=y)


def test_random_keys_among_the_arguments_are_data(tmp_path):
    x = np.linspace(-2, 2, 20)
    y = np.sin(x)

    def random_features(key, x, y):
        features = jnp.cos(x[:, None] + jax.random.normal(key, (2,)))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(features @ beta, 0.5), obs=y)

    key = jax.random.key(1)
    posterior = ngvi.fit(random_features, key, x, y, checkpoint=tmp_path)
    features = np.cos(x[:, None] + np.asarray(jax.random.normal(key, (2,))))
    precision = features.T @ features / 0.25 + np.eye(2)
    mean = np.linalg.solve(precision, features.T @ y / 0.25)
    np.testing.assert_allclose(posterior.gaussian.mean, mean, rtol=1e-6)
    assert set(posterior.archive().groups["constant_data"]) == {"x"}
    with pytest.raises(ValueError, match="stands in argument number 1"):
        ngvi.fit(random_features, key, x * np.nan, y)


def test_observations_outside_the_support():
    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
        numpyro.sample("y", dist.Poisson(rate), obs=y)

    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=r"'y' has 1 of 3 values outside the support"),
    ):
        warnings.simplefilter("ignore")
        ngvi.fit(model, np.array([1, -2, 3]))


def test_nothing_to_infer():
    def model(y):
        numpyro.sample("y", dist.Normal(0, 1), obs=y)

    with pytest.raises(ValueError, match="nothing to infer"):
        ngvi.fit(model, np.zeros(3))
    with pytest.raises(ValueError, match="nothing to infer"):
        ngvi.fit(lambda params: 0.0, init={})


def test_discrete_site_that_cannot_be_enumerated():
    def model():
        count = numpyro.sample("count", dist.Poisson(3.0))
        numpyro.sample("x", dist.Normal(count, 1.0))

    with pytest.raises(ValueError, match=r"'count' \(Poisson\) is discrete"):
        ngvi.fit(model)


def test_a_log_density_that_is_not_finite_at_the_start():
    with pytest.raises(ValueError, match="at the start is -inf"):
        ngvi.fit(lambda z: jnp.log(-jnp.exp(z) * 0), init=1.0)

    def model():
        low = numpyro.sample("low", dist.Normal(0, 1))
        numpyro.factor("barrier", jnp.where(low > 100, 0.0, -jnp.inf))

    with pytest.raises(ValueError, match="site 'barrier'"):
        ngvi.fit(model)


def test_wrong_options():
    with pytest.raises(ValueError, match="'low-rank' or 'diagonal', not 'dense'"):
        ngvi.fit(lambda z: -(z**2), init=0.0, covariance="dense")
    with pytest.raises(ValueError, match=r"returned shape \(2,\)"):
        ngvi.fit(lambda z: z, init=np.zeros(2))


def test_a_model_that_raises_shows_its_own_error():
    def model():
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        ngvi.fit(model)


def test_an_improper_posterior_is_not_trusted():
    posterior = ngvi.fit(lambda z: -jnp.log1p(z[0] ** 2) * 0.3, init=np.zeros(2))
    assert posterior.verdict.level == "do not trust"
    assert np.isfinite(posterior.gaussian.mean).all()


def test_interruption_keeps_the_best_state(monkeypatch):
    calls = []

    def interrupt(bar, state):
        calls.append(int(state.iteration))
        raise KeyboardInterrupt

    monkeypatch.setattr("ngvi.bayes.fit_in_memory._show", interrupt)
    posterior = ngvi.fit(flat_regression, *regression_data())
    assert calls
    assert posterior.diagnostics.stop_reason == INTERRUPTED
    assert posterior.verdict.level == "do not trust"
    assert np.isfinite(posterior.mean["beta"]).all()
