"""Which coordinates of a vector meet in a matrix: levels of blocks, each on a parent.

A hierarchical model has parameters of its own for every group, which meet those of the
other groups only through what all of them share. So the coordinates fall into *blocks*
and the blocks into *levels*: all blocks of a level are equally large, and each stands
on one block of the parent level, or on none. Two coordinates meet (the matrix may be
nonzero there) if their blocks are equal or one is an ancestor of the other: an arrow,
or an arrow whose shaft is made of arrows.

The blocks of a level are in the order of their parents, so that those on one parent are
neighbours and sums over children are sums over an axis.

A symmetric matrix with this pattern is held as `Blocks`: for every level a tuple with
an array (*c, G, a, d) for the level itself, its parent, and so on upward, where G is
the level's number of blocks, d their size and a the ancestor's. `Blocks` are also what
lower triangular matrices are held as (leaves come first, so that ancestors are below).

Eliminating blocks leaves-first fills in nothing, since the ancestors of a block all
meet each other; for the same reason these triangular matrices are a group.

The blocks of some levels can be shared out over devices: then the tree of each device
has its own blocks of these and all of the others, and so have its vectors and matrices.
Sums over all blocks of a level go between the devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import join
from ngvi.linalg.blocks import total

Blocks = tuple[tuple[Array, ...], ...]
"""The parts of a matrix with a tree's pattern, level by level, upward from each."""

Parts = list[Array]
"""A vector cut into (*b, G, d), one array a level."""


@dataclass(frozen=True)
class Piece:
    """Consecutive coordinates that are an array with an axis for every plate."""

    start: int
    shape: tuple[int, ...]
    plates: tuple[int, ...] = ()
    """The axes along which the blocks lie, those of the outermost ancestor first."""

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """The number of blocks that have a share in it."""
        return math.prod(self.shape[axis] for axis in self.plates)

    @property
    def _order(self) -> tuple[int, ...]:
        others = (a for a in range(len(self.shape)) if a not in self.plates)
        return (*self.plates, *others)

    def cut(self, x: Float[Array, "*b d"]) -> Float[Array, "*b g w"]:
        """Each block's share of a vector."""
        lead = x.shape[:-1]
        piece = x[..., self.start : self.start + self.size]
        axes = [len(lead) + axis for axis in self._order]
        whole = piece.reshape(*lead, *self.shape)
        return whole.transpose(*range(len(lead)), *axes).reshape(*lead, self.count, -1)

    def paste(self, shares: Float[Array, "*b g w"]) -> Float[Array, "*b s"]:
        """The inverse of `cut`: this piece of the vector."""
        lead = shares.shape[:-2]
        whole = shares.reshape(*lead, *(self.shape[axis] for axis in self._order))
        places = sorted(range(len(self.shape)), key=self._order.__getitem__)
        axes = [len(lead) + axis for axis in places]
        return whole.transpose(*range(len(lead)), *axes).reshape(*lead, self.size)


