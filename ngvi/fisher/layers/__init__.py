"""The layers of any model JAX can trace, found in its computation."""

from ngvi.fisher.layers.layer import Layer
from ngvi.fisher.layers.network import Apply, Network, discover

__all__ = ["Apply", "Layer", "Network", "discover"]
