"""Models of the usual libraries, unchanged: every one of their layers is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, PyTree

from tests.fisher.layers.gradients import check

RNG = np.random.default_rng(0)
PICTURES = jnp.asarray(RNG.normal(size=(2, 5, 5, 2)))
TOKENS = jnp.asarray(RNG.integers(7, size=(2, 4)))
ROWS = jnp.asarray(RNG.normal(size=(2, 4)))

CONVOLUTION = ("convolution", 19, 3, 25)
NORM = ("scale_shift", 2, 4, 4)
EMBEDDING = ("embedding", 7, 4, 4)


def drawn(shapes: PyTree) -> PyTree:
    """Parameters away from where they start, with biases and scales that differ."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.5, 1.0, leaf.shape)), shapes
    )


def layers(apply: Callable, params: PyTree, x: PyTree) -> dict[str, tuple]:
    """What is found, where no parameter may be left over."""
    network = check(apply, params, x)
    assert not network.rest, network.explain()
    return {
        layer.name: (layer.kind, layer.inputs, layer.outputs, layer.positions)
        for layer in network.layers
    }


def test_flax_linen() -> None:
    nn = pytest.importorskip("flax.linen")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
            hidden = nn.gelu(nn.DenseGeneral((3, 2))(nn.LayerNorm()(x)))
            return x + nn.DenseGeneral(4, axis=(-2, -1))(hidden)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: tuple[Array, Array]) -> Array:
            tokens, pictures = x
            places = self.param("places", nn.initializers.normal(), (1, 4, 4))
            words = nn.remat(Block)(name="block")(nn.Embed(7, 4)(tokens) + places)
            seen = nn.GroupNorm(1)(nn.Conv(3, (3, 3))(pictures))
            return nn.Dense(3)(words.mean(1)) + nn.gelu(seen).mean((1, 2))

    net, x = Net(), (TOKENS, PICTURES)
    params = drawn(jax.eval_shape(net.init, jax.random.key(3), x))
    attention = "params/block/MultiHeadDotProductAttention_0"
    assert layers(net.apply, params, x) == {
        "params/places": ("scale_shift", 1, 16, 1),
        "params/Embed_0": EMBEDDING,
        "params/block/LayerNorm_0": NORM,
        **{
            f"{attention}/{name}": ("dense", 5, 4, 4)
            for name in ("query", "key", "value", "out")
        },
        "params/block/LayerNorm_1": NORM,
        "params/block/DenseGeneral_0": ("dense", 5, 6, 4),
        "params/block/DenseGeneral_1": ("dense", 7, 4, 4),
        "params/Conv_0": CONVOLUTION,
        "params/GroupNorm_0": ("scale_shift", 2, 3, 25),
        "params/Dense_0": ("dense", 5, 3, 1),
    }


def test_flax_nnx() -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
            self.norm = nnx.LayerNorm(3, rngs=rngs)
            self.out = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x: Array) -> Array:
            return self.out(jnp.tanh(self.norm(self.conv(x))).mean((1, 2)))

    structure, shapes = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))

    def apply(params: PyTree, x: Array) -> Array:
        return nnx.merge(structure, params)(x)

    assert layers(apply, drawn(shapes), PICTURES) == {
        "conv": CONVOLUTION,
        "norm": ("scale_shift", 2, 3, 25),
        "out": ("dense", 4, 2, 1),
    }


def test_equinox() -> None:
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: Any
        norm: Any
        heads: Any
        table: Any
        out: Any

        def __init__(self, key: Array) -> None:
            self.conv = eqx.nn.Conv2d(5, 4, 3, padding=1, key=key)
            self.norm = eqx.nn.LayerNorm(4)
            self.heads = eqx.nn.MultiheadAttention(2, 4, key=key)
            self.table = eqx.nn.Embedding(7, 4, key=key)
            self.out = eqx.nn.Linear(4, 2, key=key)

        def __call__(self, x: tuple[Array, Array]) -> Array:
            picture, tokens = x
            hidden = jax.vmap(self.norm)(self.conv(picture).reshape(4, -1).T)
            words = jax.vmap(self.table)(tokens)
            return self.out(self.heads(words, hidden, hidden).mean(0))

    whole = eqx.filter_eval_shape(Net, jax.random.key(3))
    shapes, static = eqx.partition(whole, lambda x: isinstance(x, jax.ShapeDtypeStruct))

    def apply(params: PyTree, x: PyTree) -> Array:
        return jax.vmap(eqx.combine(params, static))(x)

    assert layers(apply, drawn(shapes), (PICTURES, TOKENS)) == {
        "conv": ("convolution", 46, 4, 10),
        "norm": ("scale_shift", 2, 4, 10),
        "heads/query_proj": ("dense", 4, 4, 4),
        "heads/key_proj": ("dense", 4, 4, 10),
        "heads/value_proj": ("dense", 4, 4, 10),
        "heads/output_proj": ("dense", 4, 4, 4),
        "table": EMBEDDING,
        "out": ("dense", 5, 2, 1),
    }


def test_haiku() -> None:
    hk = pytest.importorskip("haiku")

    def forward(x: tuple[Array, Array]) -> Array:
        tokens, pictures = x
        words = hk.LayerNorm(-1, True, True)(hk.Embed(7, 4)(tokens))
        cell = hk.LSTM(3)
        start = cell.initial_state(len(tokens))
        read, _ = hk.dynamic_unroll(cell, words, start, time_major=False)
        return read.mean(1) + hk.Conv2D(3, 3)(pictures).mean((1, 2))

    net = hk.without_apply_rng(hk.transform(forward))
    x = (TOKENS, PICTURES)
    params = drawn(jax.eval_shape(net.init, jax.random.key(3), x))
    assert layers(net.apply, params, x) == {
        "embed": EMBEDDING,
        "layer_norm": NORM,
        "lstm": ("dense", 8, 12, 4),
        "conv2_d": CONVOLUTION,
    }


def test_numpyro() -> None:
    """A network inside a NumPyro model, whose parameters are its param sites."""
    eqx = pytest.importorskip("equinox")
    numpyro = pytest.importorskip("numpyro")
    from numpyro.contrib.module import eqx_module

    def model(x: Array) -> None:
        net = eqx_module("net", eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0)))
        numpyro.deterministic("logits", jax.vmap(net)(x))

    def sites(model: Callable, x: Array) -> dict[str, Any]:
        return numpyro.handlers.trace(model).get_trace(x)

    found = sites(numpyro.handlers.seed(model, jax.random.key(1)), ROWS)
    params = {k: site["value"] for k, site in found.items() if site["type"] == "param"}

    def apply(params: PyTree, x: Array) -> Array:
        known = numpyro.handlers.substitute(model, params)
        return sites(known, x)["logits"]["value"]

    found = layers(apply, drawn(params), ROWS)
    assert sorted(found.values()) == [("dense", 4, 2, 1), ("dense", 5, 3, 1)]
