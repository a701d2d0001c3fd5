"""Importance weights block by block, where those of all blocks at once degenerate.

Given the border b, the blocks z_j of a plate are independent under the posterior and
under q = q(b) Π q(z_j | b). So the weight of b integrates them out,

    W(b) = p(b, z̄) / q(b, z̄) · Π_j Ẑ_j(b),   Ẑ_j = mean_k w_j(z_jᵏ) / w_j(z̄_j),

with z̄ the mean of q given b and zᵏ draws from q(z | b); and k-hat of W, in the few
dimensions of the border, and of the w_j, in those of one block, say what the joint one
cannot. The share of one block in a change of log p is not known to a model that is only
a program, but the gradient's is: ∂/∂z_j depends on b and z_j alone, so that

    log w_j(zᵏ) − log w_j(z̄) = ∫₀¹ (Aᵀ∇log p)_j · ε_jᵏ dt + ½ ‖ε_jᵏ‖²,   z = z̄ + t Aεᵏ,

by Gauss and Legendre's rule, for all blocks in the same few gradients. The εᵏ are the
same for every b, so that their noise cancels where weights of different b are compared.

Source: Tran, Scharth, Pitt and Kohn (2013), Importance sampling squared, for estimated
likelihoods in weights; Vehtari et al. (2024), Pareto smoothed importance sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri
from scipy.stats import qmc

from ngvi.bayes.density import InMemory
from ngvi.bayes.importance import Comparison, efficiency, pareto_smoothed
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.linalg import BlockArrow
from ngvi.linalg.tree import Tree
from ngvi.mirror.draws import antithetic, sobol_normals

if TYPE_CHECKING:
    from ngvi.bayes.sampled import Sampled

_NODES = 3
_FEWEST_BORDER, _MOST_BORDER = 64, 256
# Draws of the blocks: pairs, in a power of two.
_HALF = 5
_LOCAL = 2 ** (_HALF + 1)
# Coordinates and data that all gradients go through, which bounds the time.
_NUMBERS = 2**30
_AT_ONCE = 2**20
_MOST_WEIGHTS = 20_000


@dataclass(frozen=True)
class Blockwise:
    """What the weights of the border and of the blocks say."""

    border_khat: float
    block_khats: tuple[float, ...]
    """Of each level of blocks, of the weights of all its blocks, each over its mean."""
    comparison: Comparison
    """Of the unconstrained coordinates."""

    @property
    def khat(self) -> float:
        """The largest of all."""
        return max(self.border_khat, *self.block_khats)


class _Seen(NamedTuple):
    """What S draws of the border see; moments are about q's mean, in its sds."""

    log_weights: Float[Array, "s"]
    moments: Float[Array, "s 2 d"]
    """First and second, under the weights of the blocks."""
    plain: Float[Array, "2 d"]
    """The same under q, by the same draws."""
    blocks: tuple[Float[Array, "k g"], ...]
    """log w_j of the draws at the border's mean, level by level."""


