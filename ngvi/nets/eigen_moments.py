"""Second moments of the gradients in K-FAC's eigenvectors: noisy EK-FAC.

With the eigenvectors U of a layer's averaged factors A ⊗ G, s is U diag(r) Uᵀ, r the
running average of (Uᵀ g)² over examples.

Source: Bae, Zhang and Grosse (2018), Eigenvalue corrected noisy natural gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ngvi.fisher.batches import Batch
from ngvi.fisher.gradient import with_gradient
from ngvi.fisher.jacobians import Backpropagated
from ngvi.fisher.kinds import Kind
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.structures.kronecker import (
    KroneckerStructure,
    second_moments,
    with_moments,
)
from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    Semidefinite,
    SemidefiniteBlocks,
)
from ngvi.nets.measures import Draw, Estimate, FromFisher, Measure
from ngvi.nets.net import Net


class Eigen(NamedTuple):
    """What noisy EK-FAC keeps."""

    factors: SemidefiniteBlocks
    """Those of K-FAC, averaged."""
    moments: SemidefiniteBlocks
    """The second moments in a basis of eigenvectors of the factors, averaged."""


@dataclass(frozen=True)
class EigenMoments(Measure):
    """K-FAC's factors for a basis, and the second moments of the gradients in it.

    When the basis is renewed, the matrix stays as it was, restricted to the new one.
    """

    kind: Kind
    structure: KroneckerStructure

    def measure(self, draw: Draw, batch: Batch, site: Eigen) -> Estimate:
        problem = draw.problem(self.kind, batch)

        def sums(sent_back: Backpropagated) -> tuple[Any, Any]:
            moments = second_moments(problem, sent_back, site.moments)
            return self.structure.sums(problem, sent_back), moments

        gradient, (of_factors, moments), outputs = with_gradient(problem, sums)
        factors = self.structure.build(problem, of_factors)
        measured = Eigen(factors, with_moments(site.moments, moments))
        return Estimate(gradient, measured, outputs)

    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> Eigen:
        factored = FromFisher(self.kind, self.structure)
        factors: Any = factored.begin(net, likelihood, batch, value)
        return Eigen(factors, in_eigenbasis(factors))

    def refresh(self, site: Eigen) -> Eigen:
        return in_basis(site, in_eigenbasis(site.factors))

    def curvature(self, site: Eigen) -> SemidefiniteBlocks:
        return site.moments


def in_eigenbasis(factors: SemidefiniteBlocks) -> SemidefiniteBlocks:
    """The eigenvectors of Kronecker factors."""
    return SemidefiniteBlocks(tuple(map(eigen_of, factors.blocks)))


def eigen_of(block: Semidefinite) -> Semidefinite:
    """By its eigenvectors, if it has Kronecker factors."""
    return block.eigen() if isinstance(block, KroneckerFactors) else block


def in_basis(site: Eigen, basis: SemidefiniteBlocks) -> Eigen:
    """The same, its moments restricted to another basis."""
    blocks = []
    for new, old in zip(basis.blocks, site.moments.blocks, strict=True):
        if isinstance(new, KroneckerEigen) and isinstance(old, KroneckerEigen):
            old = new.project(old)
        blocks.append(old)
    return site._replace(moments=SemidefiniteBlocks(tuple(blocks)))
