"""Many Kronecker products, damped in one program: as each by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.linalg import KroneckerFactors, damped_together
from ngvi.linalg.damped_together import _groups


def test_each_is_what_it_is_by_itself() -> None:
    rng = np.random.default_rng(0)

    def factor(d: int) -> jax.Array:
        x = rng.standard_normal((d, d + 2))
        return jnp.asarray(rng.uniform(0.1, 10) * x @ x.T)

    # Of two classes of sizes, and of a factor without any scale.
    sizes = [(3, 2), (70, 1), (5, 40)]
    products = [KroneckerFactors(factor(left), factor(right)) for left, right in sizes]
    products.append(KroneckerFactors(jnp.zeros((2, 2)), factor(3)))
    together = jax.jit(damped_together)(products, 0.3)
    for found, product in zip(together, products, strict=True):
        expected = product.damp_factored(0.3)
        np.testing.assert_allclose(found.dense(), expected.dense(), rtol=1e-12)
        x = jnp.ones(product.dim)
        np.testing.assert_allclose(found.solve(x), expected.solve(x), rtol=1e-9)


def test_what_is_padded_is_at_most_doubled() -> None:
    assert _groups([200, 10, 101, 99, 64, 30]) == [[0, 2], [3, 4], [5, 1]]
