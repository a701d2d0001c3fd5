"""Structured positive-definite matrices: the structure is known here, nowhere else."""

from ngvi.linalg.base import PositiveDefinite, Retracted
from ngvi.linalg.dense import Dense
from ngvi.linalg.diagonal import Diagonal

__all__ = ["Dense", "Diagonal", "PositiveDefinite", "Retracted"]
