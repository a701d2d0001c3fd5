"""The rows of Kronecker factors against their published updates, written naively."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from ngvi.nets import (
    noisy_ekfac,
    noisy_kfac,
)
from tests.nets.problems import (
    DATA_SIZE,
    DIM,
    LABELS,
    SIZES,
    START,
    apply,
    close,
    drawn_labels,
    gradients,
    layer_gradients,
    layer_inputs,
    matrices,
    normals,
    training,
)

N = DATA_SIZE


def factors(w: np.ndarray, x: Any, y: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """E[ā āᵀ] and E[g gᵀ] of both layers."""
    pairs = zip(layer_inputs(w, x, y), layer_gradients(w, x, y), strict=True)
    return [(a.T @ a / len(a), g.T @ g / len(g)) for a, g in pairs]


def averaged(old: list, new: list, rate: float) -> list:
    """Running averages of pairs of matrices."""
    return [
        tuple((1 - rate) * a + rate * b for a, b in zip(*pairs, strict=True))
        for pairs in zip(old, new, strict=True)
    ]


@pytest.mark.parametrize(("extrinsic", "refresh"), [(0.3, 1), (0.0, 2)])
def test_noisy_kfac_as_published(extrinsic: float, refresh: int) -> None:
    # Zhang et al., algorithm 2, with the matrix normal drawn from by Cholesky factors:
    # W = M + L_A⁻ᵀ E L_S⁻¹ of A^γ = A + π √γ I and S^γ = S + √γ/π I.
    alpha, beta, kl, eta = 0.02, 0.1, 0.7, 2.0
    algorithm = noisy_kfac(
        apply,
        "categorical",
        N,
        learning_rate=alpha,
        momentum=0.0,
        precision_rate=beta,
        damping=extrinsic,
        kl_weight=kl,
        prior_precision=1 / eta,
        initial_curvature=0.25,
        factored=True,
        corrected=False,
        refresh=refresh,
        prior_in_momentum=True,
        prior_at_draw=True,
    )
    intrinsic = kl / (N * eta)

    def damped(gamma: float) -> list[tuple[np.ndarray, np.ndarray]]:
        pairs = []
        for a, s in pair:
            pi = np.sqrt(np.trace(a) / len(a) / (np.trace(s) / len(s)))
            share = np.sqrt(gamma) * np.eye(3)
            pairs.append((a + pi * share, s + share / pi))
        return pairs

    mean = START
    pair = [(0.5 * np.eye(3), 0.5 * np.eye(3))] * 2
    posterior = damped(intrinsic)
    for k, _, state, (x, _), key in training(algorithm):
        eps, of_labels = normals(key)
        noise = []
        for (a, s), e in zip(posterior, np.split(eps[0], [SIZES[0]]), strict=True):
            left, right = np.linalg.cholesky(a), np.linalg.cholesky(s)
            whole = np.linalg.solve(left.T, e.reshape(3, 3)) @ np.linalg.inv(right)
            noise.append(np.sqrt(kl / N) * whole.reshape(-1))
        w = mean + np.concatenate(noise)
        labels = drawn_labels(of_labels, w, x)
        pair = averaged(pair, factors(w, x, labels), beta)
        if (k - 1) % refresh == 0:
            posterior, steps = damped(intrinsic), damped(intrinsic + extrinsic)
        v = -gradients(w, x, LABELS[k - 1]).mean(0) - intrinsic * w
        moves = [
            np.linalg.solve(a, part.reshape(3, 3)) @ np.linalg.inv(s)
            for (a, s), part in zip(steps, np.split(v, [SIZES[0]]), strict=True)
        ]
        mean = mean + alpha * np.concatenate([move.reshape(-1) for move in moves])
        close(state.mean, mean)
        dense = [N / kl * np.kron(a, s) for a, s in posterior]
        close(matrices(state.precision)[0], scipy.linalg.block_diag(*dense))


def test_noisy_kfac_in_the_eigenbasis() -> None:
    # Not as published: the prior is added exactly, (N/κ) A ⊗ S + δ I, and the factors'
    # start is corrected for.
    alpha, beta1, rate, kl, damping = 0.02, 0.8, 0.1, 0.7, 0.3
    deltas = (0.5, 2.0)
    algorithm = noisy_kfac(
        apply,
        "categorical",
        N,
        learning_rate=alpha,
        momentum=beta1,
        precision_rate=rate,
        damping=damping,
        kl_weight=kl,
        prior_precision={"first": {"w": 0.5, "b": 0.5}, "last": 2.0},
        refresh=1,
    )
    delta = np.repeat(deltas, SIZES)
    mean, momentum, pair = START, np.zeros(DIM), [(np.eye(3), np.eye(3))] * 2
    s = N / kl * np.eye(DIM) + np.diag(delta)
    for k, before, state, (x, y), key in training(algorithm):
        eps, of_labels = normals(key)
        w = mean + matrices(before.precision)[1] @ eps[0]
        labels = drawn_labels(of_labels, w, x)
        pair = averaged(pair, factors(w, x, labels), rate / (1 - (1 - rate) ** k))
        site = scipy.linalg.block_diag(*[np.kron(a, g) for a, g in pair])
        s = N / kl * site + np.diag(delta)
        gradient = gradients(w, x, y).mean(0)
        momentum = beta1 * momentum + (1 - beta1) * gradient
        direction = N / kl * momentum / (1 - beta1**k) + delta * mean
        metric = s + N / kl * damping * np.eye(DIM)
        mean = mean - alpha * np.linalg.solve(metric, direction)
        close(state.mean, mean)
        close(matrices(state.precision)[0], s)


@pytest.mark.parametrize("refresh", [1, 2])
def test_noisy_ekfac(refresh: int) -> None:
    # Bae, Zhang and Grosse: the scales R are running averages of squares in the basis
    # of K-FAC's eigenvectors. Ours on top: when the basis turns, R goes along with it.
    alpha, rate, kl, delta, damping = 0.02, 0.2, 0.7, 1.5, 0.3
    algorithm = noisy_ekfac(
        apply,
        "categorical",
        N,
        kind="empirical",
        learning_rate=alpha,
        momentum=0.0,
        precision_rate=rate,
        damping=damping,
        kl_weight=kl,
        prior_precision=delta,
        corrected=False,
        refresh=refresh,
    )
    mean, pair = START, [(np.eye(3), np.eye(3))] * 2
    bases, scales = [np.eye(9)] * 2, [np.ones(9)] * 2

    def site() -> np.ndarray:
        each = [u * r @ u.T for u, r in zip(bases, scales, strict=True)]
        return scipy.linalg.block_diag(*each)

    s = N / kl * site() + delta * np.eye(DIM)
    for k, before, state, (x, y), key in training(algorithm):
        w = mean + matrices(before.precision)[1] @ normals(key)[0][0]
        each = gradients(w, x, y)
        pair = averaged(pair, factors(w, x, y), rate)
        scales = [
            (1 - rate) * r + rate * ((g @ u) ** 2).mean(0)
            for r, u, g in zip(scales, bases, np.split(each, 2, 1), strict=True)
        ]
        if (k - 1) % refresh == 0:
            old, bases = site(), []
            for a, g in pair:
                bases.append(np.kron(np.linalg.eigh(a)[1], np.linalg.eigh(g)[1]))
            parts = (old[:9, :9], old[9:, 9:])
            scales = [
                np.diag(u.T @ part @ u) for u, part in zip(bases, parts, strict=True)
            ]
            s = N / kl * site() + delta * np.eye(DIM)
        direction = N / kl * each.mean(0) + delta * mean
        metric = s + N / kl * damping * np.eye(DIM)
        mean = mean - alpha * np.linalg.solve(metric, direction)
        close(state.mean, mean)
        close(matrices(state.precision)[0], s)
