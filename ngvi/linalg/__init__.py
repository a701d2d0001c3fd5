"""Structured positive-definite matrices: the structure is known here, nowhere else."""

from ngvi.linalg.base import LinearStructure, PositiveDefinite, Retracted
from ngvi.linalg.block_diagonal import BlockDiagonal
from ngvi.linalg.dense import Dense
from ngvi.linalg.diagonal import Diagonal
from ngvi.linalg.isotropic import Isotropic
from ngvi.linalg.kronecker import Kronecker
from ngvi.linalg.low_rank import LowRankPlusDiagonal
from ngvi.linalg.rank_one import DiagonalMinusRankOne
from ngvi.linalg.spiked import SpikedCovariance

__all__ = [
    "BlockDiagonal",
    "Dense",
    "Diagonal",
    "DiagonalMinusRankOne",
    "Isotropic",
    "Kronecker",
    "LinearStructure",
    "LowRankPlusDiagonal",
    "PositiveDefinite",
    "Retracted",
    "SpikedCovariance",
]
