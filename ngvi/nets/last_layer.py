"""A posterior of the last layer alone; the layers before it are trained to a point.

    q(w) = δ(w₁ − m₁) N(w₂ | m₂, S₂⁻¹),   S₂ = (N/κ) s₂ + δ,

s₂ all entries of the last layer's Fisher matrix. A step moves all of m by the one
update: m₂ by S₂, and m₁ by the diagonal of the same matrix, which is no posterior's
but that of a natural gradient. The features are those of the highest penalised
E_q(w₂)[log p(y | w)] + log p(w₁).

Source: Snoek et al. (2015), Scalable Bayesian optimization using deep neural networks;
Kristiadi, Hein and Hennig (2020), Being Bayesian, even just a bit, fixes
overconfidence in ReLU networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ngvi.fisher.batches import Batch
from ngvi.fisher.jacobians import Backpropagated, expand_square, parts, square
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.base import Averaged
from ngvi.linalg import (
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)
from ngvi.nets.measures import FromFisher
from ngvi.nets.net import Net


@dataclass(frozen=True)
class DenseLastLayer(Averaged):
    """All entries of the last layer's block, and the diagonals of the others."""

    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        last, signs = len(problem.network.layers) - 1, sent_back.signs
        return [
            square(part, signs) if k == last else part.squares(signs)
            for k, part in enumerate(parts(problem, sent_back))
        ]

    def build(self, problem: Problem, means: Any) -> SemidefiniteBlocks:
        layers = problem.network.layers
        blocks: list[Semidefinite] = [SemidefiniteDiagonal(sums) for sums in means]
        last = len(layers) - 1
        blocks[last] = SemidefiniteDense(expand_square(means[last], layers[last]))
        return SemidefiniteBlocks(tuple(blocks))


@dataclass(frozen=True)
class LastLayer(FromFisher):
    """The same, where only the last layer's weights are drawn."""

    structure: Averaged = DenseLastLayer()

    def random_part(self, net: Net) -> int:
        return len(net.network.layers) - 1

    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> Semidefinite:
        if not net.network.layers:
            raise ValueError(
                "no layer was found in the model, so none is the last: take `full`, or "
                "write the last layer as x @ w + b"
            )
        return super().begin(net, likelihood, batch, value)
