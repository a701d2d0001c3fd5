"""A Gaussian as plain arrays and back, so that a saved posterior can be a prior.

The roots are stored, not the precision: factorising it anew would lose digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families import Gaussian
from ngvi.linalg import (
    BlockArrow,
    Chain,
    ChainArrow,
    Dense,
    Diagonal,
    LearnedLowRank,
    Level,
    Piece,
    PositiveDefinite,
    Tree,
)

_KINDS = ("BlockArrow", "ChainArrow", "Dense", "Diagonal", "LearnedLowRank")


def store(q: Gaussian) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, and what else there is to know as plain values.

    Raises:
        TypeError: no such precision can be stored.
    """
    kind = type(q.precision).__name__
    if kind not in _KINDS:
        raise TypeError(f"a {kind} precision has no form in a file")
    leaves = jax.device_get(jax.tree.leaves(q.precision))
    arrays = {"mean": np.asarray(q.mean)}
    arrays |= {f"precision_{i}": leaf for i, leaf in enumerate(leaves)}
    plain: dict[str, Any] = {"precision": kind}
    if isinstance(q.precision, BlockArrow):
        plain["levels"] = [asdict(level) for level in q.precision.tree.levels]
    if isinstance(q.precision, ChainArrow):
        plain["chain"] = asdict(q.precision.chain)
    return arrays, plain


def restore(arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> Gaussian:
    """The Gaussian that `store` took apart."""
    mean = jnp.asarray(arrays["mean"])
    count = len(arrays) - 1
    leaves = [jnp.asarray(arrays[f"precision_{i}"]) for i in range(count)]
    like: PositiveDefinite
    if plain["precision"] == "BlockArrow":
        like = BlockArrow.identity(_tree(plain["levels"]), mean.dtype)
    elif plain["precision"] == "ChainArrow":
        like = ChainArrow.identity(_chain(plain["chain"]), mean.dtype)
    elif plain["precision"] == "LearnedLowRank":
        like = LearnedLowRank.from_factor(mean, mean[:, None])
    elif plain["precision"] == "Dense":
        like = Dense(mean, mean)
    else:
        like = Diagonal(mean)
    return Gaussian(mean, jax.tree.unflatten(jax.tree.structure(like), leaves))


def _tree(levels: list[dict[str, Any]]) -> Tree:
    return Tree(
        tuple(Level(_pieces(level["pieces"]), level["parent"]) for level in levels)
    )


def _chain(chain: dict[str, Any]) -> Chain:
    return Chain(_pieces(chain["pieces"]), _pieces(chain["border"]), chain["width"])


def _pieces(pieces: list[dict[str, Any]]) -> tuple[Piece, ...]:
    """From lists, which JSON makes of tuples."""
    return tuple(
        Piece(piece["start"], tuple(piece["shape"]), tuple(piece["plates"]))
        for piece in pieces
    )
