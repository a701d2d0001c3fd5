"""The whole loop: it converges to exact answers, never to NaN, and owns up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder, ladder
from ngvi.mirror.estimates import Estimator, first_order
from ngvi.mirror.start import find_start
from tests.mirror.problems import Logistic, Quadratic, logistic, positive, quadratic

DIM = 4
SETTINGS = loop.Settings(max_iterations=200)
PRECISE = loop.Settings(max_iterations=200, tolerance=1e-9, loose_tolerance=1e-9)
PLAIN = replace(PRECISE, memory=0)
FIRST = first_order()
WITH_CURVATURE = first_order(full_curvature=True)

# Potentials are pytrees of data, so each class is compiled once for a shape.


@partial(jax.jit, static_argnums=(4, 5))
def go(
    potential: Any,
    state: loop.State,
    draws: Ladder,
    limit: int,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    """`loop.run` from a state."""
    return loop.run(lambda z: potential(z), estimator, state, draws, settings, limit)


def begin(
    potential: Any,
    q: Gaussian,
    draws: Ladder,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    return loop.initial_state(lambda z: potential(z), estimator, q, draws, settings)


def fit(
    potential: Any,
    q: Gaussian,
    draws: Ladder,
    estimator: Estimator = FIRST,
    settings: loop.Settings = SETTINGS,
) -> loop.State:
    """From q until the loop stops."""
    state = begin(potential, q, draws, estimator, settings)
    limit = settings.max_iterations
    return go(potential, state, draws, limit, estimator, settings)


@jax.jit
def from_start(potential: Any, point: jax.Array) -> Gaussian:
    start = find_start(lambda z: potential(z), point)
    return Gaussian(start.point, Dense.from_inverse_root(start.inverse_root))


def make_draws(levels: int = 5, seed: int = 0, dtype: type = float) -> Ladder:
    return ladder(DIM, 2 * (DIM + 1), levels, 512, seed, dtype)


def wide(dim: int = DIM, sd: float = 1.0, structure: type = Dense) -> Gaussian:
    precision: PositiveDefinite = structure.from_dense(jnp.eye(dim) / sd**2)
    return Gaussian(jnp.zeros(dim), precision)


def rows(state: loop.State) -> dict[str, np.ndarray]:
    """The filled rows of the trace."""
    n = int(state.iteration)
    return {k: np.asarray(v)[:n] for k, v in state.trace._asdict().items()}


def assert_sound(state: loop.State) -> None:
    """Nothing in a state that a person is shown is NaN."""
    for leaf in jax.tree.leaves(state.q):
        assert np.isfinite(leaf).all()
    trace = rows(state)
    for name, column in trace.items():
        assert not np.isnan(column).any(), name
    assert np.isfinite(trace["fisher_length"]).all()
    assert int(state.status) in range(len(loop.STOP_REASONS))


# -- exact answers --------------------------------------------------------------------


def linear_regression(seed: int) -> tuple[Quadratic, np.ndarray, np.ndarray]:
    """y = Xw + noise of sd 0.5, w ~ N(0, 2² I): −log joint, and the exact posterior."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, DIM)) * 10.0 ** rng.uniform(-2, 2, DIM)
    y = x @ rng.standard_normal(DIM) + 0.5 * rng.standard_normal(20)
    precision = x.T @ x / 0.25 + np.eye(DIM) / 4
    target = Quadratic(precision, x.T @ y / 0.25, float(y @ y / 0.5))
    covariance = np.linalg.inv(precision)
    return target, covariance @ x.T @ y / 0.25, covariance


@pytest.mark.parametrize("seed", range(3))
def test_linear_regression_is_exact_in_five_trials(seed: int) -> None:
    target, mean, covariance = linear_regression(seed)
    q = from_start(target, jnp.zeros(DIM))
    state = fit(target, q, make_draws())
    assert state.status == loop.CONVERGED
    assert state.iteration <= 5
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(state.q.mean / sd, mean / sd, atol=1e-6)
    np.testing.assert_allclose(state.q.variance, sd**2, rtol=1e-6)
    correlation = np.asarray(state.q.precision.inverse_dense()) / np.outer(sd, sd)
    np.testing.assert_allclose(correlation, covariance / np.outer(sd, sd), atol=1e-6)
    # The ELBO is the evidence, up to a constant known here.
    evidence = (
        DIM * np.log(2 * np.pi) / 2
        + np.linalg.slogdet(covariance)[1] / 2
        - float(target(mean))
    )
    assert rows(state)["elbo"][-1] == pytest.approx(evidence, rel=1e-9)


