"""The loop of a fit: chunks of epochs, each one compiled program, and looks between.

A chunk after which the loss or the posterior is not finite is thrown away and ends the
fit; so does an interrupt from the keyboard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ngvi.nets.train import run_epochs
from ngvi.nets.update import Rule, State
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
        stopping: whether to stop early.
        progress: where to show it.
    """
    history: dict[str, list[float]] = {"epoch": [], "loss": []}
    kept, best, waited, epochs = state, -np.inf, 0, 0
    reason: Reason = "max_epochs"
    if stopping:
        history[stopping.name] = []
    with progress:
        while epochs < max_epochs:
            size = min(epochs_per_look, max_epochs - epochs)
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
            epochs += size
            history["epoch"].append(epochs)
            history["loss"].append(loss)
            if stopping is None:
                kept = state
            else:
                history[stopping.name].append(value)
                waited = 0 if value > best + stopping.tol else waited + 1
                if value > best:
                    kept, best = state, value
            progress.show(history, max_epochs)
            if stopping and waited >= stopping.patience:
                reason = "converged"
                break
    return Outcome(kept, history, epochs, reason)


@jax.jit
def _all_finite(tree: Any) -> Array:
    """Of the leaves that are floating numbers."""
    leaves = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def is_finite(state: State) -> bool:
    """Whether every number in it is."""
    return bool(_all_finite(state))
