"""Optimisers by natural gradients and curvature, in the manner of optax."""

__all__: list[str] = []