@pytest.mark.parametrize("sd", [1e-3, 1.0, 1e3])
def test_a_quadratic_from_a_bad_covariance(sd: float) -> None:
    rng = np.random.default_rng(0)
    target = quadratic(rng, DIM)
    q = wide(sd=sd)
    state = fit(target, q, make_draws(), settings=PRECISE)
    assert state.status == loop.CONVERGED
    assert state.level == 0
    np.testing.assert_allclose(state.q.precision.dense(), target.h, atol=1e-7)
    np.testing.assert_allclose(
        state.q.mean, np.linalg.solve(target.h, target.b), atol=1e-7
    )


def test_a_diagonal_precision_finds_the_mean_field_optimum() -> None:
    # KL(q ‖ p) is least at the exact mean and the diagonal of the exact precision.
    target = quadratic(np.random.default_rng(1), DIM)
    for estimator in (WITH_CURVATURE, FIRST):
        q = wide(structure=Diagonal)
        state = fit(target, q, make_draws(), estimator, PRECISE)
        assert state.status == loop.CONVERGED
        np.testing.assert_allclose(
            state.q.precision.diagonal(), np.diag(target.h), rtol=1e-7
        )
        np.testing.assert_allclose(
            state.q.mean, np.linalg.solve(target.h, target.b), atol=1e-7
        )


def test_temperature() -> None:
    # min E_q[ℓ] − τ Entropy: the precision is H/τ.
    target = quadratic(np.random.default_rng(2), DIM)
    settings = replace(PRECISE, temperature=0.5)
    state = fit(target, wide(), make_draws(), first_order(0.5), settings)
    assert state.status == loop.CONVERGED
    np.testing.assert_allclose(state.q.precision.dense(), 2 * target.h, atol=1e-7)


class Gumbel(NamedTuple):
    """ℓ(z) = Σ exp(wᵢ) − aᵢ wᵢ, w = T z: log Gamma variables, mixed. The best Gaussian
    in w is known: variances 1/aᵢ and means log aᵢ − 1/(2aᵢ)."""

    a: np.ndarray
    t: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        w = self.t @ z
        return (jnp.exp(w) - self.a * w).sum()

    def optimum(self) -> Gaussian:
        inverse = np.linalg.inv(self.t)
        precision = self.t.T @ np.diag(self.a) @ self.t
        return Gaussian(
            jnp.asarray(inverse @ (np.log(self.a) - 1 / (2 * self.a))),
            Dense.from_dense(jnp.asarray(precision)),
        )


def skewed(*a: float) -> Gumbel:
    """The smaller a, the more skewed."""
    return Gumbel(np.array(a), np.random.default_rng(3).standard_normal((DIM, DIM)))


def test_a_skewed_posterior_climbs_until_unseen_draws_agree() -> None:
    target = skewed(0.3, 0.5, 1.0, 2.0)
    draws = make_draws(seed=2)
    state = fit(target, wide(), draws)
    assert_sound(state)
    assert state.status == loop.CONVERGED
    assert state.level >= 2
    used = rows(state)["draws"]
    assert used[0] == draws.batch_size
    assert (np.diff(used) >= 0).all()
    assert used[-1] == draws.batch_size * 2 ** int(state.level)
    # Within what the tolerances allow of the best Gaussian there is.
    assert float(state.q.kl(target.optimum())) < 0.05


def test_too_few_draws_are_owned_up_to() -> None:
    # So skewed that no level has enough draws for it.
    target = skewed(0.1, 0.1, 0.2, 0.2)
    draws = make_draws(seed=2)
    state = fit(target, wide(), draws)
    assert_sound(state)
    assert state.status == loop.DRAWS_EXHAUSTED
    assert state.level == draws.levels - 1
    assert abs(state.gap) > SETTINGS.gap_tolerance
    assert float(state.q.kl(target.optimum())) > SETTINGS.gap_tolerance


# -- descent --------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [PLAIN, PRECISE], ids=["plain", "memory"])
def test_the_objective_never_rises_on_one_level(settings: loop.Settings) -> None:
    state = fit(logistic(DIM), wide(sd=5.0), make_draws(), settings=settings)
    assert_sound(state)
    assert state.status == loop.CONVERGED
    trace = rows(state)
    same_level = trace["draws"][1:] == trace["draws"][:-1]
    rise = np.diff(-trace["elbo"])[same_level]
    slack = 8 * np.finfo(float).eps * np.abs(trace["elbo"]).max()
    assert rise.max() <= slack
    # A rejected trial changes nothing but the counts.
    waiting = same_level & (trace["step"][1:] == 0)
    assert (np.diff(trace["elbo"])[waiting] == 0).all()
    assert (np.diff(trace["fisher_length"])[waiting] == 0).all()


