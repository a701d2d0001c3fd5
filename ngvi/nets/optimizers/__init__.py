"""Optimisers by natural gradients and curvature, in the manner of optax."""

from ngvi.nets.optimizers.shampoo import scale_by_shampoo, shampoo
from ngvi.nets.optimizers.soap import scale_by_soap, soap

__all__ = ["scale_by_shampoo", "scale_by_soap", "shampoo", "soap"]
