"""Published algorithms, written out naively, are choices of the one update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ngvi.mirror import retractions
from ngvi.mirror.estimates import FirstOrder, second_order, zeroth_order
from tests.mirror.problems import (
    KEEP,
    close,
    estimate,
    every_structure,
    fresh_draws,
    gaussian,
    gradients,
    hessians,
    roots,
    smooth,
    take,
)

DIM = 3
FIRST_ORDER, SECOND_ORDER = FirstOrder(), second_order()


def test_plain_bayesian_learning_rule() -> None:
    # Khan and Rue: S⁺ = (1 − ρ)S + ρ E[∇²ℓ], m⁺ = m − ρ (S⁺)⁻¹ E[∇ℓ].
    q = gaussian("dense", np.random.default_rng(0), DIM)
    eps = fresh_draws(jax.random.key(0), 64, DIM)
    m, s = np.asarray(q.mean), np.asarray(q.precision.dense())
    for _ in range(4):
        z = q.place(eps)
        g = np.asarray(gradients(z)).mean(0)
        h = np.asarray(hessians(z)).mean(0)
        s = 0.8 * s + 0.2 * h
        m = m - 0.2 * np.linalg.solve(s, g)
        direction = estimate(SECOND_ORDER, smooth, q, eps).gradient
        q = take(q, direction, 0.2, retractions.first_order)
        close(q.mean, m)
        close(q.precision.dense(), s)


@every_structure
@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_improved_bayesian_learning_rule(name: str, rho: float) -> None:
    # Lin, Schmidt and Khan: S⁺ = (1 − ρ)S + ρĤ + ½ρ² (Ĥ − S) S⁻¹ (Ĥ − S), with Ĥ from
    # Stein's identity, Sym mean S(z − m)∇ℓᵀ; the mean moved with the new precision.
    q = gaussian(name, np.random.default_rng(1), DIM)
    eps = fresh_draws(jax.random.key(1), 64, DIM)
    m, s = np.asarray(q.mean), np.asarray(q.precision.dense())
    for _ in range(3):
        z = np.asarray(q.place(eps))
        g = np.asarray(gradients(z))
        cross = s @ (z - m).T @ g / len(z)
        change = KEEP[name]((cross + cross.T) / 2) - s
        s = s + rho * change + rho**2 / 2 * change @ np.linalg.solve(s, change)
        m = m - rho * np.linalg.solve(s, g.mean(0))
        direction = estimate(FIRST_ORDER, smooth, q, eps).gradient
        q = take(q, direction, rho, retractions.second_order)
        close(q.mean, m)
        close(q.precision.dense(), s)


def _utilities(values: jax.Array) -> jax.Array:
    """The ranks' utilities, negated since we descend: the best gets the lowest."""
    count = values.size
    raw = jnp.maximum(0.0, jnp.log(count / 2 + 1) - jnp.log(jnp.arange(1, count + 1)))
    utilities = raw / raw.sum() - 1 / count
    return jnp.zeros(count).at[jnp.argsort(values)].set(-utilities * count)


RANKED = zeroth_order(0.0, _utilities)


def test_exponential_natural_evolution_strategy() -> None:
    # Glasmachers et al., with one rate: G_δ = Σ uₖ sₖ, G_M = Σ uₖ (sₖ sₖᵀ − I) and
    # A⁺ = A expm(½ρ G_M), the matrix exponential. (They move the mean by ρ A G_δ; the
    # one update moves it with the new precision, by ρ A expm(ρ G_M) G_δ.)
    q = gaussian("dense", np.random.default_rng(2), DIM)
    rho = 0.3
    m, a = np.asarray(q.mean), roots(q.precision)[1]
    for generation in range(3):
        eps = jax.random.normal(jax.random.key(generation), (12, DIM))
        s = np.asarray(eps)
        z = m + s @ a.T
        order = np.argsort([float(smooth(row)) for row in z])
        ladder = np.maximum(0, np.log(12 / 2 + 1) - np.log(np.arange(1, 13)))
        u = np.empty(12)
        u[order] = ladder / ladder.sum() - 1 / 12
        g_delta = u @ s
        g_m = np.einsum("k,ki,kj->ij", u, s, s) - u.sum() * np.eye(DIM)
        m = m + rho * a @ scipy.linalg.expm(rho * g_m) @ g_delta
        a = a @ scipy.linalg.expm(rho * g_m / 2)

        direction = estimate(RANKED, smooth, q, eps).gradient
        close(direction.mean, -g_delta)
        close(direction.curvature, -g_m)
        q = take(q, direction, rho, retractions.exponential)
        close(q.mean, m)
        # The same root, not just the same covariance: the frame is kept.
        close(roots(q.precision)[1], a)


def test_separable_natural_evolution_strategy() -> None:
    # Schaul et al.: σ⁺ = σ exp(½ρ Σ uₖ (sₖ² − 1)), elementwise.
    q = gaussian("diagonal", np.random.default_rng(3), DIM)
    rho = 0.3
    m, sigma = np.asarray(q.mean), np.sqrt(np.asarray(q.variance))
    for generation in range(3):
        eps = jax.random.normal(jax.random.key(generation), (12, DIM))
        s = np.asarray(eps)
        u = -np.asarray(_utilities(jax.vmap(smooth)(m + sigma * s))) / 12
        change = rho * (u @ (s**2 - 1))
        m = m + rho * sigma * np.exp(change) * (u @ s)
        sigma = sigma * np.exp(change / 2)

        direction = estimate(RANKED, smooth, q, eps).gradient
        q = take(q, direction, rho, retractions.exponential)
        close(q.mean, m)
        close(np.sqrt(q.variance), sigma)
