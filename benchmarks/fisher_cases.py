"""What is timed in fisher.py: a network with data, and its curvature in naive JAX."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = list[dict[str, jax.Array]]
"""Kernels w (inputs, outputs) and biases b."""


class Case(NamedTuple):
    """A classifier of random data, in float32."""

    params: Params
    x: jax.Array
    y: jax.Array
    v: Params
    """A vector to multiply."""

    @classmethod
    def of(cls, widths: tuple[int, ...], n: int) -> Case:
        rng = np.random.default_rng(0)

        def normal(*shape: int, scale: float = 1.0) -> jax.Array:
            return jnp.asarray(scale * rng.standard_normal(shape, np.float32))

        ends = list(pairwise(widths))
        return cls(
            [{"w": normal(i, o, scale=i**-0.5), "b": normal(o)} for i, o in ends],
            normal(n, widths[0]),
            jnp.asarray(rng.integers(0, widths[-1], n)),
            [{"w": normal(i, o), "b": normal(o)} for i, o in ends],
        )

    @property
    def size(self) -> int:
        """P."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def classes(self) -> int:
        return self.params[-1]["b"].size


def mlp(params: Params, x: jax.Array) -> jax.Array:
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean negative log probability."""
    log_probs = jax.nn.log_softmax(mlp(params, x))
    return -jnp.take_along_axis(log_probs, y[:, None], 1).mean()


gradient = jax.jit(jax.grad(loss))


# -- what one writes without a library -------------------------------------------------


def _columns(f: jax.Array) -> jax.Array:
    """S in rows, S Sᵀ = diag p − p pᵀ, of one example."""
    p = jax.nn.softmax(f)
    return jnp.sqrt(p)[:, None] * (jnp.eye(len(p)) - p)


def _rows(kind: str, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """X (N, R, P) of F = Xᵀ X / N."""

    def flat(tree: Any) -> jax.Array:
        leaves = jax.tree.leaves(tree)
        return jnp.concatenate([g.reshape(len(x), -1) for g in leaves], 1)

    def of_label(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss(params, x[None], y[None])

    def outputs(params: Params, x: jax.Array) -> jax.Array:
        return mlp(params, x[None])[0]

    if kind == "empirical":
        return flat(jax.vmap(jax.grad(of_label), (None, 0, 0))(params, x, y))[:, None]
    jacobians = jax.vmap(jax.jacrev(outputs), (None, 0))(params, x)
    f = mlp(params, x)
    joined = jnp.concatenate(
        [j.reshape(*f.shape, -1) for j in jax.tree.leaves(jacobians)], 2
    )
    return jax.vmap(_columns)(f) @ joined


@partial(jax.jit, static_argnums=0)
def naive_dense(kind: str, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    rows = _rows(kind, params, x, y)
    flat = rows.reshape(-1, rows.shape[-1])
    return flat.T @ flat / len(x)


@partial(jax.jit, static_argnums=0)
def naive_diagonal(kind: str, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return (_rows(kind, params, x, y) ** 2).sum((0, 1)) / len(x)


@partial(jax.jit, static_argnums=0)
def naive_kronecker(
    kind: str, params: Params, x: jax.Array, y: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """The network written out again with its inputs noted and its outputs shifted."""
    n = len(x)

    def run(shifts: list[jax.Array], x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        inputs = []
        for i, (layer, shift) in enumerate(zip(params, shifts, strict=True)):
            inputs.append(jnp.append(x, 1.0))
            x = x @ layer["w"] + layer["b"] + shift
            if i < len(params) - 1:
                x = jnp.tanh(x)
        return x, inputs

    def one(x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        zeros = [jnp.zeros_like(layer["b"]) for layer in params]
        f, pull_back, inputs = jax.vjp(lambda s: run(s, x), zeros, has_aux=True)
        if kind == "empirical":
            columns = (jax.nn.softmax(f) - jax.nn.one_hot(y, len(f)))[None]
        else:
            columns = _columns(f)
        return inputs, jax.vmap(pull_back)(columns)[0]

    inputs, gradients = jax.vmap(one)(x, y)
    factors = []
    for a, g in zip(inputs, gradients, strict=True):
        flat = g.reshape(-1, g.shape[-1])
        factors.append((a.T @ a / n, flat.T @ flat / n))
    return factors


NAIVE = {
    "dense": naive_dense,
    "diagonal": naive_diagonal,
    "kronecker": naive_kronecker,
}
