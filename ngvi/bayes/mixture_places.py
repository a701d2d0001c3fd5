"""Where a mixture gets new components: where the target exceeds it most.

The draws that are there, weighed, tell where: of the mass that the target has and the
mixture lacks, a new component takes what lies near the draw with the most around it.
"""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import softmax

from ngvi.bayes.mixture_approximation import log_density, responsibilities
from ngvi.bayes.pool import Pool, at_points
from ngvi.mirror.mixture import MixtureState

_EMPTY = 2e-3
"""Weights below are of components that may go."""
_AT_ONCE = 4
"""Components that a round may add."""
_NEAR = 0.5
"""Bandwidth of what lies near a point, in the sds of the component that it is of; in
many dimensions more, up to one."""


Places = tuple[list, list, list]
"""Means, inverse roots of precisions, and logits."""


def room(dim: int) -> int:
    """How many components there may be."""
    return 32 if dim <= 8 else 16 if dim <= 40 else 8


def heaviest(state: MixtureState) -> np.ndarray:
    """The numbers of the components that are not empty, the heaviest first."""
    weights = np.asarray(jax.nn.softmax(state.logits))
    weights = np.where(np.asarray(state.components.fresh), 0.0, weights)
    order = np.argsort(-weights)
    return order[: max(int((weights > _EMPTY).sum()), 1)]


def grown(state: MixtureState, pool: Pool) -> Places:
    """The mixture with components where the target exceeds it."""
    dim = pool.points.shape[1]
    bandwidth = float(np.clip(_NEAR * (dim / 8) ** 0.5, _NEAR, 1.0))
    q, parts, kept = state.q, state.components.q, heaviest(state)
    means = list(np.asarray(parts.mean)[kept])
    roots = list(np.asarray(parts.precision.inverse_root)[kept])
    logits = list(np.asarray(q.log_weights)[kept])
    free = room(dim) - len(means)
    points = pool.points
    log_q, proposed = at_points(log_density, q, points), pool.log_q
    excess = softmax(pool.log_p - proposed) - softmax(log_q - proposed)
    owner = at_points(responsibilities, q, points)[:, kept].argmax(1)
    likely = np.argsort(-excess)[:128]
    near = np.stack([_kernel(points, i, roots[owner[i]], bandwidth) for i in likely])
    for _ in range(min(free, max(_AT_ONCE, len(means) // 2))):
        masses = near @ excess
        best = int(masses.argmax())
        if masses[best] < _EMPTY:
            break
        chosen = likely[best]
        # Where there are many dimensions no point is typical of its surroundings.
        around = near[best] * np.maximum(excess, 0)
        means.append(around @ points / around.sum())
        roots.append(bandwidth * roots[owner[chosen]])
        logits.append(np.log(np.clip(masses[best], 0.02, 0.3)))
        excess = excess * (1 - near[best])
    return means, roots, logits


def _kernel(
    points: np.ndarray, i: int, root: np.ndarray, bandwidth: float
) -> np.ndarray:
    """How near points are to the i-th, (S,), in units of a component's sds."""
    away = (points - points[i]) @ np.linalg.inv(root).T
    return np.exp(-(away**2).sum(1) / (2 * bandwidth**2 * points.shape[1]))
