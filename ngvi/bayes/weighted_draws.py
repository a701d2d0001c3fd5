"""Draws as q: of a Markov chain, or weighed by importance. They have no density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ngvi.bayes.importance import KHAT_LIMIT, efficiency
from ngvi.bayes.verdict import Verdict
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal

# A full covariance of more dimensions is not formed, nor one of too few draws.
_LARGEST_DENSE = 1000
_FEWEST_EFFECTIVE = 400
"""Effective draws below which means and sds are no better than a rough guide."""
_VOUCHED_KHAT = 0.5
_VOUCHED_EFFICIENCY = 0.3
RHAT_LIMIT = 1.02
DIVERGING_LIMIT = 0.005


@dataclass(frozen=True)
class Evidence:
    """What vouches for draws that have no density."""

    source: Literal["importance", "NUTS"]
    effective: float
    """Effective sample size; of NUTS that of the worst coordinate."""
    khat: float = float("nan")
    efficiency: float = float("nan")
    """Effective sample size over the number of draws, of importance weights."""
    rhat: float = float("nan")
    """Split r-hat, of the worst coordinate."""
    diverging: float = 0.0
    """The part of the steps that diverged."""

    @property
    def verdict(self) -> Verdict:
        """How far the draws can be trusted."""
        if self.source == "importance":
            return self._of_weights()
        return self._of_chains()

    def _of_weights(self) -> Verdict:
        reasons = [
            f"Draws reweighted by p/q: Pareto k-hat {self.khat:.2f}, "
            f"{self.effective:,.0f} effective draws ({self.efficiency:.0%})."
        ]
        refine = "posterior.refine() goes on to a mixture or NUTS."
        if not self.khat < KHAT_LIMIT:
            reasons.append(f"Above {KHAT_LIMIT} the weights vouch for nothing.")
            return Verdict("do not trust", tuple(reasons), (refine,))
        if not vouched(self.khat, self.efficiency):
            reasons.append(
                "So few of the draws carry the weight that what they miss of the tails "
                "may not show."
            )
            return Verdict("means only", tuple(reasons), (refine,))
        if self.effective < _FEWEST_EFFECTIVE:
            reasons.append(f"They are fewer than {_FEWEST_EFFECTIVE}.")
            return Verdict("means only", tuple(reasons), (refine,))
        return Verdict("trustworthy", tuple(reasons), ())

    def _of_chains(self) -> Verdict:
        reasons = (
            f"NUTS: r-hat at most {self.rhat:.3f}, at least {self.effective:,.0f} "
            f"effective draws, {self.diverging:.2%} of the steps diverged.",
        )
        longer = (
            "Run longer chains, posterior.nuts(num_samples=…, "
            "target_accept_prob=0.99), or reparameterise the model.",
        )
        if self.rhat < RHAT_LIMIT and self.effective >= _FEWEST_EFFECTIVE:
            if self.diverging <= DIVERGING_LIMIT:
                return Verdict("trustworthy", reasons, ())
            return Verdict("means only", reasons, longer)
        return Verdict("do not trust", reasons, longer)


def vouched(khat: float, efficiency: float) -> bool:
    """Whether importance weights tell enough to stand for the posterior.

    k-hat is itself estimated, and optimistic where q is too narrow for its draws to
    reach the tails: near its limit the weights must be even, too.
    """
    even = efficiency > _VOUCHED_EFFICIENCY
    return khat < _VOUCHED_KHAT or (khat < KHAT_LIMIT and even)


@dataclass(frozen=True)
class WeightedDraws:
    """Σ_i w_i δ(z − z_i)."""

    points: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, "n"]
    """Summing to 1."""
    evidence: Evidence
    coordinate_effective: Float[np.ndarray, "d"]
    """Effective sample size for the mean of each coordinate."""

    @property
    def kind(self) -> str:
        """What it is."""
        return f"{len(self.points):,d} draws"

    @property
    def dim(self) -> int:
        """D."""
        return self.points.shape[1]

    @property
    def dtype(self) -> Any:
        """Of its draws."""
        return self.points.dtype

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian that has their mean and covariance; where that has too many
        numbers, independent coordinates."""
        mean = self.weights @ self.points
        centred = self.points - mean
        spread = np.maximum(self.weights @ centred**2, np.finfo(self.dtype).tiny)
        enough = 4 * self.dim < 1 / (self.weights**2).sum()
        if self.dim <= _LARGEST_DENSE and enough:
            covariance = (self.weights[:, None] * centred).T @ centred
            precision = Dense.from_moments(jnp.asarray(covariance))
            return Gaussian(jnp.asarray(mean), precision)
        return Gaussian(jnp.asarray(mean), Diagonal(jnp.asarray(1 / np.sqrt(spread))))

    def draws(self, count: int, rng: np.random.Generator) -> Float[Array, "s d"]:
        """Each as often as its weight says, rounded up or down, in random order."""
        places = (np.arange(count) + rng.random()) / count
        order = rng.permutation(len(self.points))
        edges = np.cumsum(self.weights[order])
        chosen = np.searchsorted(edges / edges[-1], places)
        index = order[np.minimum(chosen, len(order) - 1)]
        return jnp.asarray(self.points[rng.permutation(index)])

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "s d"]:
        """Draws from among these, with replacement."""
        logits = jnp.log(jnp.asarray(self.weights))
        return jnp.asarray(self.points)[
            jax.random.categorical(key, logits, shape=(count,))
        ]

    def log_prob(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """NaN: there is no density."""
        return jnp.full(points.shape[0], jnp.nan, points.dtype)

    def mean_errors(
        self,
        points: Float[Array, "s d"],
        values: Float[np.ndarray, "s k"],
        coordinates: Int[np.ndarray, "k"],
    ) -> Float[np.ndarray, "k"]:
        """Monte Carlo standard errors; of a quantity that is of no coordinate alone,
        with the worst coordinate's effective sample size."""
        sizes = np.append(self.coordinate_effective, self.evidence.effective)
        return values.std(0) / np.sqrt(sizes[coordinates])


def from_weights(points: np.ndarray, weights: np.ndarray, khat: float) -> WeightedDraws:
    """Draws with Pareto-smoothed importance weights.

    Args:
        points: shape (S, D).
        weights: summing to 1, shape (S,).
        khat: of the weights.
    """
    even = efficiency(weights)
    mean = weights @ points
    # That of a mean: (Σ w²(z − m)²)⁻¹ Σ w(z − m)².
    spread = (weights[:, None] * (points - mean) ** 2).sum(0)
    noise = (weights[:, None] ** 2 * (points - mean) ** 2).sum(0)
    sizes = spread / np.maximum(noise, np.finfo(points.dtype).tiny)
    effective = even * len(points)
    evidence = Evidence("importance", effective, khat=khat, efficiency=even)
    return WeightedDraws(points, weights, evidence, sizes)


def from_chains(points: Float[np.ndarray, "c n d"], diverging: float) -> WeightedDraws:
    """Draws of Markov chains.

    Args:
        points: of C chains, N each.
        diverging: the part of the steps that diverged.
    """
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = float(np.nan_to_num(split_gelman_rubin(points), nan=np.inf).max())
        sizes = np.nan_to_num(effective_sample_size(points), nan=1.0)
    flat = points.reshape(-1, points.shape[-1])
    sizes = np.clip(sizes, 1.0, len(flat))
    evidence = Evidence("NUTS", float(sizes.min()), rhat=rhat, diverging=diverging)
    return WeightedDraws(flat, np.full(len(flat), 1 / len(flat)), evidence, sizes)
