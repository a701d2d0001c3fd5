"""A product of families on the sites' own supports as the q of a posterior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.bayes import blocks as of_blocks
from ngvi.bayes.blocks import DISCRETE, Blocks
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.frames import Members, retraction

_MOMENT_DRAWS = 4096
_LARGEST_DENSE = 500
_LARGEST_SLOPES = 4_000_000


_place = jax.jit(of_blocks.place, static_argnums=0)
_log_prob = jax.jit(of_blocks.log_prob, static_argnums=0)


@partial(jax.jit, static_argnums=(0, 1))
def _scores(
    blocks: Blocks, chosen: Blocks, members: Members, z: Float[Array, "n d"]
) -> Float[Array, "n k"]:
    """∂ log q/∂ξ of the members of some blocks, in their frame, at each point."""
    own = tuple(q for b, q in zip(blocks, members, strict=True) if b in chosen)
    move, size = retraction(own)

    def score(point: Float[Array, "d"]) -> Float[Array, "k"]:
        def log_q(xi: Float[Array, "k"]) -> Float[Array, ""]:
            return of_blocks.log_prob(chosen, move(xi), point[None])[0]

        return jax.grad(log_q)(jnp.zeros(size, z.dtype))

    return jax.vmap(score)(z)


@dataclass(frozen=True)
class ProductApproximation:
    """Independent blocks, each under its own family."""

    blocks: Blocks
    members: Members
    """One for each block, a batch of its independent parts."""
    dim: int
    """D."""
    fitted: Blocks = ()
    """Those whose parameters finite draws have left uncertain."""
    errors: Float[np.ndarray, "n"] | None = None
    """Squared standard errors of their parameters, in the members' frame."""

    @property
    def kind(self) -> str:
        """What it is."""
        return "a mean field of " + ", ".join(str(line) for line in self.lines())

    def lines(self) -> list[str]:
        """Each block with its family."""
        return [f"{b.name}: {b.family.__name__}" for b in self.blocks]

    @property
    def factors(self) -> dict[str, Any]:
        """The members by the names of their sites, each a batch of its parts."""
        names = [b.name for b in self.blocks]
        return dict(zip(names, self.members, strict=True))

    @property
    def dtype(self) -> Any:
        """Of its draws."""
        return jax.tree.leaves(self.members)[0].dtype

    @property
    def _base_size(self) -> int:
        return sum(of_blocks.base_sizes(self.blocks, self.members))

    def _placed(self, eps: Array | np.ndarray) -> Float[Array, "s d"]:
        into = jnp.zeros((len(eps), self.dim), self.dtype)
        return _place(self.blocks, self.members, jnp.asarray(eps, self.dtype), into)

    def draws(self, count: int, rng: np.random.Generator) -> Float[Array, "s d"]:
        """Matched Sobol normals placed by the members, in random order."""
        half = sobol_normals(self._base_size, count // 2, rng)
        return self._placed(rng.permutation(antithetic(half)))

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "s d"]:
        """Independent draws."""
        return self._placed(
            jax.random.normal(key, (count, self._base_size), self.dtype)
        )

    def log_prob(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """log q."""
        return _log_prob(self.blocks, self.members, points)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian with its mean and covariance, on the unconstrained space."""
        z = np.asarray(self.draws(_MOMENT_DRAWS, np.random.default_rng(0)))
        mean, centred = z.mean(0), z - z.mean(0)
        # A discrete site that is all but certain has no variance.
        least = np.sqrt(np.finfo(z.dtype).eps)
        if self.dim > _LARGEST_DENSE:
            sd = np.sqrt((centred**2).mean(0) + least)
            return Gaussian(jnp.asarray(mean), Diagonal(jnp.asarray(1 / sd)))
        covariance = centred.T @ centred / len(z) + least * np.eye(self.dim)
        return Gaussian(jnp.asarray(mean), Dense.from_moments(jnp.asarray(covariance)))

    def mean_errors(
        self,
        points: Float[Array, "s d"],
        values: Float[np.ndarray, "s k"],
        coordinates: Int[np.ndarray, "k"],
    ) -> Float[np.ndarray, "k"]:
        """From the finite draws of the fit: a shift δ of the parameters in their frame
        moves E[f] by Cov(f, score)·δ."""
        if self.errors is None or not self.errors.size:
            return np.zeros(values.shape[1])
        if values.shape[0] * self.errors.size > _LARGEST_SLOPES:
            return np.full(values.shape[1], np.nan)
        chosen = tuple(b for b in self.fitted if b.family not in DISCRETE)
        scores = np.asarray(_scores(self.blocks, chosen, self.members, points))
        slopes = (values - values.mean(0)).T @ scores / len(values)
        return np.sqrt(slopes**2 @ self.errors)
