"""A Gaussian evolution strategy as pure functions: init, ask, tell.

The search distribution is a `Gaussian` and moves by the mirror step alone: rank weights
uᵢ of the draws εᵢ, in the frame of its root, give the natural gradient of order zero

    γ = −Σ uᵢ εᵢ,   M = −Σ vᵢ (εᵢ εᵢᵀ − I),

whose rates and retraction are the `Strategy`'s. Evolution paths add one more draw to M,
the path itself, and change the scale by a second step along I.

Paths live in the frame too: no affine change of x changes any number here but x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.families import Gaussian
from ngvi.families.parameters import as_floats
from ngvi.linalg import LinearStructure
from ngvi.linalg.base import Tangent
from ngvi.mirror.step import Direction, gaussian_step
from ngvi.nes.shaping import Ranking, rank, weigh
from ngvi.nes.strategies import Paths, Strategy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What the next generation needs."""

    q: Gaussian
    scale_path: Float[Array, "d"]
    """p_σ."""
    shape_path: Float[Array, "d"]
    """p_c, in the frame of the root."""
    generation: Int[Array, ""]


def init(
    strategy: Strategy, mean: Float[Array, "d"], sigma: Float[Array, "d"] | float
) -> State:
    """The state before the first generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        mean: where the search starts, shape (D,).
        sigma: the standard deviation, one for all or each coordinate's.
    """
    (mean,) = as_floats(mean)
    sigma = jnp.broadcast_to(jnp.asarray(sigma, mean.dtype), mean.shape)
    return State(
        Gaussian(mean, strategy.structure.from_deviations(sigma)),
        jnp.zeros_like(mean),
        jnp.zeros_like(mean),
        jnp.zeros((), int),
    )


def ask(strategy: Strategy, state: State, key: Key[Array, ""]) -> Float[Array, "n d"]:
    """Base draws ε ~ N(0, I) of a generation; their points are `state.q.place(ε)`."""
    return strategy.draws(key, strategy.popsize, state.q.dim, state.q.dtype)


def tell(
    strategy: Strategy,
    state: State,
    eps: Float[Array, "n d"],
    values: Float[Array, "n"],
) -> State:
    """The state after a generation.

    Args:
        strategy: see `ngvi.nes.strategies`.
        state: that the draws were asked of.
        eps: base draws; of points from elsewhere, `state.q.precision.whiten(x − m)`.
        values: the objective at the points, to be minimised; NaN ranks last.
    """
    return tell_ranks(strategy, state, eps, rank(values))


def tell_ranks(
    strategy: Strategy, state: State, eps: Float[Array, "n d"], ranking: Ranking
) -> State:
    """`tell`, of values that have been ranked."""
    dtype = eps.dtype
    weights = jnp.asarray([strategy.mean_weights, strategy.shape_weights], dtype)
    u, v = weigh(ranking, weights.T).T
    precision: LinearStructure = state.q.precision
    ascent = u @ eps
    if strategy.paths is None:
        spread = _spread(precision, eps, v)
        curvature = jax.tree.map(lambda s: strategy.shape_rate * s, spread)
        q = _move(strategy, state.q, ascent, curvature)
        return State(q, state.scale_path, state.shape_path, state.generation + 1)
    return _tell_with_paths(strategy, strategy.paths, state, eps, ascent, v)


def _move(
    strategy: Strategy, q: Gaussian, ascent: Float[Array, "d"], curvature: Tangent
) -> Gaussian:
    direction = Direction(
        -strategy.mean_rate * ascent, jax.tree.map(jnp.negative, curvature)
    )
    return gaussian_step(q, direction, 1.0, strategy.retraction)


def _spread(
    precision: LinearStructure, eps: Float[Array, "n d"], v: Float[Array, "n"]
) -> Tangent:
    """Σ vᵢ (εᵢ εᵢᵀ − I), as much of it as the structure holds."""
    squares = precision.tangent(eps, eps.shape[0] * v[:, None] * eps)
    identity = precision.tangent_identity()
    return jax.tree.map(lambda s, i: s - v.sum() * i, squares, identity)


def _tell_with_paths(
    strategy: Strategy,
    paths: Paths,
    state: State,
    eps: Float[Array, "n d"],
    ascent: Float[Array, "d"],
    v: Float[Array, "n"],
) -> State:
    dim, precision = state.q.dim, state.q.precision
    generation = state.generation + 1
    scale_path = _lengthen(state.scale_path, ascent, paths.scale_memory, paths.mass)
    norm = jnp.linalg.norm(scale_path)
    expected = math.sqrt(dim) * (1 - 1 / (4 * dim) + 1 / (21 * dim**2))

    # While σ still has far to go the rank-one path stalls.
    age = 1 - (1 - paths.scale_memory) ** (2 * generation)
    short = norm / jnp.sqrt(age) < (1.4 + 2 / (dim + 1)) * expected
    shape_path = _lengthen(
        state.shape_path,
        jnp.where(short, ascent, 0),
        paths.shape_memory,
        paths.mass,
    )
    # A stalled path is shorter than it should be: less is taken off in its place.
    missing = jnp.where(short, 0.0, paths.shape_memory * (2 - paths.shape_memory))
    one = _spread(precision, shape_path[None], jnp.ones(1, eps.dtype))
    identity = precision.tangent_identity()
    long = dim / jnp.maximum((eps**2).sum(1), 1e-30)
    many = _spread(precision, eps * jnp.sqrt(jnp.where(v < 0, long, 1))[:, None], v)
    curvature = jax.tree.map(
        lambda a, b, i: paths.rank_one * (a + missing * i) + strategy.shape_rate * b,
        one,
        many,
        identity,
    )
    q = _move(strategy, state.q, ascent, curvature)

    growth = paths.scale_memory / paths.scale_damping * (norm / expected - 1)
    factor = jnp.exp(jnp.minimum(growth, 1.0))
    # The path as it is seen from the new frame, less what σ alone changes.
    shape_path = q.precision.whiten(precision.unwhiten(shape_path))
    q = Gaussian(q.mean, q.precision.scale(factor**-2))
    return State(q, scale_path, shape_path, generation)


def _lengthen(
    path: Float[Array, "d"], ascent: Float[Array, "d"], memory: float, mass: float
) -> Float[Array, "d"]:
    return (1 - memory) * path + math.sqrt(memory * (2 - memory) * mass) * ascent
