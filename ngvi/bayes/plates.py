"""The tree of blocks that a NumPyro model's plates make of its parameters.

Latent sites in the same plates are blocks, one for each index; sites in more plates
stand on those in fewer, all others are the border, the root of the tree. That is what
the model's text says of conditional independence. Whether its density keeps to it is
measured: if two blocks do not meet, a Hessian-vector product with a vector on the one
is zero on the other. Random halves of the blocks of a level show in a few products
which levels keep to the pattern. Those that do not (a random walk over a plate, two
plates that are crossed in the data) go to the border, the smaller of two first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.model_trace import Trace
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.target import Data, Target
from ngvi.linalg import Level, Piece, Tree

_HALVES = 6
"""Random halves of each level's blocks; a pair that meets escapes all with (1/2)⁶."""


@dataclass(frozen=True)
class Group:
    """Latent sites in the same plates."""

    plates: tuple[str, ...]
    sites: tuple[str, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Coordinates in all."""
        return sum(piece.size for piece in self.pieces)

    def axis(self, piece: Piece, plate: str) -> int | None:
        """That of a plate in one of the pieces."""
        if plate not in self.plates:
            return None
        return piece.plates[self.plates.index(plate)]

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of indices of each plate."""
        first = self.pieces[0]
        return tuple(first.shape[axis] for axis in first.plates)


@dataclass(frozen=True)
class Plates:
    """The border, and the groups of blocks, those in fewer plates first."""

    border: Group
    groups: tuple[Group, ...]

    def without(self, group: Group) -> Plates:
        """A group's sites moved to the border."""
        pieces = tuple(Piece(p.start, p.shape) for p in group.pieces)
        border = Group((), self.border.sites + group.sites, self.border.pieces + pieces)
        return Plates(border, tuple(g for g in self.groups if g != group))

    def parent(self, group: Group) -> Group | None:
        """The group in most of the plates of this one; None if that is the border."""
        fewer = [g for g in self.groups if set(g.plates) < set(group.plates)]
        return max(fewer, key=lambda g: len(g.plates), default=None)

    @property
    def all(self) -> tuple[Group, ...]:
        """The border, if there is one, and the groups: a level of the tree each."""
        return (self.border, *self.groups) if self.border.pieces else self.groups

    def share(self, plate: str, devices: int) -> Plates:
        """What each of some devices has if they share out the blocks of a plate."""
        pieces = [(g, p) for g in self.all for p in g.pieces]
        moved, start = {}, 0
        for group, piece in sorted(pieces, key=lambda pair: pair[1].start):
            shape, axis = list(piece.shape), group.axis(piece, plate)
            if axis is not None:
                shape[axis] //= devices
            moved[piece.start] = replace(piece, start=start, shape=tuple(shape))
            start += moved[piece.start].size
        border, *groups = (
            replace(g, pieces=tuple(moved[p.start] for p in g.pieces))
            for g in (self.border, *self.groups)
        )
        return Plates(border, tuple(groups))

    def conflicts(self) -> Iterator[tuple[Group, Group]]:
        """Groups on which one stands that do not stand on each other."""
        for group in self.groups:
            fewer = [g for g in self.groups if set(g.plates) < set(group.plates)]
            for one in fewer:
                for other in fewer:
                    if not related(one, other):
                        yield one, other

    def tree(self) -> Tree:
        """The levels: the border, if there is one, then the groups."""
        levels, index = [], {}
        root = 0 if self.border.pieces else None
        if self.border.pieces:
            levels.append(Level(self.border.pieces))
        for group in self.groups:
            parent = self.parent(group)
            outer = () if parent is None else parent.plates
            # Blocks in the order of their parents: the parent's plates come first.
            order = (*outer, *(p for p in group.plates if p not in outer))
            places = [group.plates.index(name) for name in order]
            pieces = tuple(
                Piece(p.start, p.shape, tuple(p.plates[i] for i in places))
                for p in group.pieces
            )
            index[group.plates] = len(levels)
            above = root if parent is None else index[parent.plates]
            levels.append(Level(pieces, above))
        return Tree(tuple(levels))


def related(one: Group, other: Group) -> bool:
    """Whether one is in all the plates of the other."""
    a, b = set(one.plates), set(other.plates)
    return a <= b or b <= a


def read_plates(target: ModelTarget, trace: Trace) -> Plates:
    """Groups of sites by their plates, as the recorded run of the model has them."""
    found: dict[frozenset[str], list[tuple[str, dict[str, int], Piece]]] = {}
    for start, site in zip(target.starts, target.sites, strict=True):
        record = trace[site.name]
        batch = len(site.shape) - record["fn"].event_dim
        axes = {
            frame.name: batch + frame.dim
            for frame in record["cond_indep_stack"]
            if batch + frame.dim >= 0
            and site.unconstrained_shape[batch + frame.dim] == frame.size
        }
        piece = Piece(start, site.unconstrained_shape)
        found.setdefault(frozenset(axes), []).append((site.name, axes, piece))
    groups = []
    for names, members in found.items():
        # Of one order for all sites of the group.
        plates = tuple(sorted(names))
        pieces = tuple(
            Piece(piece.start, piece.shape, tuple(axes[name] for name in plates))
            for _, axes, piece in members
        )
        groups.append(Group(plates, tuple(name for name, _, _ in members), pieces))
    border = next((g for g in groups if not g.plates), Group((), (), ()))
    rest = sorted((g for g in groups if g.plates), key=lambda g: len(g.plates))
    return Plates(border, tuple(rest))


# -- measured --------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1))
def _products(
    target: Target,
    at_once: int,
    data: Data,
    point: Float[Array, "d"],
    vectors: Float[Array, "n d"],
) -> Float[Array, "n d"]:
    """∇²(−log p) v."""
    gradient = jax.grad(partial(target.potential, data))

    def product(v: Float[Array, "d"]) -> Float[Array, "d"]:
        return jax.jvp(gradient, (point,), (v,))[1]

    return jax.lax.map(product, vectors, batch_size=at_once)


def nothing(found: np.ndarray) -> np.ndarray:
    """What of each row of a product is rounding."""
    return 1e3 * np.finfo(found.dtype).eps * found.max(1, keepdims=True)


def _over(blocks: np.ndarray, group: Group, dim: int) -> np.ndarray:
    """An array over a group's blocks as a vector, zero at the other coordinates."""
    vector = np.zeros(dim, blocks.dtype)
    for piece in group.pieces:
        # The axes of the piece are in another order, and it has more of them.
        shape = [1] * len(piece.shape)
        for axis in piece.plates:
            shape[axis] = piece.shape[axis]
        whole = blocks.transpose(np.argsort(piece.plates)).reshape(shape)
        rows = slice(piece.start, piece.start + piece.size)
        vector[rows] = np.broadcast_to(whole, piece.shape).ravel()
    return vector


def _related_to(half: np.ndarray, group: Group, other: Group) -> np.ndarray:
    """Over the blocks of another group, those on or below one of the half."""
    if not related(group, other):
        return np.zeros(other.counts, bool)
    lost = tuple(i for i, name in enumerate(group.plates) if name not in other.plates)
    shared = [
        n if name in group.plates else 1
        for name, n in zip(other.plates, other.counts, strict=True)
    ]
    return np.broadcast_to(half.any(lost).reshape(shared), other.counts)


def _meeting_at(
    products: Callable[[Array], Array], plates: Plates, dim: int, dtype: np.dtype
) -> list[tuple[Group, Group]] | None:
    """The pairs that meet in one Hessian; None where that is not finite."""
    rng = np.random.default_rng(0)
    pairs = []
    for group in plates.groups:
        evenly = np.arange(np.prod(group.counts)) % 2 == 0
        halves = [rng.permutation(evenly).reshape(group.counts) for _ in range(_HALVES)]
        vectors = np.stack([_over(half, group, dim) for half in halves])
        vectors = (vectors * rng.standard_normal(dim)).astype(dtype)
        found = np.abs(np.asarray(products(jnp.asarray(vectors))))
        if not np.isfinite(found).all():
            return None
        for other in plates.groups:
            apart = [~_related_to(half, group, other) for half in halves]
            elsewhere = np.stack([_over(blocks, other, dim) for blocks in apart])
            if (elsewhere & (found > nothing(found))).any():
                pairs.append((group, other))
    return pairs


def meeting(
    target: Target, data: Data, point: Float[Array, "d"], plates: Plates
) -> list[tuple[Group, Group]]:
    """Pairs of groups with blocks that meet though the plates say that they do not.

    Raises:
        ValueError: no Hessian can be formed, or it is not finite around `point`.
    """
    dtype = np.asarray(point).dtype
    return measured(
        target,
        data,
        point,
        lambda products: _meeting_at(products, plates, target.dim, dtype),
    )


Found = TypeVar("Found")


def measured(
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    measure: Callable[[Callable[[Array], Array]], Found | None],
    at_once: int = 1,
) -> Found:
    """What Hessian-vector products tell near a point.

    Args:
        target: what is fitted.
        data: its arrays.
        point: where the fit starts.
        measure: of the function that multiplies rows of vectors by the Hessian; None
            where its products are not finite.
        at_once: vectors that are multiplied in one go.

    Raises:
        ValueError: no Hessian can be formed, or it is not finite around `point`.
    """
    point = jnp.asarray(point)
    shift = np.random.default_rng(0).standard_normal(target.dim).astype(point.dtype)
    for spread in (0.1, 0.01, 0.0):
        place = point + spread * shift
        try:
            found = measure(partial(_products, target, at_once, data, place))
        except (TypeError, NotImplementedError) as error:
            # As of a custom derivative that has no forward mode.
            why = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"no Hessian-vector product can be had: {why}") from error
        if found is not None:
            return found
    raise ValueError("its second derivatives are not finite at the start")
