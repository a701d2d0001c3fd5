"""Policy gradients: each rule against its formula written out, and the KL's bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.fisher import MLP
from ngvi.nets.optimizers import (
    CartPole,
    GaussNewtonBaseline,
    PolicyBatch,
    PolicyTrainer,
    natural_policy_gradient,
    policy_gradient,
    trpo,
)
from tests.programs import compiled

RNG = np.random.default_rng(0)
N, OBSERVED, ACTIONS = 40, 3, 3
BATCH = PolicyBatch(
    jnp.asarray(RNG.standard_normal((N, OBSERVED))),
    jnp.asarray(RNG.integers(0, ACTIONS, N)),
    jnp.asarray(RNG.standard_normal(N)),
)
PARAMS = jnp.asarray(2 * np.random.default_rng(6).standard_normal((OBSERVED, ACTIONS)))
KEY = jax.random.key(0)
DAMPING, MAX_KL = 0.01, 0.02


def apply(params: Any, observations: jax.Array) -> jax.Array:
    return observations @ params


# -- a softmax policy by hand: p_tk ∝ exp(s_t · w_k) -----------------------------------


def probabilities(w: np.ndarray) -> np.ndarray:
    each = np.exp(np.asarray(BATCH.observations) @ w)
    return each / each.sum(1, keepdims=True)


def scores(w: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """∇log π(a_t | s_t) in rows: s_t ⊗ (1[a_t] − p_t)."""
    away = np.eye(ACTIONS)[actions] - probabilities(w)
    each = np.asarray(BATCH.observations)[:, :, None] * away[:, None]
    return each.reshape(N, -1)


def gradient(w: np.ndarray) -> np.ndarray:
    """Of L, to be descended."""
    by_row = scores(w, np.asarray(BATCH.actions))
    return -(np.asarray(BATCH.advantages)[:, None] * by_row).mean(0)


def fisher_matrix(w: np.ndarray) -> np.ndarray:
    """E[∇log π ∇log πᵀ], over the states seen and all actions."""
    p, total = probabilities(w), 0.0
    for action in range(ACTIONS):
        by_row = scores(w, np.full(N, action))
        total = total + (p[:, action, None] * by_row).T @ by_row
    return total / N


def surrogate(w: np.ndarray, new: np.ndarray) -> float:
    rows = np.arange(N), np.asarray(BATCH.actions)
    ratio = probabilities(new)[rows] / probabilities(w)[rows]
    return float(-(np.asarray(BATCH.advantages) * ratio).mean())


def kl(w: np.ndarray, new: np.ndarray) -> float:
    p, q = probabilities(w), probabilities(new)
    return float((p * np.log(p / q)).sum(1).mean())


def direction(w: np.ndarray, f: np.ndarray) -> np.ndarray:
    return np.linalg.solve(f + DAMPING * np.eye(f.shape[0]), gradient(w))


def moved(optimizer: Any, steps: int = 1) -> tuple[np.ndarray, Any]:
    state = optimizer.init(PARAMS, BATCH)
    for _ in range(steps):
        state, info = optimizer.step(state, BATCH, KEY)
    return np.asarray(state.params), info


W = np.asarray(PARAMS)


def test_the_plain_gradient_is_reinforce() -> None:
    new, info = moved(policy_gradient(apply, "categorical", learning_rate=0.3))
    expected = W - 0.3 * gradient(W).reshape(W.shape)
    np.testing.assert_allclose(new, expected, rtol=1e-12)
    np.testing.assert_allclose(info.kl, kl(W, new), rtol=1e-9)
    np.testing.assert_allclose(info.loss, surrogate(W, new) - surrogate(W, W))
    np.testing.assert_allclose(info.cosine, 1, rtol=1e-12)


def test_another_transformation_of_optax_takes_the_step() -> None:
    adam = optax.adam(lambda count: 0.1 / (1 + count))
    new, _ = moved(policy_gradient(apply, "categorical", optimizer=adam))
    expected = W - 0.1 * np.sign(gradient(W)).reshape(W.shape)
    np.testing.assert_allclose(new, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["true", "empirical"])
def test_the_natural_gradient_is_kakades(kind: Any) -> None:
    by_row = scores(W, np.asarray(BATCH.actions))
    f = fisher_matrix(W) if kind == "true" else by_row.T @ by_row / N
    d = direction(W, f)
    options = {"damping": DAMPING, "kind": kind}
    longest = np.sqrt(2 * MAX_KL / (d @ f @ d))
    cases: list[tuple[dict, Any]] = [
        ({"max_kl": MAX_KL}, longest),
        ({"max_kl": None, "learning_rate": lambda count: 3.0 - count}, 3.0),
        ({"max_kl": MAX_KL, "learning_rate": 1e-3}, 1e-3),
    ]
    for settings, length in cases if kind == "true" else cases[:1]:
        row = natural_policy_gradient(apply, "categorical", **settings, **options)
        new, info = moved(row)
        expected = W - (length * d).reshape(W.shape)
        np.testing.assert_allclose(new, expected, rtol=1e-12)
        np.testing.assert_allclose(info.learning_rate, length, rtol=1e-10)
        span = length * np.sqrt(d @ f @ d)
        np.testing.assert_allclose(info.length, span, rtol=1e-9)


def naive_trpo(w: np.ndarray, max_kl: float) -> tuple[np.ndarray, int]:
    f = fisher_matrix(w)
    d = direction(w, f)
    full = np.sqrt(2 * max_kl / (d @ f @ d)) * d.reshape(w.shape)
    for halvings in range(11):
        new = w - 0.5**halvings * full
        if kl(w, new) <= max_kl and surrogate(w, new) < surrogate(w, w):
            return new, halvings
    return w, halvings


@pytest.mark.parametrize("structure", ["dense", "matrix-free"])
@pytest.mark.parametrize("max_kl", [1e-3, 0.5])
def test_trpo_is_schulmans(structure: Any, max_kl: float) -> None:
    free = structure == "matrix-free"
    exact = {"tolerance": 1e-15, "max_iterations": 30} if free else {}
    row = trpo(
        apply,
        "categorical",
        max_kl=max_kl,
        damping=DAMPING,
        structure=structure,
        **exact,
    )
    new, info = moved(row)
    expected, _ = naive_trpo(W, max_kl)
    np.testing.assert_allclose(new, expected, rtol=1e-12)
    assert bool(info.accepted) and kl(W, new) <= max_kl


def test_the_cases_of_trpo_differ_in_their_halvings() -> None:
    assert [naive_trpo(W, max_kl)[1] for max_kl in (1e-3, 0.5)] == [0, 2]


def test_a_policy_stays_where_no_action_is_better() -> None:
    none = BATCH._replace(advantages=jnp.zeros(N))
    # As above, so that nothing is compiled.
    settings: dict[str, Any] = {"damping": DAMPING, "structure": "dense"}
    for optimizer in (
        trpo(apply, "categorical", max_kl=0.5, **settings),
        natural_policy_gradient(apply, "categorical", max_kl=MAX_KL, **settings),
    ):
        state, _ = optimizer.step(optimizer.init(PARAMS, none), none, KEY)
        np.testing.assert_array_equal(state.params, PARAMS)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="how long a step"):
        natural_policy_gradient(apply, "categorical", max_kl=None)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        trpo(apply, "categorical", stride=0)
    wrong = BATCH._replace(actions=BATCH.actions.at[3].set(ACTIONS))
    with pytest.raises(ValueError, match="index 3"):
        trpo(apply, "categorical").init(PARAMS, wrong)
    baseline = GaussNewtonBaseline(lambda v, s: s @ v)
    with pytest.raises(ValueError, match="discount must be from 0 to 1, got 2"):
        PolicyTrainer(CartPole(), trpo(apply, "categorical"), baseline, discount=2)


# -- in an environment -----------------------------------------------------------------

POLICY, NET = MLP((4, 16, 2)), MLP((4, 16, 1))
BASELINE = GaussNewtonBaseline(lambda v, s: NET(v, s)[:, 0])


def trainer(optimizer: Any, horizon: int) -> PolicyTrainer:
    sizes = {"environments": 8, "horizon": horizon}
    return PolicyTrainer(CartPole(), optimizer, BASELINE, **sizes)


def started(trainer: PolicyTrainer, seed: int = 0) -> tuple[Any, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), 4)
    return trainer.init(POLICY.init(keys[0]), NET.init(keys[1]), keys[2]), keys[3]


def test_no_accepted_step_of_trpo_leaves_the_ball_and_the_pole_is_balanced() -> None:
    # So large a ball that full steps leave it.
    max_kl = 0.02
    made = trainer(trpo(POLICY, "categorical", max_kl=max_kl), 128)
    state, key = started(made)
    _, records = compiled(made.run, static_argnums=2)(state, key, 30)
    info = records.info
    assert (info.kl <= max_kl).all()
    assert info.accepted.mean() > 0.9
    assert (info.loss[info.accepted] < 0).all()
    # A step that had to be halved reaches less than half of a quadratic ball.
    halved = info.length**2 / 2 < 0.3 * max_kl
    assert 0 < halved.sum() < 30
    earned = np.asarray(records.mean_return)
    assert earned[0] < 40 and np.nanmean(earned[-5:]) > 300


def test_runs_of_many_seeds_are_loops_of_steps() -> None:
    row = natural_policy_gradient(POLICY, "categorical", structure="diagonal")
    made = trainer(row, 16)
    states = [started(made, seed) for seed in (0, 1)]
    stacked, keys = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    last, many = compiled(jax.vmap(lambda s, k: made.run(s, k, 3)))(stacked, keys)
    (state, key), step, kls = states[1], compiled(made.step), []
    for each in jax.random.split(key, 3):
        state, record = step(state, each)
        kls.append(record.info.kl)
    # The values are fitted by conjugate gradients, to a residual of 1e-5.
    np.testing.assert_allclose(many.info.kl[1], kls, rtol=1e-3)
    np.testing.assert_array_equal(last.episodes.elapsed[1], state.episodes.elapsed)
