"""The chain of steps that a model's latent states along a time axis make.

Latent sites with an axis of the same length are states, one step for each index; all
others are the border. NumPyro does not say which axes are time (an event axis of a
random walk, the axis of a `scan`, a plate over which a prior is written with shifted
arrays), so the lengths are tried, and the density decides: a Hessian-vector product
with a vector at single steps shows how far a step reaches, w, and products with random
runs of blocks of w steps must vanish on all blocks that are not next to one of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plates import measured, nothing
from ngvi.bayes.target import Data
from ngvi.linalg import Chain, Piece

FARTHEST = 16
"""How many of the next steps a step may meet."""
_SHORTEST = 3
_OFFSETS = 4
_RUNS = 6
"""Random patterns of single blocks; of longer runs there are a third as many."""


class NoChain(Exception):
    """Why there is no chain to use; the text completes a sentence."""


@dataclass(frozen=True)
class Steps:
    """Sites along a time axis, and those in the border."""

    sites: tuple[str, ...]
    border: tuple[str, ...]
    chain: Chain

    def __str__(self) -> str:
        chain = self.chain
        size, far = chain.size // chain.width, chain.width
        reach = "the next" if far == 1 else f"the {far} next"
        names = ", ".join(self.sites)
        text = (
            f"chain of {chain.steps:,d} steps of {size} ({names}): each meets {reach}"
        )
        left = chain.steps % far
        return f"{text}, the last {left} in the border" if left else text


def _pieces(
    target: ModelTarget, length: int
) -> tuple[dict[str, Piece], dict[str, Piece]]:
    """The sites with an axis of this length, and the others."""
    states: dict[str, Piece] = {}
    border: dict[str, Piece] = {}
    for start, site in zip(target.starts, target.sites, strict=True):
        shape = site.unconstrained_shape
        axes = (shape.index(length),) if length in shape else ()
        of_kind = states if axes else border
        of_kind[site.name] = Piece(start, shape, axes)
    return states, border


def _lengths(target: ModelTarget) -> list[int]:
    """The lengths of axes, those that most coordinates have first."""
    covered: dict[int, int] = {}
    for site in target.sites:
        for length in {n for n in site.unconstrained_shape if n >= _SHORTEST}:
            covered[length] = covered.get(length, 0) + site.size
    return sorted(covered, key=lambda n: (-covered[n], -n))


def find_steps(target: ModelTarget, data: Data, point: Float[Array, "d"]) -> Steps:
    """The chain that most coordinates are in.

    Raises:
        NoChain: there is none.
        ValueError: no Hessian can be formed, or it is not finite around `point`.
    """
    lengths = _lengths(target)
    if not lengths:
        raise NoChain(f"no latent site has an axis of {_SHORTEST} steps or more")
    length = lengths[0]
    states, border = _pieces(target, length)
    names, pieces = ", ".join(states), tuple(states.values())

    def chain_of(width: int) -> Chain:
        return Chain(pieces, tuple(border.values()), width)

    dtype = np.asarray(point).dtype

    def reach(products: Callable[[Array], Array]) -> int | None:
        return _reach(products, chain_of(1), dtype)

    far = measured(target, data, point, reach, at_once=8)
    farthest = min(FARTHEST, length // _SHORTEST)
    if far > farthest:
        raise NoChain(
            f"a step of {names} meets more than the {farthest} next ones (a walk that "
            "is written as a cumulative sum does; written with each step around the "
            "last one it is a chain)"
        )
    chain = chain_of(max(far, 1))

    def apart(products: Callable[[Array], Array]) -> bool | None:
        return _apart(products, chain, dtype)

    if not measured(target, data, point, apart, at_once=8):
        raise NoChain(f"steps of {names} that are far apart meet")
    return Steps(tuple(states), tuple(border), chain)


def _over(chain: Chain, blocks: np.ndarray) -> np.ndarray:
    """A number for each block, as vectors that are zero in the border."""
    each = np.broadcast_to(blocks[..., None], (*blocks.shape, chain.size))
    border = np.zeros((*blocks.shape[:-1], chain.rest))
    return np.asarray(chain.paste(jnp.asarray(each, float), jnp.asarray(border)))


def _responses(
    products: Callable[[Array], Array],
    chain: Chain,
    active: np.ndarray,
    dtype: np.dtype,
) -> np.ndarray | None:
    """Which blocks answer to random vectors at the active ones; None if not finite."""
    noise = np.random.default_rng(0).standard_normal(chain.dim)
    vectors = (_over(chain, active) * noise).astype(dtype)
    found = np.abs(np.asarray(products(jnp.asarray(vectors))))
    if not np.isfinite(found).all():
        return None
    blocks = np.asarray(chain.cut(jnp.asarray(found))[0]).max(-1)
    return blocks > nothing(blocks)


def _reach(
    products: Callable[[Array], Array], chain: Chain, dtype: np.dtype
) -> int | None:
    """How far from a single step others answer; more than `FARTHEST` if many do."""
    n = chain.count
    period = min(2 * (FARTHEST + 1), n)
    offsets = np.random.default_rng(0).choice(period, min(_OFFSETS, period), False)
    active = (np.arange(n) - offsets[:, None]) % period == 0
    answers = _responses(products, chain, active, dtype)
    if answers is None:
        return None
    places = [np.flatnonzero(row) for row in active]
    distances = [np.abs(np.arange(n)[:, None] - row).min(1) for row in places]
    return int((answers * np.stack(distances)).max())


def _apart(
    products: Callable[[Array], Array], chain: Chain, dtype: np.dtype
) -> bool | None:
    """Whether blocks answer only to themselves and their neighbours."""
    n = chain.count
    rng = np.random.default_rng(1)
    patterns = []
    for scale in range(max(n - 1, 1).bit_length()):
        for _ in range(_RUNS if scale == 0 else _RUNS // 3):
            runs = np.repeat(rng.random(-(-n // 2**scale) + 1) < 0.5, 2**scale)
            patterns.append(np.roll(runs, -rng.integers(2**scale))[:n])
    active = np.stack(patterns)
    answers = _responses(products, chain, active, dtype)
    if answers is None:
        return None
    near = active.copy()
    near[:, 1:] |= active[:, :-1]
    near[:, :-1] |= active[:, 1:]
    return not (answers & ~near).any()
