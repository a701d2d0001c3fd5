"""Each likelihood against its definition, SciPy's and NumPyro's densities, and draws.

Λ is found in three ways that share nothing: the closed form, the mean of score scoreᵀ
over draws, and the curvature of the divergence, which itself is held to its draws.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

from ngvi import families
from ngvi.fisher.likelihoods import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Exponential,
    FromNumPyro,
    Gamma,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    MultivariateGaussian,
    NaturalParameters,
    NegativeBinomial,
    Ordinal,
    Poisson,
    Product,
    StudentT,
    VonMises,
    as_likelihood,
)
from ngvi.linalg import Diagonal
from tests.fisher.likelihood_cases import Case, every_likelihood
from tests.programs import compiled

DRAWS = 4_000
DIRECTIONS, STEP = 6, 3e-3
# Of every entry of every row: about a thousand comparisons a run, fixed seeds.
STANDARD_ERRORS = 5.0


@compiled
def facts(likelihood: Likelihood, f: Any, g: Any) -> dict[str, Any]:
    """All that one row says, in one program."""
    flat, unravel = ravel_pytree(f)
    basis = jax.vmap(unravel)(jnp.eye(flat.size))

    def as_rows(tree: Any) -> jax.Array:
        return jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(tree)

    keys = jax.random.split(jax.random.key(1), DRAWS)
    y = jax.vmap(likelihood.sample, (0, None))(keys, f)
    scores = as_rows(jax.vmap(likelihood.gradient, (None, 0))(f, y))
    squares = scores.T @ scores / DRAWS
    spread = (scores**2).T @ scores**2 / DRAWS - squares**2
    log_p = jax.vmap(likelihood.log_prob, (None, 0))(f, y)
    log_q = jax.vmap(likelihood.log_prob, (None, 0))(g, y)
    first = jax.tree.map(lambda leaf: leaf[0], y)
    v = jax.random.normal(jax.random.key(2), (DIRECTIONS, flat.size))
    around = [flat + c * STEP * v for c in (1, -1, 2, -2)]
    points = jnp.concatenate([jnp.stack([flat, ravel_pytree(g)[0]]), *around])
    divergences = jax.vmap(lambda x: likelihood.kl(f, unravel(x)))(points)
    near, far = divergences[2:].reshape(2, 2, DIRECTIONS).sum(1)
    numbers = {
        "y": y,
        "log_prob": log_p,
        "scores": (scores.mean(0), scores.std(0) / DRAWS**0.5),
        "squares": (squares, jnp.sqrt(jnp.maximum(spread, 0) / DRAWS)),
        "fisher": as_rows(jax.vmap(lambda v: likelihood.fisher_mv(f, v))(basis)),
        "root": as_rows(likelihood.root_columns(f)),
        "self_kl": divergences[0],
        "kl": divergences[1],
        "ratio": ((log_p - log_q).mean(), (log_p - log_q).std() / DRAWS**0.5),
        # The even part of the divergence, of which a difference of fourth order is q.
        "directions": v,
        "kl_curvature": (16 * near - far) / (12 * STEP**2),
        "mean": likelihood.mean(f),
    }
    if likelihood.natural:
        curvature = jax.vmap(lambda v: likelihood.hessian_mv(f, first, v))(basis)
        numbers["curvature"] = as_rows(curvature)
    return numbers


def agrees(found: tuple[Any, Any], expected: Any) -> None:
    mean, error = np.asarray(found[0]), np.asarray(found[1])
    allowed = STANDARD_ERRORS * error + 1e-10 * (1 + np.abs(expected))
    np.testing.assert_array_less(np.abs(mean - expected), allowed)


@every_likelihood
def test_a_likelihood_is_what_it_says(case: Case) -> None:
    likelihood = case.likelihood
    f, g = jax.tree.map(jnp.asarray, (case.f, case.g))
    found = facts(likelihood, f, g)
    fisher = np.asarray(found["fisher"])
    scale = np.abs(fisher).max()

    for i in range(3):
        y = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), found["y"])
        expected = np.sum(np.asarray(case.log_prob(case.f, y)))
        np.testing.assert_allclose(found["log_prob"][i], expected, rtol=1e-10)
    two = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), case.f)
    likelihood.check_outputs(two)
    likelihood.check_labels(two, jax.tree.map(lambda leaf: leaf[:2], found["y"]))
    agrees(found["scores"], np.zeros(len(fisher)))
    agrees(found["squares"], fisher)
    agrees(found["ratio"], found["kl"])
    np.testing.assert_allclose(found["self_kl"], 0, atol=1e-13)
    v = np.asarray(found["directions"])
    curvature = np.einsum("di,ij,dj->d", v, fisher, v)
    np.testing.assert_allclose(found["kl_curvature"], curvature, rtol=1e-6)
    root = np.asarray(found["root"])
    np.testing.assert_allclose(root.T @ root, fisher, rtol=0, atol=1e-12 * scale)
    if likelihood.natural:
        np.testing.assert_allclose(
            found["curvature"], fisher, rtol=0, atol=1e-12 * scale
        )
    if case.statistic is not None:
        values = jax.tree.map(case.statistic, found["y"])
        for v, m in zip(
            jax.tree.leaves(values), jax.tree.leaves(found["mean"]), strict=True
        ):
            agrees((v.mean(0), v.std(0) / DRAWS**0.5), np.asarray(m))


@compiled
def products(likelihood: Likelihood, f: Any, v: Any) -> tuple[Any, Any, Any]:
    """Λ v, S, and S Sᵀ v."""
    root = likelihood.root_columns(f)
    along = jax.tree.map(
        lambda s, leaf: jnp.tensordot(s, leaf, leaf.ndim) if leaf.ndim else s * leaf,
        root,
        v,
    )
    weights = jax.tree.reduce(jnp.add, along)
    again = jax.tree.map(lambda s: jnp.tensordot(weights, s, 1), root)
    return likelihood.fisher_mv(f, v), root, again


@every_likelihood
def test_saturated_outputs_have_finite_curvature(case: Case) -> None:
    """In float32, where probabilities round to 0 and 1 and exponentials underflow."""
    scaled = jax.tree.map(lambda leaf: 80 * leaf, case.f)
    extreme = scaled if case.extreme is None else case.extreme
    single = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), (case.likelihood, extreme)
    )
    v = jax.tree.map(jnp.ones_like, single[1])
    product, root, again = products(*single, v)
    for p, s, a in zip(*map(jax.tree.leaves, (product, root, again)), strict=True):
        assert p.dtype == s.dtype == jnp.float32
        assert np.isfinite(p).all() and np.isfinite(s).all()
        np.testing.assert_allclose(a, p, rtol=0, atol=1e-5 * (s**2).sum())


# -- what the table cannot say --------------------------------------------------------


def test_curvature_of_degrees_of_freedom_keeps_its_digits() -> None:
    """Of order ν⁻² for large ν; references by quadrature of the score in mpmath."""
    df = np.array([0.3, 3.0, 29.0, 31.0, 1e4])
    with mpmath.workdps(30):
        expected = [float(_information_of_df(mpmath.mpf(v))) for v in df]
    rows = StudentT(None, None).information(*(jnp.zeros(5), jnp.zeros(5), jnp.log(df)))
    np.testing.assert_allclose(rows[2][2], expected, rtol=1e-11)


def _information_of_df(v: Any) -> Any:
    """Var of the score of log ν: ν² E[−∂²/∂ν² log p], the published form."""
    gap = mpmath.psi(1, v / 2) - mpmath.psi(1, (v + 1) / 2)
    return v**2 * (gap / 4 - (v + 5) / (2 * v * (v + 1) * (v + 3)))


@pytest.mark.parametrize(("mean", "r"), [(0.01, 50.0), (3.0, 0.05), (400.0, 7.0)])
def test_curvature_of_a_concentration_is_the_sum_over_counts(
    mean: float, r: float
) -> None:
    y = np.arange(20_000.0)
    p = stats.nbinom.pmf(y, r, r / (r + mean))
    tail = special.polygamma(1, r) - special.polygamma(1, r + y)
    expected = r**2 * ((p * tail).sum() - mean / (r * (r + mean)))
    f = jnp.log(jnp.array([mean])), jnp.log(jnp.array([r]))
    found = NegativeBinomial().information(*f)[1][1]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=4e-15 * r * mean)


FIXED = [
    (NegativeBinomial(2.5), NegativeBinomial(), 3.0),
    (Beta(2.5), Beta(), 0.3),
    (Gamma(2.5), Gamma(), 0.7),
    (StudentT(0.7, 2.5), StudentT(0.7, None), 0.7),
]


@pytest.mark.parametrize(("fixed", "learned", "y"), FIXED)
def test_a_fixed_parameter_is_a_learned_one_held(
    fixed: Any, learned: Any, y: float
) -> None:
    f, g, log = jnp.array(0.3), jnp.array(-0.2), jnp.log(2.5)
    held, free = alike(fixed, f, g, y), alike(learned, (f, log), (g, log), y)
    np.testing.assert_allclose(held, free, rtol=1e-10)


@compiled
def alike(likelihood: Any, f: Any, g: Any, y: float) -> list[jax.Array]:
    """What does not depend on whether a second output is fixed."""
    first, second = jax.tree.leaves(f), jax.tree.leaves(g)
    found = [
        likelihood.log_prob(f, y),
        likelihood.kl(f, g),
        likelihood.information(*first)[0][0],
    ]
    if isinstance(likelihood, Beta):
        return found
    ratio = 2 * (likelihood.log_prob(f, y) - likelihood.log_prob(g, y))
    y = jnp.asarray(y)
    rise = likelihood.unit_deviance(y, *second) - likelihood.unit_deviance(y, *first)
    return [*found, rise, ratio]


def test_a_deviance_falls_as_the_log_probability_rises() -> None:
    for fixed, _, y in FIXED:
        if not isinstance(fixed, Beta):
            *_, rise, ratio = alike(fixed, jnp.array(0.3), jnp.array(-0.2), y)
            np.testing.assert_allclose(rise, ratio, rtol=1e-10)


def test_draws_stand_in_where_numpyro_has_no_closed_form() -> None:
    likelihood = FromNumPyro(lambda f: dist.Cauchy(f, 2.0), draws=4000)
    f = jnp.array(0.3)
    found, root, _ = products(likelihood, f, jnp.array(1.0))
    np.testing.assert_allclose((root**2).sum(), found)
    # score²: mean 1/(2σ²), second moment 3/(8σ⁴).
    error = np.sqrt((3 / 8 - 1 / 4) / 16 / 4000)
    assert abs(found - 1 / 8) < STANDARD_ERRORS * error
    with pytest.raises(NotImplementedError, match="Cauchy has no closed form"):
        FromNumPyro(likelihood.function).fisher_mv(jnp.array(0.3), jnp.array(1.0))


def test_specifications_name_likelihoods() -> None:
    assert isinstance(as_likelihood("poisson"), Poisson)
    assert as_likelihood("student_t").outputs == ("mean",)
    assert isinstance(as_likelihood(families.Gamma), NaturalParameters)
    assert isinstance(as_likelihood(lambda f: dist.Poisson(jnp.exp(f))), FromNumPyro)
    member = families.NegativeBinomial(0.0, 3)
    assert as_likelihood(member).constants == (("total_count", 3),)
    kept = Gaussian(2.0)
    assert as_likelihood(kept) is kept
    with pytest.raises(ValueError, match="unknown likelihood 'normal'; known are bern"):
        as_likelihood("normal")
    with pytest.raises(ValueError, match=r"pass Binomial\(total_count\)"):
        as_likelihood("binomial")
    with pytest.raises(TypeError, match="got 3"):
        as_likelihood(3)


BAD_OUTPUTS = [
    (Gaussian(), np.zeros((5, 2), int), "must be floating numbers, got dtype int"),
    (Gaussian(np.ones(3)), np.zeros((5, 2)), r"scale has shape \(3,\), which does not"),
    (Gaussian(), np.zeros(()), "must have a leading axis of examples"),
    (HeteroscedasticGaussian(), np.zeros((5, 2)), r"tuple of arrays \(mean, log sd\)"),
    (HeteroscedasticGaussian(), (np.zeros((5, 2)), np.zeros(5)), "broadcast_to"),
    (MultivariateGaussian(Diagonal(jnp.ones(3))), np.zeros((5, 2)), "of 3 outputs"),
    (Categorical(), np.zeros((5, 1)), "two classes or more"),
    (Ordinal(), np.zeros((5, 1)), r"pair \(predictor, cuts\)"),
    (Ordinal(), (np.zeros(5), np.zeros((4, 2))), "predictor's shape and one more"),
    (Product((Poisson(), Poisson())), (np.zeros(5),), "container like the parts"),
    (NaturalParameters(families.Gamma), np.zeros(5), "no natural parameters"),
    (FromNumPyro(lambda f: dist.Normal(*f)), np.zeros((5, 3)), "no distribution"),
]


@pytest.mark.parametrize(("likelihood", "outputs", "message"), BAD_OUTPUTS)
def test_outputs_that_do_not_fit_are_explained(
    likelihood: Likelihood, outputs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood.check_outputs(outputs)


F = np.zeros(4)
BAD_LABELS = [
    (Poisson(), F, np.array([1, 2, -3, 0]), r"0 or more, got -3 at index 2 \(1 such"),
    (Bernoulli(), F, np.array([0, 1, 2, 5]), r"0 to 1, got 2 at index 2 \(2 such"),
    (Binomial(3), F, np.array([0, 1, 2, 5]), "no more than total_count, got 5"),
    (Gaussian(), F, np.array([0, np.nan, 2, 5]), "finite, got nan at index 1"),
    (Gamma(), (F, F), np.array([1.0, 0, 2, 5]), "positive, got 0.0 at index 1"),
    (Beta(), (F, F), np.array([1.0, 0.5, 0.2, 0.1]), "excluded, got 1.0 at index 0"),
    (Gaussian(), F, np.zeros((4, 1)), r"have shape \(4, 1\), the outputs need \(4,\)"),
    (Gaussian(), np.zeros(0), np.zeros(0), "no examples"),
    (Categorical(), np.zeros((2, 3)), np.eye(3)[:2], r"take y.argmax\(-1\)"),
    (Categorical(), np.zeros((2, 3)), np.array([0, 3]), "0 to 2, got 3 at index 1"),
    (Ordinal(np.arange(2.0)), F, np.array([0, 3, 0, 0]), "0 to 2, got 3 at index 1"),
    (Product((Poisson(),)), (F,), (F - 1,), "Poisson: labels must be"),
    (NaturalParameters(families.Poisson), F, F - 1, "got -1.0 at index 0"),
    (NaturalParameters(families.Poisson), F, np.zeros((4, 2)), "have batch shape"),
    (NaturalParameters(families.Poisson), F[:0], F[:0], "no examples"),
    (FromNumPyro(dist.Exponential), F + 1, F - 1, "got -1.0 at index 0"),
    (FromNumPyro(dist.Exponential), F + 1, np.zeros((4, 2)), "draws"),
    (FromNumPyro(dist.Exponential), F[:0], F[:0], "no examples"),
]


@pytest.mark.parametrize(("likelihood", "outputs", "y", "message"), BAD_LABELS)
def test_labels_outside_the_support_are_named(
    likelihood: Likelihood, outputs: Any, y: Any, message: str
) -> None:
    likelihood.check_outputs(outputs)
    with pytest.raises(ValueError, match=message):
        likelihood.check_labels(outputs, y)


def test_invalid_parameters_are_named() -> None:
    for make in (Gaussian, Gamma, Beta, StudentT, VonMises, NegativeBinomial, Binomial):
        with pytest.raises(ValueError, match=f"{make.__name__}: .* must be positive"):
            make(-1.0)
    with pytest.raises(ValueError, match="cuts must be a vector of increasing"):
        Ordinal(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="covariance must be a symmetric positive-def"):
        MultivariateGaussian.from_covariance(-np.eye(2))
    with pytest.raises(ValueError, match="parts must be a tuple, list or dict"):
        Product((Poisson, Poisson))
    with pytest.raises(ValueError, match='"log rate", got'):
        Exponential("rate")
    with pytest.raises(ValueError, match="draws must be a whole number, 0 or more"):
        FromNumPyro(dist.Normal, draws=-1)
    with pytest.raises(ValueError, match="family must be a class"):
        NaturalParameters(Gaussian)


def test_a_categorical_has_positions() -> None:
    """Logits (T, C) and labels (T,): as many independent categoricals."""
    logits = np.arange(6.0).reshape(2, 3) ** 2 / 10
    each = [Categorical().log_prob(jnp.asarray(row), 1) for row in logits]
    both = Categorical().log_prob(jnp.asarray(logits), np.array([1, 1]))
    np.testing.assert_allclose(both, sum(each))
