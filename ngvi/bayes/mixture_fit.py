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

from ngvi.bayes.checkpointing import Saver
from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.importance import pareto_smoothed
from ngvi.bayes.mixture_approximation import MixtureApproximation, log_density
from ngvi.bayes.mixture_places import Places, grown, heaviest, room
from ngvi.bayes.mixture_rounds import Kept, Rounds
from ngvi.bayes.modes import find_modes
from ngvi.bayes.pool import Pool, at_points
from ngvi.bayes.quick import Compiled, Work
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian, Mixture
from ngvi.linalg import Dense
from ngvi.mirror import mixture as steps
from ngvi.mirror.draws import antithetic, sobol_normals

LARGEST_MIXTURE = 200
"""Dimensions: every component has a full covariance."""
_ITERATIONS = 60
"""Of one round."""
_CHECK = 2048
"""Draws that a round is looked at with, half of them from q itself."""
_WIDER = np.array([1.0, 3.0])
"""By how many sds of the norm of a draw wider ones are stretched."""
_KHAT_ENOUGH = 0.5
_ENOUGH = 0.02
"""Nats between the ELBO and the log evidence that are worth no more components."""
_LIGHTEST = -3.0
"""Log weight of a mode beside the best one, at least: it is yet to be fitted."""


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


def _work(target: Target, data: Data, *rest: Any) -> Work:
    """Of a round, with all components that there is room for."""
    return target, data, _ITERATIONS * room(target.dim) * _draws(target.dim)


@partial(Compiled, static_argnums=(0,), work=_work)
def _begin(
    target: Target, data: Data, logits: Array, components: Gaussian, eps: Array
) -> steps.MixtureState:
    return steps.begin(partial(target.potential, data), logits, components, eps)