def test_fixed_draws_converge_to_rounding_error() -> None:
    # With the frame kept the direction is the exact gradient of what is accepted.
    quick, plain = (
        fit(logistic(DIM), wide(), make_draws(), settings=settings)
        for settings in (PRECISE, PLAIN)
    )
    for state in (quick, plain):
        assert state.status == loop.CONVERGED
        assert loop.fisher_length(state) < 1e-9
    # The quasi-Newton memory changes the way, and with it how the frame turns and what
    # the fixed draws over-fit, but not the optimum.
    assert quick.iteration < plain.iteration
    assert float(plain.q.kl(quick.q)) < 1e-5


def test_a_trial_keeps_inside_the_trust_region() -> None:
    target = quadratic(np.random.default_rng(0), DIM)
    draws = make_draws()
    state = begin(target, replace(wide(sd=1e-4), mean=jnp.full(DIM, 100.0)), draws)
    trial = jax.jit(lambda s: loop.trial(target, FIRST, s, draws, SETTINGS))
    state = trial(state)
    assert not state.fresh
    radii = [float(state.radius)]
    for _ in range(10):
        moved = trial(state)
        kl = float(moved.q.kl(state.q))
        assert kl <= float(state.radius) * (1 + 1e-9)
        # The region widens by accepted steps that it held back, and only so.
        if moved.radius > state.radius:
            assert moved.radius == 4 * state.radius
            assert moved.rejected == state.rejected
        radii.append(float(moved.radius))
        state = moved
    assert max(radii) > 4 * radii[0]


def test_counts() -> None:
    target = logistic(DIM)
    draws = make_draws()
    state = fit(target, wide(sd=20.0), draws, settings=PRECISE)
    trace = rows(state)
    assert state.gradients == trace["draws"].sum()
    assert state.values % draws.check.shape[0] == 0
    # A level's first evaluation is accepted with a step of no length.
    first_ones = 1 + np.count_nonzero(np.diff(trace["draws"]))
    assert state.rejected == np.count_nonzero(trace["step"] == 0) - first_ones
    assert np.all(np.asarray(state.trace.draws)[int(state.iteration) :] == 0)


# -- what cannot go well --------------------------------------------------------------


class Walled(NamedTuple):
    """A bowl at (1.5, …) that is `beyond` where |z₀| is `wall` or more."""

    beyond: float
    wall: float

    def __call__(self, z: jax.Array) -> jax.Array:
        bowl = 2 * ((z - 1.5) ** 2).sum()
        return jnp.where(jnp.abs(z[0]) < self.wall, bowl, self.beyond)


