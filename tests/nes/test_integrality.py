"""Integer coordinates: the margin, and what searches find with it."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ngvi
from ngvi import nes
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.nes.lattice import make_lattice

DIM = 6
HALF = [0, 0, 0, 1, 1, 1]
CENTER = np.array([0.3, -0.7, 1.2, 2.3, -1.6, 0.8])


def called(fun, x0=(0.0,) * DIM, integrality=HALF, **options):
    """A search of a Python function, whose compiled parts all tests share."""
    options = {"restarts": 0} | options
    return ngvi.minimize(
        fun, np.asarray(x0), integrality=integrality, vectorized=False, **options
    )


def lattice_of(whole, lower, upper):
    infinite = np.asarray(whole, float)
    return make_lattice(np.asarray(whole), lower, upper, infinite, infinite)


@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_every_integer_keeps_its_margin(structure):
    rng = np.random.default_rng(0)
    dim, popsize = 40, 8
    whole = np.arange(dim) < 36
    lower, upper = np.full(dim, -2.0), np.full(dim, 2.0)
    lattice = lattice_of(whole, lower, upper)
    root = rng.standard_normal((dim, dim)) * np.logspace(-6, 1, dim)[:, None]
    mean = rng.permutation(np.linspace(-3, 3, dim))
    if structure is Dense:
        precision = Dense.from_inverse_root(jnp.asarray(root))
    else:
        precision = Diagonal.from_deviations(jnp.abs(jnp.diag(root)))
    state = replace(
        nes.init(nes.snes(dim, popsize), jnp.zeros(dim), 1.0),
        q=Gaussian(jnp.asarray(mean), precision),
    )
    keep = jax.jit(lattice.keep_margin, static_argnums=2)
    kept, scale = keep(state, jnp.ones(dim), popsize)

    def probabilities(q):
        z = np.clip(np.round(mean), -2, 2)
        normal = scipy.stats.norm(np.asarray(q.mean), np.sqrt(np.asarray(q.variance)))
        below = np.where(z > -2, normal.cdf(z - 0.5), np.nan)
        return np.stack([below, np.where(z < 2, normal.sf(z + 0.5), np.nan)])

    before, after = probabilities(state.q), probabilities(kept.q)
    inside = ~np.isnan(before).any(0)
    margin = 1 / (popsize * dim)
    least = np.where(inside, margin / 2, margin)
    assert inside.sum() > 5 and (~inside).sum() > 5
    assert (np.nanmin(after, 0) >= least * (1 - 1e-6))[whole].all()
    floor = -0.5 / scipy.stats.norm.ppf(margin / 2)
    sd = np.sqrt(np.asarray(state.q.variance))
    wide = np.where(whole, np.maximum(sd, floor), sd)
    np.testing.assert_allclose(np.sqrt(np.asarray(kept.q.variance)), wide)
    np.testing.assert_allclose(scale, wide / sd)
    content = ~whole | ((sd > floor) & (np.nanmin(before, 0) >= least))
    assert (content & whole).any()
    np.testing.assert_array_equal(np.asarray(kept.q.mean)[content], mean[content])

    def correlations(q):
        covariance = np.asarray(q.precision.inverse_dense())
        sd = np.sqrt(np.diag(covariance))
        return covariance / np.outer(sd, sd)

    np.testing.assert_allclose(correlations(kept.q), correlations(state.q), atol=1e-9)


def separable(x):
    return (np.logspace(0, 3, DIM) * (x - CENTER) ** 2).sum()


def test_only_integers_are_evaluated():
    seen = []

    def fun(x):
        seen.append(x)
        return separable(x)

    bounds = [(None, None)] * 4 + [(-1.5, 3.9), (0, 4)]
    found = called(fun, bounds=bounds)
    points = np.array(seen)[:, 3:]
    np.testing.assert_array_equal(points, np.round(points))
    assert set(points[:, 1]) <= {-1, 0, 1, 2, 3} and points[:, 2].min() >= 0
    assert found.success
    np.testing.assert_allclose(found.x, [0.3, -0.7, 1.2, 2, -1, 1], atol=1e-4)
    assert not np.signbit(found.x[found.x == 0]).any()


@pytest.mark.parametrize("integrality", [1, HALF])
def test_a_separable_ellipsoid(integrality):
    found = called(separable, integrality=integrality)
    whole = np.broadcast_to(integrality, DIM) == 1
    np.testing.assert_allclose(
        found.x, np.where(whole, np.round(CENTER), CENTER), atol=1e-4
    )
    assert found.success and found.nfev < 4000
    # Widened coordinates hide neither convergence nor the others' conditioning.
    assert found.message.startswith(("tolfun: ", "tolfunhist: "))


def rotated(seed):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return rotation * np.logspace(0, 1.5, DIM) @ rotation.T


@pytest.mark.parametrize("seed", [0, 1])
def test_a_rotated_ellipsoid_beside_enumeration(seed):
    matrix = rotated(seed)

    def fun(x):
        return float((x - CENTER) @ matrix @ (x - CENTER))

    # For given integers the rest is a linear system.
    integers = np.array(list(product(range(-3, 4), repeat=3)))
    rest = -(integers - CENTER[3:]) @ matrix[3:, :3] @ np.linalg.inv(matrix[:3, :3])
    points = np.concatenate([CENTER[:3] + rest, integers], 1)
    least = min(map(fun, points))
    bounds = [(-5, 5)] * 3 + [(-3, 3)] * 3
    found = called(fun, restarts=None, bounds=bounds, budget=8000, ftarget=least + 1e-6)
    assert found.success and found.fun >= least - 1e-9


def test_one_max_by_integrality():
    found = called(
        lambda x: x.sum(),
        integrality=True,
        bounds=[(0, 1)] * DIM,
        maximize=True,
        ftarget=DIM,
    )
    assert found.success and found.nfev < 300
    np.testing.assert_array_equal(found.x, np.ones(DIM))


def test_a_traced_and_a_called_search_agree():
    def fun(x):
        return (jnp.logspace(0, 3, DIM) * (x - CENTER) ** 2).sum()

    traced = ngvi.minimize(fun, np.zeros(DIM), integrality=HALF, restarts=0)
    plain = called(separable)
    assert traced.nfev == plain.nfev
    np.testing.assert_allclose(traced.x, plain.x, atol=1e-8)


def test_a_separable_strategy_and_a_pytree():
    found = ngvi.minimize(
        lambda x: (x["a"] - 1.4) ** 2 + ((x["b"] - 0.6) ** 2).sum(),
        {"a": 0.5, "b": np.zeros(2)},
        integrality={"a": 0, "b": np.array([True, False])},
        method="sep-cma",
        vectorized=False,
        restarts=0,
    )
    assert found.success and found.x["b"][0] == 1
    np.testing.assert_allclose([found.x["a"], found.x["b"][1]], [1.4, 0.6], atol=1e-4)


def test_a_knapsack_is_constrained_and_integer():
    rng = np.random.default_rng(5)
    weights, worth = rng.uniform(1, 5, (2, DIM))
    choices = np.array(list(product([0, 1], repeat=DIM)))
    best = (choices @ worth)[choices @ weights <= 9].max()
    found = called(
        lambda x: x @ worth,
        integrality=1,
        bounds=[(0, 1)] * DIM,
        constraints={"type": "ineq", "fun": lambda x: 9 - x @ weights},
        maximize=True,
        restarts=None,
        budget=5000,
        ftarget=best - 1e-9,
    )
    assert found.success and found.maxcv == 0 and found.fun == pytest.approx(best)


def test_asking_and_telling():
    search = nes.Optimizer(np.full(DIM, 0.5), integrality=HALF, seed=1)
    while not search.stop() and search.generation < 500:
        points = search.ask()
        np.testing.assert_array_equal(points[:, 3:], np.round(points[:, 3:]))
        search.tell(points, [separable(x) for x in points])
    assert search.result.success
    np.testing.assert_allclose(search.result.x[3:], np.round(CENTER[3:]))
    search.inject(np.zeros(DIM), separable(np.zeros(DIM)))
    with pytest.raises(ValueError, match="no integer where it must be"):
        search.inject(np.full(DIM, 0.5), 1.0)


def test_a_start_between_integers_is_a_mean():
    found = called(lambda x: np.nan, np.full(DIM, 0.7), budget=20)
    np.testing.assert_allclose(found.x, [0.7, 0.7, 0.7, 1, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": [(0.2, 0.8)] * 2}, "at position 1 no integer lies between .* 0.2"),
        ({"bounds": [(0.2, 1.8)] * 2}, "at position 1 only one integer lies between"),
        ({"integrality": [0, 2]}, "integrality must be 1 where"),
        ({"integrality": ["a", "b"]}, "integrality must be 1 where"),
        ({"integrality": [0, 1, 1]}, "one number or 2, as x0 has, got 3"),
        ({"method": "isotropic"}, "a deviation for each coordinate: use the method"),
    ],
)
def test_mistakes_are_named(options, message):
    options = {"integrality": [0, 1]} | options
    with pytest.raises(ValueError, match=message):
        called(separable, np.full(2, 0.5), **options)
