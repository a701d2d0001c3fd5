"""What a structure of curvature is: how it is had from a model and data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Key

from ngvi.fisher.batches import Batch, sum_over
from ngvi.fisher.jacobians import Backpropagated, backpropagate
from ngvi.fisher.problem import Problem
from ngvi.linalg import Semidefinite

_CACHED = 2**21
"""Numbers."""


class Structure(ABC):
    """A structure; hashable, so that `jit` knows it."""

    by_layers: ClassVar[bool] = True
    """Whether the rows of its matrices are in the order of the layers, see `Layout`."""
    needs_key: ClassVar[bool] = False

    def check(self, problem: Problem, count: int) -> None:  # noqa: B027
        """Refuse a pair of kind and structure that has no meaning.

        Args:
            problem: with the kind.
            count: of the parameters.

        Raises:
            ValueError: in words.
        """

    @abstractmethod
    def compute(self, problem: Problem, key: Key[Array, ""] | None) -> Semidefinite:
        """The curvature.

        Args:
            problem: the model with its data, and the kind.
            key: for structures that are random; None for others.
        """


class Averaged(Structure):
    """A structure that is made of sums over the examples."""

    @abstractmethod
    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        """Over the examples of a batch, a pytree."""

    @abstractmethod
    def build(self, problem: Problem, means: Any) -> Semidefinite:
        """The curvature, of the sums over all examples."""

    def compute(self, problem: Problem, key: Key[Array, ""] | None) -> Semidefinite:
        means = mean_over(problem, lambda sent_back: self.sums(problem, sent_back))
        return self.build(problem, means)


def mean_over(problem: Problem, sums: Callable[[Backpropagated], Any]) -> Any:
    """Sums over the examples of batches: means, for what is sent back is over √N.

    Unless the problem says how large they are to be, the gradients at the layers of a
    batch stay in a processor's cache: larger ones take more time for each example.
    """
    size = problem.batch_size
    if size is None:
        one = jax.tree.map(lambda leaf: leaf[:1], problem.data)
        shapes = jax.eval_shape(lambda: backpropagate(problem, one))
        numbers = sum(leaf.size for leaf in (*shapes.gradients, *shapes.rest))
        size = max(_CACHED // numbers, 1)

    def of_batch(batch: Batch) -> Any:
        return sums(backpropagate(problem, batch))

    return sum_over(of_batch, problem.data, size)
