"""Bayesian models: fit a NumPyro model or a log density, and judge the answer."""
