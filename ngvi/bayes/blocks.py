"""Independent blocks of a model's sites, each with a family on its own support.

A mean field over blocks is q(x) = Π q_b(x_b). A target speaks of unconstrained
coordinates z, a family of x = g(z) on the site's support, so that

    log q(z) = Σ_b log q_b(g_b(z_b)) + log |∂g_b/∂z_b|.

The members of a block are the independent parts of its sites: one for each entry of
their plates. What is static about a block is hashable and keys compiled programs; the
members are pytrees of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from ngvi.families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    ExponentialFamily,
    Gamma,
    Gaussian,
    InverseGamma,
    InverseWishart,
    NormalGamma,
    NormalInverseWishart,
    VonMises,
    Wishart,
)
from ngvi.families.normal_gamma import MeanAndPrecision
from ngvi.families.normal_inverse_wishart import MeanAndCovariance
from ngvi.linalg import Dense
from ngvi.mirror.frames import Members

_POSITIVE, _MATRIX = constraints.positive, constraints.positive_definite
SUPPORTS: dict[type[ExponentialFamily], Any] = {
    Gamma: _POSITIVE,
    InverseGamma: _POSITIVE,
    Beta: constraints.unit_interval,
    Dirichlet: constraints.simplex,
    Wishart: _MATRIX,
    InverseWishart: _MATRIX,
    VonMises: constraints.circular,
}
"""Where a family of one site lives."""
PAIRS: dict[type[ExponentialFamily], tuple[Any, Any]] = {
    NormalGamma: (MeanAndPrecision, _POSITIVE),
    NormalInverseWishart: (MeanAndCovariance, _MATRIX),
}
"""Families over two sites: their event, and the support of its second part."""
DISCRETE = (Bernoulli, Categorical)


@dataclass(frozen=True)
class Block:
    """A few sites under one family."""

    sites: tuple[str, ...]
    family: type[ExponentialFamily]
    index: tuple[tuple[int, ...], ...]
    """The coordinates of each member, (M, d)."""
    first: int = 0
    """Of a family over two sites, how many coordinates are the first one's."""
    low: int = 0
    """The lowest value of a discrete site."""
    classes: int = 0
    """How many values a discrete site has; 0 for a continuous one."""

    @property
    def name(self) -> str:
        """Of its sites."""
        return ", ".join(self.sites)

    @property
    def count(self) -> int:
        """M."""
        return len(self.index)

    @property
    def coordinates(self) -> np.ndarray:
        """The index as an array, (M, d)."""
        return np.array(self.index)

    def take(self, z: Float[Array, "*b d"]) -> Float[Array, "*b m k"]:
        """Its coordinates of whole points."""
        return z[..., self.coordinates]

    def put(
        self, z: Float[Array, "*b d"], part: Float[Array, "*b m k"]
    ) -> Float[Array, "*b d"]:
        """Whole points with these coordinates in their place."""
        return z.at[..., self.coordinates].set(part)

    def constrain(self, part: Float[Array, "*b m k"]) -> Any:
        """x of the coordinates, (*b, M, *event)."""
        if self.family in PAIRS:
            event, support = PAIRS[self.family]
            mean, second = part[..., : self.first], part[..., self.first :]
            scalar = self.family is NormalGamma
            return event(mean[..., 0] if scalar else mean, _constrain(support, second))
        if self.family in SUPPORTS:
            return _constrain(SUPPORTS[self.family], part)
        return part[..., 0] - self.low if self.classes else part

    def unconstrain(self, x: Any) -> Float[Array, "*b m k"]:
        """The coordinates of x."""
        if self.family in PAIRS:
            mean = x[0][..., None] if self.family is NormalGamma else x[0]
            second = _unconstrain(PAIRS[self.family][1], x[1])
            return jnp.concatenate([mean, second], -1)
        if self.family in SUPPORTS:
            return _unconstrain(SUPPORTS[self.family], x)
        return x[..., None] + self.low if self.classes else x

    def log_det(self, part: Float[Array, "*b m k"]) -> Float[Array, "*b m"]:
        """log |∂x/∂z|."""
        if self.family in PAIRS:
            return _log_det(PAIRS[self.family][1], part[..., self.first :])
        if self.family in SUPPORTS:
            return _log_det(SUPPORTS[self.family], part)
        return jnp.zeros(part.shape[:-1], part.dtype)