@pytest.mark.parametrize("sd", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
def test_regions_that_are_not_finite(beyond: float, sd: float) -> None:
    state = fit(Walled(beyond, 2.0), wide(sd=sd), make_draws())
    assert_sound(state)
    # No optimum exists, since every Gaussian reaches over the wall.
    assert state.status != loop.RUNNING
    if state.status != loop.NOT_FINITE:
        assert np.isfinite(state.objective)
        assert abs(state.q.mean[0]) < 2
        assert np.isfinite(rows(state)["elbo"][-1])


@pytest.mark.parametrize("wall", [0.0, 1e-30])
def test_a_function_that_is_nowhere_finite_ends_and_says_so(wall: float) -> None:
    state = fit(Walled(np.nan, wall), wide(), make_draws())
    assert state.status == loop.NOT_FINITE
    assert "not finite" in loop.STOP_REASONS[int(state.status)]
    assert state.iteration < SETTINGS.max_iterations
    np.testing.assert_array_equal(state.q.mean, 0)
    assert_sound(state)


@pytest.mark.parametrize("sd", [5.0, 50.0, 1e4])
def test_a_start_far_too_wide(sd: float) -> None:
    # exp(50 ε) is 1e70, and finite.
    target = logistic(DIM)
    state = fit(target, wide(sd=sd), make_draws())
    assert state.status == loop.CONVERGED
    assert float(state.q.kl(fit(target, wide(), make_draws()).q)) < 0.01


class Polynomial(NamedTuple):
    """c₀ + c₁ Σz + c₂ Σz² + c₄ Σz⁴ over the first coordinates, ½z² in the last."""

    c: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        x = z[:-1]
        terms = [jnp.ones(()), x.sum(), (x**2).sum(), (x**4).sum()]
        return self.c @ jnp.stack(terms) + z[-1] ** 2 / 2


@pytest.mark.parametrize(
    "c",
    [
        (3.0, 0, 0, 0),
        (0, 1.0, 0, 0),
        (0, 0, -1.0, 0),
        (0, 1.0, 1.0, -0.1),
        (0, 0, 0, 0),
    ],
    ids=["constant", "linear", "concave", "falls in the end", "zero"],
)
@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_an_objective_without_a_minimum_is_not_called_converged(
    c: tuple, structure: type
) -> None:
    state = fit(Polynomial(np.array(c, float)), wide(structure=structure), make_draws())
    assert state.status in (
        loop.STUCK,
        loop.ITERATIONS_EXHAUSTED,
        loop.DRAWS_EXHAUSTED,
        loop.NOT_FINITE,
    )
    assert_sound(state)
    # Improper or not, it only went down.
    trace = rows(state)
    levels = trace["draws"][1:] == trace["draws"][:-1]
    finite = np.isfinite(trace["elbo"][1:]) & np.isfinite(trace["elbo"][:-1])
    rise = np.diff(-trace["elbo"])[levels & finite]
    assert (rise <= 1e-8 * np.abs(trace["elbo"][1:])[levels & finite]).all()


def test_a_flat_minimum_is_found_all_the_same() -> None:
    # A quartic has no curvature at its mode, but its Gaussian approximation does:
    # E z⁴ − ½ log v is least at v² = 1/12.
    state = fit(Polynomial(np.array([0, 0, 0, 1.0])), wide(), make_draws())
    assert state.status == loop.CONVERGED
    variance = jnp.asarray([12**-0.5] * (DIM - 1) + [1.0])
    exact = Gaussian(jnp.zeros(DIM), Dense.from_dense(jnp.diag(1 / variance)))
    assert float(state.q.kl(exact)) < 0.1


def test_the_iterations_allowed_are_kept() -> None:
    target = logistic(DIM)
    settings = replace(SETTINGS, max_iterations=4, tolerance=1e-12)
    draws = make_draws()
    state = begin(target, wide(sd=50.0), draws, settings=settings)
    for limit in (4, 1000):
        stopped = go(target, state, draws, limit, FIRST, settings)
        assert stopped.status == loop.ITERATIONS_EXHAUSTED
        assert stopped.iteration == 4
        assert_sound(stopped)


# -- the same answer however it is run ------------------------------------------------


def same_bits(one: Any, other: Any) -> None:
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stride", [1, 3])
def test_stopping_and_going_on_changes_no_bit(stride: int) -> None:
    target = logistic(DIM)
    draws = make_draws()
    state = begin(target, wide(sd=5.0), draws)
    whole = go(target, state, draws, SETTINGS.max_iterations)
    limit = 0
    while state.status == loop.RUNNING:
        limit += stride
        state = go(target, state, draws, limit)
        assert state.iteration <= limit
    same_bits(state, whole)
    # Once stopped it stays so.
    same_bits(go(target, state, draws, limit + 50), whole)


def test_going_on_compiles_nothing_new() -> None:
    # What comes out of a chunk has the types of what went in, weak ones included.
    target, draws = logistic(DIM), make_draws()
    state = begin(target, wide(), draws)
    after = jax.eval_shape(
        lambda s: loop.run(target, FIRST, s, draws, SETTINGS, 1), state
    )
    one, other = map(jax.tree_util.tree_leaves_with_path, (state, after))
    for (path, a), (_, b) in zip(one, other, strict=True):
        name = jax.tree_util.keystr(path)
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type), name


