"""Every optimiser's step against its published formula, written naively."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import numpy as np
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
    singd,
    squared_gradient,
    stochastic_natural_gradient,
)
from tests.nets import problems
from tests.nets.optimizers.naive import (
    EYE,
    PROGRESS,
    blocks,
    by_products,
    by_roots,
    conjugate_gradients,
    dense,
    diagonal,
    eigenbasis,
    iterations,
    kronecker,
    lower_or_half,
    naive,
    product,
    true_fisher,
)
from tests.nets.problems import LABELS, PARAMS, START, STEPS, X, close
from tests.programs import compiled

EXACT = 1e-12
made = partial(natural_gradient, problems.apply, "categorical")


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


def agrees(optimizer: CurvatureOptimizer, told: list[dict[str, Any]]) -> list[Info]:
    found = run(optimizer)
    for (state, info), expected in zip(found, told, strict=True):
        close(in_layers(state), expected["w"], EXACT)
        for name, value in expected.items():
            if name != "w" and np.isfinite(getattr(info, name)):
                actual = getattr(info, name)
                # Of a ratio both parts are small differences.
                np.testing.assert_allclose(actual, value, rtol=1e-10, atol=1e-10)
    return [info for _, info in found]


@pytest.mark.parametrize("binding", [0.05, 0.9])
def test_natural_gradient_with_adapted_damping(binding: float) -> None:
    optimizer = made(
        damping=0.3,
        adapt_every=2,
        curvature_decay=0.7,
        l2=0.05,
        diagnostics=True,
        binding=binding,
    )
    told = naive(dense(0.7), 0.3, adapt=2, l2=0.05, binding=binding)
    assert (told[-1]["damping"] < 0.3) == (binding < 0.5)
    agrees(optimizer, told)


@pytest.mark.parametrize(
    ("structure", "kind", "solve"),
    [
        ("block-diagonal", "true", lambda: blocks),
        ("diagonal", "true", lambda: diagonal),
        ("kronecker", "empirical", lambda: product(0.0)),
        ("kronecker-eigen", "empirical", lambda: eigenbasis(0.0)),
        (LowRankStructure(problems.DIM), "true", lambda: dense(0.0)),
        ("matrix-free", "true", lambda: by_products()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_natural_gradient_with_every_structure(
    structure: Any, kind: Any, solve: Any
) -> None:
    settings = {"damping": 0.3, "adapt_every": 0, "curvature_decay": 0.0}
    optimizer = made(structure=structure, kind=kind, progress=PROGRESS, **settings)
    infos = agrees(optimizer, naive(solve(), 0.3))
    assert np.isnan(infos[0].reduction_ratio)


def test_products_of_batches_in_parts() -> None:
    free = made(
        structure="matrix-free",
        damping=0.3,
        adapt_every=0,
        learning_rate=0.5,
        momentum=0.4,
        progress=PROGRESS,
        accumulate=2,
    )
    agrees(free, naive(by_products(), 0.3, given=(0.5, 0.4)))


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


@pytest.mark.parametrize("refresh", [1, 3])
def test_ekfac(refresh: int) -> None:
    # A basis that changes projects the moments so far: the last batch's alone are exact
    # in the new one.
    optimizer = ekfac(
        problems.apply,
        "categorical",
        kind="empirical",
        damping=0.2,
        curvature_decay=0.0,
        refresh=refresh,
        adapt_every=0,
        learning_rate=0.3,
        momentum=0.5,
    )
    agrees(optimizer, naive(eigenbasis(0.0, refresh), 0.2, (0.3, 0.5)))


@pytest.mark.parametrize("structure", ["dense", "triangular"])
def test_singd(structure: Any) -> None:
    optimizer = singd(
        problems.apply,
        "categorical",
        0.3,
        kind="empirical",
        damping=0.2,
        structure=structure,
        rate=0.4,
        decay=0.6,
    )
    triangular = structure == "triangular"

    def project(n: np.ndarray) -> np.ndarray:
        return np.tril(n) + np.tril(n, -1) if triangular else n

    agrees(optimizer, naive(by_roots(0.4, 0.6, project), 0.2, (0.3, 0.9)))


def test_diagonal_fisher() -> None:
    optimizer = diagonal_fisher(
        problems.apply, "categorical", 0.1, damping=0.2, curvature_decay=0.0
    )
    agrees(optimizer, naive(diagonal, 0.2, (0.1, 0.0)))


@pytest.mark.parametrize("b1", [0.9, 0.0])
def test_adam_and_rmsprop_are_diagonal_curvatures(b1: float) -> None:
    optimizer = squared_gradient(
        problems.apply,
        "categorical",
        lambda t: 0.1 * 0.5**t,
        gradient_decay=b1,
        weight_decay=0.1,
        mask={"first": {"w": True, "b": False}, "last": True},
    )
    decays = np.ones(problems.DIM)
    decays[6:9] = 0
    w, m, v = START, np.zeros_like(START), np.zeros_like(START)
    for t, (state, _) in enumerate(run(optimizer)):
        g = problems.gradients(w, X[t], LABELS[t]).mean(0)
        m, v = b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g**2
        root = np.sqrt(v / (1 - 0.999 ** (t + 1)))
        d = m / (1 - b1 ** (t + 1)) / (root + 1e-8) + 0.1 * decays * w
        w = w - 0.1 * 0.5**t * d
        close(in_layers(state), w, EXACT)


DAMPING = 1e-2
"""So little that full steps climb."""


def test_gauss_newton() -> None:
    told = lower_or_half(dense(0.0), DAMPING)
    optimizer = gauss_newton(problems.apply, "categorical", damping=DAMPING)
    for (state, _), expected in zip(run(optimizer), told, strict=True):
        close(in_layers(state), expected, EXACT)


@pytest.mark.parametrize(
    ("damping", "most", "tolerance"),
    [(1.0, 100, EXACT), (DAMPING, 3, EXACT), (DAMPING, 100, 1e-4)],
)
def test_hessian_free(damping: float, most: int, tolerance: float) -> None:
    # Iterates feel the rounding of those before them, the more the worse the condition:
    # at the third setting, where Martens' rule ends a solve, the first step is right to
    # 4e-8 and the fourth to 3e-5, and so would be one by another order of sums.
    iterations.clear()
    told = lower_or_half(by_products(0.9, most), damping)
    assert (max(iterations) > 10) == (tolerance > EXACT)
    optimizer = hessian_free(
        problems.apply,
        "categorical",
        damping=damping,
        max_iterations=most,
        progress=PROGRESS,
        warm_start=0.9,
    )
    for (state, _), expected in zip(run(optimizer), told, strict=True):
        close(in_layers(state), expected, tolerance)


def test_variance_reduction() -> None:
    whole = X.reshape(-1, 2), LABELS.reshape(-1)
    rate, damping = 0.3, 0.2
    optimizer = made(
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
    optimizer = made(
        structure=structure,
        learning_rate=0.3,
        momentum=0.0,
        damping=0.2,
        adapt_every=0,
        curvature_decay=0.0,
        trainable=FROZEN,
        progress=PROGRESS,
    )
    w, d = START.copy(), np.zeros(len(MOVES))
    for i, (state, _) in enumerate(run(optimizer)):
        g = problems.gradients(w, X[i], LABELS[i]).mean(0)[MOVES]
        fisher = true_fisher(w, X[i], LABELS[i])[np.ix_(MOVES, MOVES)]
        matrix = fisher + 0.2 * np.eye(len(MOVES))
        if structure == "dense":
            d = np.linalg.solve(matrix, g)
        else:
            d, _ = conjugate_gradients(matrix, g, 0.95 * d, 100)
        w[MOVES] -= 0.3 * d
        close(in_layers(state), w, EXACT)


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