@partial(Compiled, static_argnums=(0,), work=_work)
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
    saver: Saver | None = None,
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
        saver: of checkpoints after rounds, which it counts by
            `ngvi.bayes.mixture_rounds.rounds_of`.

    Raises:
        ValueError: there are too many dimensions.
    """
    check_size(q.dim)
    growth = _Growth(target, data, log_p_at, seed, q.mean.dtype)
    return growth.fit(q, deadline, shown, saver or Saver())


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
        self.rounds = Rounds()
        self.best: steps.MixtureState | None = None

    def fit(
        self,
        q: Gaussian,
        deadline: float,
        shown: Callable[..., Any],
        saver: Saver,
    ) -> Fitted:
        """From the Gaussian until more components gain nothing."""
        self._go_on(saver)
        rounds = self.rounds
        while rounds.over is None:
            try:
                best = self.best
                places = self._first(q) if best is None else grown(best, self.pool)
                state = self._moved(*places)
                elbo, enough = self._look(state)
            except KeyboardInterrupt:
                if self.best is None:
                    raise
                break
            row = self._row(len(rounds.history) + 1, elbo, state)
            shown(**{n: row[n] for n in ("iteration", "elbo", "fisher_length")})
            better = rounds.add(row, enough, time.perf_counter() > deadline)
            self.best = state if best is None or better else best
            saver.save(Kept(self.best, self.pool.contents))
        history, best = rounds.history, self.best
        assert best is not None
        return Fitted(
            self._compact(best),
            rounds.best_elbo,
            float(best.length),
            {name: np.array([row[name] for row in history]) for name in history[0]},
            rounds.evaluations,
            self.pool.log_p.size,
            rounds.over or INTERRUPTED,
        )

    # -- checkpoints -------------------------------------------------------------

    def _go_on(self, saver: Saver) -> None:
        """From the last checkpoint, if there is one."""
        saver.beside = self

        def like() -> Kept:
            dim, dtype = self.dim, self.dtype
            eps = jnp.zeros((_draws(dim), dim), dtype)
            one = [np.zeros(dim)], [np.eye(dim)], [0.0]
            state = jax.eval_shape(lambda: self._begun(*one, eps))
            source = jax.eval_shape(lambda state: state.q, state)
            pool = Pool.shapes(self.pool.counts, source, dim, dtype)
            return Kept(state, pool)

        kept = saver.resumed(like)
        if kept is not None:
            self.best, self.pool = kept.best, Pool.of(kept.pool, self.pool.counts)

    def position(self) -> dict[str, Any]:
        """What a checkpoint has beside the arrays."""
        bits: Any = self.rng.bit_generator
        return {
            "rounds": vars(self.rounds),
            "counts": self.pool.counts,
            "rng": bits.state,
            "spawned": bits.seed_seq.n_children_spawned,
        }

    def go_on_from(self, position: dict[str, Any]) -> None:
        """Be where another fit was, but for the arrays."""
        self.rounds = Rounds(**position["rounds"])
        bits: Any = self.rng.bit_generator
        bits.state = position["rng"]
        # Sobol engines take generators of their own.
        bits.seed_seq.spawn(position["spawned"])
        self.pool.counts = position["counts"]

    def _row(
        self, number: int, elbo: float, state: steps.MixtureState
    ) -> dict[str, float]:
        return {
            "iteration": number,
            "elbo": elbo,
            "fisher_length": float(state.length),
            "step": 1.0,
            "draws": _draws(self.dim),
            "components": len(heaviest(state)),
        }

    # -- placing -----------------------------------------------------------------

    def _first(self, q: Gaussian) -> Places:
        """The Gaussian, and the modes apart from it."""
        modes, gradients = find_modes(
            self.target, self.data, q, self.log_p_at, self.rng
        )
        self.rounds.evaluations += gradients
        modes = modes[: room(self.dim)]
        logits = [max(mode.mass - modes[0].mass, _LIGHTEST) for mode in modes]
        return [m.point for m in modes], [m.root for m in modes], logits

    # -- moving and looking ----------------------------------------------------------

    def _begun(
        self, means: list, roots: list, logits: list, eps: Array
    ) -> steps.MixtureState:
        """At these components, by these base draws."""
        missing = room(self.dim) - len(means)
        padded = jnp.asarray(np.stack(means + [means[0]] * missing), self.dtype)
        inverse = jnp.asarray(np.stack(roots + [roots[0]] * missing), self.dtype)
        components = Gaussian(padded, Dense.from_inverse_root(inverse))
        weights = jnp.asarray(logits + [steps.ABSENT] * missing, self.dtype)
        return _begin(self.target, self.data, weights, components, eps)

    def _moved(self, means: list, roots: list, logits: list) -> steps.MixtureState:
        half = sobol_normals(self.dim, _draws(self.dim) // 2, self.rng)
        eps = jnp.asarray(antithetic(half), self.dtype)
        state = self._begun(means, roots, logits, eps)
        state = _run(self.target, self.data, state, eps, _ITERATIONS)
        self.rounds.evaluations += int(state.evaluations)
        return state

    def _compact(self, state: steps.MixtureState) -> MixtureApproximation:
        """Without the empty components, the heaviest first."""
        index = heaviest(state)
        components = jax.tree.map(lambda leaf: leaf[index], state.components.q)
        pairs = _draws(self.dim) // 2
        variance = np.asarray(state.components.estimate.spread)[index] / pairs
        return MixtureApproximation(Mixture(state.logits[index], components), variance)

    def _look(self, state: steps.MixtureState) -> tuple[float, bool]:
        """The ELBO on new draws, which join the pool, and whether the pool's evidence
        is hardly above it."""
        q, parts = state.q, state.components.q
        points, log_p = self._drawn(q, _CHECK // 2)
        ratio = log_p - at_points(log_density, q, points)
        elbo = float(ratio.mean()) if np.isfinite(ratio).all() else -np.inf
        for stretch in (1 + _WIDER / np.sqrt(self.dim)) ** 2:
            scale = jnp.full(len(q.logits), 1 / stretch, self.dtype)
            wide = Mixture(q.logits, Gaussian(parts.mean, parts.precision.scale(scale)))
            self._drawn(wide, _CHECK // 4)
        _, khat = pareto_smoothed(self.pool.log_p - self.pool.log_q)
        gap = self.pool.log_evidence - elbo
        return elbo, gap < _ENOUGH and khat < _KHAT_ENOUGH

    def _drawn(self, q: Mixture, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws that join the pool, and log p there."""
        points = np.asarray(MixtureApproximation(q).draws(count, self.rng))
        log_p = self.log_p_at(jnp.asarray(points))
        log_p = np.where(np.isnan(log_p), -np.inf, log_p)
        self.pool.add(q, points, log_p)
        return points, log_p
