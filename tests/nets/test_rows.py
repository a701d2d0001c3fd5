"""Every published algorithm against its published update, written out naively."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import scipy.linalg

from ngvi.nets import (
    blocks,
    full,
    ivon,
    noisy_adam,
    slang,
    vadam,
    vogn,
)
from tests.nets.problems import (
    DATA_SIZE,
    DIM,
    START,
    apply,
    close,
    gradients,
    matrices,
    normals,
    training,
)

N = DATA_SIZE


def test_noisy_adam() -> None:
    # Zhang et al., algorithm 1: the prior's term at the weights drawn, in the momentum;
    # extrinsic damping in the step but not in the posterior.
    alpha, beta1, beta2, kl, eta, extrinsic = 0.02, 0.8, 0.9, 0.7, 2.0, 0.3
    algorithm = noisy_adam(
        apply,
        "categorical",
        N,
        learning_rate=alpha,
        momentum=beta1,
        precision_rate=1 - beta2,
        damping=extrinsic,
        kl_weight=kl,
        prior_precision=1 / eta,
        initial_curvature=0.5,
    )
    mu, m, f = START, np.zeros(DIM), np.full(DIM, 0.5)
    intrinsic = kl / (N * eta)
    for k, _, state, batch, key in training(algorithm):
        eps, _ = normals(key)
        w = mu + np.sqrt(kl / N / (f + intrinsic)) * eps[0]
        of_likelihood = -gradients(w, *batch).mean(0)
        v = of_likelihood - intrinsic * w
        m = beta1 * m + (1 - beta1) * v
        f = beta2 * f + (1 - beta2) * of_likelihood**2
        mu = mu + alpha * m / (1 - beta1**k) / (f + intrinsic + extrinsic)
        close(state.mean, mu)
        close(state.precision.diagonal(), N / kl * (f + intrinsic))


@pytest.mark.parametrize("tau", [1.0, 0.6])
def test_vogn(tau: float) -> None:
    # Osawa et al., algorithm 1, with several draws. Their rates are ours over τ, their
    # s ours over τ, and their momentum is a sum, not a mean: a schedule makes up for
    # both. Two differences: their damping γ is in the posterior's precision too, ours
    # is not; and for τ ≠ 1 they use τδ/N in the precision, where S = N s + δ is right.
    alpha, beta1, beta2, delta, damping, draws = 0.02, 0.8, 0.3, 1.5, 0.2, 2

    def learning_rate(steps: jax.Array) -> jax.Array:
        return tau * alpha * (1 - beta1 ** (steps + 1)) / (1 - beta1)

    algorithm = vogn(
        apply,
        "categorical",
        N,
        learning_rate=learning_rate,
        momentum=beta1,
        precision_rate=tau * beta2,
        damping=tau * damping,
        samples=draws,
        kl_weight=tau,
        prior_precision=delta,
        initial_curvature=0.5 * tau,
    )
    mu, m, s = START, np.zeros(DIM), np.full(DIM, 0.5)
    for _, _, state, batch, key in training(algorithm):
        eps, _ = normals(key, draws)
        each = np.stack(
            [gradients(w, *batch) for w in mu + eps / np.sqrt(N * s + delta)]
        )
        m = beta1 * m + each.mean((0, 1)) + tau * delta / N * mu
        s = (1 - tau * beta2) * s + beta2 * (each**2).mean((0, 1))
        mu = mu - alpha * m / (s + delta / N + damping)
        close(state.mean, mu)
        close(state.precision.diagonal(), N * s + delta)


@pytest.mark.parametrize("every", [1, 2])
def test_vadam(every: int) -> None:
    # Khan et al. (2018), algorithm 1, but for s, which starts at 1e-12 and not at 0;
    # and with an s that is measured now and then.
    alpha, gamma1, gamma2, delta = 0.02, 0.8, 0.9, 1.5
    algorithm = vadam(
        apply,
        "categorical",
        N,
        learning_rate=alpha,
        momentum=gamma1,
        precision_rate=1 - gamma2,
        prior_precision=delta,
        measure_every=every,
        refresh=every,
    )
    mu, m, s = START, np.zeros(DIM), np.full(DIM, 1e-12)
    measured = 0
    for t, _, state, batch, key in training(algorithm):
        eps, _ = normals(key)
        g = gradients(mu + eps[0] / np.sqrt(N * s + delta), *batch).mean(0)
        m = gamma1 * m + (1 - gamma1) * (g + delta * mu / N)
        if (t - 1) % every == 0:
            s, measured = gamma2 * s + (1 - gamma2) * g**2, measured + 1
        corrected = np.sqrt(s / (1 - gamma2**measured))
        mu = mu - alpha * m / (1 - gamma1**t) / (corrected + delta / N)
        close(state.mean, mu)
        close(state.precision.diagonal(), N * s + delta)


@pytest.mark.parametrize(
    ("curvature", "refresh"),
    [("price", 1), ("price", 3), ("squared", 1), ("per-example", 1)],
)
def test_ivon(curvature: Any, refresh: int) -> None:
    # Shen et al., algorithm 1, several draws: λ = N/κ, weight decay κδ/N. The squares
    # are those of the mean loss itself, without a factor for the size of the batch.
    # Where S waits, h does not.
    alpha, beta1, beta2, kl, delta, draws = 0.02, 0.8, 0.9, 0.7, 1.5, 2
    algorithm = ivon(
        apply,
        "categorical",
        N,
        curvature=curvature,
        learning_rate=alpha,
        momentum=beta1,
        precision_rate=1 - beta2,
        kl_weight=kl,
        prior_precision=delta,
        initial_curvature=0.5,
        samples=draws,
        refresh=refresh,
    )
    ess, decay = N / kl, kl * delta / N
    m, g, h = START, np.zeros(DIM), np.full(DIM, 0.5)
    kept = h
    for t, _, state, batch, key in training(algorithm):
        eps, _ = normals(key, draws)
        sigma = 1 / np.sqrt(ess * (kept + decay))
        thetas = m + sigma * eps
        each = np.stack([gradients(theta, *batch) for theta in thetas])
        g_hat = each.mean(1)
        h_hat = {
            "price": g_hat * (thetas - m) / sigma**2,
            "squared": g_hat**2,
            "per-example": (each**2).mean(1),
        }[curvature].mean(0)
        g = beta1 * g + (1 - beta1) * g_hat.mean(0)
        second = (1 - beta2) ** 2 / 2 * (h - h_hat) ** 2 / (h + decay)
        h = beta2 * h + (1 - beta2) * h_hat + second
        kept = h if (t - 1) % refresh == 0 else kept
        m = m - alpha * (g / (1 - beta1**t) + decay * m) / (kept + decay)
        close(state.mean, m)
        close(state.precision.diagonal(), ess * (kept + decay))


@pytest.mark.parametrize("draws", [1, 2])
def test_slang(draws: int) -> None:
    # Mishkin et al.: their U and D are of the whole precision, with the prior in D,
    # D ← (1 − β) D + β δ + what is cut off; the sites of ours are the same less δ.
    alpha, beta, delta, rank = 0.02, 0.2, 1.5, 3
    algorithm = slang(
        apply,
        "categorical",
        N,
        rank=rank,
        learning_rate=alpha,
        momentum=0.0,
        precision_rate=beta,
        prior_precision=delta,
        samples=draws,
    )
    mean, low, d = START, np.zeros((DIM, DIM)), np.full(DIM, N + delta)
    for _, before, state, batch, key in training(algorithm):
        eps, _ = normals(key, draws)
        ws = mean + eps @ matrices(before.precision)[1].T
        g = np.concatenate([gradients(w, *batch) for w in ws])
        whole = (1 - beta) * low + beta * N * g.T @ g / len(g)
        values, vectors = np.linalg.eigh(whole)
        low = vectors[:, -rank:] * values[-rank:] @ vectors[:, -rank:].T
        d = (1 - beta) * d + beta * delta + np.diag(whole - low)
        step = N * g.mean(0) + delta * mean
        mean = mean - alpha * np.linalg.solve(low + np.diag(d), step)
        close(state.mean, mean)
        close(matrices(state.precision)[0], low + np.diag(d))


@pytest.mark.parametrize("row", [full, blocks])
def test_full_and_blocks(row: Any) -> None:
    # The Bayesian learning rule with a Gauss-Newton matrix, pairs of draws, momentum.
    alpha, beta1, rho, kl, damping = 0.02, 0.8, 0.2, 0.7, 0.3
    b = np.asarray([[0.4, 0.5, 0.6]] * 3)
    precisions = {"first": {"w": b[:2], "b": b[2]}, "last": 2.0}
    algorithm = row(
        apply,
        "categorical",
        N,
        kind="empirical",
        learning_rate=alpha,
        momentum=beta1,
        precision_rate=rho,
        damping=damping,
        kl_weight=kl,
        prior_precision=precisions,
        samples=4,
        antithetic=True,
    )
    delta = np.concatenate([b.reshape(-1), np.full(9, 2.0)])
    kept = np.ones((DIM, DIM))
    if row is blocks:
        kept = scipy.linalg.block_diag(np.ones((9, 9)), np.ones((9, 9)))
    mean, momentum, site = START, np.zeros(DIM), np.eye(DIM)
    for k, before, state, batch, key in training(algorithm):
        eps, _ = normals(key, 2)
        away = eps @ matrices(before.precision)[1].T
        each = [gradients(mean + e, *batch) for e in (*away, *-away)]
        curvature = np.mean([g.T @ g / len(g) for g in each], 0)
        site = (1 - rho) * site + rho * kept * curvature
        s = N / kl * site + np.diag(delta)
        momentum = beta1 * momentum + (1 - beta1) * np.mean(each, (0, 1))
        direction = N / kl * momentum / (1 - beta1**k) + delta * mean
        metric = s + N / kl * damping * np.eye(DIM)
        mean = mean - alpha * np.linalg.solve(metric, direction)
        close(state.mean, mean)
        close(matrices(state.precision)[0], s)
