"""Every optimiser's step against its published formula, written naively."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.fisher.structures import LowRankStructure
from ngvi.nets.optimizers import (
    CurvatureOptimizer,
    Info,
    State,
    diagonal_fisher,
    ekfac,
    gauss_newton,
    hessian_free,
    kfac,
    natural_gradient,
    squared_gradient,
    stochastic_natural_gradient,
)
from tests.nets import problems
from tests.nets.problems import LABELS, PARAMS, START, STEPS, X, close
from tests.programs import compiled

SIZES = [slice(0, 9), slice(9, 18)]
EYE = np.eye(problems.DIM)
EXACT = 1e-11
"""A solve's condition is in it."""


def outputs(w: Any, x: Any) -> Any:
    return problems.inputs(w, x)[1] @ w[9:].reshape(3, 3)


jacobians = problems.of_examples(lambda w, x, _: jax.jacobian(outputs)(w, x))
probabilities = problems.of_examples(lambda w, x, _: jax.nn.softmax(outputs(w, x)))


def true_fisher(w: Any, x: Any, y: Any) -> np.ndarray:
    j, p = jacobians(w, x, y), probabilities(w, x, y)
    middle = [np.diag(q) - np.outer(q, q) for q in p]
    return np.einsum("nci,ncd,ndj->ij", j, middle, j) / len(j)


def loss(w: Any, x: Any, y: Any) -> float:
    p = probabilities(w, x, y)
    return -np.log(p[np.arange(len(p)), y]).mean()


def run(
    optimizer: CurvatureOptimizer, labels: Any = LABELS
) -> list[tuple[State, Info]]:
    """States and infos after some steps."""
    step, found = compiled(optimizer.step), []
    state = compiled(optimizer.init)(PARAMS, (X[0], labels[0]))
    for i in range(STEPS):
        state, info = step(state, (X[i], labels[i]), jax.random.key(i))
        found.append((state, info))
    return found


def in_layers(state: State) -> np.ndarray:
    """The weights layer by layer, whatever their order in the state."""
    p = state.params
    first = np.vstack([p["first"]["w"], p["first"]["b"]])
    return np.concatenate([first.reshape(-1), np.reshape(p["last"], -1)])


Solve = Callable[[int, np.ndarray, np.ndarray, float], np.ndarray]
"""Of the step's number, θ, g and λ: the natural gradient."""


def naive(
    solve: Solve,
    damping: float,
    given: tuple[float, float] | None = None,
    max_kl: float | None = None,
    l2: float = 0.0,
    adapt: int = 0,
) -> list[dict[str, Any]]:
    """Section 6.4 to 7 of Martens and Grosse (2015)."""
    w, v, told = START, np.zeros_like(START), []
    for t in range(STEPS):
        batch = X[t], LABELS[t]
        g = problems.gradients(w, *batch).mean(0) + l2 * w
        d = solve(t, w, g, damping + l2)
        exact = true_fisher(w, *batch)
        both = np.stack([d, v]) if t else d[None]
        if given is None:
            a = both @ (exact + (damping + l2) * EYE) @ both.T
            c = -np.linalg.solve(a, both @ g)
            c = c if t else np.append(c, 0.0)
        else:
            alpha, mu = given
            if max_kl is not None:
                alpha = min(alpha, np.sqrt(2 * max_kl / (g @ d)))
            c = np.array([-alpha, mu])
        s = c[0] * d + c[1] * v
        model = g @ s + s @ (exact + (damping + l2) * EYE) @ s / 2
        penalty = l2 * (((w + s) ** 2).sum() - (w**2).sum()) / 2
        ratio = (loss(w + s, *batch) - loss(w, *batch) + penalty) / model
        told.append(
            {
                "learning_rate": -c[0],
                "momentum": c[1],
                "damping": damping,
                "reduction_ratio": ratio,
                "length": np.sqrt(s @ exact @ s),
                "cosine": -g @ s / np.sqrt((g @ g) * (s @ s)),
            }
        )
        if adapt and (t + 1) % adapt == 0:
            damping *= {True: 0.95**adapt, False: 1.0}[ratio > 0.75]
            damping /= {True: 0.95**adapt, False: 1.0}[ratio < 0.25]
        w, v = w + s, s
        told[-1]["w"] = w
    return told


