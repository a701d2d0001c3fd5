"""Structures for any number of parameters, from products with vectors alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.fisher.kinds import Hessian
from ngvi.fisher.layout import Layout
from ngvi.fisher.problem import Problem
from ngvi.fisher.products import Flat, InBatches, InParts, Noise, linearized
from ngvi.fisher.structures.base import Structure
from ngvi.fisher.structures.exact import DiagonalStructure
from ngvi.linalg import LowRank, MatrixFree, low_rank


@dataclass(frozen=True)
class MatrixFreeStructure(Structure):
    """Products only. All examples at once: the model is linearised here, once, and its
    activations are kept; with a batch size it is linearised anew for every product."""

    by_layers: ClassVar[bool] = False

    def compute(self, problem: Problem, key: Key[Array, ""] | None) -> MatrixFree:
        size = problem.batch_size
        if size is None or size >= problem.count:
            product: Any = linearized(problem, problem.data)
        else:
            product = InBatches(problem)
        layout = Layout.of(problem.params)
        definite = problem.kind.definite(problem.likelihood)
        noise = Flat(Noise(problem), layout)
        return MatrixFree(
            InParts(product, layout),
            layout.dim,
            noise if definite else None,
            jnp.result_type(*jax.tree.leaves(problem.params)),
            sizes=layout.sizes,
        )


@dataclass(frozen=True)
class LowRankStructure(Structure):
    """The leading eigenvectors, and beside them what makes the diagonal that of F; of a
    Hessian the eigenvectors alone."""

    rank: int = 16
    method: Literal["lanczos", "randomised"] = "randomised"
    by_layers: ClassVar[bool] = False
    needs_key: ClassVar[bool] = True

    def check(self, problem: Problem, count: int) -> None:
        if not 0 < self.rank <= count:
            raise ValueError(
                f"rank must be from 1 to the number of parameters, {count}, got "
                f"{self.rank}"
            )

    def compute(self, problem: Problem, key: Key[Array, ""] | None) -> LowRank:
        assert key is not None
        whole = MatrixFreeStructure().compute(problem, key)
        leading = low_rank(
            whole.mv, whole.dim, self.rank, key, self.method, dtype=whole.vector_dtype
        )
        if isinstance(problem.kind, Hessian):
            return leading
        diagonal = DiagonalStructure().compute(problem, key)
        layout = Layout.of(problem.params, problem.network)
        return leading.with_diagonal(layout.to_flat(diagonal.diagonal()))
