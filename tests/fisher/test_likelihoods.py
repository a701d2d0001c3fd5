"""Each likelihood against its definition, SciPy's and NumPyro's densities, and draws.

Λ is found in three ways that share nothing: the closed form, the mean of score scoreᵀ
over draws, and the Hessian of the divergence, which itself is held to its draws.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ngvi.fisher.likelihoods import Likelihood
from tests.fisher.likelihood_cases import LIKELIHOODS, Case, every_likelihood
from tests.programs import compiled

DRAWS = 20_000
# Of every entry of every row: about a thousand comparisons a run, fixed seeds.
STANDARD_ERRORS = 5.0


@compiled
def facts(likelihood: Likelihood, f: Any, g: Any) -> dict[str, Any]:
    """All that one row says, in one program."""
    flat, unravel = ravel_pytree(f)
    basis = jax.vmap(unravel)(jnp.eye(flat.size))

    def as_rows(tree: Any) -> jax.Array:
        return jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(tree)

    keys = jax.random.split(jax.random.key(1), DRAWS)
    y = jax.vmap(likelihood.sample, (0, None))(keys, f)
    scores = as_rows(jax.vmap(likelihood.gradient, (None, 0))(f, y))
    squares = scores.T @ scores / DRAWS
    spread = (scores**2).T @ scores**2 / DRAWS - squares**2
    log_p = jax.vmap(likelihood.log_prob, (None, 0))(f, y)
    log_q = jax.vmap(likelihood.log_prob, (None, 0))(g, y)
    first = jax.tree.map(lambda leaf: leaf[0], y)
    curvature = jax.vmap(lambda v: likelihood.hessian_mv(f, first, v))(basis)
    return {
        "y": y,
        "log_prob": log_p,
        "scores": (scores.mean(0), scores.std(0) / DRAWS**0.5),
        "squares": (squares, jnp.sqrt(jnp.maximum(spread, 0) / DRAWS)),
        "fisher": as_rows(jax.vmap(lambda v: likelihood.fisher_mv(f, v))(basis)),
        "root": as_rows(likelihood.root_columns(f)),
        "kl": likelihood.kl(f, g),
        "self_kl": likelihood.kl(f, f),
        "ratio": ((log_p - log_q).mean(), (log_p - log_q).std() / DRAWS**0.5),
        "kl_hessian": jax.hessian(lambda x: likelihood.kl(f, unravel(x)))(flat),
        "curvature": as_rows(curvature),
        "mean": likelihood.mean(f),
    }


def agrees(found: tuple[Any, Any], expected: Any) -> None:
    mean, error = np.asarray(found[0]), np.asarray(found[1])
    allowed = STANDARD_ERRORS * error + 1e-10 * (1 + np.abs(expected))
    np.testing.assert_array_less(np.abs(mean - expected), allowed)


@every_likelihood
def test_a_likelihood_is_what_it_says(case: Case) -> None:
    likelihood = case.likelihood
    f, g = jax.tree.map(jnp.asarray, (case.f, case.g))
    found = facts(likelihood, f, g)
    fisher = np.asarray(found["fisher"])
    scale = np.abs(fisher).max()

    for i in range(3):
        y = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), found["y"])
        expected = np.sum(np.asarray(case.log_prob(case.f, y)))
        np.testing.assert_allclose(found["log_prob"][i], expected, rtol=1e-10)
    agrees(found["scores"], np.zeros(len(fisher)))
    agrees(found["squares"], fisher)
    agrees(found["ratio"], found["kl"])
    np.testing.assert_allclose(found["self_kl"], 0, atol=1e-13)
    np.testing.assert_allclose(found["kl_hessian"], fisher, rtol=0, atol=1e-9 * scale)
    root = np.asarray(found["root"])
    np.testing.assert_allclose(root.T @ root, fisher, rtol=0, atol=1e-12 * scale)
    if likelihood.natural:
        np.testing.assert_allclose(
            found["curvature"], fisher, rtol=0, atol=1e-12 * scale
        )
    if case.statistic is not None:
        values = jax.tree.map(case.statistic, found["y"])
        for v, m in zip(
            jax.tree.leaves(values), jax.tree.leaves(found["mean"]), strict=True
        ):
            agrees((v.mean(0), v.std(0) / DRAWS**0.5), np.asarray(m))
