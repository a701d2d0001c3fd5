"""The loop of a fit: chunks of epochs, each one compiled program, and looks between.

The KL divergence begins with a small weight, so that the mean finds a fit before the
posterior widens: from a wide start, a posterior that explains nothing with the prior's
width is a local optimum that is seldom left. N/κ is part of the state, and no program
is compiled anew.

A chunk after which the loss or the posterior is not finite is thrown away and ends the
fit; so does an interrupt from the keyboard.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from sklearn.exceptions import ConvergenceWarning

from ngvi.nets.state import State
from ngvi.nets.train import run_epochs
from ngvi.nets.update import Rule
from ngvi.terminal.progress import Progress

Reason = Literal["converged", "max_epochs", "diverged", "interrupted"]


class Stopping(NamedTuple):
    """When to stop before the last epoch."""

    objective: Callable[[State], float]
    """Of a state, per example and in nats: the higher the better."""
    name: str
    patience: int
    """Looks without an improvement."""
    tol: float
    """What counts as one."""


class Outcome(NamedTuple):
    """Of a fit."""

    state: State
    """The one of the highest objective, or the last."""
    history: dict[str, list[float]]
    """At every look: "epoch", "loss" and the objective by its name."""
    epochs: int
    reason: Reason


class TrainingProgress(Progress):
    """The line of a fit: epochs, the loss, the objective."""

    def show(self, history: dict[str, list[float]], max_epochs: int) -> None:
        """Show the last numbers."""
        if self._bar is None:
            return
        numbers = {name: values[-1] for name, values in history.items()}
        words = [f"epoch {numbers.pop('epoch'):,.0f}/{max_epochs:,d}"]
        words += [f"{name} {value:.4f}" for name, value in numbers.items()]
        line = "  ".join(words)
        self._bar.set_description_str(f"{self.description}: {line}", refresh=False)
        self._bar.update(1)


def train(
    rule: Rule,
    state: State,
    data: tuple[Any, Any],
    key: Key[Array, ""],
    *,
    max_epochs: int,
    epochs_per_look: int,
    batch_size: int,
    warm_up: int = 0,
    first_weight: float = 1.0,
    stopping: Stopping | None = None,
    progress: TrainingProgress,
) -> Outcome:
    """Train until the objective stays, or for all epochs.

    Args:
        rule: how q moves.
        state: where it starts.
        data: x and y of all examples.
        key: of all that is drawn.
        max_epochs: at most.
        epochs_per_look: between looks at the objective.
        batch_size: B.
        warm_up: looks before the KL divergence has its full weight.
        first_weight: what κ is multiplied by in the first of them; it grows
            geometrically.
        stopping: whether to stop early.
        progress: where to show it.
    """
    history: dict[str, list[float]] = {"epoch": [], "loss": []}
    kept, best, waited, epochs = state, -np.inf, 0, 0
    reason: Reason = "max_epochs"
    scale, looks = state.scale, 0
    if stopping:
        history[stopping.name] = []
    with progress:
        while epochs < max_epochs:
            size = min(epochs_per_look, max_epochs - epochs)
            left = max(1 - looks / warm_up, 0) if warm_up else 0
            state = replace(state, scale=scale / first_weight**left)
            try:
                state, losses = run_epochs(
                    rule,
                    state,
                    *data,
                    jax.random.fold_in(key, epochs),
                    epochs=size,
                    batch_size=batch_size,
                )
                loss = float(losses.mean())
                value = stopping.objective(state) if stopping else 0.0
            except KeyboardInterrupt:
                reason = "interrupted"
                break
            if not (np.isfinite([loss, value]).all() and is_finite(state)):
                reason = "diverged"
                break
            epochs, looks = epochs + size, looks + 1
            history["epoch"].append(epochs)
            history["loss"].append(loss)
            if stopping is None:
                kept = state
            else:
                history[stopping.name].append(value)
                better = value > best + stopping.tol
                waited = 0 if better or looks <= warm_up else waited + 1
                if value > best:
                    kept, best = state, value
            progress.show(history, max_epochs)
            if stopping and waited >= stopping.patience:
                reason = "converged"
                break
    return Outcome(replace(kept, scale=scale), history, epochs, reason)


def warn_of(outcome: Outcome) -> None:
    """Warn whoever called the method that called for the fit, where it went wrong."""
    if outcome.reason == "diverged":
        warnings.warn(
            "the training diverged: the loss or the posterior was not finite after "
            f"epoch {outcome.epochs}, whose state is kept. Try a lower "
            "learning_rate, more samples, or a larger batch_size",
            ConvergenceWarning,
            stacklevel=5,
        )
    if outcome.reason == "interrupted":
        warnings.warn(
            f"interrupted: the state of epoch {outcome.epochs} is kept",
            ConvergenceWarning,
            stacklevel=5,
        )


@jax.jit
def _all_finite(tree: Any) -> Array:
    """Of the leaves that are floating numbers."""
    leaves = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def is_finite(state: Any) -> bool:
    """Whether every number is, of a state or of several."""
    return bool(_all_finite(state))
