"""Structure read off plates, held against the density, and fits that keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.plan import Structured
from ngvi.bayes.plates import read_plates
from ngvi.bayes.structure import Structure, choose
from tests.linalg.cases import pattern

SCHOOLS, CLASSES = 3, 2


def nested(y: Any) -> None:
    """Classes in schools; everything is Gaussian."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    shift = numpyro.sample("shift", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("school", SCHOOLS, dim=-1):
        school = numpyro.sample("school_effect", dist.Normal(mean + shift[0], 1.0))
        with numpyro.plate("class", CLASSES, dim=-2):
            room = numpyro.sample("class_effect", dist.Normal(school, 0.5))
            with numpyro.plate("pupil", y.shape[0], dim=-3):
                numpyro.sample("y", dist.Normal(room + shift[1], 1.0), obs=y)


SCORES = np.random.default_rng(0).normal(2.0, 1.0, (4, CLASSES, SCHOOLS))


def groups(
    likelihood: Callable[[Any], Any], count: int = 210, middle: bool = True
) -> Callable[[], None]:
    """A parameter for each group, and what becomes of all of them."""

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0)) if middle else 0.0
        with numpyro.plate("group", count):
            theta = numpyro.sample("theta", dist.Normal(mean, 1.0))
        numpyro.factor("data", likelihood(theta))

    return model


def crossed() -> None:
    """Students and items that meet in the rows of the data, through indices."""
    student, item = (i.ravel() for i in np.indices((200, 12)))
    with numpyro.plate("student", 200):
        skill = numpyro.sample("skill", dist.Normal(0.0, 1.0))
    with numpyro.plate("item", 12):
        hard = numpyro.sample("hard", dist.Normal(0.0, 1.0))
    numpyro.factor("data", -((skill[student] - jnp.exp(hard[item])) ** 2).sum())


def chosen(model: Callable[..., None], *args: Any, covariance: str = "auto") -> Any:
    target, data, point, trace = model_target(model, args, {}, None)
    return choose(covariance, target, data, point, trace)


def test_the_pattern_is_that_of_the_hessian() -> None:
    target, data, point, trace = model_target(nested, (SCORES,), {}, None)
    plates = read_plates(target, trace)
    hessian = jax.jit(jax.hessian(lambda z: target.potential(data, z)))(point)
    tree = plates.tree()
    meets = pattern(tree)
    # A school's effect does not meet the data, given its classes' effects.
    assert not np.asarray(hessian)[~meets].any()
    assert [level.count for level in tree.levels] == [1, 3, 6]
    assert tree.chains == ((0,), (1, 0), (2, 1, 0))
    within = np.abs(np.asarray(hessian)) > 0
    names = list(target.names)
    for i, j in np.ndindex(CLASSES, SCHOOLS):
        row = names.index(f"class_effect[{i},{j}]")
        assert within[row, names.index(f"school_effect[{j}]")]
        assert meets[row].sum() == 3 + 1 + 1


def test_structure_is_chosen_where_it_is_worth_it() -> None:
    plan, structure = chosen(groups(lambda theta: -(theta**4).sum()))
    assert isinstance(plan, Structured)
    assert plan.tree.numbers == 1 + 210 + 210
    assert str(structure) == (
        "structured covariance over 211 coordinates\n"
        "border: 1 (mean)\n"
        "plate group: 210 blocks of 1 (theta)\n"
        "the precision fills 0.0095 of a full matrix"
    )
    plan, structure = chosen(groups(lambda theta: -(theta**4).sum(), count=20))
    assert plan.covariance == "full"
    assert str(structure) == "full covariance over 21 coordinates"
    # Without anything common the blocks are roots themselves.
    plan, _ = chosen(groups(lambda theta: -(theta**4).sum(), middle=False))
    assert plan.tree.chains == ((0,),)


@pytest.mark.parametrize(
    "likelihood",
    [
        lambda theta: -(theta.sum() ** 2),
        lambda theta: -theta[3] * theta[7],
    ],
    ids=["sum", "pair"],
)
def test_blocks_that_depend_on_each_other(likelihood: Callable[[Any], Any]) -> None:
    plan, structure = chosen(groups(likelihood))
    assert plan.covariance == "full"
    assert structure.notes[0].startswith(
        "no structure: the blocks of plate group depend on each other; "
    )
    with pytest.raises(ValueError, match="blocks of plate group depend on each other"):
        chosen(groups(likelihood), covariance="structured")


