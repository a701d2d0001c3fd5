"""Estimates are as wrong as they say."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.linalg.stochastic import (
    Estimate,
    estimate_diagonal,
    estimate_logdet,
    estimate_trace,
)

DIM, PROBES, REPEATS = 50, 20, 400
RNG = np.random.default_rng(0)
FACTOR = RNG.standard_normal((DIM, DIM)) * np.exp(RNG.standard_normal(DIM))
MATRIX = FACTOR @ FACTOR.T / DIM + np.eye(DIM)
EXACT = {
    "trace": np.trace(MATRIX),
    "diagonal": np.diag(MATRIX),
    "logdet": np.linalg.slogdet(MATRIX)[1],
}


@partial(jax.jit, static_argnames=("probes", "steps"))
def estimates(
    matrix: jax.Array, key: jax.Array, probes: int, steps: int
) -> dict[str, Estimate]:
    def product(x: jax.Array) -> jax.Array:
        return matrix @ x

    shared = product, DIM, probes, key, matrix.dtype
    return {
        "trace": estimate_trace(*shared),
        "diagonal": estimate_diagonal(*shared),
        "logdet": estimate_logdet(*shared, steps),
    }


def test_errors_are_as_large_as_stated() -> None:
    keys = jax.random.split(jax.random.key(1), REPEATS)
    many = jax.vmap(lambda key: estimates(MATRIX, key, PROBES, 20))(keys)
    for name, (values, errors) in many.items():
        z = (np.asarray(values) - EXACT[name]) / np.asarray(errors)
        # Student's t with 19 degrees of freedom: z has the variance 19/17 and z² the
        # variance 3.0. Bounds of five standard errors.
        assert np.abs(z.mean(0)).max() < 5 * np.sqrt(19 / 17 / REPEATS), name
        squares = (z**2).mean(0) - 19 / 17
        assert np.abs(squares).max() < 5 * np.sqrt(3.0 / REPEATS), name


def test_as_many_probes_as_coordinates_are_exact() -> None:
    found = estimates(MATRIX, jax.random.key(0), DIM, DIM)
    for name, (value, error) in found.items():
        np.testing.assert_allclose(value, EXACT[name], rtol=1e-11, err_msg=name)
        assert (np.asarray(error) == 0).all()


def test_one_probe_knows_no_error() -> None:
    found = estimates(MATRIX, jax.random.key(0), 1, DIM)
    assert all(np.isinf(error).all() for _, error in found.values())


def test_too_few_steps_count_as_error() -> None:
    # No probe is random here, so all there is comes from the quadrature.
    found = estimates(MATRIX, jax.random.key(0), DIM, 6)["logdet"]
    off = abs(found.value - EXACT["logdet"])
    assert 1e-4 < off < found.standard_error < 100 * off
    single = estimates(MATRIX.astype(jnp.float32), jax.random.key(0), 5, 6)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype("float32")}
