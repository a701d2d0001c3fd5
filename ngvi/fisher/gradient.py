"""A gradient and a curvature from one pass back through the model.

The columns of the output curvature are sent back to the layers; the score at the data's
labels is sent back with them, as one column more, or is the only column there is
(the empirical Fisher matrix).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.fisher.batches import Batch
from ngvi.fisher.jacobians import (
    Backpropagated,
    Factored,
    Part,
    backpropagate,
    parts,
)
from ngvi.fisher.kinds import Columns, EmpiricalFisher, Kind
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Problem
from ngvi.linalg.batching import join


class Measured(NamedTuple):
    """Of the mean of −log p(y | f) over a batch, held in memory at once."""

    gradient: Float[Array, "p"]
    """In the order of `Layout` with the problem's network."""
    sums: Any
    """What was asked for, of the curvature's columns."""
    outputs: Any
    """f, the examples first."""


def with_gradient(problem: Problem, sums: Callable[[Backpropagated], Any]) -> Measured:
    """The gradient, and sums over the examples such as a structure's.

    Args:
        problem: with labels; its batch size is not heeded.
        sums: of the columns sent back, without the score.
    """
    kind = problem.kind
    if isinstance(kind, EmpiricalFisher):
        sent_back = scores = backpropagate(problem, problem.data)
    else:
        both = problem.with_kind(_WithScore(kind))
        sent_back, scores = _apart(backpropagate(both, problem.data))
    # The rows are over √N.
    gradient = join([_total(part) for part in parts(problem, scores)])
    gradient = -gradient * problem.count**-0.5
    return Measured(gradient, sums(sent_back), sent_back.outputs)


@dataclass(frozen=True)
class _WithScore(Kind):
    """The columns of a kind, and the score at the data's label after them."""

    kind: Kind

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        columns, signs = self.kind.columns(likelihood, f, example)
        score = likelihood.gradient(f, example.y)
        both = jax.tree.map(lambda c, s: jnp.concatenate([c, s[None]]), columns, score)
        return Columns(both, signs)


def _apart(sent_back: Backpropagated) -> tuple[Backpropagated, Backpropagated]:
    """The columns of the kind, and that of the score."""
    inputs, gradients, rest, signs, outputs = sent_back

    def columns(which: slice) -> tuple[Any, Any]:
        cut = tuple(g[:, which] for g in gradients)
        return cut, tuple(g[:, which] for g in rest)

    return (
        Backpropagated(inputs, *columns(slice(None, -1)), signs, outputs),
        Backpropagated(inputs, *columns(slice(-1, None)), None, outputs),
    )


def _total(part: Part) -> Float[Array, "p"]:
    """Σ over the rows."""
    if isinstance(part, Factored):
        return (part.a.T @ part.g.sum(1)).reshape(-1)
    return part.x.sum((0, 1))