def _scalar(support: Any) -> bool:
    return support.event_dim == 0


def _constrain(support: Any, part: Array) -> Array:
    return biject_to(support)(part[..., 0] if _scalar(support) else part)


def _unconstrain(support: Any, x: Array) -> Array:
    part = biject_to(support).inv(x)
    return part[..., None] if _scalar(support) else part


def _log_det(support: Any, part: Array) -> Array:
    transform = biject_to(support)
    z = part[..., 0] if _scalar(support) else part
    return transform.log_abs_det_jacobian(z, transform(z))


Blocks = tuple[Block, ...]


def base_sizes(blocks: Blocks, members: Members) -> list[int]:
    """How many standard normals each block's draws are placed by."""
    return [b.count * q.base_size for b, q in zip(blocks, members, strict=True)]


def place(
    blocks: Blocks,
    members: Members,
    eps: Float[Array, "n e"],
    into: Float[Array, "n d"],
) -> Float[Array, "n d"]:
    """Draws from the blocks, put in their places.

    Args:
        blocks: some or all.
        members: of each.
        eps: base draws, those of each block side by side.
        into: where the coordinates go; all others stay.
    """
    ends = np.cumsum(base_sizes(blocks, members))[:-1]
    parts = zip(blocks, members, jnp.split(eps, ends, axis=-1), strict=True)
    for block, q, part in parts:
        x = q.place(part.reshape(len(eps), block.count, q.base_size))
        into = block.put(into, block.unconstrain(x))
    return into


def log_prob(
    blocks: Blocks, members: Members, z: Float[Array, "n d"]
) -> Float[Array, "n"]:
    """log q at unconstrained points."""
    total = jnp.zeros(z.shape[:-1], z.dtype)
    for block, q in zip(blocks, members, strict=True):
        part = block.take(z)
        total += (q.log_prob(block.constrain(part)) + block.log_det(part)).sum(-1)
    return total


def entropy(members: Members) -> Float[Array, ""]:
    """Of the members together, on their supports."""
    return sum((q.entropy().sum() for q in members), start=jnp.zeros(()))


def independent(mean: Float[Array, "m k"], sd: Float[Array, "m k"]) -> Gaussian:
    """Gaussians of independent coordinates, with room for correlations."""
    return Gaussian(mean, jax.vmap(Dense.from_deviations)(sd))


def start_member(block: Block, z: Float[Array, "d"]) -> Any:
    """A wide member around a point.

    Args:
        block: the block.
        z: the whole point, unconstrained.
    """
    part = block.take(z)
    x, one = block.constrain(part), jnp.ones(block.count, z.dtype)
    family: Any = block.family
    if family is Gaussian:
        return independent(part, jnp.ones_like(part))
    if family is Bernoulli:
        return Bernoulli(0 * one)
    if family is Categorical:
        return Categorical(jnp.zeros((block.count, block.classes), z.dtype))
    if family in (Gamma, InverseGamma):
        return family(3 * one, 3 / x if family is Gamma else 2 * x)
    if family is Beta:
        p = jnp.clip(x, 0.05, 0.95)
        return Beta(4 * p, 4 * (1 - p))
    if family is Dirichlet:
        return Dirichlet(2 * x.shape[-1] * jnp.maximum(x, 0.02))
    if family is VonMises:
        return VonMises(x, one)
    if family is NormalGamma:
        return NormalGamma(x.mean, one, 3 * one, 3 / x.precision)
    matrix = x.covariance if family is NormalInverseWishart else x
    df = (matrix.shape[-1] + 4) * one
    if family is Wishart:
        return Wishart(df, matrix / df[:, None, None])
    if family is InverseWishart:
        return InverseWishart(df, 3 * matrix)
    return NormalInverseWishart(x.mean, one, df, 3 * matrix)
