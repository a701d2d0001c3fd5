"""A small net, as users write it and as a function of one vector, with its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.linalg import PositiveDefinite
from ngvi.nets import Algorithm, State
from tests.programs import compiled

RNG = np.random.default_rng(0)
DATA_SIZE, BATCH, STEPS = 40, 6, 4
X = jnp.asarray(RNG.standard_normal((STEPS, BATCH, 2)))
LABELS = jnp.asarray(RNG.integers(0, 3, (STEPS, BATCH)))
NUMBERS = jnp.asarray(RNG.standard_normal((STEPS, BATCH, 3)))
PARAMS = {
    "first": {
        "w": jnp.asarray(RNG.standard_normal((2, 3))),
        "b": jnp.asarray(RNG.standard_normal(3)),
    },
    "last": jnp.asarray(RNG.standard_normal((3, 3))),
}
SIZES = (9, 9)
"""The weights of a layer with its bias, and of one without."""
DIM = sum(SIZES)


def apply(p: Any, x: jax.Array) -> jax.Array:
    """As users write it."""
    return jnp.tanh(x @ p["first"]["w"] + p["first"]["b"]) @ p["last"]


START = np.concatenate(
    [
        np.vstack([PARAMS["first"]["w"], PARAMS["first"]["b"]]).reshape(-1),
        np.reshape(PARAMS["last"], -1),
    ]
)
"""The same weights, layer by layer."""


def inputs(w: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """ā of both layers, at one example."""
    first = jnp.append(x, 1.0)
    return first, jnp.tanh(first @ w[:9].reshape(3, 3))


def loss(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """−log p(y | f) of one example, a class."""
    f = inputs(w, x)[1] @ w[9:].reshape(3, 3)
    return jax.nn.logsumexp(f) - f[y]


def at_layers(w: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """g of both layers: the loss's gradients at what they give."""

    def shifted(shifts: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden = jnp.tanh(jnp.append(x, 1.0) @ w[:9].reshape(3, 3) + shifts[0])
        f = hidden @ w[9:].reshape(3, 3) + shifts[1]
        return jax.nn.logsumexp(f) - f[y]

    return jax.grad(shifted)((jnp.zeros(3), jnp.zeros(3)))


def of_examples(function: Callable) -> Callable[..., Any]:
    """A function of one example, for those of a batch."""
    mapped = compiled(jax.vmap(function, (None, 0, 0)))
    return lambda *args: jax.tree.map(np.asarray, mapped(*args))


gradients = of_examples(jax.grad(loss))
layer_inputs = of_examples(lambda w, x, _: inputs(w, x))
layer_gradients = of_examples(at_layers)


@compiled
def drawn_labels(key: jax.Array, w: jax.Array, x: jax.Array) -> jax.Array:
    """A label of the model's own for each example, a key for each."""

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        f = inputs(w, x)[1] @ w[9:].reshape(3, 3)
        return jax.random.categorical(jax.random.split(key, 1)[0], f)

    return jax.vmap(one)(jax.random.split(key, len(x)), x)


def normals(key: jax.Array, count: int = 1) -> tuple[np.ndarray, jax.Array]:
    """ε of a step, and the key of its labels."""
    of_weights, of_labels = jax.random.split(key)
    return np.asarray(jax.random.normal(of_weights, (count, DIM))), of_labels


def begun(algorithm: Algorithm, params: Any, batch: Any) -> State:
    """The state before the first step, compiled in one."""
    return compiled(algorithm.init)(params, batch)


def training(
    algorithm: Algorithm, y: jax.Array = LABELS
) -> Iterator[tuple[int, State, State, tuple[Any, Any], jax.Array]]:
    """Of some steps: number from 1, states before and after, batch, key."""
    step = compiled(algorithm.step)
    state = begun(algorithm, PARAMS, (X[0], y[0]))
    for i in range(STEPS):
        key, batch = jax.random.key(i), (X[i], y[i])
        before, (state, _) = state, step(state, batch, key)
        yield i + 1, before, state, batch, key


@compiled
def _matrices(precision: PositiveDefinite) -> tuple[jax.Array, jax.Array]:
    return precision.dense(), precision.unwhiten(jnp.eye(precision.dim)).T


def matrices(precision: PositiveDefinite) -> tuple[np.ndarray, np.ndarray]:
    """S and A with m + A ε ~ N(m, S⁻¹)."""
    s, a = map(np.asarray, _matrices(precision))
    close(a.T @ s @ a, np.eye(len(s)))
    return s, a


def close(actual: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal, to a tolerance relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
