"""Small nets of a regression, which are linearised unless another row is asked for."""

from __future__ import annotations

import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ngvi.nets import BayesianMLPRegressor, linearized
from ngvi.nets.estimators import small as small_nets
from tests.nets.unoptimised import quick_predictions  # noqa: F401

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (60, 2))
Y = 100 + 10 * X[:, 0] - 5 * np.abs(X[:, 1]) + RNG.normal(size=60)


@pytest.fixture(scope="module")
def small() -> BayesianMLPRegressor:
    return BayesianMLPRegressor((8,), members=2, draws=32, random_state=0).fit(X, Y)


def test_a_small_net_is_linearised_by_default(small: BayesianMLPRegressor):
    assert small.algorithm_ == "linearized" and len(small.posterior_) == 2
    sd = small.predict(X, return_std=True)[1]
    assert small.score(X, Y) > 0.95 and 0.7 < np.median(sd) < 1.8
    lower, upper = small.predict_interval(X, 0.9)
    assert 0.8 < ((lower < Y) & (upper > Y)).mean() <= 1
    assert small.sample_y(X, 50).shape == (60, 50)
    assert len(small.history_["elbo"]) == small.n_iter_ <= 200
    # The bound is of y in its units, and below what the net says of y.
    assert small.elbo_ / len(Y) < small.log_score(X, Y)
    assert jnp.result_type(small.posterior_.components.mean) == jnp.result_type(float)


def test_a_linearised_net_can_be_pickled(small: BayesianMLPRegressor):
    again = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(again.predict(X), small.predict(X))


def test_a_linearised_net_takes_no_more_rows(small: BayesianMLPRegressor):
    with pytest.raises(ValueError, match="begin with partial_fit"):
        small.partial_fit(X[:5], Y[:5])


def test_inputs_that_do_not_matter_are_found_out():
    rows = np.c_[X, RNG.normal(size=(60, 2))]
    net = BayesianMLPRegressor((8,), members=1, random_state=0).fit(rows, Y)
    first = net.posterior_[0].prior.layout.tree(net.posterior_[0].prior.vector)[0]["w"]
    assert first[2:].min() > first[:2].max()


def test_few_epochs_are_enough_to_learn_noise():
    net = BayesianMLPRegressor((8,), members=1, max_epochs=8, random_state=0).fit(X, Y)
    assert net.n_iter_ == 8 and net.score(X, Y) > 0.5


def test_members_without_a_posterior_are_left_out_and_counted(monkeypatch):
    found = iter([np.nan, 0.0])

    def some(*args: Any, **kwargs: Any) -> Any:
        return linearized(*args, **kwargs)._replace(elbo=next(found))

    monkeypatch.setattr(small_nets, "linearized", some)
    net = BayesianMLPRegressor((8,), members=2, max_epochs=8, random_state=0)
    with pytest.warns(ConvergenceWarning, match="1 of 2 nets are left out"):
        net.fit(X, Y)
    assert len(net.posterior_) == 1


def test_no_member_has_a_posterior(monkeypatch):
    def none(*args: Any, **kwargs: Any) -> Any:
        return linearized(*args, **kwargs)._replace(elbo=np.nan)

    monkeypatch.setattr(small_nets, "linearized", none)
    net = BayesianMLPRegressor((8,), members=1, max_epochs=8, random_state=0)
    with pytest.raises(FloatingPointError, match="no precision of the weights"):
        net.fit(X, Y)


def test_linearised_nets_hold_out_no_rows():
    net = BayesianMLPRegressor(algorithm="linearized", early_stopping="validation")
    with pytest.raises(ValueError, match="holds out no rows"):
        net.fit(X, Y)