def agrees(optimizer: CurvatureOptimizer, told: list[dict[str, Any]]) -> None:
    for (state, info), expected in zip(run(optimizer), told, strict=True):
        close(in_layers(state), expected["w"], EXACT)
        for name, value in expected.items():
            if name != "w" and np.isfinite(getattr(info, name)):
                found = getattr(info, name)
                np.testing.assert_allclose(found, value, rtol=1e-8, atol=1e-8)


# -- the curvatures --------------------------------------------------------------------


class Average:
    """(1 − w_t) F_{t−1} + w_t F_t of anything."""

    def __init__(self, decay: float) -> None:
        self.decay, self.t, self.value = decay, 0, 0.0

    def __call__(self, new: Any) -> Any:
        self.t += 1
        w = (1 - self.decay) / (1 - self.decay**self.t)
        self.value = (1 - w) * self.value + w * new
        return self.value


def dense(decay: float) -> Solve:
    average = Average(decay)

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        return np.linalg.solve(
            average(true_fisher(w, X[t], LABELS[t])) + damping * EYE, g
        )

    return solve


def factors(t: int, w: Any) -> list[np.ndarray]:
    """A and G of both layers, of the empirical Fisher matrix."""
    inputs = problems.layer_inputs(w, X[t], LABELS[t])
    slopes = problems.layer_gradients(w, X[t], LABELS[t])
    pairs = zip(inputs, slopes, strict=True)
    return [rows.T @ rows / len(rows) for pair in pairs for rows in pair]


def kronecker(decay: float, refresh: int) -> Solve:
    averages, kept = [Average(decay) for _ in range(4)], {}

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        now = [a(f) for a, f in zip(averages, factors(t, w), strict=True)]
        if t % refresh == 0:
            for layer in range(2):
                a, s = now[2 * layer : 2 * layer + 2]
                pi = np.sqrt(np.trace(a) / len(a) / (np.trace(s) / len(s)))
                root = np.sqrt(damping)
                kept[layer] = (
                    a + pi * root * np.eye(len(a)),
                    s + root / pi * np.eye(len(s)),
                )
        parts = []
        for layer, part in enumerate(SIZES):
            a, s = kept[layer]
            matrix = g[part].reshape(len(a), len(s))
            parts.append(np.linalg.solve(a, matrix) @ np.linalg.inv(s))
        return np.concatenate([part.reshape(-1) for part in parts])

    return solve


def eigenbasis(decay: float) -> Solve:
    """A basis for every step, from averaged factors; moments in it of the batch."""
    averages = [Average(decay) for _ in range(4)]

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        now = [a(f) for a, f in zip(averages, factors(t, w), strict=True)]
        each = problems.gradients(w, X[t], LABELS[t])
        parts = []
        for layer, part in enumerate(SIZES):
            u, v = (np.linalg.eigh(f)[1] for f in now[2 * layer : 2 * layer + 2])
            turned = np.einsum("nij,ik,jl->nkl", each[:, part].reshape(-1, 3, 3), u, v)
            solved = u.T @ g[part].reshape(3, 3) @ v / ((turned**2).mean(0) + damping)
            parts.append((u @ solved @ v.T).reshape(-1))
        return np.concatenate(parts)

    return solve


