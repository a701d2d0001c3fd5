"""Precisions whose inverse is a diagonal stretched along a few directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import apply, diagonal_matrix, dot, symmetric, times
from ngvi.pytrees import pytree


class SpikeTangent(NamedTuple):
    """How one spike C = δ(I + v vᵀ)δ and its diagonal change, P⁺ ≈ B (I + X) Bᵀ."""

    log_precision: Float[Array, "*c d"]
    """−2 dδ/δ."""
    stretch: Float[Array, "*c d"]
    """−dv."""


@pytree
class SpikedCovariance(PositiveDefinite):
    """P⁻¹ = C = δ (I + Q diag(s) Qᵀ) δ with a diagonal δ and k orthonormal columns Q.

    O(D k) for anything. With β = √(1 + s) − 1,

        A = δ (I + Q diag(β) Qᵀ),   B = δ⁻¹ (I − Q diag(β/(1 + β)) Qᵀ).

    There are two ways to move it. `absorb` steps in C, out of the structure, and takes
    the nearest member. `tangent` and `retract` step within the structure where there is
    one spike, v = √s Q, along the natural gradient of that family: all of a symmetric
    matrix that counts are its diagonal and its product with v.

    Args:
        deviations: δ > 0.
        axes: Q.
        spikes: s > −1; the variance along Q is 1 + s times that across.

    Source: Akimoto, Auger and Hansen (2014), Comparison-based natural gradient
    optimization in high dimension; Akimoto and Hansen (2016), Projection-based
    restricted covariance matrix adaptation for high dimension.
    """

    deviations: Float[Array, "*c d"]
    axes: Float[Array, "*c d k"]
    spikes: Float[Array, "*c k"]

    @classmethod
    def from_deviations(cls, sd: Float[Array, "*c d"], rank: int = 1) -> Self:
        """These standard deviations, and `rank` generic directions √2 times as long.

        A spike of nothing would have no direction to grow in. The volume is that of
        independent coordinates.
        """
        dim = sd.shape[-1]
        normals = jax.random.normal(jax.random.key(0), (dim, min(rank, dim)), sd.dtype)
        axes = jnp.linalg.qr(normals)[0]
        axes = jnp.broadcast_to(axes, (*sd.shape[:-1], *axes.shape))
        spikes = jnp.ones((*sd.shape[:-1], axes.shape[-1]), sd.dtype)
        return cls(sd * 2.0 ** (-spikes.shape[-1] / (2 * dim)), axes, spikes)

    @property
    def dim(self) -> int:
        return self.axes.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        leading = self.axes.shape[:-2], self.spikes.shape[:-1]
        return jnp.broadcast_shapes(self.deviations.shape[:-1], *leading)

    @property
    def _longer(self) -> Float[Array, "*c k"]:
        """β, without cancellation."""
        return self.spikes / (1 + jnp.sqrt(1 + self.spikes))

    def _stretch(self, x: Float[Array, "*b d"], by: Float[Array, "*c k"]) -> Array:
        """(I + Q diag(by) Qᵀ) x."""
        return x + apply(self.axes, by * times(x, self.axes))

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        shorter = -self.spikes / (1 + self.spikes)
        return self._stretch(x / self.deviations, shorter) / self.deviations

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.deviations * self._stretch(self.deviations * x, self.spikes)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        longer = self._longer
        return self._stretch(x / self.deviations, -longer / (1 + longer))

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.deviations * self._stretch(eps, self._longer)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._stretch(self.deviations * g, self._longer)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        """−2 Σ log δ − Σ log(1 + s)."""
        return -2 * jnp.log(self.deviations).sum(-1) - jnp.log1p(self.spikes).sum(-1)

    def diagonal(self) -> Float[Array, "*c d"]:
        squares = self.axes**2
        shrunk = 1 - apply(squares, self.spikes / (1 + self.spikes))
        # Never less than 1/Cᵢᵢ, which it is where the difference loses its digits.
        below = 1 / (1 + apply(squares, self.spikes))
        return jnp.maximum(shrunk, below) / self.deviations**2

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return self.deviations**2 * (1 + apply(self.axes**2, self.spikes))

    def _dense(self, by: Float[Array, "*c k"]) -> Float[Array, "*c d d"]:
        identity = jnp.eye(self.dim, dtype=self.axes.dtype)
        return identity + (self.axes * by[..., None, :]) @ self.axes.mT

    def dense(self) -> Float[Array, "*c d d"]:
        inside = self._dense(-self.spikes / (1 + self.spikes))
        outside = diagonal_matrix(1 / self.deviations)
        return outside @ inside @ outside

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        outside = diagonal_matrix(self.deviations)
        return outside @ self._dense(self.spikes) @ outside

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        deviations = self.deviations / jnp.sqrt(c)[..., None]
        return type(self)(deviations, self.axes, self.spikes)

    # -- steps -------------------------------------------------------------------

    def absorb(
        self,
        eps: Float[Array, "n *c d"],
        weights: Float[Array, "n"],
        keep: float | Float[Array, ""],
    ) -> Self:
        """C⁺ ≈ A (keep I + Σ wᵢ εᵢεᵢᵀ) Aᵀ: its diagonal exactly, and its longest axes.

        These are looked for where they are likely, in what C⁺ makes of Q and along ε₀:
        one step of subspace iteration. Repeated steps find the others.

        Args:
            eps: vectors in the frame, the most promising first.
            weights: theirs, of any sign as long as C⁺ is positive definite.
            keep: the part of C that stays.
        """
        y = jnp.moveaxis(self._stretch(eps, self._longer), 0, -2)

        def product(x: Float[Array, "*c d j"]) -> Array:
            """What is between δ and δ in C⁺, times x."""
            spiked = self.axes @ (self.spikes[..., None] * (self.axes.mT @ x))
            return keep * (x + spiked) + y.mT @ (weights[:, None] * (y @ x))

        added = jnp.einsum("j,...jd->...d", weights, y**2)
        diagonal = keep * (1 + apply(self.axes**2, self.spikes)) + added
        likely = jnp.concatenate([product(self.axes), y[..., :1, :].mT], -1)
        basis = jnp.linalg.qr(likely)[0]
        lengths, turn = jnp.linalg.eigh(symmetric(basis.mT @ product(basis)))
        count = self.spikes.shape[-1]
        lengths, axes = lengths[..., -count:], basis @ turn[..., -count:]
        rest = (diagonal.sum(-1) - lengths.sum(-1)) / (self.dim - count)
        spikes = jnp.maximum(lengths / rest[..., None] - 1, 0)
        inside = 1 + apply(axes**2, spikes)
        return type(self)(self.deviations * jnp.sqrt(diagonal / inside), axes, spikes)

    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> SpikeTangent:
        """The natural gradient of one spike along Sym(mean εᵢ gᵢᵀ) in the frame."""
        axis = self.axes[..., 0]
        along, of_g = (
            x @ axis if axis.ndim == 1 else (x * axis).sum(-1) for x in (eps, g)
        )
        both = jnp.einsum("n...,n...d->...d", of_g, eps)
        both = both + jnp.einsum("n...,n...d->...d", along, g)
        return self._natural((eps * g).mean(0), both / (2 * len(eps)))

    def tangent_identity(self) -> SpikeTangent:
        """That along the identity."""
        return self._natural(jnp.ones_like(self.deviations), self.axes[..., 0])

    def _natural(
        self, diagonal: Float[Array, "*c d"], along: Float[Array, "*c d"]
    ) -> SpikeTangent:
        """From diag(M) and M v̄ of a symmetric M in the frame.

        The Fisher matrix of (log δ, v) is inverted by elimination. Its blocks off the
        diagonal are shortened by α ≤ 1 where v leans so much on one coordinate that the
        rest would not be safely positive.
        """
        axis, spike = self.axes[..., 0], self.spikes
        squares = axis**2
        grown = 1 + spike
        # diag(S) and S v̄, S = (I + βv̄v̄ᵀ) M (I + βv̄v̄ᵀ).
        longer, both = self._longer, dot(along, axis)
        s_diagonal = diagonal + longer * (2 * axis * along + longer * squares * both)
        s_along = jnp.sqrt(grown) * (along + longer * both * axis)

        largest = squares.max(-1, keepdims=True)
        inside = spike**2 + (2 * grown - jnp.sqrt(grown)) / largest
        alpha = jnp.minimum(1, jnp.sqrt(inside) / (2 + spike))
        turn = s_along - axis * dot(s_along, axis) / 2
        grow = s_diagonal - spike / grown * axis * s_along
        grow = grow - alpha / grown * (
            (2 + spike) * axis * turn - spike * squares * dot(turn, axis)
        )
        b = 2 * alpha**2 - (1 - alpha**2) * spike**2 / grown
        scaled = 1 / (2 - (b + 2 * alpha**2) * squares)
        leaning = scaled * squares
        correction = b / (1 + b * dot(squares, leaning)) * dot(grow, leaning)
        grow = scaled * grow - correction * leaning
        turn = turn - alpha * ((2 + spike) * grow * axis - axis * dot(grow, squares))
        return SpikeTangent(2 * grow, turn / jnp.sqrt(spike))

    def retract(
        self, direction: SpikeTangent, retraction: Callable[[Array], Array]
    ) -> Self:
        """One spike a step on: δ⁺ = δ R(x)^−½ elementwise and v⁺ = v + dv."""
        factor = jnp.sqrt(retraction(direction.log_precision))
        stretched = jnp.sqrt(self.spikes) * self.axes[..., 0] - direction.stretch
        spike = dot(stretched, stretched)
        axis = stretched / jnp.sqrt(spike)
        return type(self)(self.deviations / factor, axis[..., None], spike)
