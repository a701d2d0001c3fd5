"""Discrete searches: published updates, margins, and problems with known optima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import (
    Bernoulli,
    Categorical,
    ExponentialFamily,
    Gaussian,
    Geometric,
    Normal,
    Poisson,
    Product,
)
from ngvi.linalg import Diagonal
from ngvi.nes import discrete, mixed, search
from ngvi.nes.discrete import Discrete, compact_ga, natural, pbil, umda
from ngvi.nes.mixed import Mixed
from ngvi.nes.shaping import by_rank, nes_weights
from ngvi.nes.strategies import cma, snes
from tests.nes.runs import keys

step = partial(jax.jit, static_argnums=0)(discrete.tell)


@partial(jax.jit, static_argnums=(0, 1, 4))
def run(
    strategy: Discrete,
    objective: Callable[[Any], jax.Array],
    q: ExponentialFamily,
    key: jax.Array,
    generations: int,
) -> tuple[discrete.State, jax.Array]:
    """Searches from q, one for each key: final states, best value by generation."""

    def generation(
        state: discrete.State, key: jax.Array
    ) -> tuple[discrete.State, jax.Array]:
        x = discrete.ask(strategy, state, key)
        values = objective(x)
        return discrete.tell(strategy, state, x, values), values.min()

    def one(key: jax.Array) -> tuple[discrete.State, jax.Array]:
        start = discrete.init(strategy, q)
        return jax.lax.scan(generation, start, jax.random.split(key, generations))

    return jax.vmap(one)(key)


def evaluations(strategy: Discrete, best: jax.Array, goal: float) -> np.ndarray:
    """How many each search needed to reach the goal; ∞ if it did not."""
    reached = np.asarray(best) <= goal
    count = (reached.argmax(1) + 1.0) * strategy.popsize
    return np.where(reached.any(1), count, np.inf)


# -- published updates -----------------------------------------------------------------

P = np.array([0.2, 0.5, 0.7, 0.9])
X = np.random.default_rng(0).integers(0, 2, (6, 4))
VALUES = np.random.default_rng(1).standard_normal(6)


def after(strategy: Discrete, p: np.ndarray, x: np.ndarray, values: np.ndarray):
    start = discrete.init(strategy, Bernoulli.from_probs(jnp.asarray(p)))
    moved = step(strategy, start, jnp.asarray(x), jnp.asarray(values))
    return np.asarray(moved.q.probs)


def test_pbil_is_a_member() -> None:
    # p ← (1 − η) p + η x of the best.
    expected = 0.9 * P + 0.1 * X[VALUES.argmin()]
    np.testing.assert_allclose(after(pbil(6, 0.1), P, X, VALUES), expected, rtol=1e-14)


def test_the_compact_genetic_algorithm_is_a_member() -> None:
    # Where the two differ, 1/K towards the winner.
    x, values = np.array([[0, 1, 1, 1], [0, 0, 0, 1]]), np.array([2.0, 1.0])
    expected = P + np.array([0, -1, -1, 0]) / 50
    got = after(compact_ga(4, 50), np.array([0.3, 0.5, 0.7, 0.75]), x, values)
    expected[[0, 3]] = 0.3, 0.75
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    # Its borders are 1/V and 1 − 1/V.
    got = after(compact_ga(4, 50), np.array([0.3, 0.26, 0.7, 0.75]), x, values)
    np.testing.assert_allclose(got[1], 0.25, rtol=1e-14)


def test_umda_refits_to_the_better_half() -> None:
    better = X[np.argsort(VALUES)[:3]]
    expected = np.clip(better.mean(0), 0.25, 0.75)
    np.testing.assert_allclose(after(umda(4, 6), P, X, VALUES), expected, rtol=1e-14)


def test_a_categorical_step_moves_probabilities_towards_good_classes() -> None:
    # p ← p + η Σ u (1[x] − p), for several variables.
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(3, 5.0), 2)
    x, values = rng.integers(0, 3, (6, 2)), rng.standard_normal(6)
    u = nes_weights(6)[np.argsort(np.argsort(values))]
    expected = p + 0.1 * np.einsum("n,nvk->vk", u, np.eye(3)[x] - p)
    strategy = Discrete(tuple(nes_weights(6).tolist()), 0.1, 1e-3)
    start = discrete.init(strategy, Categorical.from_probs(jnp.asarray(p)))
    moved = step(strategy, start, jnp.asarray(x), jnp.asarray(values))
    np.testing.assert_allclose(moved.q.probs, expected, rtol=1e-12)


def test_adaptive_steps_are_those_published() -> None:
    # Akimoto et al. (2019), with the square root of the categorical Fisher matrix as
    # printed by Hamano et al. (2024).
    rng = np.random.default_rng(3)
    v, k, n = 3, 4, 8
    strategy = replace(natural(v, n, margin=1e-6), rate=0.3)
    state = discrete.init(strategy, Categorical(jnp.zeros((v, k))))
    p, s = np.full((v, k), 1 / k), np.zeros(v * (k - 1))
    delta, gamma = 0.3, 0.0
    for _ in range(6):
        x, values = rng.integers(0, k, (n, v)), rng.standard_normal(n)
        u = nes_weights(n)[np.argsort(np.argsort(values))]
        g = np.einsum("n,nvk->vk", u, np.eye(k)[x] - p)
        last = p[:, -1:]
        white = g / np.sqrt(p) + np.sqrt(p) * g[:, :-1].sum(1, keepdims=True) / (
            last + np.sqrt(last)
        )
        white = white[:, :-1].ravel()
        norm = np.linalg.norm(white)
        p = p + delta / norm * g
        beta = delta / np.sqrt(len(s))
        s = (1 - beta) * s + np.sqrt(beta * (2 - beta)) * white / norm
        gamma = (1 - beta) ** 2 * gamma + beta * (2 - beta)
        delta *= np.exp(beta * (s @ s / 1.5 - gamma))
        # The margin has no part in it.
        assert (p > strategy.margin).all()
        state = step(strategy, state, jnp.asarray(x), jnp.asarray(values))
        np.testing.assert_allclose(state.q.probs, p, rtol=1e-10)
        np.testing.assert_allclose(state.length, delta, rtol=1e-10)


FAMILIES = {
    "bernoulli": Bernoulli(jnp.asarray([0.3, -1.0])),
    "categorical": Categorical(jnp.asarray([[0.3, -1.0, 0.2], [0.0, 1.0, 0.5]])),
    "poisson": Poisson(jnp.asarray([3.0, 0.7])),
    "geometric": Geometric(jnp.asarray([-1.0, 0.3])),
}
FAMILIES["product"] = Product(dict(FAMILIES))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_short_step_is_the_natural_gradient_of_the_expected_utility(
    name: str,
) -> None:
    # (λ⁺ − λ)/η → F(λ)⁻¹ ∇_λ Σ uᵢ log q(xᵢ), by the family's own Fisher matrix.
    q, rate = FAMILIES[name], 1e-6
    strategy = Discrete(tuple(nes_weights(8).tolist()), rate, 1e-3)

    @jax.jit
    def both(key: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = discrete.init(strategy, q)
        x = discrete.ask(strategy, state, key)
        moved = discrete.tell(strategy, state, x, values).q
        change = jax.tree.map(jnp.subtract, moved.natural_params, q.natural_params)
        u = by_rank(values, jnp.asarray(strategy.weights))

        def expected_utility(params: Any) -> jax.Array:
            log_prob = q.with_natural_params(params).log_prob(x)
            return (u @ log_prob).sum()

        gradient = jax.grad(expected_utility)(q.natural_params)
        scaled = jax.tree.map(lambda c: c / rate, change)
        return q.flatten(scaled), q.flatten(q.natural_gradient(gradient))

    got, exact = both(
        jax.random.key(0), jnp.asarray(np.random.default_rng(0).random(8))
    )
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-4)


# -- margins ---------------------------------------------------------------------------


def test_margins_keep_every_class_possible_in_single_precision() -> None:
    weights, margin = (1.0,) + (0.0,) * 9, 0.06
    strategy = Discrete(weights, 1.0, margin, adaptive=True)
    q = Product(
        {
            "bits": Bernoulli(jnp.zeros(3, jnp.float32)),
            "classes": Categorical(jnp.zeros((2, 4), jnp.float32)),
            "counts": Geometric(jnp.zeros(2, jnp.float32)),
        }
    )

    def objective(x: dict[str, jax.Array]) -> jax.Array:
        return jnp.asarray(sum(leaf.sum(1) for leaf in x.values()), jnp.float32)

    final, _ = run(strategy, objective, q, keys(5), 60)
    assert {leaf.dtype for leaf in jax.tree.leaves(final)} == {jnp.dtype(jnp.float32)}
    bits = np.asarray(final.q.factors["bits"].probs)
    np.testing.assert_allclose(bits, margin, rtol=1e-4)
    classes = np.asarray(final.q.factors["classes"].probs)
    np.testing.assert_allclose(classes[..., 1:], margin / 3, rtol=1e-4)
    np.testing.assert_allclose(classes[..., 0], 1 - margin, rtol=1e-4)
    np.testing.assert_allclose(final.q.factors["counts"].mean, margin, rtol=1e-4)


def test_other_families_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Bernoulli, Categorical.*got Normal"):
        discrete.init(natural(2), Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"popsize must be .* at least 2, got 1"):
        natural(2, 1)


# -- problems --------------------------------------------------------------------------


def one_max(x: jax.Array) -> jax.Array:
    return -x.sum(1).astype(jnp.float32)


def leading_ones(x: jax.Array) -> jax.Array:
    return -jnp.cumprod(x, 1).sum(1).astype(jnp.float32)


RING = 16
"""A ring of 16 vertices with chords of length 4: the largest cut by exhaustion."""


def edges() -> np.ndarray:
    i = np.arange(RING)
    return np.concatenate([np.stack([i, (i + d) % RING], 1) for d in (1, 4)])


def minus_cut(x: jax.Array) -> jax.Array:
    a, b = edges().T
    return -(x[:, a] != x[:, b]).sum(1).astype(jnp.float32)


def test_one_max_and_leading_ones_in_fewer_evaluations_than_hill_climbing() -> None:
    # The (1 + 1) evolution strategy takes e D log D and 0.86 D² on average: 531, 2150.
    # (Droste, Jansen and Wegener, 2002; Böttcher, Doerr and Neumann, 2010.)
    dim = 50
    strategy = natural(dim)
    start = Bernoulli(jnp.zeros(dim, jnp.float32))
    _, best = run(strategy, one_max, start, keys(20), 60)
    assert np.median(evaluations(strategy, best, -dim)) < 350
    _, best = run(strategy, leading_ones, start, keys(20), 300)
    assert np.median(evaluations(strategy, best, -dim)) < 2500
    # The best of as many uniform points is far off: P(|Σx − 25| > 20) < 10⁻⁸.
    points = jax.random.bernoulli(jax.random.key(0), 0.5, (5000, dim))
    assert float(one_max(points).min()) > -45


def test_max_cut_is_found() -> None:
    codes = (np.arange(2**RING)[:, None] >> np.arange(RING)) & 1
    a, b = edges().T
    goal = -float((codes[:, a] != codes[:, b]).sum(1).max())
    start = Bernoulli(jnp.zeros(RING, jnp.float32))
    strategy = natural(RING)
    _, best = run(strategy, minus_cut, start, keys(20), 150)
    counts = evaluations(strategy, best, goal)
    share = (-(codes[:, a] != codes[:, b]).sum(1) <= goal).mean()
    assert np.isfinite(counts).mean() >= 0.9
    assert np.median(counts) < 0.2 / share


@pytest.mark.parametrize(
    "family",
    [Poisson(jnp.asarray([3.0, 3.0])), Geometric.from_probs(jnp.asarray([0.3, 0.3]))],
    ids=["poisson", "geometric"],
)
def test_whole_numbers_are_found(family: ExponentialFamily) -> None:
    goal = jnp.asarray([17, 2])

    def objective(x: jax.Array) -> jax.Array:
        return ((x - goal) ** 2 * jnp.asarray([1.0, 5.0])).sum(1)

    strategy = natural(2, 12)
    final, best = run(strategy, objective, family, keys(20), 100)
    assert np.isfinite(evaluations(strategy, best, 0.0)).mean() >= 0.9
    if isinstance(family, Poisson):
        means = np.median(np.asarray(final.q.mean), 0)
        np.testing.assert_allclose(means, goal, rtol=0.3)


# -- mixed spaces ----------------------------------------------------------------------


def test_a_mixed_search_solves_numbers_bits_and_classes_together() -> None:
    # The bits say where the centre of the sphere is: no part can be solved alone.
    n = 12
    strategy = Mixed((cma(3, n, separable=True), natural(5, n, margin=0.06)))
    q = Product(
        (
            Gaussian(jnp.zeros(3), Diagonal(jnp.ones(3))),
            Product(
                {
                    "bits": Bernoulli(jnp.zeros(3)),
                    "classes": Categorical(jnp.zeros((2, 4))),
                }
            ),
        )
    )

    def objective(x: tuple[jax.Array, dict[str, jax.Array]]) -> jax.Array:
        numbers, rest = x
        center = rest["bits"] + 0.5
        wrong = (rest["classes"] != jnp.asarray([2, 0])).sum(1) + rest["bits"].sum(1)
        return ((numbers - center) ** 2).sum(1) + wrong

    @jax.jit
    @jax.vmap
    def runs(key: jax.Array) -> tuple[mixed.State, jax.Array]:
        def generation(
            state: mixed.State, key: jax.Array
        ) -> tuple[mixed.State, jax.Array]:
            draws = mixed.ask(strategy, state, key)
            values = objective(mixed.place(state, draws))
            return mixed.tell(strategy, state, draws, values), values.min()

        start = mixed.init(strategy, q)
        return jax.lax.scan(generation, start, jax.random.split(key, 150))

    final, best = runs(keys(20))
    assert (np.asarray(best.min(1)) < 1e-6).mean() >= 0.9
    numbers, rest = final
    assert isinstance(numbers, search.State)
    assert isinstance(rest, discrete.State)
    np.testing.assert_allclose(np.median(numbers.q.mean, 0), 0.5, atol=1e-2)
    assert (np.median(rest.q.factors["classes"].probs[:, 0, 2]) > 0.6).all()


def test_parts_of_different_popsizes_or_spaces_are_errors() -> None:
    with pytest.raises(ValueError, match=r"one popsize, got \[6, 8\]"):
        Mixed((snes(2, 6), natural(2, 8)))
    with pytest.raises(TypeError, match="expected a Gaussian, got Bernoulli"):
        mixed.init(Mixed((snes(2, 6),)), Product((Bernoulli(jnp.zeros(2)),)))
