"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.nets.optimizers.shampoo import scale_by_shampoo, shampoo

__all__ = ["scale_by_shampoo", "shampoo"]