@dataclass(frozen=True)
class Level:
    """Equally large blocks, made of the same pieces."""

    pieces: tuple[Piece, ...]
    parent: int | None = None
    """The index of the level they stand on."""
    shares: int = 1
    """The number of devices that have as many blocks each, if not all have the same."""

    @property
    def count(self) -> int:
        """G, the number of blocks; of one device."""
        return self.pieces[0].count

    @property
    def widths(self) -> list[int]:
        """The coordinates of each piece in one block."""
        return [piece.size // self.count for piece in self.pieces]

    @property
    def size(self) -> int:
        """d, the coordinates of one block."""
        return sum(self.widths)


@dataclass(frozen=True)
class Tree:
    """Levels of blocks, parents before children."""

    levels: tuple[Level, ...]
    axis: str | None = None
    """Of the devices over which levels are shared out, see `jax.shard_map`."""

    def __post_init__(self) -> None:
        for k, level in enumerate(self.levels):
            if len({piece.count for piece in level.pieces}) != 1:
                raise ValueError(f"level {k}: its pieces have unequal block counts")
            if level.parent is None:
                continue
            if not 0 <= level.parent < k:
                raise ValueError(f"level {k}: its parent must come before it")
            if level.count % self.levels[level.parent].count:
                raise ValueError(
                    f"level {k} has {level.count} blocks, which do not stand evenly on "
                    f"the {self.levels[level.parent].count} of its parent"
                )
        reached = 0
        for _, _, piece in self._pieces:
            if piece.start != reached:
                raise ValueError(f"no piece or several begin at coordinate {reached}")
            reached += piece.size

    @cached_property
    def _pieces(self) -> list[tuple[int, int, Piece]]:
        """(level, first column of its block, piece), in the order of the vector."""
        pieces = []
        for k, level in enumerate(self.levels):
            column = 0
            for piece, width in zip(level.pieces, level.widths, strict=True):
                pieces.append((k, column, piece))
                column += width
        return sorted(pieces, key=lambda entry: entry[2].start)

    @cached_property
    def dim(self) -> int:
        """The number of coordinates, D; of one device."""
        return sum(level.count * level.size for level in self.levels)

    @property
    def whole_dim(self) -> int:
        """The number of coordinates that all devices have together."""
        return sum(level.count * level.size * level.shares for level in self.levels)

    @cached_property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """For every level: itself, its parent, and so on upward."""
        chains: list[tuple[int, ...]] = []
        for k, level in enumerate(self.levels):
            above = () if level.parent is None else chains[level.parent]
            chains.append((k, *above))
        return tuple(chains)

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """The levels on which none stands."""
        parents = {level.parent for level in self.levels}
        return tuple(k for k in range(len(self.levels)) if k not in parents)

    @property
    def numbers(self) -> int:
        """How many numbers a matrix is held as."""
        return sum(
            level.count * level.size * self.levels[a].size
            for level, chain in zip(self.levels, self.chains, strict=True)
            for a in chain
        )

    @property
    def depth(self) -> int:
        """Coordinates in the longest chain of blocks, from a leaf to its root."""
        return max(sum(self.levels[a].size for a in chain) for chain in self.chains)

    @property
    def colours(self) -> int:
        """Products that tell a matrix, see `probes`."""
        return self.depth

    # -- vectors -------------------------------------------------------------------

    def cut(self, x: Float[Array, "*b d"]) -> Parts:
        """The vector, level by level."""
        return [
            jnp.concatenate([piece.cut(x) for piece in level.pieces], -1)
            for level in self.levels
        ]

    def paste(self, parts: Sequence[Array]) -> Float[Array, "*b d"]:
        """The inverse of `cut`."""
        pieces = []
        for k, column, piece in self._pieces:
            width = piece.size // piece.count
            pieces.append(piece.paste(parts[k][..., column : column + width]))
        return join(pieces)

    # -- between devices -----------------------------------------------------------

    def joined(self, level: int, above: int, x: Array) -> Array:
        """A sum over the blocks on each block of a level above, from each device's."""
        apart = self.levels[level].shares > 1 and self.levels[above].shares == 1
        return jax.lax.psum(x, self.axis) if apart else x

    def total(self, of_levels: Sequence[Array]) -> Array:
        """A sum over all blocks, from those over each level's."""
        pairs = list(zip(self.levels, of_levels, strict=True))
        shared = [x for level, x in pairs if level.shares > 1]
        common = [x for level, x in pairs if level.shares == 1]
        return total(
            [*common, jax.lax.psum(total(shared), self.axis)] if shared else common
        )

    def added_up(self, parts: Parts) -> Parts:
        """Vectors to which all devices add something in the blocks that all have."""
        if self.axis is None:
            return parts
        return [
            jax.lax.psum(part, self.axis) if level.shares == 1 else part
            for level, part in zip(self.levels, parts, strict=True)
        ]

    # -- matrices known by their products ------------------------------------------

    def _first_colour(self, level: int) -> int:
        return sum(self.levels[a].size for a in self.chains[level][1:])

    def probes(self, dtype: jnp.dtype) -> Float[Array, "colours d"]:
        """For each colour the sum of its unit vectors: coordinates of one colour meet
        in no row, and there are as many colours as the longest chain is deep."""
        parts = []
        for k, level in enumerate(self.levels):
            first = self._first_colour(k)
            rows = jnp.eye(self.depth, dtype=dtype)[:, first : first + level.size]
            shape = (self.depth, level.count, level.size)
            parts.append(jnp.broadcast_to(rows[:, None, :], shape))
        return self.paste(parts)

    def read(self, products: Float[Array, "colours d"]) -> Blocks:
        """The matrix that maps the probes to these products."""
        blocks = []
        parts = self.added_up(self.cut(products))
        for part, chain in zip(parts, self.chains, strict=True):
            upward = []
            for a in chain:
                first = self._first_colour(a)
                rows = part[first : first + self.levels[a].size]
                upward.append(jnp.moveaxis(rows, 0, -2))
            upward[0] = (upward[0] + upward[0].mT) / 2
            blocks.append(tuple(upward))
        return tuple(blocks)
