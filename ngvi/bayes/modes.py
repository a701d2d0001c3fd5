"""Modes of a posterior, by descents from points near and far.

A mode that no draw of a fit comes near is seen by none of its checks. Descents begin at
all distances from the fit and from the origin, and among the modes found so far; they
go on in batches until four of them in a row found nothing new. No number of starts can
tell that there is no other mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.quick import TRIALS, Compiled, Work
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.linalg import Dense
from ngvi.mirror.start import Start, find_start

_STARTS = 64
"""Descents in one program."""
_BATCHES, _PATIENCE = 12, 4
"""Of them, and how many in a row find nothing new before it is given up."""
_FARTHEST = 30.0
"""How many sds away they begin, at most."""
_FAINT = 12.0
"""Nats below the best mode at which another is no part of the posterior."""


class Mode(NamedTuple):
    """A Gaussian that follows the posterior around one of its modes."""

    mass: float
    """log ∫p around it, by Laplace's approximation."""
    point: np.ndarray
    root: np.ndarray
    """Inverse root of its precision."""

    def same(self, other: Mode) -> bool:
        """Whether it is as near as draws from either would be."""
        shift, limit = self.point - other.point, 4.0 + 2 * len(self.point)
        roots = (self.root, other.root)
        return any((np.linalg.solve(r, shift) ** 2).sum() < limit for r in roots)


def _work(target: Target, data: Data, points: Float[Array, "s d"]) -> Work:
    return target, data, TRIALS * len(points)


@partial(Compiled, static_argnums=(0,), work=_work)
def _descents(target: Target, data: Data, points: Float[Array, "s d"]) -> Start:
    # One after another: each takes the trials that it takes, and batches of a model's
    # own factorisations are not for XLA's threads, which have waited for each other.
    return jax.lax.map(partial(find_start, partial(target.potential, data)), points)


def find_modes(
    target: Target,
    data: Data,
    q: Gaussian,
    log_p_at: Callable[[Array], np.ndarray],
    rng: np.random.Generator,
) -> tuple[list[Mode], int]:
    """A fitted Gaussian and the modes apart from it, the heaviest first.

    Args:
        target: the model.
        data: its arrays.
        q: the Gaussian; its mass is its ELBO.
        log_p_at: log p at points (S, D).
        rng: of the starts.

    Returns:
        The modes within 12 nats of the heaviest, and the gradients that it took.
    """
    precision = q.precision
    if not isinstance(precision, Dense):
        precision = Dense.from_dense(precision.dense())
    draws = q.sample(jax.random.key(int(rng.integers(2**31))), (256,))
    ratio = log_p_at(draws) - np.asarray(q.log_prob(draws))
    finite = ratio[np.isfinite(ratio)]
    mass = float(finite.mean()) if finite.size else -np.inf
    found = [Mode(mass, np.asarray(q.mean), np.asarray(precision.inverse_root))]
    gradients, in_vain = 0, 0
    for _ in range(_BATCHES):
        ends = jax.device_get(_descents(target, data, _starts(q, found, rng)))
        gradients += int(np.sum(ends.gradients))
        before = len(found)
        _add_new(found, ends, log_p_at(jnp.asarray(ends.point)))
        in_vain = in_vain + 1 if len(found) == before else 0
        if in_vain == _PATIENCE:
            break
    found.sort(key=lambda mode: -mode.mass)
    return [mode for mode in found if mode.mass > found[0].mass - _FAINT], gradients


def _starts(
    q: Gaussian, found: list[Mode], rng: np.random.Generator
) -> Float[Array, "s d"]:
    """Points at all distances from q, from the origin, and among the modes so far."""
    eps = rng.standard_normal((_STARTS, q.dim))
    widths = np.exp(rng.uniform(np.log(2), np.log(_FARTHEST), (_STARTS, 1)))
    places = np.stack([mode.point for mode in found])
    # Of a pair, one and a part of the way to the other; that much apart they are.
    pair = rng.integers(len(found), size=(2, _STARTS))
    way = places[pair[1]] - places[pair[0]]
    apart = np.linalg.norm(places - places.mean(0), axis=1).max() / np.sqrt(q.dim)
    among = places[pair[0]] + rng.uniform(-1, 2, (_STARTS, 1)) * way
    among = among + np.maximum(apart, 1e-3) * eps
    kinds = [np.asarray(q.place(jnp.asarray(widths * eps, q.mean.dtype)))]
    kinds += [widths * eps, among if len(found) > 1 else 2 * eps]
    which = np.arange(_STARTS) % len(kinds)
    return jnp.asarray(np.stack(kinds)[which, np.arange(_STARTS)], q.mean.dtype)


def _add_new(found: list[Mode], ends: Start, log_p: np.ndarray) -> None:
    """The proper modes among where descents ended, the highest first."""
    proper, precision = np.asarray(ends.descended), cast(Dense, ends.precision)
    for i in np.argsort(-log_p):
        if not (proper[i] and np.isfinite(log_p[i])):
            continue
        point, root = np.asarray(ends.point[i]), np.asarray(precision.inverse_root[i])
        volume = np.linalg.slogdet(root)[1] + point.size / 2 * np.log(2 * np.pi)
        mode = Mode(float(log_p[i] + volume), point, root)
        if not any(mode.same(other) for other in found):
            found.append(mode)
