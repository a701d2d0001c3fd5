"""What a structure of curvature is: how it is had from a model and data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Key

from ngvi.fisher.batches import Batch, count, sum_over
from ngvi.fisher.jacobians import backpropagate
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
    def compute(
        self,
        problem: Problem,
        params: Any,
        data: Batch,
        batch_size: int | None,
        key: Key[Array, ""] | None,
    ) -> Semidefinite:
        """The curvature.

        Args:
            problem: the model, its likelihood and the kind.
            params: where.
            data: all examples.
            batch_size: how many to hold in memory.
            key: for structures that are random; None for others.
        """


class Averaged(Structure):
    """A structure that is made of sums over the examples."""

    @abstractmethod
    def sums(self, problem: Problem, params: Any, batch: Batch) -> Any:
        """Over the examples of a batch, a pytree."""

    @abstractmethod
    def build(self, problem: Problem, means: Any) -> Semidefinite:
        """The curvature, of the sums over N."""

    def compute(
        self,
        problem: Problem,
        params: Any,
        data: Batch,
        batch_size: int | None,
        key: Key[Array, ""] | None,
    ) -> Semidefinite:
        size = batch_size or comfortable_size(problem, params, data)
        sums = sum_over(lambda batch: self.sums(problem, params, batch), data, size)
        n = count(data)
        return self.build(problem, jax.tree.map(lambda total: total / n, sums))


def comfortable_size(problem: Problem, params: Any, data: Batch) -> int:
    """How many examples' gradients at the layers stay in a processor's cache: larger
    batches take more time for each example."""
    one = jax.tree.map(lambda leaf: leaf[:1], data)
    shapes = jax.eval_shape(lambda: backpropagate(problem, params, one))
    numbers = sum(leaf.size for leaf in (*shapes.gradients, *shapes.rest))
    return max(_CACHED // numbers, 1)
