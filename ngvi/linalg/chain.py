"""Which coordinates of a vector meet in a matrix: steps of a chain, and a border.

In a time series the state at one time meets the states next to it, and what all times
share. So the coordinates fall into *blocks* of consecutive steps, all equally large,
and a *border*: block t meets itself, blocks t ± 1 and the border. Where states meet
those of w steps before (an autoregression of order w), a block is w steps. Steps that
do not fill a last block are in the border.

A symmetric matrix with this pattern is block-tridiagonal with an arrow's border, and
held as `Bands`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import join, split, symmetric
from ngvi.linalg.chain_bands import Bands
from ngvi.linalg.tree import Piece


@dataclass(frozen=True)
class Chain:
    """T steps and a border.

    Args:
        pieces: arrays with one axis of length T, along which the steps lie.
        border: all other coordinates.
        width: w, the steps in a block.
    """

    pieces: tuple[Piece, ...]
    border: tuple[Piece, ...] = ()
    width: int = 1

    def __post_init__(self) -> None:
        counts = {piece.count for piece in self.pieces}
        if len(counts) != 1 or any(len(piece.plates) != 1 for piece in self.pieces):
            raise ValueError("the pieces of a chain must have one axis of equal length")
        if not 1 <= self.width <= self.steps:
            raise ValueError(
                f"a block must have 1 to {self.steps} of the steps, not {self.width}"
            )
        reached = 0
        for piece in self._in_order:
            if piece.start != reached:
                raise ValueError(f"no piece or several begin at coordinate {reached}")
            reached += piece.size

    @property
    def _in_order(self) -> list[Piece]:
        return sorted((*self.pieces, *self.border), key=lambda piece: piece.start)

    @property
    def _widths(self) -> list[int]:
        return [piece.size // piece.count for piece in self.pieces]

    @property
    def steps(self) -> int:
        """T."""
        return self.pieces[0].count

    @property
    def count(self) -> int:
        """n, the number of blocks."""
        return self.steps // self.width

    @property
    def size(self) -> int:
        """b, the coordinates of one block."""
        return self.width * sum(self._widths)

    @cached_property
    def dim(self) -> int:
        """The number of coordinates, D."""
        return sum(piece.size for piece in self._in_order)

    @property
    def rest(self) -> int:
        """p, the coordinates of the border and of steps that fill no block."""
        return self.dim - self.count * self.size

    @property
    def numbers(self) -> int:
        """How many numbers a matrix is held as."""
        n, b, p = self.count, self.size, self.rest
        return n * b * (b + p) + (n - 1) * b**2 + p**2

    # -- vectors -------------------------------------------------------------------

    def cut(
        self, x: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b n b"], Float[Array, "*b p"]]:
        """The blocks of a vector, and its border."""
        lead, whole = x.shape[:-1], self.count * self.width
        steps = jnp.concatenate([piece.cut(x) for piece in self.pieces], -1)
        blocks = steps[..., :whole, :].reshape(*lead, self.count, self.size)
        left = steps[..., whole:, :].reshape(*lead, -1)
        shared = [piece.cut(x)[..., 0, :] for piece in self.border]
        return blocks, jnp.concatenate([*shared, left], -1)

    def paste(
        self, blocks: Float[Array, "*b n b"], border: Float[Array, "*b p"]
    ) -> Float[Array, "*b d"]:
        """The inverse of `cut`."""
        lead = jnp.broadcast_shapes(blocks.shape[:-2], border.shape[:-1])
        border = jnp.broadcast_to(border, (*lead, self.rest))
        sizes = [piece.size for piece in self.border]
        *shared, left = split(border, [*sizes, self.rest - sum(sizes)])
        blocks = jnp.broadcast_to(blocks, (*lead, *blocks.shape[-2:]))
        each = (*lead, -1, sum(self._widths))
        steps = jnp.concatenate([blocks.reshape(each), left.reshape(each)], -2)
        columns = split(steps, self._widths)
        parts = [
            *(
                (p, p.paste(column))
                for p, column in zip(self.pieces, columns, strict=True)
            ),
            *(
                (p, p.paste(part[..., None, :]))
                for p, part in zip(self.border, shared, strict=True)
            ),
        ]
        return join([part for _, part in sorted(parts, key=lambda pair: pair[0].start)])

    # -- matrices known by their products ------------------------------------------

    @property
    def _period(self) -> int:
        # Blocks three apart meet in no row.
        return min(self.count, 3)

    @property
    def colours(self) -> int:
        """Products that tell a matrix: three blocks' and the border's coordinates."""
        return self._period * self.size + self.rest

    def probes(self, dtype: jnp.dtype) -> Float[Array, "colours d"]:
        """For each colour the sum of its unit vectors: coordinates of one colour meet
        in no row outside of the border."""
        k, n, b, p = self._period, self.count, self.size, self.rest
        turns = jnp.arange(n) % k == jnp.arange(k)[:, None]
        blocks = turns[:, None, :, None] * jnp.eye(b, dtype=dtype)[:, None, :]
        return self.paste(
            jnp.pad(blocks.reshape(k * b, n, b), ((0, p), (0, 0), (0, 0))),
            jnp.pad(jnp.eye(p, dtype=dtype), ((k * b, 0), (0, 0))),
        )

    def read(self, products: Float[Array, "colours d"]) -> Bands:
        """The matrix that maps the probes to these products."""
        k, n, b = self._period, self.count, self.size
        blocks, border = self.cut(products)
        # Axes: period, column, block, row.
        of_blocks = blocks[: k * b].reshape(k, b, n, b)
        steps = jnp.arange(n)
        own = of_blocks[steps % k, :, steps]
        after = of_blocks[steps[:-1] % k, :, steps[1:]]
        return Bands(
            symmetric(own),
            after.mT,
            jnp.moveaxis(blocks[k * b :], 0, -2),
            symmetric(border[k * b :]),
        )
