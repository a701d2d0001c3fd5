"""How good predictions are, and how well they know it.

Labels y are numbers of classes 0, …, C − 1, and probabilities have shape (n, C); what
scikit-learn computes is left to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from ngvi.extras import extra

Probabilities = Float[np.ndarray, "n C"]
Labels = Int[np.ndarray, "n"]


class Reliability(NamedTuple):
    """Of bins that hold a prediction, in order."""

    confidence: Float[np.ndarray, "b"]
    """The mean probability of the class predicted."""
    accuracy: Float[np.ndarray, "b"]
    """How often it was right."""
    size: Int[np.ndarray, "b"]
    """How many predictions it holds."""


def negative_log_likelihood(y: Any, probabilities: Any) -> float:
    """The mean of −log p of the class that it was."""
    with extra("nets", "negative_log_likelihood"):
        from sklearn.metrics import log_loss

    y, p = _checked(y, probabilities)
    return float(log_loss(y, p, labels=np.arange(p.shape[1])))


def brier_score(y: Any, probabilities: Any) -> float:
    """The mean of Σ_c (p_c − [y = c])², from 0 to 2 (Brier, 1950).

    Of two classes it is twice the squared error of the probability of one of them.
    """
    y, p = _checked(y, probabilities)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


def reliability_curve(y: Any, probabilities: Any, bins: int = 15) -> Reliability:
    """Accuracy against confidence, the largest of the probabilities.

    Args:
        y: labels.
        probabilities: of the classes.
        bins: (0, 1/b], (1/b, 2/b], …, equally wide; empty ones are left out.

    Source: DeGroot and Fienberg (1983), The comparison and evaluation of forecasters.
    """
    if bins < 1:
        raise ValueError(f"bins must be positive, got {bins}")
    y, p = _checked(y, probabilities)
    confidence, right = p.max(1), p.argmax(1) == y
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    which = np.digitize(confidence, edges, right=True)
    number = np.bincount(which, minlength=bins)
    held = number > 0
    number = number[held]
    sure, correct = (np.bincount(which, w, bins)[held] for w in (confidence, right))
    return Reliability(sure / number, correct / number, number)


def expected_calibration_error(y: Any, probabilities: Any, bins: int = 15) -> float:
    """ECE = Σ_b (n_b / n) |accuracy − confidence| over the bins of the curve.

    Of the class predicted, in bins of equal width: the convention of Guo, Pleiss, Sun
    and Weinberger (2017), On calibration of modern neural networks. It depends on the
    number of bins, and is above zero for a calibrated model of finite data.
    """
    curve = reliability_curve(y, probabilities, bins)
    gaps = np.abs(curve.accuracy - curve.confidence)
    return float(np.average(gaps, weights=curve.size))


def interval_coverage(y: Any, lower: Any, upper: Any) -> float:
    """The share of numbers y that lie in their intervals, ends included."""
    y, lower, upper = np.broadcast_arrays(y, lower, upper)
    if not y.size:
        raise ValueError("y holds no numbers")
    return float(((lower <= y) & (y <= upper)).mean())


def predictive_entropy(probabilities: Any) -> Float[np.ndarray, "*n"]:
    """−Σ p log p over the last axis, in nats: how uncertain the label is."""
    from scipy.stats import entropy

    return entropy(np.asarray(probabilities, float), axis=-1)


def mutual_information(probabilities: Any) -> Float[np.ndarray, "n"]:
    """Between label and weights, in nats: H[mean p] − mean H[p] over draws (BALD).

    It is zero where all draws agree, however uncertain the label is.

    Args:
        probabilities: of every draw of the weights, (S, n, C).

    Source: Houlsby, Huszár, Ghahramani and Lengyel (2011), Bayesian active learning for
    classification and preference learning.
    """
    p = np.asarray(probabilities, float)
    if p.ndim < 2:
        raise ValueError(f"probabilities must be (S, n, C), got shape {p.shape}")
    gained = predictive_entropy(p.mean(0)) - predictive_entropy(p).mean(0)
    return np.maximum(gained, 0)


def out_of_distribution_auroc(
    known: Num[np.ndarray, "n"], unknown: Num[np.ndarray, "m"]
) -> float:
    """How often an unknown input has the higher score (such as the entropy), the area
    under the ROC curve.

    Args:
        known: scores of inputs like those of the training.
        unknown: scores of others.
    """
    with extra("nets", "The area under a ROC curve"):
        from sklearn.metrics import roc_auc_score

    scores = np.concatenate([np.ravel(known), np.ravel(unknown)])
    labels = np.repeat([0, 1], [np.size(known), np.size(unknown)])
    return float(roc_auc_score(labels, scores))


def _checked(y: Any, probabilities: Any) -> tuple[Labels, Probabilities]:
    """Labels and probabilities that fit, the latter in double precision, of sum one.

    Raises:
        ValueError: they do not.
    """
    y, p = np.asarray(y), np.asarray(probabilities, float)
    if p.ndim != 2 or y.shape != p.shape[:1] or not y.size:
        raise ValueError(
            "probabilities must be (n, C) and labels (n,), n ≥ 1, got shapes "
            f"{p.shape} and {y.shape}"
        )
    if not np.isin(y, np.arange(p.shape[1])).all():
        raise ValueError(
            f"labels must be from 0 to {p.shape[1] - 1}, got {np.unique(y)}"
        )
    sums = p.sum(1)
    if not (p >= 0).all() or not np.allclose(sums, 1, atol=1e-3):
        raise ValueError("probabilities must be positive and sum to one in every row")
    return y.astype(int), p / sums[:, None]
