"""Labels that are probabilities: the mean over labels that are drawn with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher.likelihoods import Bernoulli, SoftBernoulli, as_likelihood

F, V = jnp.array([-1.5, 0.2, 40.0]), jnp.array([1.0, -2.0, 3.0])


def test_it_is_the_mean_over_hard_labels() -> None:
    soft, hard, y = as_likelihood("soft_bernoulli"), Bernoulli(), jnp.array([0, 0.3, 1])
    assert isinstance(soft, SoftBernoulli) and soft.natural
    each = [hard.log_prob_each(jnp.full(3, label), F) for label in (0.0, 1.0)]
    expected = ((1 - y) * each[0] + y * each[1]).sum()
    np.testing.assert_allclose(soft.log_prob(F, y), expected, rtol=1e-12)
    np.testing.assert_allclose(soft.gradient(F, y), y - jax.nn.sigmoid(F), atol=1e-12)
    # The curvature does not depend on the labels: one with the model's own, 0 or 1.
    np.testing.assert_allclose(soft.hessian_mv(F, y, V), hard.fisher_mv(F, V))
    np.testing.assert_array_equal(soft.fisher_mv(F, V), hard.fisher_mv(F, V))
    np.testing.assert_array_equal(soft.root_columns(F), hard.root_columns(F))
    np.testing.assert_array_equal(soft.kl(F, F + V), hard.kl(F, F + V))
    np.testing.assert_array_equal(soft.mean(F), hard.mean(F))
    assert set(np.unique(soft.sample(jax.random.key(0), jnp.zeros(50)))) == {0, 1}


def test_labels_outside_of_the_interval() -> None:
    likelihood = SoftBernoulli()
    likelihood.check_labels(F, jnp.array([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=r"probabilities, from 0 to 1, got 1\.5 at"):
        likelihood.check_labels(F, jnp.array([0.0, 1.5, 1.0]))
