"""Curvatures as arrays, from explicit Jacobians of one example after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ngvi.fisher.likelihoods import as_likelihood


@dataclass(frozen=True)
class Model:
    """A model with data; `apply` is always the same object, so that programs are."""

    name: str
    apply: Callable[[Any, Any], Any]
    params: Any
    x: Any
    y: Any
    likelihood: Any


def _normal(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape))


def _mlp(p: Any, x: jax.Array) -> jax.Array:
    h = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"])
    h = jnp.tanh(h @ p["second"].T) * p["scale"]
    return h @ p["last"]["w"] + p["last"]["b"]


def mlp() -> Model:
    """Two hidden layers, one of them transposed and without a bias; a bare scale."""
    rng = np.random.default_rng(0)
    params = {
        "first": {"w": _normal(rng, 3, 4), "b": _normal(rng, 4)},
        "second": _normal(rng, 2, 4),
        "scale": _normal(rng, 2),
        "last": {"w": _normal(rng, 2, 3), "b": _normal(rng, 3)},
    }
    y = jnp.asarray(rng.integers(0, 3, 7))
    return Model("mlp", _mlp, params, _normal(rng, 7, 3), y, "categorical")


def _sequence(p: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = jnp.tanh(x @ p["w"] + p["b"]).mean(1)
    both = h @ p["last"] + p["power"] * h[:, :1] ** 2
    return both[:, 0], both[:, 1]


def sequence() -> Model:
    """A layer used at five positions, a parameter in no layer, a learned noise."""
    rng = np.random.default_rng(1)
    params = {
        "w": _normal(rng, 2, 3),
        "b": _normal(rng, 3),
        "last": 0.3 * _normal(rng, 3, 2),
        "power": 0.3 * _normal(rng),
    }
    x, y = _normal(rng, 7, 5, 2), _normal(rng, 7)
    return Model("sequence", _sequence, params, x, y, "heteroscedastic_gaussian")


MODELS = [mlp(), sequence()]


def matrix(model: Model, kind: str, keys: jax.Array) -> np.ndarray:
    """F, rows in the order of `ravel_pytree`; drawn labels with a key an example."""
    flat, unravel = ravel_pytree(model.params)
    likelihood = as_likelihood(model.likelihood)
    one = jax.tree.map(lambda leaf: leaf[0], model.apply(model.params, model.x[:1]))
    restore = ravel_pytree(one)[1]

    def outputs(p: jax.Array, x: Any) -> jax.Array:
        f = model.apply(unravel(p), x[None])
        return ravel_pytree(jax.tree.map(lambda leaf: leaf[0], f))[0]

    def minus_log_prob(f: jax.Array, y: Any) -> jax.Array:
        return -likelihood.log_prob(restore(f), y)

    def of_example(x: Any, y: Any, key: jax.Array) -> jax.Array:
        if kind == "hessian":
            return jax.hessian(lambda p: minus_log_prob(outputs(p, x), y))(flat)
        f, jacobian = outputs(flat, x), jax.jacrev(outputs)(flat, x)
        if kind == "true":

            def row(e: jax.Array) -> jax.Array:
                return ravel_pytree(likelihood.fisher_mv(restore(f), restore(e)))[0]

            middle = jax.vmap(row)(jnp.eye(f.size))
        elif kind == "gauss-newton":
            middle = jax.hessian(minus_log_prob)(f, y)
        else:
            if kind == "sampled":
                y = likelihood.sample(jax.random.split(key, 1)[0], restore(f))
            score = jax.grad(minus_log_prob)(f, y)
            middle = jnp.outer(score, score)
        return jacobian.T @ middle @ jacobian

    return np.asarray(jax.jit(jax.vmap(of_example))(model.x, model.y, keys).mean(0))
