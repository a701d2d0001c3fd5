"""Mixtures of Gaussians fitted to a model, from the Gaussian that was.

A round places components, moves them until they rest (`ngvi.mirror.mixture`), and looks
at draws: where the target exceeds q, the next round has components too; those that have
become empty go. Descents from many points, once at the start, tell of modes that no
draw of the Gaussian comes near. Draws of all rounds are used by all later ones.

Source: Arenz, Zhong and Neumann (2020), Trust-region variational inference with
Gaussian mixture models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import softmax

from ngvi.bayes.diagnostics import INTERRUPTED, pareto_smoothed
from ngvi.bayes.mixture_approximation import (
    MixtureApproximation,
    log_density,
    responsibilities,
)
from ngvi.bayes.modes import find_modes
from ngvi.bayes.pool import Pool, at_points
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian, Mixture
from ngvi.linalg import Dense
from ngvi.mirror import mixture as steps
from ngvi.mirror.draws import antithetic, sobol_normals

LARGEST_MIXTURE = 200
"""Dimensions: every component has a full covariance."""
_ROUNDS = 12
_ITERATIONS = 60
"""Of one round."""
_CHECK = 2048
"""Draws that a round is looked at with, half of them from q itself."""
_WIDER = np.array([1.0, 3.0])
"""By how many sds of the norm of a draw wider ones are stretched."""
_KHAT_ENOUGH = 0.5
_ENOUGH = 0.02
"""Nats between the ELBO and the log evidence that are worth no more components."""
_GAIN = 0.01
"""Nats that a round must gain for another one."""
_EMPTY = 2e-3
"""Weights below are of components that may go."""
_AT_ONCE = 4
"""Components that a round may add."""
_NEAR = 0.5
"""Bandwidth of what lies near a point, in the sds of the component that it is of; in
many dimensions more, up to one."""
_LIGHTEST = -3.0
"""Log weight of a mode beside the best one, at least: it is yet to be fitted."""


def room(dim: int) -> int:
    """How many components there may be."""
    return 32 if dim <= 8 else 16 if dim <= 40 else 8


def check_size(dim: int) -> None:
    """Raise a ValueError where there are too many dimensions for a mixture."""
    if dim > LARGEST_MIXTURE:
        raise ValueError(
            f"Every component of a mixture has a full covariance: {dim:,d} dimensions "
            f"are too many (at most {LARGEST_MIXTURE})."
        )


def _draws(dim: int) -> int:
    """Of a component: what over-fits full covariances by a twentieth of a nat."""
    return int(np.clip(16 * (dim + 1), 128, max(1024, 4 * (dim + 1)))) // 2 * 2


@partial(jax.jit, static_argnums=0)
def _begin(
    target: Target, data: Data, logits: Array, components: Gaussian, eps: Array
) -> steps.MixtureState:
    return steps.begin(partial(target.potential, data), logits, components, eps)


@partial(jax.jit, static_argnums=0)
def _run(
    target: Target, data: Data, state: steps.MixtureState, eps: Array, limit: int
) -> steps.MixtureState:
    return steps.run(partial(target.potential, data), state, eps, limit)


@dataclass(frozen=True)
class Fitted:
    """A mixture, and how it came about."""

    q: MixtureApproximation
    elbo: float
    length: float
    history: dict[str, np.ndarray]
    """A row a round."""
    gradients: int
    values: int
    stop_reason: str


def fit_mixture(
    target: Target,
    data: Data,
    q: Gaussian,
    log_p_at: Callable[[Array], np.ndarray],
    *,
    seed: int = 0,
    deadline: float = float("inf"),
    shown: Callable[..., Any] = lambda **_: None,
) -> Fitted:
    """The mixture that a Gaussian fit grows into.

    Args:
        target: the model.
        data: its arrays.
        q: the Gaussian that fits best, with any precision.
        log_p_at: log p at points (S, D).
        seed: of all draws.
        deadline: on `time.perf_counter`'s clock, after which no round begins.
        shown: told the numbers of every round.

    Raises:
        ValueError: there are too many dimensions.
    """
    check_size(q.dim)
    return _Growth(target, data, log_p_at, seed, q.mean.dtype).fit(q, deadline, shown)


class _Growth:
    """The rounds of one fit."""

    def __init__(
        self,
        target: Target,
        data: Data,
        log_p_at: Callable[[Array], np.ndarray],
        seed: int,
        dtype: Any,
    ) -> None:
        self.target, self.data, self.log_p_at = target, data, log_p_at
        self.dim, self.dtype = target.dim, dtype
        self.rng = np.random.default_rng([seed, 77])
        self.pool = Pool()
        self.near = float(np.clip(_NEAR * (self.dim / 8) ** 0.5, _NEAR, 1.0))
        self.evaluations = 0

    def fit(self, q: Gaussian, deadline: float, shown: Callable[..., Any]) -> Fitted:
        """From the Gaussian until more components gain nothing."""
        means, roots, logits = self._first(q)
        history: list[dict[str, float]] = []
        best, best_elbo, slow = None, -np.inf, 0
        reason = "the rounds allowed were used up"
        for number in range(_ROUNDS):
            try:
                state = self._moved(means, roots, logits)
                elbo, enough = self._look(state)
            except KeyboardInterrupt:
                if best is None:
                    raise
                reason = INTERRUPTED
                break
            history.append(self._row(number + 1, elbo, state))
            shown(iteration=number + 1, elbo=elbo, fisher_length=float(state.length))
            slow = 0 if elbo - best_elbo >= _GAIN else slow + 1
            if best is None or elbo > best_elbo:
                best, best_elbo = state, elbo
            if enough or slow == 2:
                reason = "converged: more components gain nothing"
                break
            if time.perf_counter() > deadline:
                reason = "the time allowed was used up"
                break
            means, roots, logits = self._grown(best)
        assert best is not None
        return Fitted(
            self._compact(best),
            best_elbo,
            float(best.length),
            {name: np.array([row[name] for row in history]) for name in history[0]},
            self.evaluations,
            self.pool.log_p.size,
            reason,
        )

    def _row(
        self, number: int, elbo: float, state: steps.MixtureState
    ) -> dict[str, float]:
        return {
            "iteration": number,
            "elbo": elbo,
            "fisher_length": float(state.length),
            "step": 1.0,
            "draws": _draws(self.dim),
            "components": len(self._kept(state)),
        }

    # -- placing -----------------------------------------------------------------

    def _first(self, q: Gaussian) -> tuple[list, list, list]:
        """The Gaussian, and the modes apart from it."""
        modes, gradients = find_modes(
            self.target, self.data, q, self.log_p_at, self.rng
        )
        self.evaluations += gradients
        modes = modes[: room(self.dim)]
        logits = [max(mode.mass - modes[0].mass, _LIGHTEST) for mode in modes]
        return [m.point for m in modes], [m.root for m in modes], logits

    def _grown(self, state: steps.MixtureState) -> tuple[list, list, list]:
        """The mixture with components where the target exceeds it."""
        q, parts, kept = state.q, state.components.q, self._kept(state)
        means = list(np.asarray(parts.mean)[kept])
        roots = list(np.asarray(parts.precision.inverse_root)[kept])
        logits = list(np.asarray(q.log_weights)[kept])
        free = room(self.dim) - len(means)
        points = self.pool.points
        log_q, proposed = at_points(log_density, q, points), self.pool.log_q
        excess = softmax(self.pool.log_p - proposed) - softmax(log_q - proposed)
        owner = at_points(responsibilities, q, points)[:, kept].argmax(1)
        likely = np.argsort(-excess)[:128]
        near = np.stack([self._kernel(points, i, roots[owner[i]]) for i in likely])
        for _ in range(min(free, max(_AT_ONCE, len(means) // 2))):
            masses = near @ excess
            best = int(masses.argmax())
            if masses[best] < _EMPTY:
                break
            chosen = likely[best]
            # Where there are many dimensions no point is typical of its surroundings.
            around = near[best] * np.maximum(excess, 0)
            means.append(around @ points / around.sum())
            roots.append(self.near * roots[owner[chosen]])
            logits.append(np.log(np.clip(masses[best], 0.02, 0.3)))
            excess = excess * (1 - near[best])
        return means, roots, logits

    def _kernel(self, points: np.ndarray, i: int, root: np.ndarray) -> np.ndarray:
        """How near points are to the i-th, (S,), in units of a component's sds."""
        away = (points - points[i]) @ np.linalg.inv(root).T
        return np.exp(-(away**2).sum(1) / (2 * self.near**2 * self.dim))

    # -- moving and looking ----------------------------------------------------------

    def _moved(self, means: list, roots: list, logits: list) -> steps.MixtureState:
        missing = room(self.dim) - len(means)
        padded = jnp.asarray(np.stack(means + [means[0]] * missing), self.dtype)
        inverse = jnp.asarray(np.stack(roots + [roots[0]] * missing), self.dtype)
        components = Gaussian(padded, Dense.from_inverse_root(inverse))
        weights = jnp.asarray(logits + [steps.ABSENT] * missing, self.dtype)
        half = sobol_normals(self.dim, _draws(self.dim) // 2, self.rng)
        eps = jnp.asarray(antithetic(half), self.dtype)
        state = _begin(self.target, self.data, weights, components, eps)
        state = _run(self.target, self.data, state, eps, _ITERATIONS)
        self.evaluations += int(state.evaluations)
        return state

    def _compact(self, state: steps.MixtureState) -> MixtureApproximation:
        """Without the empty components, the heaviest first."""
        index = self._kept(state)
        components = jax.tree.map(lambda leaf: leaf[index], state.components.q)
        pairs = max(_draws(self.dim) // 2, 1)
        variance = np.asarray(state.components.estimate.spread)[index] / pairs
        return MixtureApproximation(Mixture(state.logits[index], components), variance)

    def _kept(self, state: steps.MixtureState) -> np.ndarray:
        """The components that are not empty, the heaviest first."""
        weights = np.asarray(jax.nn.softmax(state.logits))
        weights = np.where(np.asarray(state.components.fresh), 0.0, weights)
        order = np.argsort(-weights)
        return order[: max(int((weights > _EMPTY).sum()), 1)]

    def _look(self, state: steps.MixtureState) -> tuple[float, bool]:
        """The ELBO on new draws, which join the pool, and whether the pool's evidence
        is hardly above it."""
        q, parts = state.q, state.components.q
        points = self._drawn(q, _CHECK // 2)
        log_p = self.log_p_at(jnp.asarray(points))
        ratio = log_p - at_points(log_density, q, points)
        elbo = float(ratio.mean()) if np.isfinite(ratio).all() else -np.inf
        self.pool.add(q, points, np.where(np.isnan(log_p), -np.inf, log_p))
        for stretch in (1 + _WIDER / np.sqrt(self.dim)) ** 2:
            scale = jnp.full(len(q.logits), 1 / stretch, self.dtype)
            wide = Mixture(q.logits, Gaussian(parts.mean, parts.precision.scale(scale)))
            points = self._drawn(wide, _CHECK // 4)
            log_p = self.log_p_at(jnp.asarray(points))
            self.pool.add(wide, points, np.where(np.isnan(log_p), -np.inf, log_p))
        _, khat = pareto_smoothed(self.pool.log_p - self.pool.log_q)
        gap = self.pool.log_evidence - elbo
        return elbo, gap < _ENOUGH and khat < _KHAT_ENOUGH

    def _drawn(self, q: Mixture, count: int) -> np.ndarray:
        return np.asarray(MixtureApproximation(q).draws(count, self.rng))
