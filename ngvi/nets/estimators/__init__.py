"""Bayesian nets with the interface of scikit-learn."""

from ngvi.nets.estimators.classifier import BayesianMLPClassifier
from ngvi.nets.estimators.regressor import BayesianMLPRegressor

__all__ = ["BayesianMLPClassifier", "BayesianMLPRegressor"]
