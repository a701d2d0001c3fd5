"""Base draws: normal one by one, and what each kind makes exact."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from ngvi.nes.draws import Draws, independent, mirrored, orthogonal
from ngvi.nes.search import ask, init
from ngvi.nes.strategies import xnes
from tests.nes.runs import keys

KINDS = [independent, mirrored, orthogonal]
DIM = 3


@partial(jax.jit, static_argnums=(0, 1))
def many(draws: Draws, count: int) -> jax.Array:
    """20,000 generations, shape (20000, count, 3)."""
    return jax.vmap(lambda k: draws(k, count, DIM, jnp.float32))(keys(20_000))


@pytest.mark.parametrize("draws", KINDS, ids=lambda d: d.__name__)
def test_every_draw_alone_is_a_standard_normal(draws: Draws) -> None:
    # Moments to the fourth order of each draw; |z| < 5.5 for 5 × 19 numbers: one false
    # alarm in 10⁵.
    eps = np.asarray(many(draws, 5), np.float64)
    moments = [
        (eps, 0),
        (np.einsum("gni,gnj->gnij", eps, eps), np.eye(DIM)),
        (eps**4, 3),
        (eps[..., :1] ** 2 * eps[..., 1:] ** 2, 1),
        ((eps**2).sum(-1) ** 2, DIM * (DIM + 2)),
    ]
    for got, exact in moments:
        deviation = got.std(0) / np.sqrt(len(got))
        assert (np.abs(got.mean(0) - exact) < 5.5 * deviation).all()
    # The draws within a generation are different ones.
    assert len(np.unique(eps[0, :, 0])) == 5


def test_single_precision_draws_are_normal_and_independent() -> None:
    # 300,000 of them: their distribution function to the Kolmogorov distance that one
    # in 10⁵ samples exceeds, and the two words that one block of bits makes.
    eps = np.asarray(many(independent, 5), np.float64)
    assert kstest(eps.ravel(), "norm").statistic < 2.5 / np.sqrt(eps.size)
    one = np.asarray(independent(keys(1)[0], 60_000, 1, jnp.float32), np.float64)[:, 0]
    product = one[:30_000] * one[30_000:]
    assert np.abs(product.mean()) < 5 / np.sqrt(30_000)
    squares = (one[:30_000] ** 2 - 1) * (one[30_000:] ** 2 - 1)
    assert np.abs(squares.mean()) < 5 * 2 / np.sqrt(30_000)
    # The same from one key alone as among many, and of any kind of key.
    np.testing.assert_array_equal(
        independent(keys(20_000)[7], 5, DIM, jnp.float32), many(independent, 5)[7]
    )
    other = jax.random.key(0, impl="rbg")
    assert independent(other, 5, DIM, jnp.float32).shape == (5, DIM)
    assert independent(keys(1)[0], 5, DIM, jnp.float64).dtype == jnp.float64


def test_mirrored_draws_cancel_in_pairs() -> None:
    eps = np.asarray(many(mirrored, 5))
    np.testing.assert_array_equal(eps[:, :2], -eps[:, 3:])
    assert (eps[:, 2] != 0).all()


def test_orthogonal_draws_are_so_within_each_block() -> None:
    eps = np.asarray(many(orthogonal, 5))
    for block in (eps[:, :3], eps[:, 3:]):
        products = np.einsum("gni,gmi->gnm", block, block)
        off = ~np.eye(block.shape[1], dtype=bool)
        np.testing.assert_allclose(products[:, off], 0, atol=2e-5)


def test_a_strategy_asks_its_own_draws() -> None:
    plain = xnes(7, 4)
    strategy = replace(plain, draws=mirrored)
    state = init(strategy, jnp.zeros(7, jnp.float32), 1.0)
    key = jax.random.key(0)
    eps = ask(strategy, state, key)
    np.testing.assert_array_equal(eps, mirrored(key, 4, 7, jnp.float32))
    assert eps.dtype == jnp.float32
    assert hash(strategy) != hash(plain)
