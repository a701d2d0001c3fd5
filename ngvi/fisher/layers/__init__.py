"""The layers of any model JAX can trace, found in its computation."""

from ngvi.fisher.layers.layer import Layer
from ngvi.fisher.layers.network import Network, discover

__all__ = ["Layer", "Network", "discover"]