def blockwise(posterior: Sampled) -> Blockwise | None:
    """The weights of a structured Gaussian; None where q has no blocks on a border,
    where they stand on others, or where the data are too many or not at hand."""
    density, q = posterior._density, posterior.gaussian
    if not isinstance(q.precision, BlockArrow) or not isinstance(density, InMemory):
        return None
    tree = q.precision.tree
    border = [k for k, level in enumerate(tree.levels) if _is_border(tree, k)]
    blocks = [k for k in range(len(tree.levels)) if k not in border]
    if len(border) != 1 or not blocks:
        return None
    if any(tree.levels[k].parent not in border for k in blocks):
        return None
    observed = sum(np.size(x) for x in density.data.arrays)
    affordable = _NUMBERS // ((q.dim + observed) * _LOCAL * _NODES)
    if affordable < _FEWEST_BORDER // 2:
        return None
    count = int(np.clip(affordable // 2 * 2, _FEWEST_BORDER, _MOST_BORDER))
    rng = np.random.default_rng([posterior.record.diagnostics.seed, 9])
    size = tree.levels[border[0]].size
    of_border = antithetic(sobol_normals(size, count // 2, rng))
    of_blocks = tree.paste(
        [
            jnp.asarray(_spread(level.count, level.size, rng), q.mean.dtype)
            for level in tree.levels
        ]
    )
    at_once = max(_AT_ONCE // (q.dim + observed), 1)
    seen = jax.device_get(
        _look(
            density.target,
            min(at_once, _LOCAL),
            border[0],
            density.data,
            q,
            jnp.asarray(of_border, q.mean.dtype),
            of_blocks,
        )
    )
    weights, khat = pareto_smoothed(seen.log_weights.astype(np.float64))
    relative = [_relative(seen.blocks[k].astype(np.float64)) for k in blocks]
    khats = tuple(_khat_of_all(logs) for logs in relative)
    if not np.isfinite(weights).all():
        weights = np.full(count, 1 / count)
    even = [efficiency(weights), *(1 / np.exp(2 * logs).mean() for logs in relative)]
    mean_error, sd_ratio = _errors(weights, seen)
    names = posterior.coordinate_names
    comparison = Comparison(names, float(min(even)), mean_error, sd_ratio)
    return Blockwise(khat, khats, comparison)


def _is_border(tree: Tree, level: int) -> bool:
    return tree.levels[level].parent is None and tree.levels[level].count == 1


def _spread(
    count: int, size: int, rng: np.random.Generator
) -> Float[np.ndarray, "k g s"]:
    """Antithetic normals for each block, evenly spread: Sobol points, shifted at
    random for each."""
    points = qmc.Sobol(size, scramble=False).random_base2(_HALF)
    shifted = (points[:, None] + rng.uniform(size=(count, size))) % 1
    half = ndtri(np.clip(shifted, 1e-10, 1 - 1e-10))
    half /= np.sqrt((half**2).mean(0))
    return np.concatenate([half, -half])


def _relative(logs: Float[np.ndarray, "k g"]) -> Float[np.ndarray, "k g"]:
    """Log weights, each block's over their mean."""
    largest = logs.max(0)
    return logs - largest - np.log(np.exp(logs - largest).mean(0))


def _khat_of_all(logs: Float[np.ndarray, "k g"]) -> float:
    """Of blocks that are alike, as one sample."""
    flat = logs.ravel()
    return pareto_smoothed(flat[:: -(-flat.size // _MOST_WEIGHTS)])[1]


def _errors(weights: np.ndarray, seen: _Seen) -> tuple[np.ndarray, np.ndarray]:
    """Of means, in reweighted sds; and ratios of sds."""
    first, second = np.einsum("s,smd->md", weights, seen.moments)
    mean, square = seen.plain
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    reweighted = np.sqrt(np.maximum(second - first**2, 1e-6))
    return (mean - first) / reweighted, sd / reweighted


@partial(jax.jit, static_argnums=(0, 1, 2))
def _look(
    target: Target,
    at_once: int,
    border: int,
    data: Data,
    q: Gaussian,
    of_border: Float[Array, "s b"],
    of_blocks: Float[Array, "k d"],
) -> _Seen:
    precision = q.precision
    assert isinstance(precision, BlockArrow)
    tree = precision.tree
    rule = np.polynomial.legendre.leggauss(_NODES)
    nodes, node_weights = (jnp.asarray(x, q.mean.dtype) for x in rule)
    slopes = jax.grad(partial(target.potential, data))
    sd = jnp.sqrt(q.variance)

    def with_border(x: Float[Array, "*n d"], value: Array) -> Float[Array, "*n d"]:
        parts = tree.cut(x)
        parts[border] = jnp.broadcast_to(value, parts[border].shape)
        return tree.paste(parts)

    of_blocks = with_border(of_blocks, jnp.zeros((), q.mean.dtype))

    def log_weights(base: Float[Array, "d"], eps: Float[Array, "d"]) -> list[Array]:
        """log w_j(z) − log w_j(z̄) of every block; zero of the border."""

        def slope(node: Array, weight: Array) -> Array:
            at = q.place(base + (node + 1) / 2 * eps)
            return -weight / 2 * precision.whiten_gradient(slopes(at)) * eps

        rise = jax.vmap(slope)(nodes, node_weights).sum(0)
        return [part.sum(-1) for part in tree.cut(rise + eps**2 / 2)]

    def of_all(base: Float[Array, "d"]) -> list[Array]:
        of_one = partial(log_weights, base)
        return jax.lax.map(of_one, of_blocks, batch_size=at_once)

    def look(
        plain: Float[Array, "2 d"], eps: Float[Array, "b"]
    ) -> tuple[Array, tuple[Array, Array]]:
        base = with_border(jnp.zeros_like(q.mean), eps)
        logs = of_all(base)
        gained = sum(jnp.sum(_log_mean(part)) for part in logs)
        here = -target.potential(data, q.place(base)) + (base**2).sum() / 2
        points = (q.place(base + of_blocks) - q.mean) / sd
        powers = jnp.stack([points, points**2])
        weighted = [
            (jax.nn.softmax(part, 0)[..., None] * x).sum(1)
            for part, x in zip(logs, tree.cut(powers), strict=True)
        ]
        # They are many, and in sds: single precision will do.
        moments = tree.paste(weighted).astype(jnp.float32)
        return plain + powers.mean(1), (here + gained, moments)

    nothing = jnp.zeros((2, q.dim), q.mean.dtype)
    plain, (weights, moments) = jax.lax.scan(look, nothing, of_border)
    central = of_all(jnp.zeros_like(q.mean))
    return _Seen(weights, moments, plain / len(of_border), tuple(central))


def _log_mean(x: Float[Array, "k g"]) -> Float[Array, "g"]:
    return jax.nn.logsumexp(x, 0) - jnp.log(x.shape[0])
