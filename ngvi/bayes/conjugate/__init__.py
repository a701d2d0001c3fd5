"""Conjugate-exponential models by stochastic variational inference, with the interface
of scikit-learn."""

from ngvi.extras import extra

with extra("nets", "ngvi.bayes.conjugate"):
    from ngvi.bayes.conjugate.ard_estimator import ARDRegression
    from ngvi.bayes.conjugate.factor_estimator import FactorAnalysis
    from ngvi.bayes.conjugate.lda import LatentDirichletAllocation
    from ngvi.bayes.conjugate.mixture_estimator import BayesianGaussianMixture

__all__ = [
    "ARDRegression",
    "BayesianGaussianMixture",
    "FactorAnalysis",
    "LatentDirichletAllocation",
]
