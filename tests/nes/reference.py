"""Published updates in NumPy, one loop for each sum: slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import expm, sqrtm
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm


def utilities(values: np.ndarray) -> np.ndarray:
    """max(0, log(n/2 + 1) − log rank), normalised, minus 1/n."""
    n = len(values)
    ranks = np.argsort(np.argsort(values)) + 1
    raw = np.maximum(0, np.log(n / 2 + 1) - np.log(ranks))
    return raw / raw.sum() - 1 / n


def xnes(
    mean: np.ndarray,
    root: np.ndarray,
    eps: np.ndarray,
    values: np.ndarray,
    scale_rate: float,
    shape_rate: float,
) -> tuple[np.ndarray, np.ndarray]:
    """m + A g, A exp(½ η_σ G_σ) exp(½ η_B (G − G_σ I)): Glasmachers et al. (2010)."""
    dim = len(mean)
    u = utilities(values)
    g, big = np.zeros(dim), np.zeros((dim, dim))
    for weight, z in zip(u, eps, strict=True):
        g += weight * z
        big += weight * (np.outer(z, z) - np.eye(dim))
    along = np.trace(big) / dim
    turn = expm(shape_rate / 2 * (big - along * np.eye(dim)))
    return mean + root @ g, root * np.exp(scale_rate / 2 * along) @ turn


def snes(
    mean: np.ndarray, sigma: np.ndarray, eps: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """m + σ Σ u z, σ exp(½ η Σ u (z² − 1)): Wierstra et al. (2014), algorithm 6."""
    dim = len(mean)
    rate = (3 + np.log(dim)) / (5 * np.sqrt(dim))
    u = utilities(values)
    return mean + sigma * (u @ eps), sigma * np.exp(rate / 2 * (u @ (eps**2 - 1)))


@dataclass
class CMA:
    """Hansen (2016), figure 6 and table 1.

    The root of C is carried along, A⁺ = A (A⁻¹ C⁺ A⁻ᵀ)^½, or with `symmetric` taken
    anew as C^½ as the tutorial does: the path p_σ is C⁻½-white in either frame.
    """

    mean: np.ndarray
    sigma: float
    popsize: int
    symmetric: bool = False
    diagonal: bool = False
    generation: int = 0
    c: np.ndarray = field(init=False)
    root: np.ndarray = field(init=False)
    scale_path: np.ndarray = field(init=False)
    shape_path: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.dim = n = len(self.mean)
        self.c, self.root = np.eye(n), np.eye(n)
        self.scale_path, self.shape_path = np.zeros(n), np.zeros(n)

    def points(self, eps: np.ndarray) -> np.ndarray:
        return self.mean + self.sigma * eps @ self.root.T

    def tell(self, eps: np.ndarray, values: np.ndarray) -> None:
        n, lam = self.dim, self.popsize
        raw = np.log((lam + 1) / 2) - np.log(np.arange(1, lam + 1))
        mu = lam // 2
        mu_eff = raw[:mu].sum() ** 2 / (raw[:mu] ** 2).sum()
        negative = raw[mu:].sum() ** 2 / (raw[mu:] ** 2).sum()
        c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
        c_one = 2 / ((n + 1.3) ** 2 + mu_eff)
        c_mu = 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff)
        if self.diagonal:
            c_one, c_mu = c_one * (n + 2) / 3, c_mu * (n + 2) / 3
        c_mu = min(1 - c_one, c_mu)
        bound = min(
            1 + c_one / c_mu,
            1 + 2 * negative / (mu_eff + 2),
            (1 - c_one - c_mu) / (n * c_mu),
        )
        w = np.where(
            raw >= 0,
            raw / raw[raw > 0].sum(),
            bound * raw / -raw[raw < 0].sum(),
        )
        c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
        d_sigma = 1 + 2 * max(0, np.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma
        chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))

        order = np.argsort(values)
        z, y = eps[order], eps[order] @ self.root.T
        step = w[:mu] @ y[:mu]
        self.mean = self.mean + self.sigma * step
        self.scale_path = (1 - c_sigma) * self.scale_path + np.sqrt(
            c_sigma * (2 - c_sigma) * mu_eff
        ) * np.linalg.solve(self.root, step)
        length = np.linalg.norm(self.scale_path)
        age = 1 - (1 - c_sigma) ** (2 * (self.generation + 1))
        moving = length / np.sqrt(age) < (1.4 + 2 / (n + 1)) * chi
        self.shape_path = (1 - c_c) * self.shape_path
        if moving:
            self.shape_path = self.shape_path + np.sqrt(c_c * (2 - c_c) * mu_eff) * step
        stall = 0 if moving else c_one * c_c * (2 - c_c)

        c = (1 + stall - c_one - c_mu * w.sum()) * self.c
        c += c_one * np.outer(self.shape_path, self.shape_path)
        for k in range(lam):
            weight = w[k] if w[k] >= 0 else w[k] * n / (z[k] @ z[k])
            c += c_mu * weight * np.outer(y[k], y[k])
        self._turn(np.diag(np.diag(c)) if self.diagonal else c)
        self.sigma *= np.exp(min(1, c_sigma / d_sigma * (length / chi - 1)))
        self.generation += 1

    def _turn(self, c: np.ndarray) -> None:
        if self.symmetric:
            self.root = np.real(sqrtm(c))
        else:
            inverse = np.linalg.inv(self.root)
            self.root = self.root @ np.real(sqrtm(inverse @ c @ inverse.T))
        self.c = c


@dataclass
class FastMoving:
    """CR-FM-NES: Nomura and Ono (2022), algorithm 1; one sum for each draw."""

    mean: np.ndarray
    sigma: float
    diagonal: np.ndarray
    """D, with det D² (1 + ‖v‖²) = 1."""
    v: np.ndarray
    popsize: int
    scale_path: np.ndarray = field(init=False)
    shape_path: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.scale_path, self.shape_path = np.zeros((2, len(self.mean)))

    def stretched(self, eps: np.ndarray) -> np.ndarray:
        square = self.v @ self.v
        unit = self.v / np.sqrt(square)
        return eps + (np.sqrt(1 + square) - 1) * np.outer(eps @ unit, unit)

    def points(self, eps: np.ndarray) -> np.ndarray:
        return self.mean + self.sigma * self.diagonal * self.stretched(eps)

    def tell(self, eps: np.ndarray, values: np.ndarray) -> str:
        """Which of its states the search is in."""
        d, lam = len(self.mean), self.popsize
        ranks = np.argsort(np.argsort(values)) + 1
        raw = np.maximum(0, np.log(lam / 2 + 1) - np.log(ranks))
        mu = raw.sum() ** 2 / (raw**2).sum()
        raw = np.array([raw[values == value].mean() for value in values])
        by_rank = raw / raw.sum() - 1 / lam
        c_sigma = (mu + 2) / (d + mu + 5)
        c_c = (4 + mu / d) / (d + 4 + 2 * mu / d)
        c_one = 2 / ((d + 1.3) ** 2 + mu) * (d - 5) / 6
        chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
        eta_b = np.tanh((min(0.02 * lam, 3 * np.log(d)) + 5) / (0.23 * d + 25))

        def excess(a: float) -> float:
            return (1 + a**2) * np.exp(a**2 / 2) / 0.24 - 10 - d

        alpha = brentq(excess, 0, 10) * min(1, np.sqrt(lam / d))
        self.scale_path = (1 - c_sigma) * self.scale_path
        self.scale_path += np.sqrt(c_sigma * (2 - c_sigma) * mu) * (by_rank @ eps)
        length = np.linalg.norm(self.scale_path)
        weights = by_rank
        if length >= chi:
            found, eta_sigma = "moving", 1.0
            far = raw * np.exp(alpha * np.linalg.norm(eps, axis=1))
            weights = far / far.sum() - 1 / lam
        elif length >= 0.1 * chi:
            found = "stagnating"
            eta_sigma = np.tanh((0.024 * lam + 0.7 * d + 20) / (d + 12))
        else:
            found = "converging"
            eta_sigma = 2 * np.tanh((0.025 * lam + 0.75 * d + 10) / (d + 4))

        x = self.points(eps)
        shift = weights @ (x - self.mean)
        self.shape_path = (1 - c_c) * self.shape_path
        self.shape_path += np.sqrt(c_c * (2 - c_c) * mu) * shift / self.sigma
        self.mean = self.mean + shift

        square = self.v @ self.v
        draws = np.vstack([self.stretched(eps), self.shape_path / self.diagonal])
        of_draws = np.append(eta_b * weights, c_one)
        steps = [vd_direction(self.v, y) for y in draws]
        grow = sum(w * s for w, (s, _) in zip(of_draws, steps, strict=True))
        turn = sum(w * t for w, (_, t) in zip(of_draws, steps, strict=True))
        self.v = self.v + turn / np.sqrt(square)
        self.diagonal = self.diagonal * (1 + grow)
        log_det = np.log(self.diagonal).sum() + np.log(1 + self.v @ self.v) / 2
        self.diagonal = self.diagonal / np.exp(log_det / d)
        trace = (weights @ (eps**2 - 1)).sum() / d
        self.sigma *= np.exp(eta_sigma / 2 * trace)
        return found


def vd_direction(v: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """s and t of one draw: Akimoto, Auger and Hansen (2014), theorem 3.2."""
    square = v @ v
    unit = v / np.sqrt(square)
    gamma, flat = 1 + square, unit**2
    alpha = np.sqrt(square**2 + (2 * gamma - np.sqrt(gamma)) / flat.max())
    alpha = min(1.0, alpha / (2 + square))
    b = -(1 - alpha**2) * square**2 / gamma + 2 * alpha**2
    h = 2 - (b + 2 * alpha**2) * flat
    t = y * (y @ unit) - unit / 2 * ((y @ unit) ** 2 + gamma)
    s = y**2 - square / gamma * (y @ unit) * y * unit - 1
    s = s - alpha / gamma * ((2 + square) * unit * t - square * (unit @ t) * flat)
    s = s / h - b * ((flat / h) @ s) / (1 + b * (flat / h) @ flat) * flat / h
    t = t - alpha * ((2 + square) * unit * s - (flat @ s) * unit)
    return s, t


@dataclass
class AdaptiveRates:
    """Nomura, Akimoto and Ono (2023), around `CMA`: whose every step is shortened."""

    inner: CMA
    mean_rate: float = 1.0
    shape_rate: float = 1.0
    signals: list = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])

    def tell(self, eps: np.ndarray, values: np.ndarray) -> None:
        inner, d = self.inner, self.inner.dim
        mean, root = inner.mean, inner.sigma * inner.root
        inner.tell(eps, values)
        shift = inner.mean - mean
        growth = inner.sigma**2 * inner.c - root @ root.T
        white = np.linalg.inv(root)
        local = white @ shift, (white @ growth @ white.T).ravel() / np.sqrt(2)
        rates = [self.mean_rate, self.shape_rate]
        for k, (delta, beta) in enumerate(zip(local, (0.1, 0.03), strict=True)):
            e = (1 - beta) * self.signals[2 * k] + beta * delta
            v = (1 - beta) * self.signals[2 * k + 1] + beta * (delta @ delta)
            self.signals[2 * k : 2 * k + 2] = [e, v]
            snr = (e @ e - beta / (2 - beta) * v) / (v - e @ e)
            relative = np.clip(snr / (1.4 * rates[k]) - 1, -1, 1)
            rate = rates[k] * np.exp(min(0.1 * rates[k], beta) * relative)
            rates[k] = min(rate, 1.0)
        inner.mean = mean + rates[0] * shift
        whole = root @ root.T + rates[1] * growth
        scale = np.linalg.det(whole) ** (1 / (2 * d))
        turn = np.real(sqrtm(white @ whole @ white.T))
        inner.root, inner.c = root @ turn / scale, whole / scale**2
        inner.sigma = scale * self.mean_rate / rates[0]
        self.mean_rate, self.shape_rate = rates


def pgpe(
    mean: np.ndarray,
    sigma: np.ndarray,
    eps: np.ndarray,
    values: np.ndarray,
    rate: float,
    shape_rate: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Sehnke et al. (2010), algorithm 2, with centered ranks over n for rewards; the
    rates are times σ²: of pairs [e; −e], the first half of `eps`."""
    n = len(values)
    reward = (0.5 - np.argsort(np.argsort(values)) / (n - 1)) / n
    shift, growth = np.zeros_like(mean), np.zeros_like(sigma)
    for i in range(n // 2):
        e, plus, minus = sigma * eps[i], reward[i], reward[i + n // 2]
        shift += e * (plus - minus) / 2
        growth += (e**2 - sigma**2) / sigma * ((plus + minus) / 2)
    return mean + 2 * rate * shift, sigma + 2 * shape_rate * growth


@dataclass
class Adam:
    """Kingma and Ba (2015), algorithm 1, ascending."""

    rate: float
    step: int = 0
    first: float | np.ndarray = 0.0
    second: float | np.ndarray = 0.0

    def move(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.step += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.step)
        second = self.second / (1 - 0.999**self.step)
        return x + self.rate * first / (np.sqrt(second) + 1e-8)


def sampling_confidence(
    values: np.ndarray,
    x: np.ndarray,
    now: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
) -> float:
    """The weighted Mann-Whitney test of Schaul (2011), appendix B, pair by pair."""
    weights = np.exp(
        multivariate_normal(*other).logpdf(x) - multivariate_normal(*now).logpdf(x)
    )
    n, total, u = len(x), weights.sum(), 0.0
    for value, weight in zip(values, weights, strict=True):
        for rival in values:
            u += weight * (0.5 if value == rival else float(value < rival))
    deviation = np.sqrt(n * total * (n + total + 1) / 12)
    return float(norm.cdf((u - n * total / 2) / deviation))
