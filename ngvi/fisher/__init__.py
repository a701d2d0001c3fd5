"""Curvature: Fisher matrices of models, and what follows from them."""
