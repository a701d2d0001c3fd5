"""What a training loop calls: models of any library, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets import (
    Algorithm,
    ObservationNoise,
    full,
    ivon,
    noisy_ekfac,
    noisy_kfac,
    slang,
    vogn,
)
from tests.nets.problems import (
    DATA_SIZE,
    LABELS,
    NUMBERS,
    PARAMS,
    STEPS,
    X,
    apply,
    begun,
    close,
)
from tests.programs import compiled

RNG = np.random.default_rng(4)
WEIGHTS = [jnp.asarray(RNG.standard_normal(shape)) for shape in [(2, 4), (4, 3)]]
BIASES = [jnp.asarray(RNG.standard_normal(size)) for size in (4, 3)]


def plain(p: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ p[0]["w"] + p[0]["b"])
    return hidden @ p[1]["w"] + p[1]["b"]


TWIN = [{"w": w, "b": b} for w, b in zip(WEIGHTS, BIASES, strict=True)]


def linen() -> tuple[Any, Any]:
    nn = pytest.importorskip("flax.linen")

    net = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(3)])
    each = {
        f"layers_{place}": {"kernel": w, "bias": b}
        for place, w, b in zip((0, 2), WEIGHTS, BIASES, strict=True)
    }
    return net.apply, {"params": each}


def nnx() -> tuple[Any, Any]:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(2, 4, rngs=rngs)
            self.last = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(jnp.tanh(self.first(x)))

    structure, shapes = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    leaves = [BIASES[0], WEIGHTS[0], BIASES[1], WEIGHTS[1]]
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return lambda p, x: nnx.merge(structure, p)(x), params


def equinox() -> tuple[Any, Any]:
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(2, 3, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(net, eqx.is_inexact_array)
    new = [WEIGHTS[0].T, BIASES[0], WEIGHTS[1].T, BIASES[1]]
    params = jax.tree.unflatten(jax.tree.structure(params), new)
    return lambda p, x: jax.vmap(eqx.combine(p, static))(x), params


def haiku() -> tuple[Any, Any]:
    hk = pytest.importorskip("haiku")

    def net(x: jax.Array) -> jax.Array:
        return hk.Sequential([hk.Linear(4), jnp.tanh, hk.Linear(3)])(x)

    pure = hk.without_apply_rng(hk.transform(net))
    names = ("linear", "linear_1")
    each = {name: {"w": WEIGHTS[i], "b": BIASES[i]} for i, name in enumerate(names)}
    return pure.apply, each


def stax() -> tuple[Any, Any]:
    # The form that NumPyro's own examples take.
    from jax.example_libraries import stax

    _, run = stax.serial(stax.Dense(4), stax.Tanh, stax.Dense(3))
    return run, [(WEIGHTS[0], BIASES[0]), (), (WEIGHTS[1], BIASES[1])]


def trained(apply: Any, params: Any) -> Any:
    """The means and standard deviations of the weights, after some steps."""
    algorithm = vogn(apply, "categorical", DATA_SIZE)
    step, state = compiled(algorithm.step), begun(algorithm, params, (X[0], LABELS[0]))
    for i in range(STEPS):
        state, _ = step(state, (X[i], LABELS[i]), jax.random.key(i))
    return state.params, algorithm.posterior(state).standard_deviations


@pytest.fixture(scope="module")
def expected() -> Any:
    return trained(plain, TWIN)


@pytest.mark.parametrize("library", [linen, nnx, equinox, haiku, stax])
def test_nets_of_all_libraries(library: Any, expected: Any) -> None:
    found = trained(*library())
    for actual, twin in zip(found, expected, strict=True):
        # The biases and kernels of a layer may be in either order, or transposed.
        leaves = {leaf.shape: leaf for leaf in jax.tree.leaves(actual)}
        for leaf in jax.tree.leaves(twin):
            shape = leaf.shape if leaf.shape in leaves else leaf.shape[::-1]
            close(leaves[shape] if shape == leaf.shape else leaves[shape].T, leaf)


def test_a_loop_of_three_lines() -> None:
    algorithm = vogn(apply, "gaussian", DATA_SIZE, learning_rate=0.1)
    state = algorithm.init(PARAMS, (X[0], NUMBERS[0]))
    state, info = algorithm.step(state, (X[0], NUMBERS[0]), jax.random.key(0))
    assert info.loss.shape == () and int(state.steps) == 1
    draws = algorithm.sample(state, jax.random.key(1), (5,))
    again = algorithm.posterior(state).sample(jax.random.key(1), (5,))
    for draw, other, leaf in zip(
        *map(jax.tree.leaves, (draws, again, PARAMS)), strict=True
    ):
        assert draw.shape == (5, *leaf.shape)
        np.testing.assert_array_equal(draw, other)


def make(row: Any = vogn, likelihood: Any = "categorical", **settings: Any) -> Any:
    return row(apply, likelihood, settings.pop("data_size", DATA_SIZE), **settings)


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        (vogn, {"data_size": 0}, "data_size must be at least 1, got 0"),
        (vogn, {"data_size": float("nan")}, "data_size must be at least 1, got nan"),
        (vogn, {"kl_weight": 0.0}, "kl_weight must be positive, got 0.0"),
        (vogn, {"initial_curvature": -1.0}, "initial_curvature must be positive"),
        (full, {"kind": "exact"}, "one of true, sampled, empirical, got 'exact'"),
        (ivon, {"curvature": "exact"}, "one of price, squared, per-example, got"),
        (slang, {"rank": 0}, "rank must be at least 1, got 0"),
    ],
)
def test_bad_settings(row: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(row, **settings)


def changed(leaf: jax.Array, value: float) -> jax.Array:
    return leaf.at[1, 1].set(value)


NAN, INF = float("nan"), float("inf")
BAD_X, BAD_NUMBERS = changed(X[0], NAN), changed(NUMBERS[0], NAN)
BAD_PARAMS = PARAMS | {"last": changed(PARAMS["last"], INF)}


@pytest.mark.parametrize(
    ("algorithm", "params", "batch", "message"),
    [
        (make(), PARAMS, (BAD_X, LABELS[0]), r"x must be finite, got nan at index \(1"),
        (make(), BAD_PARAMS, (X[0], LABELS[0]), r"params\['last'\] must be .* got inf"),
        (make(vogn, "gaussian"), PARAMS, (X[0], BAD_NUMBERS), "labels must be finite"),
        (
            make(vogn, ObservationNoise.begin()),
            PARAMS,
            (X[0], BAD_NUMBERS),
            "labels must be finite",
        ),
        (make(), PARAMS, (X[0], LABELS[0] + 3), "labels must be"),
        (make(), PARAMS, (X[0], LABELS[0][:4]), r"labels have shape \(4,\)"),
        (
            make(vogn, ObservationNoise.begin()),
            PARAMS,
            (X[0], NUMBERS[0][:, 0]),
            r"labels have shape \(6,\), the outputs need \(6, 3\)",
        ),
        (make(vogn, "poisson"), PARAMS, (X[0], NUMBERS[0]), "Poisson: labels must be"),
        (make(prior_precision=-1.0), PARAMS, (X[0], LABELS[0]), "must be positive"),
        (
            make(full, retraction="second"),
            PARAMS,
            (X[0], LABELS[0]),
            "retraction='second' is for diagonal precisions",
        ),
        (
            make(noisy_ekfac, root=True),
            PARAMS,
            (X[0], LABELS[0]),
            "root=True is for diagonal precisions, not for Eigen",
        ),
        (
            make(noisy_kfac, prior_precision={"first": {"w": 1, "b": 2}, "last": 1}),
            PARAMS,
            (X[0], LABELS[0]),
            "one precision for all weights of a layer, got several for 'first'",
        ),
    ],
)
def test_bad_input(algorithm: Algorithm, params: Any, batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        algorithm.init(params, batch)


def test_more_directions_than_weights_are_as_many() -> None:
    algorithm = make(slang, rank=1000)
    state = jax.eval_shape(algorithm.init, PARAMS, (X[0], LABELS[0]))
    after, _ = jax.eval_shape(
        algorithm.step, state, (X[0], LABELS[0]), jax.random.key(0)
    )
    assert after.site.vectors.shape == state.site.vectors.shape == (18, 18)
