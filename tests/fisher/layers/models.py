"""Models written in many ways, and the layers that are in them.

Above each model is its row: a name, the shapes of its parameters and of x (a
whole-number x is drawn below its `high`), the layers as {name: (kind, inputs, outputs,
positions)}, and what the reason for each of the other parameters must say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

N = 3


@dataclass(frozen=True)
class Model:
    name: str
    apply: Callable[[Any, Any], Any]
    params: Any
    x: Any
    layers: dict[str, tuple[str, int, int, int]]
    rest: dict[str, str] = field(default_factory=dict)
    high: int = 0
    tolerance: float = 1e-12

    def draw(self) -> tuple[PyTree, PyTree]:
        """Parameters and a batch of N examples."""
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(scale=0.7, size=shape)),
            self.params,
            is_leaf=_is_shape,
        )
        shape = (N, *self.x)
        x = rng.integers(self.high, size=shape) if self.high else rng.normal(size=shape)
        return params, jnp.asarray(x)


DENSE, SCALE = "dense", "scale_shift"
MODELS: list[Model] = []


def model(
    name: str, params: Any, x: Any, layers: Any, rest: Any = None, **other: Any
) -> Any:
    """Enter the function below as a row of `MODELS`."""

    def enter(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        MODELS.append(Model(name, apply, params, x, layers, rest or {}, **other))
        return apply

    return enter


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(size, int) for size in node)


@model(
    "mlp in tuples",
    (((4, 5), (5,)), (5, 2)),
    (4,),
    {"0": (DENSE, 5, 5, 1), "1": (DENSE, 5, 2, 1)},
)
def mlp(params: Any, x: Array) -> Array:
    (first, bias), last = params
    return jnp.tanh(x @ first + bias) @ last


@model(
    "named parameters and two outputs",
    {"W1": (4, 5), "b1": (5,), "W2": (5, 2), "b2": (2,), "w3": (5,), "b3": ()},
    (4,),
    {"W1": (DENSE, 5, 5, 1), "W2": (DENSE, 6, 2, 1), "w3": (DENSE, 6, 1, 1)},
)
def named(params: Any, x: Array) -> dict[str, Array]:
    hidden = jax.nn.relu(jnp.dot(x, params["W1"]) + params["b1"])
    mean = hidden @ params["W2"] + params["b2"]
    return {"mean": mean, "rate": jnp.exp(hidden @ params["w3"] + params["b3"])}


@model(
    "transposed kernels, one example at a time",
    {"weight": (5, 4), "bias": (5,), "out": (2, 5)},
    (4,),
    {"weight": (DENSE, 5, 5, 1), "out": (DENSE, 5, 2, 1)},
)
def transposed(params: Any, x: Array) -> Array:
    """Every example by itself, the kernel on the left, as some libraries have it."""

    def one(x: Array) -> Array:
        hidden = jnp.tanh(params["weight"] @ x + params["bias"])
        return jnp.einsum("oi,i->o", params["out"], hidden)

    return jax.vmap(one)(x)


@model(
    "rearranged and scaled kernels",
    {"first": (4, 3), "bias": (4,), "last": (4, 2), "constant": ()},
    (3,),
    {"first": (DENSE, 4, 4, 1), "last": (DENSE, 4, 2, 1), "constant": (SCALE, 1, 1, 2)},
)
def rearranged(params: Any, x: Array) -> Array:
    """Kernels that are cut up, turned round, negated and scaled before their use."""
    first = params["first"].reshape(2, 2, 3).transpose(2, 1, 0).reshape(3, 4) / 3.0
    hidden = jnp.tanh(x @ first + 0.1 * params["bias"][None, :])
    return hidden @ -params["last"][::-1] + params["constant"]


@model(
    "products",
    {
        "left": (2, 4, 3),
        "bias": (2,),
        "apart": (3, 2, 4, 3),
        "table": (2, 3),
        "single": (4, 2),
    },
    (2, 3, 4),
    {"left": (DENSE, 13, 2, 2), "apart": (DENSE, 13, 6, 2), "single": (DENSE, 4, 2, 6)},
)
def products(params: Any, x: Array) -> tuple[Array, ...]:
    """Sums over several axes in any order, and the kernel on either side."""
    left = (
        jnp.einsum("oji,ncij->ocn", params["left"], x) + params["bias"][:, None, None]
    )
    apart = jnp.einsum("ncij,iojp->npco", x, params["apart"])
    apart = apart + params["table"].T[:, None]
    numbers = (((1,), (3,)), ((0,), (0,)))  # a batch of one kernel and one example
    single = jax.vmap(
        lambda x: lax.dot_general(params["single"][None], x[None], numbers)[0]
    )
    return left.transpose(2, 0, 1), apart, single(x)


@model(
    "sequence",
    {"shared": (4, 5), "bias": (5,), "places": (5, 6), "out": (5, 2)},
    (6, 4),
    {"shared": (DENSE, 5, 5, 6), "places": (SCALE, 1, 30, 1), "out": (DENSE, 5, 2, 1)},
)
def sequence(params: Any, x: Array) -> Array:
    hidden = jnp.tanh(x @ params["shared"] + params["bias"]) + params["places"].T
    return hidden.mean(1) @ params["out"]


@model(
    "attention",
    {
        "query": {"kernel": (4, 2, 3), "bias": (2, 3)},
        "key": {"kernel": (4, 2, 3)},
        "value": {"kernel": (4, 2, 3)},
        "out": {"kernel": (2, 3, 4), "bias": (4,)},
    },
    (6, 4),
    {
        "query": (DENSE, 5, 6, 6),
        "key": (DENSE, 4, 6, 6),
        "value": (DENSE, 4, 6, 6),
        "out": (DENSE, 7, 4, 6),
    },
)
def attention(params: Any, x: Array) -> Array:
    def project(name: str) -> Array:
        return jnp.einsum("btd,dhk->bthk", x, params[name]["kernel"])

    query = project("query") + params["query"]["bias"]
    key, value = project("key"), project("value")
    scores = jnp.einsum("bthk,bshk->bhts", query, key)
    mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), value)
    out = jnp.einsum("bthk,hkd->btd", mixed, params["out"]["kernel"])
    return out + params["out"]["bias"]


@model(
    "embedding",
    {"table": (7, 4), "out": (4, 2)},
    (5,),
    {"table": ("embedding", 7, 4, 10), "out": (DENSE, 4, 2, 1)},
    high=7,
)
def embedded(params: Any, x: Array) -> Array:
    first = params["table"][x]
    second = jnp.take(params["table"], x[:, ::-1], axis=0)
    return jnp.tanh(first * second).sum(1) @ params["out"]


@model(
    "embedding of one index at a time",
    {"table": (7, 4)},
    (5,),
    {"table": ("embedding", 7, 4, 5)},
    high=7,
)
def embedded_alone(params: Any, x: Array) -> Array:
    return jax.vmap(jax.vmap(lambda index: params["table"][index]))(x) ** 2


@model(
    "tied embedding",
    {"table": (7, 4), "mix": (4, 4)},
    (5,),
    {"mix": (DENSE, 4, 4, 5)},
    {"table": "embedding 7 → 4, dense 4 → 7"},
    high=7,
)
def tied(params: Any, x: Array) -> Array:
    return jnp.tanh(params["table"][x] @ params["mix"]) @ params["table"].T


@model(
    "norms",
    {
        "middle": (4,),
        "norm": {"scale": (4,), "bias": (4,)},
        "gain": (4,),
        "fixed": (4,),
        "end": (4,),
    },
    (6, 4),
    {
        "middle": (SCALE, 1, 4, 6),
        "norm": (SCALE, 2, 4, 6),
        "gain": (SCALE, 2, 4, 6),
        "fixed": (SCALE, 1, 4, 6),
    },
)
def normed(params: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True) - params["middle"]
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    hidden = centred / deviation * params["norm"]["scale"] + params["norm"]["bias"]
    # The order in which others multiply; and a batch norm's fixed statistics.
    again = lax.rsqrt((hidden**2).mean(-1, keepdims=True)) * params["gain"]
    scaled = hidden * again * (jnp.linspace(0.5, 1.0, 4) * params["fixed"])
    return scaled + params["end"]


@model(
    "a layer used twice",
    {"kernel": (4, 4), "bias": (4,), "other": (4, 2), "shift": (2,)},
    (4,),
    {"kernel": (DENSE, 5, 4, 2), "other": (DENSE, 5, 2, 1)},
)
def twice(params: Any, x: Array) -> Array:
    """The same layer at two depths, once under `jit`: the positions add up."""

    @jax.jit
    def layer(x: Array) -> Array:
        return jnp.tanh(x @ params["kernel"] + params["bias"])

    return layer(layer(x)) @ params["other"] + params["shift"]


@model(
    "recurrent net",
    {"in": (2, 3), "bias": (3,), "state": (3, 3), "out": (3, 2), "shift": (2,)},
    (4, 2),
    {
        "in": (DENSE, 3, 3, 4),
        "state": (DENSE, 3, 3, 4),
        "out": (DENSE, 3, 2, 4),
        "shift": (SCALE, 1, 2, 4),
    },
)
def recurrent(params: Any, x: Array) -> Array:
    def turn(state: Array, x: Array) -> tuple[Array, Array]:
        state = jnp.tanh(x @ params["in"] + params["bias"] + state @ params["state"])
        return state, state @ params["out"]

    start = jnp.zeros((x.shape[0], 3))
    _, outputs = lax.scan(turn, start, x.swapaxes(0, 1))
    return outputs.swapaxes(0, 1) + params["shift"]


@model(
    "loops in loops",
    {"kernel": (3, 3), "bias": (3,)},
    (3,),
    {"kernel": (DENSE, 3, 3, 6), "bias": (SCALE, 1, 3, 3)},
)
def nested_loops(params: Any, x: Array) -> Array:
    def inner(state: Array, _: None) -> tuple[Array, None]:
        return jnp.sin(state @ params["kernel"]), None

    def outer(state: Array, gain: Array) -> tuple[Array, None]:
        state, _ = lax.scan(inner, state, None, length=2)
        return state * gain + params["bias"], None

    return lax.scan(outer, x, jnp.arange(1.0, 4.0), reverse=True)[0]


@model(
    "stacked layers",
    {"start": (3,), "kernels": (4, 3, 3), "out": (3, 2)},
    (3,),
    {"start": (SCALE, 1, 3, 1), "out": (DENSE, 3, 2, 1)},
    {"kernels": "runs over it"},
)
def stacked(params: Any, x: Array) -> Array:
    def layer(state: Array, kernel: Array) -> tuple[Array, None]:
        return jnp.tanh(state @ kernel), None

    start = params["start"] + 0.0 * x
    return lax.scan(layer, start + x, params["kernels"])[0] @ params["out"]


@model(
    "rematerialised",
    [((3, 4), (4,)), ((4, 2), (2,))],
    (3,),
    {"0": (DENSE, 4, 4, 1), "1": (DENSE, 5, 2, 1)},
)
def rematerialised(params: Any, x: Array) -> Array:
    block = jax.checkpoint(lambda p, x: jnp.tanh(jax.jit(jnp.dot)(x, p[0]) + p[1]))
    for layer in params:
        x = block(layer, x)
    return x


@model(
    "half precision",
    {"kernel": (4, 2), "bias": (2,)},
    (4,),
    {"kernel": (DENSE, 5, 2, 1)},
    tolerance=0.02,
)
def half(params: Any, x: Array) -> Array:
    kernel = params["kernel"].astype(jnp.bfloat16)
    hidden = x.astype(jnp.bfloat16) @ kernel + params["bias"].astype(jnp.bfloat16)
    return hidden.astype(x.dtype)


@jax.custom_vjp
def straight_through(x: Array) -> Array:
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@model(
    "functions with derivatives of their own",
    {"kernel": (3, 4), "bias": (4,), "rounded": (4, 2)},
    (3,),
    {"kernel": (DENSE, 4, 4, 1)},
    {"rounded": "derivative of its own"},
)
def own_derivatives(params: Any, x: Array) -> Array:
    hidden = straight_through(3.0 * (x @ params["kernel"] + params["bias"]))
    return hidden @ straight_through(params["rounded"])


@model(
    "a bias of two layers",
    {"left": (3, 2), "right": (3, 2), "all": (4,)},
    (3,),
    {"left": (DENSE, 3, 2, 1), "right": (DENSE, 3, 2, 1), "all": (SCALE, 1, 4, 1)},
)
def branched(params: Any, x: Array) -> Array:
    return jnp.concatenate([x @ params["left"], x @ params["right"]], 1) + params["all"]


@model(
    "a bias that one of two readers sees",
    {"kernel": (3, 2), "bias": (2,)},
    (3,),
    {"kernel": (DENSE, 3, 2, 1), "bias": (SCALE, 1, 2, 1)},
)
def read_twice(params: Any, x: Array) -> Array:
    """A bias that only one of two readers sees is none of the layer's."""
    before = x @ params["kernel"]
    return jnp.tanh(before + params["bias"]) * before


