"""The whole loop: it converges to exact answers, and owns up where it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror import loop
from tests.mirror.fits import (
    DIM,
    FIRST,
    PRECISE,
    SETTINGS,
    WITH_CURVATURE,
    assert_sound,
    begin,
    fit,
    from_start,
    go,
    make_draws,
    rows,
    wide,
)
from tests.mirror.problems import Quadratic, logistic, quadratic, skewed

# -- exact answers --------------------------------------------------------------------


def linear_regression(seed: int) -> tuple[Quadratic, np.ndarray, np.ndarray]:
    """y = Xw + noise of sd 0.5, w ~ N(0, 2² I): −log joint, and the exact posterior."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, DIM)) * 10.0 ** rng.uniform(-2, 2, DIM)
    y = x @ rng.standard_normal(DIM) + 0.5 * rng.standard_normal(20)
    precision = x.T @ x / 0.25 + np.eye(DIM) / 4
    target = Quadratic(precision, x.T @ y / 0.25, float(y @ y / 0.5))
    covariance = np.linalg.inv(precision)
    return target, covariance @ x.T @ y / 0.25, covariance


@pytest.mark.parametrize("seed", range(3))
def test_linear_regression_is_exact_in_five_trials(seed: int) -> None:
    target, mean, covariance = linear_regression(seed)
    q = from_start(target, jnp.zeros(DIM))
    state = fit(target, q, make_draws())
    assert state.status == loop.CONVERGED
    assert state.iteration <= 5
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(state.q.mean / sd, mean / sd, atol=1e-6)
    np.testing.assert_allclose(state.q.variance, sd**2, rtol=1e-6)
    correlation = np.asarray(state.q.precision.inverse_dense()) / np.outer(sd, sd)
    np.testing.assert_allclose(correlation, covariance / np.outer(sd, sd), atol=1e-6)
    # The ELBO is the evidence, up to a constant known here.
    evidence = (
        DIM * np.log(2 * np.pi) / 2
        + np.linalg.slogdet(covariance)[1] / 2
        - float(target(mean))
    )
    assert rows(state)["elbo"][-1] == pytest.approx(evidence, rel=1e-9)


@pytest.mark.parametrize("sd", [1e-3, 1.0, 1e3])
def test_a_quadratic_from_a_bad_covariance(sd: float) -> None:
    rng = np.random.default_rng(0)
    target = quadratic(rng, DIM)
    q = wide(sd=sd)
    state = fit(target, q, make_draws(), settings=PRECISE)
    assert state.status == loop.CONVERGED
    assert state.level == 0
    np.testing.assert_allclose(state.q.precision.dense(), target.h, atol=1e-7)
    np.testing.assert_allclose(
        state.q.mean, np.linalg.solve(target.h, target.b), atol=1e-7
    )


def test_a_diagonal_precision_finds_the_mean_field_optimum() -> None:
    # KL(q ‖ p) is least at the exact mean and the diagonal of the exact precision.
    target = quadratic(np.random.default_rng(1), DIM)
    q = wide(structure=Diagonal)
    state = fit(target, q, make_draws(), WITH_CURVATURE, PRECISE)
    assert state.status == loop.CONVERGED
    np.testing.assert_allclose(
        state.q.precision.diagonal(), np.diag(target.h), rtol=1e-7
    )
    np.testing.assert_allclose(
        state.q.mean, np.linalg.solve(target.h, target.b), atol=1e-7
    )
    # The mean steps in the full metric: few trials, however correlated.
    assert state.iteration <= 15


def test_a_skewed_posterior_climbs_until_unseen_draws_agree() -> None:
    target = skewed(0.3, 0.5, 1.0, 2.0)
    draws = make_draws(seed=2)
    state = fit(target, wide(), draws)
    assert_sound(state)
    assert state.status == loop.CONVERGED
    assert state.level >= 2
    used = rows(state)["draws"]
    assert used[0] == draws.batch_size
    assert (np.diff(used) >= 0).all()
    assert used[-1] == draws.batch_size * 2 ** int(state.level)
    # Within what the tolerances allow of the best Gaussian there is.
    assert float(state.q.kl(target.optimum())) < 0.05


