"""The Fisher engine: curvature of any model JAX can trace, in any structure."""
