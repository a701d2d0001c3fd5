"""A mixture of Gaussians as q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.families import Gaussian, Mixture
from ngvi.mirror.draws import antithetic, sobol_normals


@dataclass(frozen=True)
class MixtureApproximation:
    """Σ_k w_k N(m_k, S_k⁻¹), from a fit or given."""

    mixture: Mixture
    mean_variance: Float[np.ndarray, "k d"] | None = None
    """Squared standard errors of the components' whitened means from the finite draws
    of a fit."""

    @property
    def kind(self) -> str:
        """What it is."""
        count = len(self.mixture.logits)
        return f"a mixture of {count} Gaussian{'s' if count > 1 else ''}"

    @property
    def dim(self) -> int:
        """D."""
        return self._components.dim

    @property
    def dtype(self) -> Any:
        """Of its draws."""
        return self._components.mean.dtype

    @property
    def _components(self) -> Gaussian:
        components = self.mixture.components
        assert isinstance(components, Gaussian)
        return components

    @property
    def gaussian(self) -> Gaussian:
        """The Gaussian that has its mean and covariance."""
        weights, parts = self.mixture.weights, self._components
        centre = weights @ parts.mean
        shift = parts.mean - centre
        each = parts.precision.inverse_dense() + shift[:, :, None] * shift[:, None, :]
        return Gaussian.from_covariance(centre, jnp.tensordot(weights, each, 1))

    def draws(self, count: int, rng: np.random.Generator) -> Float[Array, "s d"]:
        """Every component's share of pairs of Sobol draws, matched within it, in random
        order."""
        edges = np.cumsum(np.asarray(self.mixture.weights, float))
        pairs = count // 2
        places = (np.arange(pairs) + rng.random()) / pairs
        which = np.minimum(np.searchsorted(edges, places), len(edges) - 1)
        parts = [
            antithetic(sobol_normals(self.dim, int(number), rng))
            for number in np.bincount(which, minlength=len(edges))
            if number
        ]
        order = rng.permutation(2 * pairs)
        owners = np.concatenate([which, which])
        owners = owners[np.argsort(owners, kind="stable")][order]
        eps = jnp.asarray(np.concatenate(parts)[order], self.dtype)
        return _placed(self._components, jnp.asarray(owners), eps)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "s d"]:
        """Independent draws."""
        of_owners, of_draws = jax.random.split(key)
        owners = jax.random.categorical(of_owners, self.mixture.logits, shape=(count,))
        eps = jax.random.normal(of_draws, (count, self.dim), self.dtype)
        return _placed(self._components, owners, eps)

    def log_prob(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """log q."""
        return log_density(self.mixture, points)

    def mean_errors(
        self,
        points: Float[Array, "s d"],
        values: Float[np.ndarray, "s k"],
        coordinates: Int[np.ndarray, "k"],
    ) -> Float[np.ndarray, "k"]:
        """From the finite draws of the fit, the components' errors taken for
        independent: a shift δ of the whitened mean of one of them moves E[f] by
        w_k Cov_k(f, ε)·δ."""
        if self.mean_variance is None:
            return np.full(values.shape[1], np.nan)
        shares = np.asarray(responsibilities(self.mixture, points))
        total = np.zeros(values.shape[1])
        for k, variance in enumerate(self.mean_variance):
            q_k = jax.tree.map(lambda leaf, k=k: leaf[k], self._components)
            eps = np.asarray(q_k.precision.whiten(points - q_k.mean))
            share = shares[:, k] / max(shares[:, k].sum(), 1e-300)
            centred = values - share @ values
            slopes = (shares[:, k, None] * centred).T @ eps / len(values)
            total += slopes**2 @ variance
        return np.sqrt(total)


@jax.jit
def log_density(mixture: Mixture, points: Float[Array, "s d"]) -> Float[Array, "s"]:
    """log q of the marginal of x, as one program."""
    return mixture.marginal_log_prob(points)


@jax.jit
def responsibilities(
    mixture: Mixture, points: Float[Array, "s d"]
) -> Float[Array, "s k"]:
    """The components' shares in q at points."""
    return mixture.responsibilities(points)


@jax.jit
def _placed(
    components: Gaussian, owners: Int[Array, "s"], eps: Float[Array, "s d"]
) -> Float[Array, "s d"]:
    """Where base draws lie under the components that they belong to."""

    def of_all(k: Array, found: Array) -> Array:
        q_k = jax.tree.map(lambda leaf: leaf[k], components)
        return jnp.where((owners == k)[:, None], q_k.place(eps), found)

    count = components.mean.shape[0]
    return jax.lax.fori_loop(0, count, of_all, jnp.zeros_like(eps))
