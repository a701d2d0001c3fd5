"""Every strategy that has a name searches, whole, compiled, and many at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi import nes
from ngvi.nes.methods import METHODS, make_strategy
from tests.nes.runs import keys


def rastrigin(x: jax.Array) -> jax.Array:
    return 10 * len(x) + (x**2 - 10 * jnp.cos(2 * jnp.pi * x)).sum()


@pytest.mark.parametrize("method", list(METHODS))
def test_many_searches_in_one_program(method: str) -> None:
    # Down to D = 1; the first of the batch alone gives the same points.
    strategy = make_strategy(method, 1, 12)

    @jax.jit
    def searches(keys: jax.Array) -> nes.Run:
        def search(key: jax.Array) -> nes.Run:
            start = jnp.ones(1, jnp.float32)
            return nes.run(strategy, lambda x: x @ x, start, 0.3, key, 40)

        return jax.vmap(search)(keys)

    found = searches(keys(3))
    assert (np.asarray(found.best_value) < 0.01).all()
    assert np.isfinite(np.asarray(found.state.q.variance)).all()
    assert len(np.unique(found.best_value)) == 3


def test_learning_rates_that_adapt_average_noise_out() -> None:
    # Values with a noise of 1 at |x| ≪ 1. Twelve searches each: the worst of the
    # adaptive ones ends nearer than the best of the others.
    def distances(strategy: nes.Strategy) -> np.ndarray:
        def generation(state: nes.State, key: jax.Array) -> tuple[nes.State, jax.Array]:
            of_draws, of_noise = jax.random.split(key)
            eps = nes.ask(strategy, state, of_draws)
            noise = jax.random.normal(of_noise, (len(eps),))
            values = (state.q.place(eps) ** 2).sum(1) + noise
            state = nes.tell(strategy, state, eps, values)
            return state, state.q.mean @ state.q.mean

        @jax.jit
        @jax.vmap
        def search(key: jax.Array) -> jax.Array:
            start = nes.init(strategy, jnp.full(5, 3.0), 2.0)
            return jax.lax.scan(generation, start, jax.random.split(key, 1500))[1][-1]

        return np.asarray(search(keys(12)))

    assert distances(nes.cma(5, adaptive=True)).max() < distances(nes.cma(5)).min()


@pytest.mark.slow
def test_learning_rates_that_adapt_solve_rastrigin_with_few_draws() -> None:
    # In 10 dimensions, 10 draws a generation; without adaptation none is solved.
    def best(adaptive: bool, generations: int) -> np.ndarray:
        strategy = nes.cma(10, adaptive=adaptive)

        @jax.jit
        @jax.vmap
        def search(key: jax.Array) -> jax.Array:
            def generation(
                carry: tuple[nes.State, jax.Array],
            ) -> tuple[nes.State, jax.Array]:
                state, best = carry
                of_draws = jax.random.fold_in(key, state.generation)
                eps = nes.ask(strategy, state, of_draws)
                values = jax.vmap(rastrigin)(state.q.place(eps))
                state = nes.tell(strategy, state, eps, values)
                return state, jnp.minimum(best, values.min())

            def goes_on(carry: tuple[nes.State, jax.Array]) -> jax.Array:
                return (carry[0].generation < generations) & (carry[1] > 1e-6)

            start = nes.init(strategy, jnp.full(10, 3.0), 2.0), jnp.asarray(jnp.inf)
            return jax.lax.while_loop(goes_on, generation, start)[1]

        return np.asarray(search(keys(10)))

    assert (best(True, 100_000) <= 1e-6).sum() >= 8
    assert (best(False, 2_000) > 0.9).all()
