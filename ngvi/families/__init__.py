"""Exponential families in natural and mean coordinates."""

from ngvi.families.base import ExponentialFamily
from ngvi.families.gaussian import Gaussian

__all__ = ["ExponentialFamily", "Gaussian"]
