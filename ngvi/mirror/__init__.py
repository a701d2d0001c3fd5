"""The one place where a distribution is moved."""

from ngvi.mirror.step import (
    Direction,
    fisher_length,
    gaussian_path,
    gaussian_step,
    inner,
    mean_step,
    mirror_step,
)

__all__ = [
    "Direction",
    "fisher_length",
    "gaussian_path",
    "gaussian_step",
    "inner",
    "mean_step",
    "mirror_step",
]
