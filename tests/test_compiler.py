"""The installed compiler computes what the library is made of."""

import jax
import jax.numpy as jnp
import numpy as np


def test_fused_reductions_of_a_batch_are_right() -> None:
    # jaxlib 0.10.2 gives errors of order 10 here, on CPUs, in single precision.
    rng = np.random.default_rng(0)
    p, v = rng.uniform(size=(1_797, 10)), rng.standard_normal((2, 1_797, 10))
    single = [jnp.asarray(x, jnp.float32) for x in (p, v)]
    found = jax.jit(lambda p, v: v - (p * v).sum(-1, keepdims=True))(*single)
    expected = v - (p * v).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