def test_vmap_over_seeds_equals_separate_runs() -> None:
    target = logistic(DIM)
    several = [make_draws(seed=seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)

    def solve(draws: Ladder) -> loop.State:
        state = begin(target, wide(sd=3.0), draws)
        return loop.run(target, FIRST, state, draws, SETTINGS, 200)

    together = jax.jit(jax.vmap(solve))(stacked)
    for i, draws in enumerate(several):
        alone = fit(target, wide(sd=3.0), draws)
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        for name in ("status", "level", "iteration", "gradients", "values", "rejected"):
            assert getattr(mine, name) == getattr(alone, name), name
        for a, b in zip(*map(jax.tree.leaves, (mine.q, alone.q)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(mine.trace.elbo, alone.trace.elbo, rtol=1e-9)


def seen_through(
    target: Logistic, q: Gaussian, t: np.ndarray, c: np.ndarray, structure: type
) -> tuple[Logistic, Gaussian]:
    """The problem and the start in y, where z = T y + c."""
    moved = target._replace(
        transform=target.transform @ t, shift=target.transform @ c + target.shift
    )
    mean = jnp.asarray(np.linalg.solve(t, np.asarray(q.mean) - c))
    if structure is Diagonal:
        return moved, Gaussian(mean, Diagonal(q.precision.root * np.diag(t)))
    inverse_root = np.linalg.solve(t, np.asarray(q.precision.inverse_root))
    root = t.T @ np.asarray(q.precision.root)
    return moved, Gaussian(mean, Dense(jnp.asarray(root), jnp.asarray(inverse_root)))


@pytest.mark.parametrize("structure", [Dense, Diagonal])
@pytest.mark.parametrize("seed", range(3))
def test_an_affine_change_of_variables_changes_nothing(
    structure: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target, draws = logistic(DIM, seed=seed), make_draws()
    estimator: Callable = FIRST
    if structure is Dense:
        t = rng.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
        t *= 10.0 ** rng.uniform(-3, 3, DIM)
    else:
        # Its group is that of units and shifts; the mean steps in the full metric.
        t = np.diag(10.0 ** rng.uniform(-3, 3, DIM))
        estimator = WITH_CURVATURE
    c = rng.standard_normal(DIM)
    precision = positive(rng, DIM)
    q = Gaussian(
        jnp.asarray(rng.standard_normal(DIM)),
        structure.from_dense(jnp.asarray(precision)),
    )
    in_y, q_in_y = seen_through(target, q, t, c, structure)
    here = fit(target, q, draws, estimator)
    there = fit(in_y, q_in_y, draws, estimator)
    assert here.status == loop.CONVERGED
    for name in ("status", "level", "iteration", "gradients", "values", "rejected"):
        assert getattr(there, name) == getattr(here, name), name
    one, other = rows(here), rows(there)
    np.testing.assert_allclose(other["step"], one["step"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(other["fisher_length"], one["fisher_length"], rtol=1e-8)
    # The same potential of other coordinates: the entropy shifts by log |det T|.
    shift = np.linalg.slogdet(t)[1]
    np.testing.assert_allclose(other["elbo"], one["elbo"] - shift, rtol=1e-8)
    np.testing.assert_allclose(t @ there.q.mean + c, here.q.mean, rtol=1e-8, atol=1e-9)
    a = np.asarray(here.q.precision.unwhiten(jnp.eye(DIM))).T
    a_in_y = np.asarray(there.q.precision.unwhiten(jnp.eye(DIM))).T
    np.testing.assert_allclose(t @ a_in_y, a, atol=1e-8 * np.abs(a).max())
    np.testing.assert_allclose(there.gap, here.gap, rtol=1e-6, atol=1e-9)


# -- single precision -----------------------------------------------------------------


def narrow(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_single_precision(structure: type) -> None:
    target = logistic(DIM)
    draws = make_draws()
    estimator = FIRST if structure is Dense else WITH_CURVATURE
    exact = fit(target, wide(structure=structure), draws, estimator)
    state = fit(
        narrow(target), narrow(wide(structure=structure)), narrow(draws), estimator
    )
    assert state.status == exact.status == loop.CONVERGED
    for leaf in jax.tree.leaves((state.q, state.objective, state.trace.elbo)):
        assert leaf.dtype == jnp.float32
    # Both within the tolerance of the same optimum.
    wider = jax.tree.map(lambda x: jnp.asarray(x, float), state.q)
    assert float(wider.kl(exact.q)) < 1e-3


def test_single_precision_with_a_large_constant() -> None:
    # ℓ ≈ 1e6 has no digit left for the last improvements; the fit still ends well.
    target, draws = logistic(DIM), make_draws()
    exact = fit(target, wide(), draws)
    far = target._replace(constant=1e6)
    state = fit(narrow(far), narrow(wide()), narrow(draws))
    assert_sound(state)
    assert state.status in (loop.CONVERGED, loop.STUCK)
    wider = jax.tree.map(lambda x: jnp.asarray(x, float), state.q)
    assert float(wider.kl(exact.q)) < 0.05
