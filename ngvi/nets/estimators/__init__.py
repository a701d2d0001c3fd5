"""Bayesian nets with the interface of scikit-learn."""

from ngvi.extras import extra

with extra("nets", "ngvi.nets.estimators"):
    from ngvi.nets.estimators.classifier import BayesianMLPClassifier
    from ngvi.nets.estimators.regressor import BayesianMLPRegressor

__all__ = ["BayesianMLPClassifier", "BayesianMLPRegressor"]
