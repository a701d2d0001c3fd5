"""Small nets: several, each with all covariances of its weights, and linearised.

See `ngvi.nets.linearized`. Fits are in double precision, whatever JAX's own is.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from sklearn.exceptions import ConvergenceWarning

from ngvi.fisher.mlp import MLP
from ngvi.nets.estimators import defaults
from ngvi.nets.estimators.training import Reason, TrainingProgress
from ngvi.nets.linearized import linearized
from ngvi.nets.mixture import Mixture
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import WeightPosterior


class Members(NamedTuple):
    """What was found."""

    posterior: Mixture
    elbo: float
    """The mean of the members' bounds, each that of its own linearised model."""
    history: dict[str, list[float]]
    """"epoch", and "elbo" of an example: the means over the members."""
    iterations: int
    reason: Reason


def fit_members(
    mlp: MLP,
    likelihood: Any,
    x: np.ndarray,
    labels: np.ndarray,
    keys: list[Key[Array, ""]],
    *,
    settings: dict[str, Any],
    progress: TrainingProgress,
) -> Members:
    """One net after another.

    Args:
        mlp: its layers.
        likelihood: as `linearized` takes it.
        x, labels: all rows.
        keys: of the start of each.
        settings: of `linearized`.
        progress: where to show it.

    Raises:
        FloatingPointError: no net has a precision that can be factorised.
    """
    posteriors: list[WeightPosterior] = []
    bounds, histories, lost = [], [], 0
    reason: Reason = "converged"
    starts = [mlp.init(key) for key in keys]
    with progress, jax.enable_x64(True):
        x, labels = jax.tree.map(_double, (x, labels))
        if isinstance(likelihood, ObservationNoise):
            likelihood = jax.tree.map(_double, likelihood)
        for start in starts:
            params = jax.tree.map(lambda leaf: defaults.SMALL * _double(leaf), start)
            try:
                found = linearized(mlp, likelihood, params, (x, labels), **settings)
                found = jax.tree.map(np.asarray, found)
            except KeyboardInterrupt:
                if not posteriors:
                    raise
                reason = "interrupted"
                break
            if not np.isfinite(found.elbo):
                lost += 1
                continue
            posteriors.append(found.posterior)
            bounds.append(float(found.elbo))
            histories.append(found.history)
            shown = {"epoch": [float(len(bounds))], "elbo": [bounds[-1] / len(x)]}
            progress.show(shown, len(keys))
    if not posteriors:
        raise FloatingPointError(
            "no precision of the weights could be factorised: the noise has fallen to "
            "nothing, or features are far from all others. Stop sooner, by max_epochs"
        )
    if lost:
        warnings.warn(
            f"{lost} of {len(keys)} nets are left out: the precisions of their weights "
            "could not be factorised",
            ConvergenceWarning,
            stacklevel=5,
        )
    every = np.array(histories)
    bound = np.nanmean(every[:, ~np.isnan(every).all(0)], 0)
    if len(bound) == settings["max_iterations"] and reason == "converged":
        reason = "max_epochs"
    own = jax.tree.map(partial(_single, jnp.result_type(float)), posteriors)
    history = {
        "epoch": list(range(1, len(bound) + 1)),
        "elbo": (bound / len(x)).tolist(),
    }
    return Members(Mixture.of(own), float(np.mean(bounds)), history, len(bound), reason)


def _double(leaf: Any) -> Array:
    numbers = np.asarray(leaf)
    is_real = np.issubdtype(numbers.dtype, np.floating)
    return jnp.asarray(numbers, np.float64 if is_real else numbers.dtype)


def _single(dtype: Any, leaf: np.ndarray) -> Array:
    is_real = np.issubdtype(leaf.dtype, np.floating)
    return jnp.asarray(leaf, dtype if is_real else None)