@model(
    "what is no layer",
    {
        "direction": (3, 3),
        "masked": (3, 3),
        "ensemble": (2, 3, 3),
        "groups": (2, 3, 3),
        "up": (3, 2),
        "down": (2, 3),
        "wide": (3, 4),
        "stopped": (3,),
        "one": (),
        "unused": (2, 2),
    },
    (3,),
    {"ensemble": (DENSE, 3, 6, 1)},
    {
        "direction": "",
        "masked": "before it meets data",
        "groups": "several groups",
        "up": "another parameter",
        "down": "another parameter",
        "wide": "only a part",
        "stopped": "derivative is stopped",
        "one": "`integer_pow`",
        "unused": "do not depend on it",
    },
)
def uncovered(params: Any, x: Array) -> Array:
    normal = params["direction"] / jnp.linalg.norm(params["direction"])
    masked = params["masked"] * jnp.tril(jnp.ones((3, 3)))
    ensemble = jnp.einsum("bi,eio->beo", x, params["ensemble"])
    grouped = jnp.einsum("bei,eio->beo", ensemble, params["groups"])
    product = x @ (params["up"] @ params["down"])
    part = x @ params["wide"][:, :3] + lax.stop_gradient(params["stopped"])
    half = jnp.where(x[0, 0] < 9.0, params["one"], params["one"] ** 2)
    return jnp.tanh(x @ normal) + grouped.sum(1) + x @ masked + product + part + half
