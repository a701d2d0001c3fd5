"""Structured matrices: the structure is known here, nowhere else.

Positive definite ones solve and draw; semidefinite ones do so once they are damped.
"""

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.block_arrow import BlockArrow
from ngvi.linalg.block_diagonal import BlockDiagonal
from ngvi.linalg.blocks import BlockOperators, SemidefiniteBlocks
from ngvi.linalg.chain import Chain
from ngvi.linalg.chain_arrow import ChainArrow
from ngvi.linalg.chain_bands import Bands
from ngvi.linalg.conjugate_gradients import SolveInfo, conjugate_gradients
from ngvi.linalg.damped_matrix_free import DampedMatrixFree
from ngvi.linalg.damped_together import damped_together
from ngvi.linalg.dense import Dense
from ngvi.linalg.diagonal import Diagonal
from ngvi.linalg.eigenpairs import low_rank
from ngvi.linalg.isotropic import Isotropic
from ngvi.linalg.kronecker import Kronecker
from ngvi.linalg.kronecker_eigen import KroneckerEigen
from ngvi.linalg.kronecker_factors import KroneckerFactors
from ngvi.linalg.lanczos import lanczos
from ngvi.linalg.learned_low_rank import LearnedLowRank
from ngvi.linalg.low_rank import LowRankPlusDiagonal
from ngvi.linalg.matrix_free import MatrixFree
from ngvi.linalg.rank_one import DiagonalMinusRankOne
from ngvi.linalg.reordered import Reordered
from ngvi.linalg.semidefinite import Semidefinite
from ngvi.linalg.semidefinite_dense import SemidefiniteDense
from ngvi.linalg.semidefinite_diagonal import SemidefiniteDiagonal
from ngvi.linalg.semidefinite_low_rank import LowRank
from ngvi.linalg.spiked import SpikedCovariance
from ngvi.linalg.stochastic import Estimate
from ngvi.linalg.tree import Level, Piece, Tree

__all__ = [
    "Bands",
    "BlockArrow",
    "BlockDiagonal",
    "BlockOperators",
    "Chain",
    "ChainArrow",
    "DampedMatrixFree",
    "Dense",
    "Diagonal",
    "DiagonalMinusRankOne",
    "Estimate",
    "Isotropic",
    "Kronecker",
    "KroneckerEigen",
    "KroneckerFactors",
    "LearnedLowRank",
    "Level",
    "LinearStructure",
    "LowRank",
    "LowRankPlusDiagonal",
    "MatrixFree",
    "Piece",
    "PositiveDefinite",
    "Reordered",
    "Retracted",
    "Semidefinite",
    "SemidefiniteBlocks",
    "SemidefiniteDense",
    "SemidefiniteDiagonal",
    "SolveInfo",
    "SpikedCovariance",
    "Tree",
    "conjugate_gradients",
    "damped_together",
    "lanczos",
    "low_rank",
]