def test_of_crossed_plates_the_smaller_is_in_the_border() -> None:
    plan, structure = chosen(crossed)
    assert [level.count for level in plan.tree.levels] == [1, 200]
    assert [level.size for level in plan.tree.levels] == [12, 1]
    assert structure.notes == ("plate item meets plate student: it is in the border",)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: numpyro.sample("x", dist.Normal(0.0, 1.0)), "inside a plate"),
        (
            groups(lambda t: jnp.sqrt(-1 - t**2).sum(), 4),
            "not finite at the start",
        ),
        (groups(lambda t: -_cubed(t).sum(), 4), "forward-mode"),
    ],
)
def test_no_structure_to_find(model: Callable[[], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chosen(model, covariance="structured")


@jax.custom_vjp
def _squared(x: jax.Array) -> jax.Array:
    return x**2


@jax.custom_vjp
def _cubed(x: jax.Array) -> jax.Array:
    return x**3


_squared.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
_cubed.defvjp(lambda x: (x**3, x), lambda x, g: (3 * _squared(x) * g,))


def test_a_plain_log_density_has_no_plates() -> None:
    with pytest.raises(ValueError, match="a plain log density has no plates"):
        ngvi.fit(lambda z: -(z**2), init=0.0, covariance="structured")


@pytest.fixture(scope="module")
def posterior() -> ngvi.Posterior:
    return ngvi.fit(nested, SCORES, covariance="structured", progress=False)


def test_a_gaussian_posterior_is_found_exactly(posterior: ngvi.Posterior) -> None:
    target, data, point, _ = model_target(nested, (SCORES,), {}, None)

    @jax.jit
    def exact(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient, hessian = (
            f(lambda z: target.potential(data, z)) for f in (jax.grad, jax.hessian)
        )
        return z - jnp.linalg.solve(hessian(z), gradient(z)), hessian(z)

    mean, precision = exact(point)
    q = posterior.gaussian
    np.testing.assert_allclose(q.mean, mean, atol=1e-6)
    found = jax.jit(lambda p: p.dense())(q.precision)
    np.testing.assert_allclose(found, precision, atol=1e-5)
    assert posterior.diagnostics.converged
    assert posterior.verdict.level == "trustworthy"


def test_it_says_what_it_keeps(posterior: ngvi.Posterior) -> None:
    text = str(posterior.structure)
    assert "border: 3 (mean, shift)" in text
    assert "plate school: 3 blocks of 1 (school_effect)" in text
    assert "plates class × school: 6 blocks of 1 (class_effect), on those of" in text
    assert "structured covariance" in repr(posterior)


@pytest.mark.parametrize("covariance", ["structured", "full", "diagonal"])
def test_a_picture_of_it(posterior: ngvi.Posterior, covariance: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    structure = posterior.structure
    if covariance != "structured":
        structure = Structure(covariance, 200)
    figure = structure.plot()
    (axes,) = figure.axes
    drawn = sum(len(collection.get_paths()) for collection in axes.collections)
    # Those on the diagonal, and those that one ancestor's blocks have on both sides.
    arrow = (1 + 3 + 6) + 2 * (1 + 1 + 3)
    of_each = {"structured": arrow, "full": 1, "diagonal": 0}
    assert drawn == of_each[covariance]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    if covariance == "structured":
        assert labels == ["border", "school", "class × school"]


def test_it_is_used_as_any_posterior(posterior: ngvi.Posterior, tmp_path: Any) -> None:
    assert posterior.sample(3)["class_effect"].shape == (3, CLASSES, SCHOOLS)
    posterior.save(tmp_path / "nested.nc")
    loaded = ngvi.load(tmp_path / "nested.nc")
    assert loaded.diagnostics.covariance == "structured"
    _, params = posterior.as_guide()
    root = params["auto_scale_tril"]
    variance = posterior.gaussian.variance
    np.testing.assert_allclose(np.sort((root**2).sum(1)), np.sort(variance))


@pytest.mark.slow
def test_nuts_starts_from_it(posterior: ngvi.Posterior) -> None:
    mcmc = posterior.nuts(num_samples=100, num_warmup=100, num_chains=2)
    assert mcmc.get_samples()["school_effect"].shape == (200, SCHOOLS)
    assert not mcmc.get_extra_fields()["diverging"].any()
