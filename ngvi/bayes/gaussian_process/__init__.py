"""Gaussian processes with any likelihood, exact or with inducing points."""

from ngvi.extras import extra

with extra("nets", "ngvi.bayes.gaussian_process"):
    from ngvi.bayes.gaussian_process.classifier import GaussianProcessClassifier
    from ngvi.bayes.gaussian_process.kernels import (
        RBF,
        Constant,
        Kernel,
        Linear,
        Matern12,
        Matern32,
        Matern52,
        Product,
        Sum,
    )
    from ngvi.bayes.gaussian_process.regressor import GaussianProcessRegressor

__all__ = [
    "RBF",
    "Constant",
    "GaussianProcessClassifier",
    "GaussianProcessRegressor",
    "Kernel",
    "Linear",
    "Matern12",
    "Matern32",
    "Matern52",
    "Product",
    "Sum",
]
