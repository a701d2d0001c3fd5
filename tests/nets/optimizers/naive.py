"""Published steps, written naively in NumPy for the net and batches of `problems`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tests.nets import problems
from tests.nets.problems import LABELS, START, STEPS, X

SIZES = [slice(0, 9), slice(9, 18)]
EYE = np.eye(problems.DIM)


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


Solve = Callable[[int, np.ndarray, np.ndarray, float], np.ndarray]
"""Of the step's number, θ, g and λ: the natural gradient."""


def naive(
    solve: Solve,
    damping: float,
    given: tuple[float, float] | None = None,
    max_kl: float | None = None,
    l2: float = 0.0,
    adapt: int = 0,
    binding: float = 0.05,
) -> list[dict[str, Any]]:
    """Section 6.4 to 7 of Martens and Grosse (2015); λ falls only where it binds."""
    w, v, told = START, np.zeros_like(START), []
    for t in range(STEPS):
        batch = X[t], LABELS[t]
        g = problems.gradients(w, *batch).mean(0) + l2 * w
        d = solve(t, w, g, damping + l2)
        exact = true_fisher(w, *batch)
        ridge = (damping + l2) * EYE
        both = np.stack([d, v]) if t else d[None]
        if given is None:
            a = both @ (exact + ridge) @ both.T
            c = -np.linalg.solve(a, both @ g)
            c = c if t else np.append(c, 0.0)
        else:
            alpha, mu = given
            if max_kl is not None:
                alpha = min(alpha, np.sqrt(2 * max_kl / (g @ d)))
            c = np.array([-alpha, mu])
        s = c[0] * d + c[1] * v
        model = g @ s + s @ (exact + ridge) @ s / 2
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
            binds = damping * (s @ s) >= binding * (s @ (exact + ridge) @ s)
            factor = 0.95**adapt
            damping *= factor if ratio > 0.75 and binds else 1
            damping /= factor if ratio < 0.25 else 1
        w, v = w + s, s
        told[-1]["w"] = w
    return told


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


def product(decay: float) -> Solve:
    """A ⊗ G + λ, of all entries."""
    averages = [Average(decay) for _ in range(4)]

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        a, s, b, r = (f(x) for f, x in zip(averages, factors(t, w), strict=True))
        pairs = zip(SIZES, (np.kron(a, s), np.kron(b, r)), strict=True)
        eye = damping * np.eye(9)
        return np.concatenate([np.linalg.solve(m + eye, g[part]) for part, m in pairs])

    return solve


def conjugate_gradients(
    matrix: np.ndarray, g: np.ndarray, x: np.ndarray, most: int
) -> tuple[np.ndarray, int]:
    """From x on, by the rules of Martens (2010) or a residual of 1e-6; and how long."""
    r = g - matrix @ x
    p, values = r, [0.0]
    for i in range(1, most + 1):
        length = (r @ r) / (p @ matrix @ p)
        x, before = x + length * p, r
        r = r - length * (matrix @ p)
        p = r + (r @ r) / (before @ before) * p
        values.append(x @ matrix @ x / 2 - g @ x)
        k = max(10, i // 10)
        slow = i > k and (values[i] - values[i - k]) / values[i] < k * PROGRESS
        if slow or np.linalg.norm(r) <= 1e-6 * np.linalg.norm(g):
            break
    return x, i


PROGRESS = 1e-3


def by_products(warm: float = 0.95, most: int = 100) -> Solve:
    """Conjugate gradients, from a part of the last solution on."""
    last = np.zeros_like(START)

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        nonlocal last
        matrix = true_fisher(w, X[t], LABELS[t]) + damping * EYE
        last, taken = conjugate_gradients(matrix, g, warm * last, most)
        iterations.append(taken)
        return last

    return solve


iterations: list[int] = []
"""Of every solve by products."""


def eigenbasis(decay: float, refresh: int = 1) -> Solve:
    """A basis from averaged factors, kept for some steps; moments of the batch."""
    averages = [Average(decay) for _ in range(4)]
    bases: list[np.ndarray] = []

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        now = [a(f) for a, f in zip(averages, factors(t, w), strict=True)]
        if t % refresh == 0:
            bases[:] = [np.linalg.eigh(f)[1] for f in now]
        each = problems.gradients(w, X[t], LABELS[t])
        parts = []
        for layer, part in enumerate(SIZES):
            u, v = bases[2 * layer : 2 * layer + 2]
            turned = np.einsum("nij,ik,jl->nkl", each[:, part].reshape(-1, 3, 3), u, v)
            solved = u.T @ g[part].reshape(3, 3) @ v / ((turned**2).mean(0) + damping)
            parts.append((u @ solved @ v.T).reshape(-1))
        return np.concatenate(parts)

    return solve


def diagonal(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
    return g / (np.diag(true_fisher(w, X[t], LABELS[t])) + damping)


def blocks(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
    fisher = true_fisher(w, X[t], LABELS[t]) + damping * EYE
    return np.concatenate([np.linalg.solve(fisher[p, p], g[p]) for p in SIZES])


def by_roots(rate: float, decay: float, project: Any) -> Solve:
    """SINGD: ½ (tr(Cᵀ G C)/e Kᵀ A K + λ tr(Cᵀ C)/e Kᵀ K − I), and its mirror image."""
    eye, roots, momenta = np.eye(3), [], [np.zeros((3, 3)) for _ in range(4)]

    def solve(t: int, w: Any, g: Any, damping: float) -> np.ndarray:
        now = factors(t, w)
        if not roots:
            for a, s in (now[:2], now[2:]):
                scale = (np.trace(a) * np.trace(s) / 9 + damping) ** -0.25
                roots.extend([scale * eye, scale * eye])
        parts = []
        for layer, part in enumerate(SIZES):
            i, o = 2 * layer, 2 * layer + 1
            k, c = roots[i], roots[o]
            h, j = k.T @ now[i] @ k, c.T @ now[o] @ c
            nk = np.trace(j) * h + damping * np.trace(c.T @ c) * k.T @ k
            nc = np.trace(h) * j + damping * np.trace(k.T @ k) * c.T @ c
            for side, n in ((i, nk), (o, nc)):
                new = project((n / 3 - eye) / 2)
                m = momenta[side] = decay * momenta[side] + (1 - decay) * new
                step = eye - rate * m / max(1, np.linalg.norm(m))
                roots[side] = roots[side] @ step
            k, c = roots[i], roots[o]
            parts.append((k @ k.T @ g[part].reshape(3, 3) @ c @ c.T).reshape(-1))
        return np.concatenate(parts)

    return solve


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
