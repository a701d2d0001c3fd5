"""The step is a natural gradient's; the searches find what they should."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror.estimates import zeroth_order
from ngvi.nes.search import State, ask, init, tell
from ngvi.nes.shaping import by_rank
from ngvi.nes.strategies import (
    Strategy,
    cma,
    cr_fm_nes,
    isotropic_nes,
    openes,
    pgpe,
    snes,
    spiked_cma,
    xnes,
)
from tests.nes.runs import (
    covariance,
    flat,
    keys,
    quadratic,
    rotated_ellipsoid,
    run,
    sphere,
)

DIM = 3


def generic_state(strategy: Strategy, rng: np.random.Generator) -> State:
    """A state whose root is neither symmetric nor triangular."""
    root, mean = rng.standard_normal((DIM, DIM)), rng.standard_normal(DIM)
    precision = Dense(jnp.asarray(np.linalg.inv(root).T), jnp.asarray(root))
    start = init(strategy, jnp.asarray(mean), 1.0)
    return replace(start, q=Gaussian(start.q.mean, precision))


# -- the gradient ----------------------------------------------------------------------


@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_the_estimate_of_order_zero_is_the_natural_gradient_on_average(
    structure: type,
) -> None:
    # On f = bᵀx + ½xᵀHx it is γ = Aᵀ(b + Hm), M = AᵀHA. |z| < 5 for 12 numbers: one
    # false alarm in 10⁵.
    rng = np.random.default_rng(0)
    root, mean = rng.standard_normal((DIM, DIM)), rng.standard_normal(DIM)
    b, h = rng.standard_normal(DIM), rng.standard_normal((DIM, DIM))
    h = h + h.T
    if structure is Diagonal:
        root = np.diag(np.abs(np.diag(root)))
        precision = Diagonal(jnp.asarray(1 / np.diag(root)))
    else:
        precision = Dense(jnp.asarray(np.linalg.inv(root).T), jnp.asarray(root))
    q = Gaussian(jnp.asarray(mean), precision)

    @partial(jax.jit, static_argnums=1)
    @partial(jax.vmap, in_axes=(0, None))
    def estimates(key: jax.Array, curved: float) -> tuple[jax.Array, jax.Array]:
        eps = jax.random.normal(key, (20, DIM))
        direction = zeroth_order(0.0)(lambda x: b @ x + curved * x @ h @ x / 2, q, eps)
        return direction.gradient.mean, direction.gradient.curvature

    for curved in (0.0, 1.0):
        gamma, curvature = estimates(keys(20_000), curved)
        big = curved * root.T @ h @ root
        expected = big if structure is Dense else np.diag(big)
        # The mean over n values subtracted from them shrinks every estimate by 1 − 1/n.
        for got, exact in [
            (gamma, root.T @ (b + curved * h @ mean)),
            (curvature, expected),
        ]:
            error = np.asarray(got).mean(0) - 0.95 * exact
            deviation = np.asarray(got).std(0) / np.sqrt(20_000)
            assert (np.abs(error) < 5 * deviation).all()


def test_a_short_step_is_the_natural_gradient_of_the_expected_utility() -> None:
    # (λ⁺ − λ)/η → F(λ)⁻¹ ∇_λ Σ uᵢ log q(xᵢ), by the family's own Fisher matrix.
    rng = np.random.default_rng(1)
    rate, n = 1e-6, 7
    strategy = replace(xnes(DIM, n), mean_rate=rate, shape_rate=rate)
    state = generic_state(strategy, rng)
    eps, values = jnp.asarray(rng.standard_normal((n, DIM))), rng.standard_normal(n)

    @jax.jit
    def both(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = state.q
        moved = tell(strategy, state, eps, values).q
        step = jax.tree.map(jnp.subtract, moved.natural_params, q.natural_params)
        u = by_rank(values, jnp.asarray(strategy.mean_weights))

        def expected_utility(vector: jax.Array) -> jax.Array:
            member = q.with_natural_params(q.unflatten(vector))
            return u @ member.log_prob(q.place(eps))

        gradient = jax.grad(expected_utility)(q.flatten(q.natural_params))
        return q.flatten(step) / rate, q.fisher.solve(gradient)

    step, natural = both(jnp.asarray(values))
    np.testing.assert_allclose(step, natural, rtol=1e-4, atol=1e-4)


def test_ranks_on_a_slope_give_the_order_statistics_of_a_normal() -> None:
    # f = bᵀx: Σ uₖ E[ξ₍ₖ₎] along −Aᵀb, Σ uₖ (E[ξ₍ₖ₎²] − 1) on its square, 0 elsewhere.
    rng = np.random.default_rng(2)
    n = 6
    strategy = replace(xnes(DIM, n), shape_rate=0.5)
    state = generic_state(strategy, rng)
    slope = rng.standard_normal(DIM)
    root, inverse = state.q.precision.inverse_root, state.q.precision.root.T
    along = np.asarray(root.T @ slope) / np.linalg.norm(root.T @ slope)

    @jax.jit
    @jax.vmap
    def steps(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        eps = ask(strategy, state, key)
        q = tell(strategy, state, eps, state.q.place(eps) @ slope).q
        # log of the factor A⁻¹A⁺, which is ¼ Σ uᵢ(εᵢεᵢᵀ − I).
        x, v = jnp.linalg.eigh(inverse @ q.precision.inverse_root)
        log = (v * jnp.log(x)) @ v.T
        return inverse @ (q.mean - state.q.mean), 4 * log

    def order_statistic(k: int, power: int) -> float:
        count = (
            n
            * float(np.prod(range(1, n)))
            / np.prod([float(j) for j in [*range(1, k), *range(1, n - k + 1)]] or [1.0])
        )
        return quad(
            lambda t: (
                t**power
                * count
                * norm.cdf(t) ** (k - 1)
                * norm.sf(t) ** (n - k)
                * norm.pdf(t)
            ),
            -10,
            10,
        )[0]

    u = strategy.mean_weights
    first = sum(w * order_statistic(k + 1, 1) for k, w in enumerate(u))
    second = sum(w * (order_statistic(k + 1, 2) - 1) for k, w in enumerate(u))
    mean, log = (np.asarray(v) for v in steps(keys(40_000)))
    for got, exact in [
        (mean, first * along),
        (log, second * np.outer(along, along)),
    ]:
        deviation = got.std(0) / np.sqrt(len(got))
        assert (np.abs(got.mean(0) - exact) < 5 * deviation).all()


# -- searches --------------------------------------------------------------------------


STRATEGIES = {
    "xnes": (xnes(4), 1e-5),
    "snes": (snes(4), 1e-5),
    "isotropic": (isotropic_nes(4), 1e-5),
    "cma": (cma(4), 1e-5),
    "separable cma": (cma(4, separable=True), 1e-5),
    "xnes-as": (xnes(4, adaptive=True), 1e-5),
    "snes-as": (snes(4, adaptive=True), 1e-5),
    "adaptive cma": (cma(4, adaptive=True), 1e-2),
    "adaptive separable cma": (cma(4, separable=True, adaptive=True), 1e-2),
    "spiked cma": (spiked_cma(4), 1e-5),
    "cr-fm-nes": (cr_fm_nes(4), 1e-5),
    "pgpe": (pgpe(4, 20), 1e-2),
    "pgpe with momentum": (pgpe(4, 20, optimizer="momentum"), 1e-2),
    "openes with adam": (openes(4, 20, rate=0.3, optimizer="adam"), 0.2),
    # Its σ stays at 0.3: the values near the optimum are of the order of σ².
    "openes": (openes(4, 20, rate=3.0), 0.2),
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_converges_on_the_sphere_in_single_precision(name: str) -> None:
    strategy, goal = STRATEGIES[name]
    center = jnp.asarray([1.0, -2.0, 0.5, 3.0], jnp.float32)
    state = init(strategy, jnp.zeros(4, jnp.float32), 0.3)
    final, trace = run(strategy, sphere, state, keys(20), center, 250)
    assert {x.dtype for x in jax.tree.leaves(final)} == {
        jnp.dtype(jnp.float32),
        state.generation.dtype,
    }
    assert (np.asarray(trace.best[:, 0]) > 1).all()
    assert (np.asarray(trace.best.min(1)) < goal).all()
    assert np.isfinite(np.asarray(final.q.mean)).all()


@pytest.mark.parametrize("make", [xnes, cma])
def test_the_distribution_turns_with_a_rotated_ellipsoid(make) -> None:
    # At the end the covariance is a multiple of H⁻¹: AᵀHA is round, and far from
    # diagonal coordinates are correlated.
    dim, generations = 4, 400
    h = rotated_ellipsoid(dim, 1e4, 5)
    strategy = make(dim, 16)
    state = init(strategy, jnp.full(dim, 2.0), 1.0)
    final, trace = run(strategy, quadratic, state, keys(4), jnp.asarray(h), generations)
    assert (np.asarray(trace.best.min(1)) < 1e-8 * float(trace.best[0, 0])).all()
    for index in range(4):
        one = jax.tree.map(lambda x, i=index: x[i], final)
        c = covariance(one)
        correlation = c / np.sqrt(np.outer(np.diag(c), np.diag(c)))
        exact = np.linalg.inv(h)
        exact = exact / np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        off = ~np.eye(dim, dtype=bool)
        assert np.abs(exact[off]).max() > 0.9
        np.testing.assert_allclose(correlation[off], exact[off], atol=0.15)
        spectrum = np.linalg.eigvals(c @ h).real
        assert spectrum.max() / spectrum.min() < 30


def test_a_search_whose_values_are_all_lost_stays_finite() -> None:
    for strategy in (
        xnes(4),
        cma(4),
        cr_fm_nes(4),
        cma(4, adaptive=True),
        spiked_cma(4),
    ):
        state = init(strategy, jnp.zeros(4, jnp.float32), 0.3)
        lost = jnp.full(4, jnp.nan, jnp.float32)
        final, _ = run(strategy, sphere, state, keys(20), lost, 250)
        for leaf in jax.tree.leaves(final):
            assert np.isfinite(np.asarray(leaf)).all()


@pytest.mark.parametrize(("make", "longer"), [(cr_fm_nes, 1), (spiked_cma, 3)])
def test_long_directions_among_many_dimensions(make, longer: int) -> None:
    # 10⁴ times as flat along as across: a diagonal that shrinks to the narrow ones
    # stands still in the long.
    dim, generations = 100, 3000
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, longer)))[0]

    def last(strategy: Strategy) -> tuple[State, float]:
        state = init(strategy, jnp.ones(dim), 0.3)
        final, trace = run(
            strategy, flat, state, keys(1), jnp.asarray(axes), generations
        )
        return final, float(trace.best[0, -1])

    final, best = last(make(dim))
    assert best < 1e-6 * last(snes(dim))[1]
    precision = jax.tree.map(lambda leaf: leaf[0], final.q.precision)
    along = np.asarray(precision.unwhiten(precision.whiten_gradient(axes.T)))
    captured = np.linalg.norm(along @ axes) / np.linalg.norm(along)
    assert captured > 0.99


@pytest.mark.parametrize(
    "make",
    [snes, isotropic_nes, openes, partial(cma, separable=True), cr_fm_nes, spiked_cma],
)
def test_a_million_dimensions_need_no_matrix(make) -> None:
    # The largest array of a whole generation is the draws with a path, n + 1 rows.
    dim = 10**6
    strategy = make(dim, 8)

    def generation(mean: jax.Array, key: jax.Array) -> State:
        state = init(strategy, mean, 1.0)
        eps = ask(strategy, state, key)
        return tell(strategy, state, eps, (state.q.place(eps) ** 2).sum(1))

    mean = jax.ShapeDtypeStruct((dim,), jnp.float32)
    program = jax.make_jaxpr(generation)(mean, jax.random.key(0))
    sizes = [v.aval.size for e in program.eqns for v in e.outvars]
    assert max(sizes) <= 9 * dim


def test_a_mean_of_whole_numbers_is_made_of_floats() -> None:
    state = init(snes(2), jnp.asarray([1, 2]), 0.25)
    np.testing.assert_allclose(state.q.variance, 0.0625)
    state = init(isotropic_nes(2), jnp.asarray([1, 2]), jnp.asarray([3.0, 4.0]))
    np.testing.assert_allclose(state.q.variance, 12.5)