def test_too_few_draws_are_owned_up_to() -> None:
    # So skewed that no level has enough draws for it.
    target = skewed(0.1, 0.1, 0.2, 0.2)
    draws = make_draws(seed=2)
    state = fit(target, wide(), draws)
    assert_sound(state)
    assert state.status == loop.DRAWS_EXHAUSTED
    assert state.level == draws.levels - 1
    assert abs(state.gap) > SETTINGS.gap_tolerance
    assert float(state.q.kl(target.optimum())) > SETTINGS.gap_tolerance


# -- what cannot go well --------------------------------------------------------------


class Polynomial(NamedTuple):
    """c₀ + c₁ Σz + c₂ Σz² + c₄ Σz⁴ over the first coordinates, ½z² in the last."""

    c: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        x = z[:-1]
        terms = [jnp.ones(()), x.sum(), (x**2).sum(), (x**4).sum()]
        return self.c @ jnp.stack(terms) + z[-1] ** 2 / 2


@pytest.mark.parametrize(
    "c",
    [
        (3.0, 0, 0, 0),
        (0, 1.0, 0, 0),
        (0, 0, -1.0, 0),
        (0, 1.0, 1.0, -0.1),
        (0, 0, 0, 0),
    ],
    ids=["constant", "linear", "concave", "falls in the end", "zero"],
)
@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_an_objective_without_a_minimum_is_not_called_converged(
    c: tuple, structure: type
) -> None:
    state = fit(Polynomial(np.array(c, float)), wide(structure=structure), make_draws())
    assert state.status in (
        loop.STUCK,
        loop.ITERATIONS_EXHAUSTED,
        loop.DRAWS_EXHAUSTED,
        loop.NOT_FINITE,
    )
    assert_sound(state)
    # Improper or not, on its first draws it only went down.
    trace = rows(state)
    values = -trace["elbo"][trace["draws"] == trace["draws"][0]]
    values = values[np.isfinite(values)]
    assert (np.diff(values) <= 1e-8 * np.abs(values[1:])).all()


def test_a_flat_minimum_is_found_all_the_same() -> None:
    # A quartic has no curvature at its mode, but its Gaussian approximation does:
    # E z⁴ − ½ log v is least at v² = 1/12.
    state = fit(Polynomial(np.array([0, 0, 0, 1.0])), wide(), make_draws())
    assert state.status == loop.CONVERGED
    variance = jnp.asarray([12**-0.5] * (DIM - 1) + [1.0])
    exact = Gaussian(jnp.zeros(DIM), Dense.from_dense(jnp.diag(1 / variance)))
    assert float(state.q.kl(exact)) < 0.1


class Lasso(NamedTuple):
    """A regression with double-exponential priors: on any fixed draws L has kinks, at
    which the gradient does not vanish."""

    x: np.ndarray
    y: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        return ((self.y - self.x @ z) ** 2).sum() / 2 + jnp.abs(z).sum() / 0.3


@pytest.mark.parametrize("seed", range(3))
def test_kinks_do_not_use_up_the_iterations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, DIM))
    target = Lasso(x, x @ np.array([2.0, 0.0, 0.0, -1.0]) + rng.standard_normal(20))
    state = fit(target, wide(), make_draws(seed=seed))
    assert state.status == loop.CONVERGED
    assert_sound(state)


def test_the_iterations_allowed_are_kept() -> None:
    target = logistic(DIM)
    settings = replace(SETTINGS, max_iterations=4, tolerance=1e-12)
    draws = make_draws()
    state = begin(target, wide(sd=50.0), draws, settings=settings)
    for limit in (4, 1000):
        stopped = go(target, state, draws, limit, FIRST, settings)
        assert stopped.status == loop.ITERATIONS_EXHAUSTED
        assert stopped.iteration == 4
        assert_sound(stopped)


def test_counts() -> None:
    target = logistic(DIM)
    draws = make_draws()
    state = fit(target, wide(sd=20.0), draws, settings=PRECISE)
    trace = rows(state)
    assert state.gradients == trace["draws"].sum()
    assert state.values % draws.check.shape[0] == 0
    # A level's first evaluation is accepted with a step of no length.
    first_ones = 1 + np.count_nonzero(np.diff(trace["draws"]))
    assert state.rejected == np.count_nonzero(trace["step"] == 0) - first_ones
    assert np.all(np.asarray(state.trace.draws)[int(state.iteration) :] == 0)