def diagonal(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
    return g / (np.diag(true_fisher(w, X[t], LABELS[t])) + damping)


made = partial(natural_gradient, problems.apply, "categorical")


def test_natural_gradient_with_adapted_damping() -> None:
    optimizer = made(
        damping=0.3, adapt_every=2, curvature_decay=0.7, l2=0.05, diagnostics=True
    )
    agrees(optimizer, naive(dense(0.7), 0.3, adapt=2, l2=0.05))


def test_a_matrix_free_structure_in_parts_is_dense() -> None:
    told = naive(dense(0.0), 0.3, given=(0.5, 0.4))
    settings = {"damping": 0.3, "adapt_every": 0, "learning_rate": 0.5, "momentum": 0.4}
    free = made(
        structure="matrix-free",
        max_iterations=200,
        progress=0.0,
        accumulate=2,
        **settings,
    )
    for (state, _), expected in zip(run(free), told, strict=True):
        close(in_layers(state), expected["w"], 1e-5)


def test_kfac_with_the_quadratic_model() -> None:
    optimizer = kfac(
        problems.apply,
        "categorical",
        kind="empirical",
        damping=0.2,
        curvature_decay=0.8,
        refresh=2,
        adapt_every=2,
    )
    agrees(optimizer, naive(kronecker(0.8, 2), 0.2, adapt=2))


@pytest.mark.parametrize("staggered", [False, True])
def test_kfac_clipped(staggered: bool) -> None:
    optimizer = kfac(
        problems.apply,
        "categorical",
        kind="empirical",
        damping=0.2,
        curvature_decay=0.8,
        refresh=1,
        adapt_every=0,
        learning_rate=0.5,
        momentum=0.6,
        max_kl=1e-2,
        staggered=staggered,
    )
    told = naive(kronecker(0.8, 1), 0.2, (0.5, 0.6), max_kl=1e-2)
    assert any(t["learning_rate"] < 0.5 for t in told)
    agrees(optimizer, told)


def test_staggered_layers_are_factorised_in_turn() -> None:
    settings = {"kind": "empirical", "damping": 0.2, "adapt_every": 0}
    optimizer = kfac(
        problems.apply, "categorical", refresh=2, staggered=True, **settings
    )
    blocks = [state.damped.blocks for state, _ in run(optimizer)]
    moved = [
        [bool((a.left.root != b.left.root).any()) for a, b in zip(*pair, strict=True)]
        for pair in itertools.pairwise(blocks)
    ]
    assert moved == [[False, True], [True, False], [False, True]]


def test_ekfac() -> None:
    # A basis that changes projects the moments so far: the last batch's alone are exact
    # in the new one.
    optimizer = ekfac(
        problems.apply,
        "categorical",
        kind="empirical",
        damping=0.2,
        curvature_decay=0.0,
        refresh=1,
        adapt_every=0,
        learning_rate=0.3,
        momentum=0.5,
    )
    agrees(optimizer, naive(eigenbasis(0.0), 0.2, (0.3, 0.5)))


def test_diagonal_fisher() -> None:
    optimizer = diagonal_fisher(
        problems.apply, "categorical", 0.1, damping=0.2, curvature_decay=0.0
    )
    agrees(optimizer, naive(diagonal, 0.2, (0.1, 0.0)))


@pytest.mark.parametrize("gradient_decay", [0.9, 0.0])
def test_adam_and_rmsprop_are_diagonal_curvatures(gradient_decay: float) -> None:
    rate = optax.exponential_decay(0.1, 2, 0.5)
    mask = {"first": {"w": True, "b": False}, "last": True}
    optimizer = squared_gradient(
        problems.apply,
        "categorical",
        rate,
        gradient_decay=gradient_decay,
        weight_decay=0.1,
        mask=mask,
    )
    reference = optax.adamw(rate, b1=gradient_decay, weight_decay=0.1, mask=mask)

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        f = problems.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()

    params, kept = PARAMS, reference.init(PARAMS)
    for i, (state, _) in enumerate(run(optimizer)):
        slopes = jax.grad(mean_loss)(params, X[i], LABELS[i])
        updates, kept = reference.update(slopes, kept, params)
        params = optax.apply_updates(params, updates)
        # Optax corrects its averages in single precision.
        jax.tree.map(partial(close, tolerance=1e-8), state.params, params)


def lower_or_half(solve: Solve, damping: float) -> list[np.ndarray]:
    """Martens (2010), by direct solves: halved steps, and his rule for λ."""
    w, found = START, []
    for t in range(STEPS):
        batch = X[t], LABELS[t]
        g = problems.gradients(w, *batch).mean(0)
        s = -solve(t, w, g, damping)
        before, halvings = loss(w, *batch), 0
        while halvings < 10 and loss(w + s, *batch) >= before:
            s, halvings = s / 2, halvings + 1
        model = g @ s + s @ (true_fisher(w, *batch) + damping * EYE) @ s / 2
        ratio = (loss(w + s, *batch) - before) / model
        damping *= 2 / 3 if ratio > 0.75 else 3 / 2 if ratio < 0.25 else 1
        w = w + s
        found.append(w)
    return found


def test_gauss_newton_and_hessian_free() -> None:
    damping = 1e-3
    told = lower_or_half(dense(0.0), damping)
    exact = gauss_newton(problems.apply, "categorical", damping=damping)
    free = hessian_free(
        problems.apply, "categorical", damping=damping, max_iterations=500, progress=0.0
    )
    for optimizer, tolerance in ((exact, 1e-9), (free, 1e-3)):
        for (state, _), expected in zip(run(optimizer), told, strict=True):
            close(in_layers(state), expected, tolerance)


def test_variance_reduction() -> None:
    whole = X.reshape(-1, 2), LABELS.reshape(-1)
    rate, damping = 0.3, 0.2
    optimizer = natural_gradient(
        problems.apply,
        "categorical",
        learning_rate=rate,
        momentum=0.0,
        damping=damping,
        adapt_every=0,
        curvature_decay=0.0,
    )
    state = compiled(optimizer.init)(PARAMS, whole)
    state = optimizer.anchored(state, whole)
    w, step = START, compiled(optimizer.step)
    mean = problems.gradients(START, *whole).mean(0)
    for i in range(2):
        batch = X[i], LABELS[i]
        g = problems.gradients(w, *batch) - problems.gradients(START, *batch)
        fisher = true_fisher(w, *batch) + damping * EYE
        w = w - rate * np.linalg.solve(fisher, g.mean(0) + mean)
        state, _ = step(state, batch, jax.random.key(i))
        close(in_layers(state), w, EXACT)


def test_running_averages_of_gradient_and_curvature() -> None:
    optimizer = stochastic_natural_gradient(
        problems.apply,
        "categorical",
        0.4,
        structure="dense",
        damping=0.3,
        measure_every=1,
        refresh=1,
        max_kl=None,
        gradient_decay=0.6,
        curvature_decay=1.0,
    )
    w, mean, fishers = START, np.zeros_like(START), []
    for i, (state, _) in enumerate(run(optimizer)):
        g = problems.gradients(w, X[i], LABELS[i]).mean(0)
        mean = 0.6 * mean + 0.4 * g
        fishers.append(true_fisher(w, X[i], LABELS[i]))
        matrix = np.mean(fishers, 0) + 0.3 * EYE
        w = w - 0.4 * np.linalg.solve(matrix, mean / (1 - 0.6 ** (i + 1)))
        close(in_layers(state), w, EXACT)


# -- parameters that do not move -------------------------------------------------------

FROZEN = {"first": {"w": True, "b": False}, "last": True}
MOVES = np.r_[:6, 9:18]


@pytest.mark.parametrize("structure", ["dense", "matrix-free"])
def test_frozen_parameters_leave_the_natural_gradient_of_the_others(
    structure: str,
) -> None:
    optimizer = natural_gradient(
        problems.apply,
        "categorical",
        structure=structure,
        learning_rate=0.3,
        momentum=0.0,
        damping=0.2,
        adapt_every=0,
        curvature_decay=0.0,
        trainable=FROZEN,
        progress=0.0,
    )
    w = START.copy()
    for i, (state, _) in enumerate(run(optimizer)):
        g = problems.gradients(w, X[i], LABELS[i]).mean(0)[MOVES]
        fisher = true_fisher(w, X[i], LABELS[i])[np.ix_(MOVES, MOVES)]
        w[MOVES] -= 0.3 * np.linalg.solve(fisher + 0.2 * np.eye(len(MOVES)), g)
        close(in_layers(state), w, 1e-5 if structure == "matrix-free" else EXACT)


@pytest.mark.parametrize("row", [kfac, ekfac])
def test_a_frozen_bias_is_no_part_of_its_layers_factors(row: Any) -> None:
    settings = {"kind": "empirical", "damping": 0.2, "adapt_every": 0, "refresh": 1}
    if row is kfac:
        # π of the whole layer has the bias's row, of zeros, in its mean.
        settings["factored"] = False
    frozen = row(problems.apply, "categorical", trainable=FROZEN, **settings)

    def without(params: Any, x: Any) -> Any:
        first = {"w": params["first"], "b": PARAMS["first"]["b"]}
        return problems.apply({"first": first, "last": params["last"]}, x)

    alone = row(without, "categorical", **settings)
    some = {"first": PARAMS["first"]["w"], "last": PARAMS["last"]}
    state = compiled(alone.init)(some, (X[0], LABELS[0]))
    step = compiled(alone.step)
    for i, (found, _) in enumerate(run(frozen)):
        state, _ = step(state, (X[i], LABELS[i]), jax.random.key(i))
        np.testing.assert_array_equal(found.params["first"]["b"], PARAMS["first"]["b"])
        close(found.params["first"]["w"], state.params["first"], 1e-9)
        close(found.params["last"], state.params["last"], 1e-9)


def test_low_rank_of_all_directions_is_dense() -> None:
    settings = {"damping": 0.3, "adapt_every": 0, "curvature_decay": 0.0}
    whole = made(structure=LowRankStructure(problems.DIM), **settings)
    agrees(whole, naive(dense(0.0), 0.3))
    assert jnp.isnan(run(whole)[0][1].reduction_ratio)
