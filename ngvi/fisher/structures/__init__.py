"""Structures of curvature, by name."""

from ngvi.fisher.structures.base import Structure
from ngvi.fisher.structures.by_products import LowRankStructure, MatrixFreeStructure
from ngvi.fisher.structures.exact import (
    BlockStructure,
    DenseStructure,
    DiagonalStructure,
)
from ngvi.fisher.structures.kronecker import (
    KroneckerEigenStructure,
    KroneckerStructure,
    rescaled,
)

STRUCTURES: dict[str, type[Structure]] = {
    "dense": DenseStructure,
    "diagonal": DiagonalStructure,
    "block-diagonal": BlockStructure,
    "kronecker": KroneckerStructure,
    "kronecker-eigen": KroneckerEigenStructure,
    "low-rank": LowRankStructure,
    "matrix-free": MatrixFreeStructure,
}

__all__ = [
    "STRUCTURES",
    "BlockStructure",
    "DenseStructure",
    "DiagonalStructure",
    "KroneckerEigenStructure",
    "KroneckerStructure",
    "LowRankStructure",
    "MatrixFreeStructure",
    "Structure",
    "rescaled",
]
