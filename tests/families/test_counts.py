"""Counts: the multinomial mode, against all there are."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np

from ngvi.families import Categorical, Multinomial
from tests.programs import compiled


def test_the_multinomial_mode_is_the_likeliest_of_all_counts() -> None:
    total, classes = 6, 4
    # Of some the counts that are nearest to n p are not the likeliest ones.
    logits = np.random.default_rng(0).normal(size=(200, classes)) * 2
    every = itertools.product(range(total + 1), repeat=classes)
    counts = np.array([c for c in every if sum(c) == total])

    @compiled
    def study(logits: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        q = Multinomial(logits, total)
        return q.log_prob(q.mode), q.log_prob(jnp.asarray(counts)[:, None])

    at_mode, at_all = study(jnp.asarray(logits))
    np.testing.assert_allclose(at_mode, at_all.max(0), rtol=1e-12)


def test_the_multinomial_mode_of_equal_classes() -> None:
    mode = Multinomial(jnp.zeros(3), 7).mode
    assert sorted(mode.tolist()) == [2, 2, 3]


def test_the_categorical_cdf_counts_class_numbers() -> None:
    q = Categorical.from_probs([0.5, 0.25, 0.25])
    found = q.cdf(jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0, 7.0]))
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 0.75, 1, 1], atol=1e-15)
