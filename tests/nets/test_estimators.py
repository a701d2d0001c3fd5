"""The estimators: scikit-learn's own checks, units, bad data, runs that go wrong."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils.estimator_checks import estimator_checks_generator

from ngvi.nets import BayesianMLPClassifier, BayesianMLPRegressor
from ngvi.nets.estimators import defaults, training
from tests.nets.unoptimised import quick_predictions, quick_training  # noqa: F401

# The row that compiles soonest; fits of equal shapes share their programs.
QUICK: dict[str, Any] = {
    "hidden": (8,),
    "activation": "relu",
    "algorithm": "vogn",
    "learning_rate": 0.1,
    "max_epochs": 20,
    "early_stopping": None,
    "batch_size": 16,
    "draws": 16,
}
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (60, 2))
Y = 100 + 10 * X[:, 0] - 5 * np.abs(X[:, 1]) + RNG.normal(size=60)
NAMES = np.where(X.sum(1) > 0, "above", "below")


def regressor(**settings: Any) -> BayesianMLPRegressor:
    return BayesianMLPRegressor(**(QUICK | {"random_state": 0} | settings))


def classifier(**settings: Any) -> BayesianMLPClassifier:
    return BayesianMLPClassifier(**(QUICK | {"random_state": 0} | settings))


# -- scikit-learn's checks -------------------------------------------------------------

# Those without a fit, or with fits of the same few shapes; the others are slow, for
# each has data of a shape of its own.
SOON = {
    "check_classifiers_one_label",
    "check_dict_unchanged",
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_dont_overwrite_attributes",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_fit2d_predict1d",
    "check_get_params_invariance",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
}


def checks() -> list[Any]:
    found = []
    for made in (BayesianMLPRegressor(**QUICK), BayesianMLPClassifier(**QUICK)):
        for estimator, check in estimator_checks_generator(made):
            name = getattr(check, "func", check).__name__
            marks = [] if name in SOON else [pytest.mark.slow]
            task = type(estimator).__name__.removeprefix("BayesianMLP")
            found.append(
                pytest.param(estimator, check, id=f"{task}-{name}", marks=marks)
            )
    return found


@pytest.mark.parametrize(("estimator", "check"), checks())
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(estimator: Any, check: Any):
    check(estimator)


# -- predictions -----------------------------------------------------------------------


def test_regression():
    net = regressor(max_epochs=400).fit(X, Y)
    assert net.score(X, Y) > 0.9
    mean, sd = net.predict(X, return_std=True)
    assert mean.shape == sd.shape == Y.shape
    # The noise has sd 1, and the posterior something to add.
    assert 0.7 < np.median(sd) < 3
    lower, upper = net.predict_interval(X, 0.9)
    assert ((lower < Y) & (upper > Y)).mean() > 0.75
    drawn = net.sample_y(X, 400, random_state=1)
    assert drawn.shape == (60, 400)
    assert (abs(drawn.mean(1) - mean) < 5 * sd / np.sqrt(QUICK["draws"])).all()
    assert net.log_score(X, Y) > -0.5 * np.log(2 * np.pi * np.e * Y.var())
    assert np.isfinite(net.elbo_) and net.n_iter_ == 400


def test_units():
    one, other = regressor().fit(X, Y), regressor().fit(X * 1000, Y * 50 - 7)
    np.testing.assert_allclose(other.predict(X * 1000), one.predict(X) * 50 - 7, 1e-6)
    per_row = np.log(50)
    scores = one.log_score(X, Y), other.log_score(X * 1000, Y * 50 - 7)
    np.testing.assert_allclose(scores[0] - scores[1], per_row)
    np.testing.assert_allclose(one.elbo_ - other.elbo_, 60 * per_row)


def test_several_targets():
    both = np.stack([Y, -Y, 5 + X[:, 0]], 1)
    net = regressor(max_epochs=100).fit(X, both)
    mean, sd = net.predict(X, return_std=True)
    assert mean.shape == sd.shape == (60, 3)
    assert net.score(X, both) > 0.8
    # In units of each target.
    assert (sd.max(0) < both.std(0)).all() and (sd.min(0) > 0.1 * both.std(0)).all()
    assert net.sample_y(X[:4], 5).shape == (4, 3, 5)
    assert net.predict_interval(X[:4])[0].shape == (4, 3)
    with pytest.raises(ValueError, match=r"fitted to \(3,\)"):
        net.log_score(X, Y)


def test_classification():
    net = classifier().fit(X, NAMES)
    assert net.classes_.tolist() == ["above", "below"]
    assert net.score(X, NAMES) > 0.9
    p = net.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    chosen = p[np.arange(60), (NAMES == "below").astype(int)]
    np.testing.assert_allclose(net.log_score(X, NAMES), np.log(chosen).mean())
    np.testing.assert_allclose(net.predict_log_proba(X), np.log(p))
    drawn = net.sample_y(X, 50)
    assert drawn.shape == (60, 50) and set(np.unique(drawn)) == {"above", "below"}
    with pytest.raises(ValueError, match=r"\['beside'\] that are none of the classes"):
        net.log_score(X, np.full(60, "beside"))


def test_rows_do_not_depend_on_how_many_there_are():
    net = classifier().fit(X, NAMES)
    many = np.resize(X, (5000, 2))
    np.testing.assert_allclose(net.predict_proba(many)[:60], net.predict_proba(X))


def test_pickled_and_cloned():
    net = regressor().fit(X, Y)
    again = pickle.loads(pickle.dumps(net))
    assert (again.predict(X) == net.predict(X)).all()
    # It goes on as if nothing had been.
    one, other = net.partial_fit(X, Y), again.partial_fit(X, Y)
    assert (one.predict(X) == other.predict(X)).all()
    assert (clone(net).fit(X, Y).predict(X) == regressor().fit(X, Y).predict(X)).all()


# -- training --------------------------------------------------------------------------


def test_equal_shapes_are_compiled_once():
    traces = []

    def activation(x: Any) -> Any:
        traces.append(1)
        return jnp.tanh(x)

    regressor(activation=activation).fit(X, Y).predict(X)
    first = len(traces)
    again = regressor(activation=activation, random_state=1).fit(X + 1, -Y)
    again.predict(X[:7])
    # The layers and their shapes are found again; nothing that is compiled is traced.
    assert len(traces) - first <= 3 < first


@pytest.mark.parametrize("how", ["elbo", "validation"])
def test_early_stopping(how: str):
    net = classifier(early_stopping=how, max_epochs=400, tol=0.01, n_iter_no_change=2)
    net.fit(X, NAMES)
    assert net.stop_reason_ == "converged" and net.n_iter_ < 400
    objective = net.history_[how]
    assert len(objective) == len(net.history_["loss"]) == net.n_iter_ / 10
    if how == "elbo":
        # The state kept is that of the best look.
        np.testing.assert_allclose(net.elbo_, 60 * max(objective), rtol=1e-6)
    else:
        assert net.n_samples_seen_ == 54


def test_partial_fit_counts_the_rows():
    net = classifier()
    with pytest.raises(ValueError, match="classes must be given at the first call"):
        net.partial_fit(X, NAMES)
    for seen in (60, 120, 180):
        net.partial_fit(X, NAMES, classes=["above", "below", "beside"])
        assert net.n_samples_seen_ == seen
    assert net.elbo_ is None and len(set(map(len, net.history_.values()))) == 1
    assert net.predict_proba(X).shape == (60, 3)
    with pytest.raises(ValueError, match=r"are now \['above'\]"):
        net.partial_fit(X, NAMES, classes=["above"])


def test_more_rows_leave_less_uncertainty():
    net = regressor().partial_fit(X, Y)
    before = net.posterior_
    after = net.partial_fit(X, Y).posterior_
    assert after.precision.logdet() > before.precision.logdet() + 10
    assert after.noise.q.concentration == before.noise.q.concentration + len(X) / 2


def test_rows_that_break_the_posterior_are_left_out():
    net = regressor(settings={"trust": None}).fit(X, Y)
    before = net.predict(X)
    with pytest.warns(ConvergenceWarning, match="of the rows before is kept"):
        net.partial_fit(1e200 * X, 1e200 * Y)
    np.testing.assert_array_equal(net.predict(X), before)
    assert net.n_samples_seen_ == len(X) and net.stop_reason_ == "diverged"


def test_members_of_a_row_are_a_mixture():
    net = regressor(members=2, max_epochs=5).fit(X, Y)
    assert len(net.posterior_) == 2
    starts = net.posterior_.components.mean
    assert not np.allclose(starts[0], starts[1])
    net.partial_fit(X[:16], Y[:16])
    assert len(net.posterior_) == 2 and net.n_samples_seen_ == 76


def test_divergence_keeps_the_last_good_state():
    net = regressor(learning_rate=1e200, settings={"trust": None})
    with pytest.warns(
        ConvergenceWarning, match="diverged.*after epoch 0.*lower"
    ) as found:
        net.fit(X, Y)
    # It points to the call of `fit`.
    assert found[0].filename == __file__
    assert net.stop_reason_ == "diverged" and net.n_iter_ == 0
    assert np.isfinite(net.predict(X)).all() and np.isfinite(net.elbo_)


def test_divergence_later_keeps_the_last_good_state():
    def bursting(steps: Any) -> Any:
        return jnp.where(steps < 40, 0.05, 1e200)

    settings = {"early_stopping": None, "settings": {"trust": None}}
    net = regressor(learning_rate=bursting, **settings)
    with pytest.warns(ConvergenceWarning, match="diverged.*after epoch 10"):
        net.fit(X, Y)
    good = regressor(learning_rate=bursting, max_epochs=10, **settings).fit(X, Y)
    assert net.n_iter_ == 10 and net.history_["epoch"] == [10]
    np.testing.assert_array_equal(net.predict(X), good.predict(X))


def test_an_interrupt_keeps_what_there_is(monkeypatch: pytest.MonkeyPatch):
    run, calls = training.run_epochs, []

    def stopped(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*args, **settings)

    monkeypatch.setattr(training, "run_epochs", stopped)
    with pytest.warns(ConvergenceWarning, match="interrupted: the state of epoch 10"):
        net = regressor().fit(X, Y)
    monkeypatch.undo()
    ten = regressor(max_epochs=10).fit(X, Y)
    assert (net.predict(X) == ten.predict(X)).all()


def test_progress(capsys: pytest.CaptureFixture[str]):
    regressor(verbose=True).fit(X, Y)
    assert "BayesianMLPRegressor: epoch 20/20  loss" in capsys.readouterr().err
    regressor().fit(X, Y)
    assert capsys.readouterr().err == ""


# -- data ------------------------------------------------------------------------------


def test_a_constant_feature_and_a_constant_target():
    constant = np.stack([X[:, 0], np.full(60, 3.0)], 1)
    net = regressor(max_epochs=200).fit(constant, Y)
    assert net.score(constant, Y) > 0.9
    flat = regressor().fit(X, np.full(60, 5.0))
    assert np.isfinite(flat.log_score(X, np.full(60, 5.0)))
    np.testing.assert_allclose(flat.predict(X), 5, atol=1)


def test_fewer_rows_than_a_batch():
    assert regressor(batch_size=1000).fit(X, Y).n_iter_ == 20


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.where(X > 1.9, np.nan, X), NAMES, "Input X contains NaN"),
        (np.where(X > 1.9, np.inf, X), NAMES, "Input X contains infinity"),
        (X, np.full(60, "above"), "two classes or more, y has the one class 'above'"),
        (X, Y, "Unknown label type: continuous"),
        (np.full((60, 2), "a"), NAMES, "could not convert string to float"),
        (X[:0], NAMES[:0], "0 sample"),
        (X, NAMES[:5], "inconsistent numbers of samples"),
    ],
)
def test_what_cannot_be_classified(x: Any, y: Any, message: str):
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, y)


def test_a_target_with_a_gap():
    with pytest.raises(ValueError, match="Input y contains NaN"):
        regressor().fit(X, np.where(Y > 109, np.nan, Y))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"algorithm": "kfac"},
            "algorithm must be one of auto, linearized, blocks.* got 'kfac'",
        ),
        ({"activation": "sine"}, "activation must be a function or .* got 'sine'"),
        ({"early_stopping": "loss"}, "early_stopping must be .* got 'loss'"),
        ({"prior_precision": "wide"}, "or 'relevance', got 'wide'"),
        ({"prior_precision": -1.0}, "prior precisions must be positive, got -1"),
        ({"max_epochs": 0}, "max_epochs must be positive, got 0"),
        ({"hidden": (0,)}, "all positive, got"),
        ({"validation_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"warm_up": 2.0}, "warm_up must be from 0 to 1, got 2.0"),
        ({"kl_weight": 0.0}, "kl_weight must be positive, got 0.0"),
        ({"samples": 0}, "samples must be from 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        regressor(**settings).fit(X, Y)


def test_too_few_rows_to_hold_out():
    with pytest.raises(ValueError, match=r"4 rows cannot be split.*'elbo'"):
        classifier(early_stopping="validation").fit(X[:4], NAMES[:4])


def test_scikit_learn_is_imported_only_when_asked_for():
    code = (
        "import sys, ngvi, ngvi.nets; assert 'sklearn' not in sys.modules; "
        "from ngvi.nets import BayesianMLPRegressor; assert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- many trainings --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", defaults.ROWS)
def test_every_row(algorithm: str):
    x, y = load_iris(return_X_y=True)
    net = BayesianMLPClassifier((10,), algorithm=algorithm, random_state=0).fit(x, y)
    assert net.stop_reason_ in ("converged", "max_epochs")
    assert net.score(x, y) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "least", "log_score"),
    [
        (load_diabetes, 0.3, -5.6),
        (load_breast_cancer, 0.94, -0.15),
        (load_wine, 0.95, -0.25),
        (load_digits, 0.94, -0.25),
    ],
)
def test_defaults(load: Any, least: float, log_score: float):
    x, y = load(return_X_y=True)
    regression = load is load_diabetes
    make: Any = BayesianMLPRegressor if regression else BayesianMLPClassifier
    x, new_x, y, new_y = train_test_split(
        x, y, random_state=0, stratify=None if regression else y
    )
    net = make(random_state=0).fit(x, y)
    assert net.stop_reason_ in ("converged", "max_epochs")
    assert net.score(new_x, new_y) > least
    assert net.log_score(new_x, new_y) > log_score
