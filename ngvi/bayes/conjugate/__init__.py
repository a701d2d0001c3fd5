"""Conjugate-exponential models by stochastic variational inference, with the interface
of scikit-learn."""

from ngvi.bayes.conjugate.lda import LatentDirichletAllocation

__all__ = ["LatentDirichletAllocation"]
