"""The environments against Gymnasium's numbers; rollouts, advantages and baselines."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets.optimizers import CartPole, GaussNewtonBaseline, Pendulum
from ngvi.nets.optimizers.policy import (
    begin,
    episode_returns,
    generalized_advantages,
    rollout,
)

# Printed by Gymnasium 1.4.0, from states that were set.
CART_POLE = {
    "actions": [1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
    "start": [0.01, -0.02, 0.03, 0.04],
    "after 1": [0.0096, 0.17467919574755525, 0.0308, -0.2430687179600081],
    "after 14": [
        0.08597981448207963,
        1.149923548598952,
        -0.07356619918376034,
        -1.701096633477769,
    ],
}
PENDULUM = [
    # state, torque, next state, reward
    ([2.5, -0.7], 0.5, [2.4911927054038983, -0.17614589192203256], -6.29925),
    (
        [2.4911927054038983, -0.17614589192203256],
        -3.0,
        [2.4900918389176554, -0.022017329724858814],
        -6.213143832981697,
    ),
    (
        [2.5962503735043856, 1.3904026479907365],
        -0.1,
        [2.6844721591479144, 1.7644357128705759],
        -6.933847954275629,
    ),
    ([1.0, 7.9], 2.0, [1.4, 8.0], -7.245),
]


def test_the_cart_and_the_pole_are_gymnasiums() -> None:
    cart = CartPole()
    state, path = jnp.asarray(CART_POLE["start"]), []
    for action in CART_POLE["actions"]:
        state, reward, terminated = cart.advance(state, jnp.asarray(action))
        assert reward == 1 and not terminated
        path.append(state)
    np.testing.assert_allclose(path[0], CART_POLE["after 1"], rtol=1e-12)
    np.testing.assert_allclose(path[13], CART_POLE["after 14"], rtol=1e-12)


@pytest.mark.parametrize(
    "state, ended",
    [
        ([2.39, 0.0, 0.0, 0.0], False),
        ([2.41, 0.0, 0.0, 0.0], True),
        ([-2.41, 0.0, 0.0, 0.0], True),
        ([0.0, 0.0, 0.2094, 0.0], False),
        ([0.0, 0.0, 0.2095, 0.0], True),
        ([0.0, 0.0, -0.2095, 0.0], True),
    ],
)
def test_an_episode_ends_off_the_track_and_at_twelve_degrees(
    state: list[float], ended: bool
) -> None:
    _, reward, terminated = CartPole().advance(jnp.asarray(state), jnp.asarray(1))
    assert bool(terminated) == ended and reward == 1


@pytest.mark.parametrize("state, torque, after, reward", PENDULUM)
def test_the_pendulum_is_gymnasiums(
    state: list[float], torque: float, after: list[float], reward: float
) -> None:
    found, earned, terminated = Pendulum().advance(jnp.asarray(state), torque)
    np.testing.assert_allclose(found, after, rtol=1e-12)
    np.testing.assert_allclose(earned, reward, rtol=1e-12)
    assert not terminated


def test_starts_are_in_their_ranges() -> None:
    keys = jax.random.split(jax.random.key(0), 1000)
    for environment, bound in ((CartPole(), 0.05), (Pendulum(), [np.pi, 1.0])):
        starts = np.abs(jax.vmap(environment.reset)(keys)) / np.asarray(bound)
        assert (starts <= 1).all() and (starts.max(0) > 0.98).all()


def to_the_right(key: Any, observations: jax.Array) -> jax.Array:
    return jnp.ones(len(observations), int)


def balancing(key: Any, observations: jax.Array) -> jax.Array:
    return (observations[:, 2] + observations[:, 3] > 0).astype(int)


def test_episodes_end_count_and_begin_again() -> None:
    cart, n = CartPole(), 3
    episodes = begin(cart, jax.random.key(0), n)
    episodes, seen = rollout(cart, to_the_right, episodes, jax.random.key(1), 40)
    ended = np.asarray(seen.ended)
    assert ended.sum() >= 9 and (np.asarray(seen.terminated) == ended).all()
    for column in range(n):
        at = np.flatnonzero(ended[:, column])
        lengths = np.diff(np.concatenate([[-1], at]))
        np.testing.assert_array_equal(seen.returns[at, column], lengths)
        after = at[at < 39] + 1
        # A new episode begins near the middle; the end is kept where it was.
        assert (np.abs(seen.observations[after, column]) <= 0.05).all()
        assert (np.abs(seen.next_observations[at, column, 2]) > 0.2).all()
        inside = np.setdiff1d(np.arange(39), at)
        np.testing.assert_array_equal(
            seen.next_observations[inside, column],
            seen.observations[inside + 1, column],
        )
    assert np.isnan(seen.returns[~ended]).all()
    last = 39 - np.array([np.flatnonzero(column).max() for column in ended.T])
    np.testing.assert_array_equal(episodes.elapsed, last)


def test_a_time_limit_ends_an_episode_and_not_the_process() -> None:
    cart = CartPole(max_steps=30)
    start = begin(cart, jax.random.key(0), 2)
    _, seen = rollout(cart, balancing, start, jax.random.key(1), 60)
    assert not seen.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(seen.ended[:, 0]), [29, 59])
    earned = episode_returns(cart, balancing, jax.random.key(2), 4)
    np.testing.assert_array_equal(earned, 30)
    earned = episode_returns(cart, to_the_right, jax.random.key(2), 4)
    assert ((earned > 7) & (earned < 12)).all()


def test_advantages_are_the_sums_of_their_definition() -> None:
    rng = np.random.default_rng(0)
    steps, n, discount, trace = 12, 2, 0.9, 0.7
    rewards, values, following = rng.standard_normal((3, steps, n))
    terminated = rng.random((steps, n)) < 0.2
    ended = terminated | (rng.random((steps, n)) < 0.2)
    assert (ended & ~terminated).any() and terminated.any()
    found = generalized_advantages(
        *map(jnp.asarray, (rewards, values, following, terminated, ended)),
        discount=discount,
        trace=trace,
    )
    for column in range(n):
        for t in range(steps):
            total = 0.0
            for k in range(steps - t):
                ahead = 0.0 if terminated[t + k, column] else following[t + k, column]
                surprise = (
                    rewards[t + k, column] + discount * ahead - values[t + k, column]
                )
                total += (discount * trace) ** k * surprise
                if ended[t + k, column]:
                    break
            np.testing.assert_allclose(found[t, column], total, rtol=1e-12)


@pytest.mark.parametrize("structure", ["dense", "matrix-free"])
def test_a_linear_baseline_is_least_squares_after_one_step(structure: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal(50)
    settings = {"steps": 1, "damping": 0.0, "structure": structure}
    baseline = GaussNewtonBaseline(lambda v, s: s @ v, **settings)
    state = baseline.fit(baseline.init(jnp.zeros(4)), jnp.asarray(x), jnp.asarray(y))
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(state.params, expected, rtol=1e-5)


def test_a_baseline_never_fits_worse_and_leaves_a_plateau_damped() -> None:
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((50, 1)))
    y = jnp.sin(3 * x[:, 0])

    def apply(v: Any, s: jax.Array) -> jax.Array:
        return jnp.tanh(s @ v["in"] + v["bias"]) @ v["out"]

    v = {
        "in": jnp.asarray(rng.standard_normal((1, 8))),
        "bias": jnp.asarray(rng.standard_normal(8)),
        "out": jnp.asarray(rng.standard_normal(8)),
    }
    baseline = GaussNewtonBaseline(apply, steps=1, damping=1e-6)
    state, losses, fit = baseline.init(v), [], jax.jit(baseline.fit)
    for _ in range(30):
        state = fit(state, x, y)
        losses.append(float(((apply(state.params, x) - y) ** 2).mean()))
    assert (np.diff(losses) <= 0).all() and losses[-1] < 1e-2 * losses[0]
    # At the best fit of a line there is nothing to gain: the damping stays.
    line = GaussNewtonBaseline(lambda v, s: s @ v, steps=20, damping=1e-3)
    damped = line.fit(line.init(jnp.zeros(1)), x, y).damping
    assert damped <= 1e-3
