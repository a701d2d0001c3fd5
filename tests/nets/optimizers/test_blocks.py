"""Tensors cut into blocks and put together again."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from ngvi.nets.optimizers import inverse_free_shampoo, shampoo, soap
from ngvi.nets.optimizers.blocks import Blocks, along_axes, gram
from tests.nets.optimizers.updates import GRADIENTS, updates

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "sizes", "count"),
    [
        ((5, 3), (5, 3), 1),
        ((9, 5), (5, 5), 2),
        ((10, 13), (5, 5), 6),
        ((1, 7), (4,), 2),
        ((2, 2, 3, 4), (4, 3, 4), 1),
        ((), (), 1),
    ],
)
def test_join_inverts_split(shape, sizes, count):
    blocks = Blocks.of(shape, 5)
    x = RNG.normal(size=shape)
    parts = blocks.split(x)
    assert parts.shape == (count, *sizes)
    np.testing.assert_array_equal(blocks.join(parts), x)


def test_blocks_are_those_of_the_matrix():
    x = RNG.normal(size=(9, 5))
    first, second = Blocks.of(x.shape, 5).split(x)
    np.testing.assert_array_equal(first, x[:5])
    # Ten rows are nine and one of zeros.
    np.testing.assert_array_equal(second, np.concatenate([x[5:], np.zeros((1, 5))]))


def test_padding_is_known():
    blocks = Blocks.of((4, 7), 3)
    parts = blocks.split(np.ones((4, 7)))
    for axis in (0, 1):
        expected = parts.max(2 - axis) == 1
        np.testing.assert_array_equal(blocks.inside(axis), expected)


def test_products_along_axes():
    x = RNG.normal(size=(2, 3, 4, 2))
    a, b, c = (RNG.normal(size=(2, n, n)) for n in (3, 4, 2))
    expected = np.einsum("nijk,nai,nbj,nck->nabc", x, a, b, c)
    np.testing.assert_allclose(along_axes(x, (a, b, c)), expected, rtol=1e-12)


def test_gram_matrices():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))
    expected = np.einsum("nijk,nilk->njl", x, x)
    np.testing.assert_allclose(gram(x, 1), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        # Adam's step is as long as that of the whole tensor.
        partial(shampoo, 0.1, every=1, graft=None),
        partial(soap, 0.1, every=2),
        partial(inverse_free_shampoo, 0.1),
        partial(inverse_free_shampoo, 0.1, structure="diagonal"),
    ],
    ids=["shampoo", "soap", "inverse-free", "inverse-free, diagonal"],
)
def test_blocks_are_tensors_of_their_own(make):
    # Of seven rows, four and three: the second block is padded.
    gradients = [np.concatenate([g["w"], 2 * g["w"][:3]]) for g in GRADIENTS]
    whole = updates(make(block_size=4), gradients, gradients[0])
    parts = [g[:4] for g in gradients], [g[4:] for g in gradients]
    halves = [updates(make(), part, part[0]) for part in parts]
    expected = np.concatenate(halves, axis=1)
    np.testing.assert_allclose(whole, expected, rtol=1e-7, atol=1e-10)
