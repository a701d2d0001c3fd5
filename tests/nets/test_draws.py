"""Draws by a hashed counter pass for normal and independent ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ngvi.nets.draws import normals, signs

KEYS, COUNT = 2_000, 500


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """A row a key; the keys are neighbours, the hardest case."""

    def one(i: jax.Array) -> jax.Array:
        words = jnp.stack([jnp.uint32(0), i.astype(jnp.uint32)])
        return normals(jax.random.wrap_key_data(words), (COUNT,), jnp.float32)

    return np.asarray(jax.vmap(one)(jnp.arange(KEYS)), np.float64)


def test_they_are_normal(draws: np.ndarray) -> None:
    n = draws.size
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    # In units of each moment's standard error.
    assert abs(draws.mean()) * n**0.5 < 4
    assert abs(draws.var() - 1) * (n / 2) ** 0.5 < 4
    assert abs(stats.skew(draws.ravel())) * (n / 6) ** 0.5 < 4
    assert abs(stats.kurtosis(draws.ravel())) * (n / 24) ** 0.5 < 4


@pytest.mark.parametrize("axis", [0, 1], ids=["of counters", "of keys"])
def test_they_are_not_correlated(draws: np.ndarray, axis: int) -> None:
    rows = draws.T if axis == 0 else draws
    products = rows[:COUNT] @ rows[:COUNT].T / rows.shape[1] ** 0.5
    pairs = products[np.triu_indices(COUNT, 1)]
    assert abs(pairs.std() - 1) < 0.02
    assert abs(pairs).max() < 6


def test_other_precisions_have_those_of_jax() -> None:
    key = jax.random.key(0)
    found = normals(key, (3, 2), jnp.float64)
    np.testing.assert_array_equal(found, jax.random.normal(key, (3, 2), jnp.float64))


def test_the_tails_are_finite() -> None:
    draws = normals(jax.random.key(1), (2**22,), jnp.float32)
    assert jnp.isfinite(draws).all()
    assert 4.5 < jnp.abs(draws).max() < 5.5


def test_signs_cancel_over_their_uses() -> None:
    uses = np.array([signs(jnp.asarray(t), (2, 1, 3, 1), float) for t in range(8)])
    assert set(uses.ravel()) == {-1, 1}
    layers = uses[:, [0, 2, 3, 6]]
    np.testing.assert_array_equal(uses, np.repeat(layers, (2, 1, 3, 1), axis=1))
    np.testing.assert_array_equal(layers.T @ layers, 8 * np.eye(4))
    for power in (2, 4, 8):
        assert not layers[:power].sum(0).any()
