"""The layers of models: their gradients are exact, and the rest is said why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher.layers import discover
from tests.fisher.layers.gradients import check
from tests.fisher.layers.models import MODELS, Model, attention, mlp

BY_NAME = {model.name: model for model in MODELS}
MLP, ATTENTION = BY_NAME["mlp in tuples"], BY_NAME["attention"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_gradients_of_layers(model: Model) -> None:
    params, x = model.draw()
    network = check(model.apply, params, x, model.tolerance)
    found = {
        layer.name: (layer.kind, layer.inputs, layer.outputs, layer.positions)
        for layer in network.layers
    }
    assert found == model.layers
    names = [network.names[leaf] for leaf in network.rest]
    reasons = dict(zip(names, network.reasons, strict=True))
    assert reasons.keys() == model.rest.keys()
    for name, words in model.rest.items():
        assert words in reasons[name], reasons[name]


def test_own_derivative_is_kept() -> None:
    """Rounding has derivative zero, but this one says that it is one."""
    model = BY_NAME["functions with derivatives of their own"]
    params, x = model.draw()
    network = discover(model.apply, params, x)

    def run(shifts: tuple) -> jax.Array:
        return network.run(params, x[0], shifts)[0].sum()

    (slope,) = jax.grad(run)(network.zero_shifts(params))
    rounded = jnp.round(params["rounded"])
    np.testing.assert_allclose(slope[0], 3.0 * rounded.sum(1))


def test_explanation() -> None:
    def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
        hidden = attention(params["attention"], x) * params["norm"]
        return hidden @ (params["tied"] + params["tied"].T)

    shapes = {
        "attention": ATTENTION.params,
        "norm": (4,),
        "tied": (4, 4),
        "old": (),
    }
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, float),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    network = discover(apply, params, jax.ShapeDtypeStruct((8, 6, 4), float))
    assert network.explain().splitlines() == [
        "layer            kind         parameters    shapes            W      "
        "positions",
        "attention/query  dense        kernel, bias  4 × 2 × 3, 2 × 3  5 × 6  6",
        "attention/key    dense        kernel        4 × 2 × 3         4 × 6  6",
        "attention/value  dense        kernel        4 × 2 × 3         4 × 6  6",
        "attention/out    dense        kernel, bias  2 × 3 × 4, 4      7 × 4  6",
        "norm             scale_shift  norm          4                 1 × 4  6",
        "",
        "in no layer:",
        "  old (a number): the outputs do not depend on it",
        "  tied (4 × 4): meets another parameter in `add`",
    ]


def test_compiles_once() -> None:
    """Networks of equal models are equal, and so are programs that hold them."""
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(network: Any, params: Any, x: Any) -> Any:
        traces.append(network)
        return network.run(params, x, network.zero_shifts(params))[0]

    params, x = MLP.draw()
    first = outputs(discover(mlp, params, x), params, x[0])
    other = jax.tree.map(lambda leaf: leaf + 1.0, params)
    again = outputs(discover(mlp, other, x[:2]), other, x[1])
    assert len(traces) == 1 and first.shape == again.shape


def test_single_precision() -> None:
    params, x = jax.tree.map(lambda leaf: leaf.astype("float32"), ATTENTION.draw())
    network = discover(attention, params, x)
    shifts = network.zero_shifts(params)
    outputs, inputs = network.run(params, x[0], shifts)
    assert {leaf.dtype for leaf in (outputs, *inputs, *shifts)} == {
        jnp.dtype("float32")
    }


def scalars(params: Any, x: Any) -> jax.Array:
    return params["w"] * x["a"]


@pytest.mark.parametrize(
    ("apply", "params", "x", "words"),
    [
        (scalars, {"w": 1.0}, {"a": 2.0}, r"x\['a'\] is a single number"),
        (scalars, {"w": jnp.tanh}, {"a": jnp.ones(2)}, r"params\['w'\] is .* no array"),
        (
            lambda params, x: (x @ params).T,
            jnp.ones((3, 2)),
            jnp.ones((4, 3)),
            r"shape \(2, 1\) for one example",
        ),
        (lambda params, x: x.sum(), (), jnp.ones((4, 3)), r"shape \(\) for one"),
    ],
)
def test_errors(apply: Callable, params: Any, x: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        discover(apply, params, x)


def test_other_shapes_are_refused() -> None:
    params, x = ATTENTION.draw()
    network = discover(attention, params, x)
    with pytest.raises(ValueError, match="discover them anew"):
        network.run(params, x[0, :2], network.zero_shifts(params))
    with pytest.raises(ValueError, match="2 shifts for 4 layers"):
        network.run(params, x[0], network.zero_shifts(params)[:2])


def test_what_is_no_number(capsys: pytest.CaptureFixture) -> None:
    """Counters in the parameters, keys in the data, and a print on the way."""

    def apply(params: Any, x: Any) -> jax.Array:
        numbers, keys = x
        jax.debug.print("{}", params["kernel"][0])
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (3,)))(keys)
        return jnp.where(kept, numbers, 0.0) @ params["kernel"] + params["count"]

    params = {"count": jnp.arange(1), "kernel": jnp.ones((3, 2))}
    x = (jnp.ones((4, 3)), jax.random.split(jax.random.key(0), 4))
    network = discover(apply, params, x)
    (layer,) = network.layers
    assert layer.name == "kernel" and not layer.has_bias
    assert "count (1): holds int64, no real numbers" in network.explain()

    def one(x: Any) -> jax.Array:
        return network.run(params, x, network.zero_shifts(params))[0]

    np.testing.assert_allclose(jax.vmap(one)(x), apply(params, x))
    jax.effects_barrier()
    assert capsys.readouterr().out == "[1. 1.]\n" * 2


def test_no_examples_and_no_parameters() -> None:
    params, x = MLP.draw()
    assert discover(mlp, params, x[:0]) == discover(mlp, params, x)
    assert discover(lambda params, x: x, {}, x).layers == ()
