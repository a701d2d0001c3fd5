"""Mixtures of Gaussians fitted to a model, from the Gaussian that was.

A round places components, moves them until they rest (`ngvi.mirror.mixture`), and looks
at draws: where the target exceeds q, the next round has components too; those that have
become empty go. Descents from many points, once at the start, tell of modes that no
draw of the Gaussian comes near. All draws that were ever evaluated are kept: weighed by
what they were drawn from all together, the old ones count as the new ones do.

Source: Arenz, Zhong and Neumann (2020), Trust-region variational inference with
Gaussian mixture models; Cornuet et al. (2012), Adaptive multiple importance sampling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp, softmax

from ngvi.bayes.diagnostics import pareto_smoothed
from ngvi.bayes.mixture_approximation import (
    MixtureApproximation,
    log_density,
    responsibilities,
)
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian, Mixture
from ngvi.linalg import Dense
from ngvi.mirror import mixture as steps
from ngvi.mirror.draws import antithetic, sobol_normals
from ngvi.mirror.start import Start, find_start

LARGEST_MIXTURE = 200
"""Dimensions: every component has a full covariance."""
_ROUNDS = 12
_ITERATIONS = 60
"""Of one round."""
_STARTS = 16
"""Descents side by side; there are more until they find no new mode."""
_BATCHES = 6
_CHUNK = 512
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
"""Bandwidth of what lies near a point, in the sds of the component that it is of."""
_FAINT = 12.0
"""Nats below the best mode at which another is no part of the posterior."""


def room(dim: int) -> int:
    """How many components there may be."""
    return 32 if dim <= 8 else 16 if dim <= 40 else 8


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


@partial(jax.jit, static_argnums=0)
def _descents(target: Target, data: Data, points: Float[Array, "s d"]) -> Start:
    return jax.vmap(partial(find_start, partial(target.potential, data)))(points)


def _at(function: Callable, q: Mixture, points: np.ndarray) -> np.ndarray:
    """A function of a mixture at points, some at a time: one program for any number."""
    count = len(points)
    padded = np.pad(points, ((0, -count % _CHUNK), (0, 0)), mode="edge")
    parts = [
        np.asarray(function(q, jnp.asarray(padded[start : start + _CHUNK])))
        for start in range(0, len(padded), _CHUNK)
    ]
    return np.concatenate(parts)[:count]


class Pool:
    """Evaluated draws from several mixtures, weighed by all of them together."""

    def __init__(self) -> None:
        self.points = np.zeros((0, 0))
        self.log_p = np.zeros(0)
        self._sources: list[tuple[Mixture, int]] = []
        self._log_q: list[np.ndarray] = []

    def add(self, source: Mixture, points: np.ndarray, log_p: np.ndarray) -> None:
        """Draws from one more mixture, and log p there."""
        self._log_q = [
            np.concatenate([known, _at(log_density, earlier, points)])
            for known, (earlier, _) in zip(self._log_q, self._sources, strict=True)
        ]
        self._sources.append((source, len(points)))
        before = self.points.reshape(-1, points.shape[1])
        self.points = np.concatenate([before, points])
        self.log_p = np.concatenate([self.log_p, log_p])
        self._log_q.append(_at(log_density, source, self.points))

    @property
    def log_q(self) -> np.ndarray:
        """log density of what all draws together are drawn from."""
        counts = np.array([count for _, count in self._sources], float)
        shares = np.log(counts / counts.sum())
        return logsumexp(np.stack(self._log_q) + shares[:, None], axis=0)

    @property
    def log_evidence(self) -> float:
        """The importance-weighted estimate of log ∫p."""
        return float(logsumexp(self.log_p - self.log_q) - np.log(self.log_p.size))


@dataclass
class Fitted:
    """A mixture, and how it came about."""

    q: MixtureApproximation
    elbo: float
    length: float
    rounds: list[dict[str, float]]
    evaluations: int
    values: int
    converged: bool
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
    if q.dim > LARGEST_MIXTURE:
        raise ValueError(
            f"Every component of a mixture has a full covariance: {q.dim:,d} "
            f"dimensions are too many (at most {LARGEST_MIXTURE})."
        )
    return _Growth(target, data, log_p_at, seed, q.mean.dtype).fit(q, deadline, shown)


class _Mode(NamedTuple):
    """Where a component may begin."""

    mass: float
    """log ∫p around it, by Laplace's approximation."""
    point: np.ndarray
    root: np.ndarray
    """Inverse root of the precision."""

    def same(self, other: _Mode) -> bool:
        """Whether it is as near as draws from either would be."""
        shift, limit = self.point - other.point, 4.0 + 2 * len(self.point)
        roots = (self.root, other.root)
        return any((np.linalg.solve(r, shift) ** 2).sum() < limit for r in roots)


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
        self.evaluations = 0

    def fit(self, q: Gaussian, deadline: float, shown: Callable[..., Any]) -> Fitted:
        means, roots, logits = self._first(q)
        rounds: list[dict[str, float]] = []
        best: tuple[float, steps.MixtureState] | None = None
        reason, converged, slow = "the rounds allowed were used up", False, 0
        for number in range(_ROUNDS):
            state = self._moved(means, roots, logits)
            elbo, enough = self._look(state.q)
            row = {
                "iteration": number + 1,
                "elbo": elbo,
                "fisher_length": float(state.length),
                "components": float((state.logits > np.log(_EMPTY)).sum()),
                "draws": _draws(self.dim),
            }
            rounds.append(row)
            shown(**row)
            gained = elbo - best[0] if best else np.inf
            if best is None or gained > 0:
                best = elbo, state
            slow = slow + 1 if gained < _GAIN else 0
            if enough:
                reason, converged = "converged: more components gain nothing", True
                break
            if slow == 2:
                reason, converged = "converged: two rounds gained nothing", True
                break
            if time.perf_counter() > deadline:
                reason = "the time allowed was used up"
                break
            means, roots, logits = self._grown(best[1])
        assert best is not None
        values = self.pool.log_p.size
        return Fitted(
            self._compact(best[1]),
            best[0],
            float(best[1].length),
            rounds,
            self.evaluations,
            values,
            converged,
            reason,
        )

    # -- placing -----------------------------------------------------------------

    def _first(self, q: Gaussian) -> tuple[list, list, list]:
        """The Gaussian and the modes that descents find apart from it: means, inverse
        roots, and log masses by Laplace's approximation."""
        precision = q.precision
        dense = (
            precision
            if isinstance(precision, Dense)
            else Dense.from_dense(precision.dense())
        )
        draws = q.sample(jax.random.key(int(self.rng.integers(2**31))), (256,))
        ratio = self.log_p_at(draws) - np.asarray(q.log_prob(draws))
        mass = float(np.mean(ratio[np.isfinite(ratio)]))
        found = [_Mode(mass, np.asarray(q.mean), np.asarray(dense.inverse_root))]
        in_vain = 0
        for _ in range(_BATCHES):
            in_vain = 0 if self._new_modes(q, found) else in_vain + 1
            if in_vain == 2:
                break
        found.sort(key=lambda mode: -mode.mass)
        found = [m for m in found if m.mass > found[0].mass - _FAINT][: room(self.dim)]
        logits = [max(mode.mass - found[0].mass, -3.0) for mode in found]
        return [m.point for m in found], [m.root for m in found], logits

    def _new_modes(self, q: Gaussian, found: list[_Mode]) -> bool:
        """Add the modes that a batch of descents finds; whether there are any."""
        starts = self._starts(q)
        ends = jax.device_get(_descents(self.target, self.data, starts))
        self.evaluations += int(np.sum(ends.gradients))
        log_p = self.log_p_at(jnp.asarray(ends.point))
        before = len(found)
        for i in np.argsort(-log_p):
            if ends.descended[i] and np.isfinite(log_p[i]):
                root = ends.inverse_root[i]
                log_det = np.linalg.slogdet(root)[1]
                mass = log_p[i] + log_det + self.dim / 2 * np.log(2 * np.pi)
                mode = _Mode(float(mass), ends.point[i], root)
                if not any(mode.same(other) for other in found):
                    found.append(mode)
        return len(found) > before

    def _starts(self, q: Gaussian) -> Float[Array, "s d"]:
        """Points at all distances, half of them from q and half from the origin."""
        eps = self.rng.standard_normal((_STARTS, self.dim))
        widths = np.exp(self.rng.uniform(0, np.log(30), (_STARTS, 1)))
        from_q = np.asarray(q.place(jnp.asarray(widths * eps, self.dtype)))
        half = np.arange(_STARTS)[:, None] % 2 == 0
        return jnp.asarray(np.where(half, from_q, widths * eps), self.dtype)

    def _grown(self, state: steps.MixtureState) -> tuple[list, list, list]:
        """The mixture with components where the target exceeds it."""
        q, kept = state.q, self._kept(state)
        means = list(np.asarray(q.components.mean)[kept])
        roots = list(np.asarray(q.components.precision.inverse_root)[kept])
        logits = list(np.asarray(q.log_weights)[kept])
        free = room(self.dim) - len(means)
        points = self.pool.points
        log_q, proposed = _at(log_density, q, points), self.pool.log_q
        excess = softmax(self.pool.log_p - proposed) - softmax(log_q - proposed)
        owner = _at(responsibilities, q, points)[:, kept].argmax(1)
        likely = np.argsort(-excess)[:128]
        near = np.stack([self._kernel(points, i, roots[owner[i]]) for i in likely])
        for _ in range(min(free, max(_AT_ONCE, len(means) // 2))):
            masses = near @ excess
            best = int(masses.argmax())
            if masses[best] < _EMPTY:
                break
            chosen = likely[best]
            means.append(points[chosen])
            roots.append(_NEAR * roots[owner[chosen]])
            logits.append(np.log(np.clip(masses[best], 0.02, 0.3)))
            excess = excess * (1 - near[best])
        return means, roots, logits

    def _kernel(self, points: np.ndarray, i: int, root: np.ndarray) -> np.ndarray:
        """How near points are to the i-th, (S,), in units of a component's sds."""
        away = (points - points[i]) @ np.linalg.inv(root).T
        return np.exp(-(away**2).sum(1) / (2 * _NEAR**2 * self.dim))

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

    def _look(self, q: Mixture) -> tuple[float, bool]:
        """The ELBO on new draws, which join the pool, and whether the pool's evidence
        is hardly above it."""
        points = self._drawn(q, _CHECK // 2)
        log_p = self.log_p_at(jnp.asarray(points))
        elbo = float((log_p - _at(log_density, q, points)).mean())
        self.pool.add(q, points, np.where(np.isnan(log_p), -np.inf, log_p))
        for stretch in (1 + _WIDER / np.sqrt(self.dim)) ** 2:
            scale = jnp.full(len(q.logits), 1 / stretch, self.dtype)
            precision = q.components.precision.scale(scale)
            wide = Mixture(q.logits, Gaussian(q.components.mean, precision))
            points = self._drawn(wide, _CHECK // 4)
            log_p = self.log_p_at(jnp.asarray(points))
            self.pool.add(wide, points, np.where(np.isnan(log_p), -np.inf, log_p))
        _, khat = pareto_smoothed(self.pool.log_p - self.pool.log_q)
        gap = self.pool.log_evidence - elbo
        return elbo, gap < _ENOUGH and khat < _KHAT_ENOUGH

    def _drawn(self, q: Mixture, count: int) -> np.ndarray:
        return np.asarray(MixtureApproximation(q).draws(count, self.rng))
