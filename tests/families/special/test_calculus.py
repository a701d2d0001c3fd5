"""Functions told their derivatives, where these are of fewer arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families.special.calculus import with_partials


@with_partials(lambda _, x, y: 1 / x, lambda _, x, y: -1 / y)
def log_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.log(x) - jnp.log(y)


def test_a_partial_of_one_argument_has_the_shape_and_dtype_of_the_value():
    x, y = jnp.array([[1.0], [2.0]], jnp.float32), jnp.array([2.0, 4.0, 8.0])
    value, tangent = jax.jvp(lambda x: log_ratio(x, y), (x,), (jnp.ones_like(x),))
    assert (tangent.shape, tangent.dtype) == (value.shape, value.dtype)
    np.testing.assert_allclose(tangent, jnp.broadcast_to(1 / x, (2, 3)))
    slopes = jax.grad(lambda x, y: log_ratio(x, y).sum(), (0, 1))(x, y)
    np.testing.assert_allclose(slopes[0], 3 / x)
    np.testing.assert_allclose(slopes[1], -2 / y)


def test_an_infinite_argument_spoils_no_other_derivative():
    assert jax.grad(log_ratio)(4.0, jnp.inf) == 0.25
