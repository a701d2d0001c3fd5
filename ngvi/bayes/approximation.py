"""What a posterior asks of q, the distribution on ℝᴰ that stands for it.

`ngvi.Posterior` computes every summary and every check from draws, log q and a few
facts; whatever gives these may be q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.families import Gaussian
from ngvi.mirror.draws import antithetic, sobol_normals

_LARGEST_SLOPES = 25_000_000
_PROBES = 64


class Approximation(Protocol):
    """q on the unconstrained space."""

    @property
    def kind(self) -> str:
        """What it is, in a few words for people."""
        ...

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def dtype(self) -> Any:
        """Of its draws."""
        ...

    @property
    def gaussian(self) -> Gaussian:
        """Itself, or the Gaussian that has its mean and covariance."""
        ...

    def draws(self, count: int, rng: np.random.Generator) -> Float[Array, "s d"]:
        """Draws for summaries: as evenly spread as can be, in random order."""
        ...

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "s d"]:
        """Independent draws."""
        ...

    def log_prob(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """log q."""
        ...

    def mean_errors(
        self,
        points: Float[Array, "s d"],
        values: Float[np.ndarray, "s k"],
        coordinates: Int[np.ndarray, "k"],
    ) -> Float[np.ndarray, "k"]:
        """Standard errors of the means of K quantities: what q's own parameters leave
        uncertain, since a fit has seen finitely many draws.

        Args:
            points: from `draws`.
            values: of the quantities there.
            coordinates: which coordinate of q a quantity is a function of by itself,
                −1 where it is not of one alone.

        Returns:
            The standard errors; NaN where there is none.
        """
        ...


# Operation by operation each would be a dozen small programs to compile.
_place = jax.jit(Gaussian.place)
_log_prob = jax.jit(Gaussian.log_prob)


@dataclass(frozen=True)
class GaussianApproximation:
    """A Gaussian q, from a fit or given."""

    gaussian: Gaussian
    mean_variance: Float[np.ndarray, "d"]
    """Squared standard errors of the whitened mean from the finite draws of the fit."""

    @property
    def kind(self) -> str:
        """What it is."""
        return "a Gaussian"

    @property
    def dim(self) -> int:
        """D."""
        return self.gaussian.dim

    @property
    def dtype(self) -> Any:
        """Of its draws."""
        return self.gaussian.mean.dtype

    def draws(self, count: int, rng: np.random.Generator) -> Float[Array, "s d"]:
        """Matched Sobol draws, so that Gaussian moments are exact, in random order."""
        half = sobol_normals(self.dim, count // 2, rng)
        eps = rng.permutation(antithetic(half))
        return _place(self.gaussian, jnp.asarray(eps, self.dtype))

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "s d"]:
        """Independent draws."""
        return self.gaussian.sample(key, (count,))

    def log_prob(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """log q."""
        return _log_prob(self.gaussian, points)

    def mean_errors(
        self,
        points: Float[Array, "s d"],
        values: Float[np.ndarray, "s k"],
        coordinates: Int[np.ndarray, "k"],
    ) -> Float[np.ndarray, "k"]:
        """From the finite draws of the fit.

        A shift δ of the whitened mean moves E[f] by Cov(f, ε)·δ (Stein's lemma). Where
        there are too many slopes to compute, a quantity of one coordinate has that
        one's share of its sd, and others have none (NaN).
        """
        if values.shape[1] * self.dim > _LARGEST_SLOPES:
            relative = np.append(self._relative_errors(), np.nan)
            return values.std(0) * relative[coordinates]
        eps = np.asarray(self.gaussian.precision.whiten(points - self.gaussian.mean))
        slopes = (values - values.mean(0)).T @ eps / len(values)
        return np.sqrt(slopes**2 @ self.mean_variance)

    def _relative_errors(self) -> Float[np.ndarray, "d"]:
        """Standard errors of the coordinates' means in sds, by random signs."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, self.dim))
        shifts = jnp.asarray(np.sqrt(self.mean_variance) * signs, self.dtype)
        moved = np.asarray(jax.device_get(self.gaussian.precision.unwhiten(shifts)))
        return np.sqrt((moved**2).mean(0) / np.asarray(self.gaussian.variance))
