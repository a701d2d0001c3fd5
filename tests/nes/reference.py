"""Published updates in NumPy, one loop for each sum: slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import expm, sqrtm


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
