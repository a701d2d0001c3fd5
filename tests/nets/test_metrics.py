"""Metrics against counts by hand, scikit-learn and limits that are known."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from ngvi.nets import metrics

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(4), 500)
Y = np.array([RNG.choice(4, p=p) for p in P])


def test_expected_calibration_error_by_hand():
    p = np.array([[0.95, 0.05], [0.85, 0.15], [0.4, 0.6], [0.55, 0.45]])
    y = np.array([0, 1, 1, 0])
    # Bins of 0.2: (0.4, 0.6] holds 0.6 and 0.55, both right, (0.8, 1] 0.95 and 0.85.
    curve = metrics.reliability_curve(y, p, bins=5)
    np.testing.assert_allclose(curve.confidence, [0.575, 0.9])
    np.testing.assert_allclose(curve.accuracy, [1.0, 0.5])
    assert curve.size.tolist() == [2, 2]
    found = metrics.expected_calibration_error(y, p, bins=5)
    np.testing.assert_allclose(found, (0.425 + 0.4) / 2)


def test_reliability_curve_of_two_classes_is_scikit_learns():
    y, p = np.arange(500) % 2, 0.5 + 0.5 * RNG.random(500)
    accuracy, confidence = sklearn.calibration.calibration_curve(y, p, n_bins=10)
    curve = metrics.reliability_curve(y, np.stack([1 - p, p], 1), bins=10)
    np.testing.assert_allclose(curve.accuracy, accuracy)
    np.testing.assert_allclose(curve.confidence, confidence)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    # Each of 15 gaps has an sd below ½/√n_b: their sum, weighted, stays below this.
    bound = 1.5 * np.sqrt(15 / len(Y)) / 2
    assert metrics.expected_calibration_error(Y, P) < bound
    assert metrics.expected_calibration_error(Y, P**4 / (P**4).sum(1)[:, None]) > bound


def test_scores():
    log_loss = -np.log(P[np.arange(500), Y]).mean()
    np.testing.assert_allclose(metrics.negative_log_likelihood(Y, P), log_loss)
    binary, p = (Y > 1).astype(int), P[:, 2:].sum(1)
    both = np.stack([1 - p, p], 1)
    theirs = sklearn.metrics.brier_score_loss(binary, p)
    np.testing.assert_allclose(metrics.brier_score(binary, both), 2 * theirs)
    assert metrics.brier_score([0, 1], [[1.0, 0.0], [1.0, 0.0]]) == 1.0
    # A class that no label has still counts.
    np.testing.assert_allclose(
        metrics.negative_log_likelihood([0, 0], [[0.5, 0.25, 0.25]] * 2), np.log(2)
    )


def test_coverage():
    y = np.arange(10.0)[:, None]
    assert metrics.interval_coverage(y, 2.0, 6.0) == 0.5
    assert metrics.interval_coverage(y, y, y) == 1.0
    with pytest.raises(ValueError, match="no numbers"):
        metrics.interval_coverage([], [], [])


def test_mutual_information_is_what_draws_disagree_on():
    sure = np.eye(2)[:, None]
    np.testing.assert_allclose(metrics.mutual_information(sure), np.log(2))
    torn = np.full((2, 1, 2), 0.5)
    np.testing.assert_allclose(metrics.mutual_information(torn), 0)
    np.testing.assert_allclose(metrics.predictive_entropy(torn[0]), np.log(2))
    draws = RNG.dirichlet(np.ones(3), (8, 20))
    kl = (draws * np.log(draws / draws.mean(0))).sum(-1).mean(0)
    np.testing.assert_allclose(metrics.mutual_information(draws), kl)
    with pytest.raises(ValueError, match="must be"):
        metrics.mutual_information(draws[0, 0])


def test_auroc_is_a_share_of_pairs():
    known, unknown = np.array([1.0, 2.0, 3.0]), np.array([2.5, 4.0])
    assert metrics.out_of_distribution_auroc(known, unknown) == 5 / 6


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "from 0 to 1, got"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], "got shapes"),
        ([], np.ones((0, 2)), "got shapes"),
        ([0, 1], [[0.5, 0.6], [0.5, 0.5]], "sum to one"),
        ([0, 1], [[-0.5, 1.5], [0.5, 0.5]], "sum to one"),
        ([0, 1], [[np.nan, 0.5], [0.5, 0.5]], "sum to one"),
    ],
)
def test_what_is_no_probability(y, p, message):
    with pytest.raises(ValueError, match=message):
        metrics.brier_score(y, p)
