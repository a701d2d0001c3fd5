"""Tensors cut into blocks of one size, each with a matrix for every one of its axes.

A tensor G of order k with a matrix M_i for each axis is multiplied on all of them,

    G ×₁ M₁ ×₂ … ×_k M_k,   for a matrix M₁ G M₂ᵀ,

and has a Gram matrix G_(i) G_(i)ᵀ for each, of its unfolding along axis i.

A long axis is cut into parts, as equal as possible and zeros at the end of the last, so
that the blocks are one array: zeros add nothing to a Gram matrix and stay zero.

Source: Gupta, Koren and Singer (2018), Shampoo: preconditioned stochastic tensor
optimization; Anil, Gupta, Koren, Regan and Singer (2020), Scalable second order
optimization for deep learning, for blocks and merged axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Blocked = Float[Array, "n *b"]
"""The blocks of a tensor, along the first axis."""


@dataclass(frozen=True)
class Blocks:
    """How a tensor is cut.

    Args:
        shape: of the tensor.
        axes: the sizes of its axes once small ones are merged.
        counts: how many parts of each.
        sizes: of the parts.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], largest: int) -> Blocks:
        """Of a tensor, no axis of a block larger than this."""
        axes = merged(shape, largest)
        counts = tuple(-(-size // largest) for size in axes)
        sizes = tuple(-(-a // c) for a, c in zip(axes, counts, strict=True))
        return cls(shape, axes, counts, sizes)

    @property
    def order(self) -> int:
        """k, the number of axes."""
        return len(self.axes)

    @property
    def count(self) -> int:
        """How many blocks."""
        return math.prod(self.counts)

    def inside(self, axis: int) -> Bool[np.ndarray, "n b"]:
        """Which places along an axis of each block are no padding."""
        parts = np.indices(self.counts)[axis].reshape(-1, 1)
        size = self.sizes[axis]
        return parts * size + np.arange(size) < self.axes[axis]

    def split(self, x: Float[Array, "*shape"]) -> Blocked:
        """The blocks of a tensor."""
        if self.count == 1:
            return x.reshape(1, *self.sizes)
        pairs = list(zip(self.counts, self.sizes, strict=True))
        missing = [(0, c * s - a) for a, (c, s) in zip(self.axes, pairs, strict=True)]
        x = jnp.pad(x.reshape(self.axes), missing)
        x = x.reshape([size for pair in pairs for size in pair])
        inside = range(1, 2 * self.order, 2)
        x = jnp.moveaxis(x, inside, range(self.order, 2 * self.order))
        return x.reshape(self.count, *self.sizes)

    def join(self, blocks: Blocked) -> Float[Array, "*shape"]:
        """The inverse of `split`."""
        if self.count == 1:
            return blocks.reshape(self.shape)
        x = blocks.reshape(*self.counts, *self.sizes)
        inside = range(1, 2 * self.order, 2)
        x = jnp.moveaxis(x, range(self.order, 2 * self.order), inside)
        pairs = zip(self.counts, self.sizes, strict=True)
        x = x.reshape([count * size for count, size in pairs])
        return x[tuple(slice(size) for size in self.axes)].reshape(self.shape)


def merged(shape: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """The axes of a tensor, those of size one left out and small neighbours merged.

    Matrices stay what they are; of what has more axes all but the last are merged while
    they are no larger than this: of a convolution, its window and its inputs.
    """
    axes = [size for size in shape if size != 1]
    if len(axes) <= 2:
        return tuple(axes)
    *leading, last = axes
    together = [leading[0]]
    for size in leading[1:]:
        if together[-1] * size <= largest:
            together[-1] *= size
        else:
            together.append(size)
    return (*together, last)


def along_axes(x: Blocked, matrices: Sequence[Float[Array, "n c b"]]) -> Blocked:
    """x ×₁ M₁ … ×_k M_k, block by block."""
    # Each product takes the first axis and puts its result last: k of them, and the
    # axes are in their order again.
    for matrix in matrices:
        x = jnp.einsum("nb...,ncb->n...c", x, matrix)
    return x


def gram(x: Blocked, axis: int) -> Float[Array, "n b b"]:
    """x_(i) x_(i)ᵀ, block by block."""
    rows = jnp.moveaxis(x, axis + 1, 1)
    rows = rows.reshape(*rows.shape[:2], -1)
    return rows @ rows.mT
