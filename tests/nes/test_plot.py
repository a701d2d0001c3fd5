"""The picture of a search: what is drawn, read back from the figure."""

import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import ngvi
from ngvi.nes import plot

mpl.use("agg")


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


@pytest.fixture(scope="module")
def found():
    """Two runs after a search along the axes, of a pytree."""
    x0 = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    return ngvi.minimize(
        lambda x: rosenbrock(jnp.append(x["a"], x["b"])), x0, restarts=1, budget=3_000
    )


def result(run, best, median, popsize=None, **more):
    """A search of one coordinate with such a history."""
    count = len(run)
    size = np.full(count, 4) if popsize is None else np.array(popsize)
    history = {
        "evaluations": np.cumsum(size),
        "best": np.array(best, float),
        "median": np.array(median, float),
        "sigma": np.linspace(1, 0.1, count),
        "axis_ratio": np.ones(count),
        "mean": np.zeros((count, 1)),
        "sd": np.ones((count, 1)),
        "run": np.array(run),
        "popsize": size,
    }
    facts = {"x": np.zeros(1), "fun": float(np.min(best)), "nfev": int(size.sum())}
    facts |= {"nfailed": 0, "message": "tolfun: close", "maximize": False}
    return OptimizeResult(history=history, **(facts | more))


def line(figure, panel, label):
    """The points of a line; NaN where it is broken."""
    lines = figure.axes[panel].get_lines()
    return next(one for one in lines if one.get_label() == label).get_xydata()


def labels(figure, panel=0):
    return [text.get_text() for text in figure.axes[panel].texts]


def test_four_panels_show_the_history(found, tmp_path):
    figure = plot(found, tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 10_000
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [
        "distance above the best value found",
        "σ and axis ratio",
        "mean, by coordinate",
        "standard deviation, by coordinate",
    ]
    scales = [axes.get_yscale() for axes in figure.axes]
    assert scales == ["log", "log", "linear", "log"]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["a[0]", "a[1]", "b"]
    for panel, column in ((2, "mean"), (3, "sd")):
        for i, name in enumerate(names):
            drawn = line(figure, panel, name)
            known = np.isfinite(drawn[:, 1])
            expected = found.history[column][:, i]
            expected = expected[np.isfinite(expected)]
            np.testing.assert_array_equal(drawn[known, 1], expected)
    drawn = line(figure, 1, "σ, geometric mean")
    assert not np.isfinite(drawn[0]).all()  # of the search along the axes
    np.testing.assert_array_equal(drawn[-1, 1], found.history["sigma"][-1])


def test_values_are_distances_from_the_answer(found):
    figure = plot(found)
    assert set(found.history["run"]) == {-1, 0, 1}
    best_so_far = line(figure, 0, "best so far")
    expected = np.minimum.accumulate(found.history["best"]) - found.fun
    expected = np.where(expected > 0, expected, np.nan)
    np.testing.assert_array_equal(best_so_far[:, 1], expected)
    np.testing.assert_array_equal(best_so_far[:, 0], found.history["evaluations"])
    assert figure.get_suptitle().startswith(f"best value {found.fun:.6g}, ")
    assert "2 runs" in figure.get_suptitle()


def test_runs_are_broken_apart_and_named_by_their_populations():
    run = [-1, 0, 0, 1, 1, 2, 2]
    size = [4, 5, 5, 10, 10, 10, 20]
    figure = plot(result(run, range(9, 2, -1), range(19, 12, -1), size))
    drawn = line(figure, 0, "a generation's median")
    broken = np.flatnonzero(np.isnan(drawn[:, 0]))
    np.testing.assert_array_equal(broken, [1, 4, 7])
    # A population that grows within a run has a label of its own.
    words = ["axes", "5", "population 10", "10", "population 20"]
    assert labels(figure) == words and not labels(figure, 2)
    marks = [one for one in figure.axes[1].get_lines() if len(one.get_xdata()) == 2]
    assert [one.get_xdata()[0] for one in marks] == [4, 14, 34, 44]
    assert len(figure.axes[2].patches) == 1


def test_a_maximum_is_approached_from_below():
    figure = plot(result([0] * 3, [1, 3, 2], [0, 1, 1], fun=3.0, maximize=True))
    assert "below" in figure.axes[0].get_title("left")
    best_so_far = line(figure, 0, "best so far")[:, 1]
    np.testing.assert_array_equal(best_so_far, [2, np.nan, np.nan])
    np.testing.assert_array_equal(
        line(figure, 0, "a generation's median")[:, 1], 3 - np.array([0, 1, 1])
    )


def test_failures_and_values_that_cannot_be_the_answer_leave_gaps():
    best, median = [np.inf, 5, -7, 2], [np.inf, np.inf, 9, 3]
    figure = plot(result([0] * 4, best, median, fun=2.0, nfailed=6))
    np.testing.assert_array_equal(
        line(figure, 0, "best so far")[:, 1], [np.nan, 3, 3, np.nan]
    )
    drawn = line(figure, 0, "a generation's median")[:, 1]
    np.testing.assert_array_equal(drawn, [np.nan, np.nan, 7, 1])
    assert ", 6 failed; ended by tolfun" in figure.get_suptitle()


def test_what_violates_more_than_the_answer_is_not_the_best_so_far():
    found = result([0] * 4, [9, 5, 6, 4], [9] * 4, maxcv=1e-7)
    found.history["maxcv"] = np.array([1, 1e-3, 0, 1e-7])
    figure = plot(found)
    np.testing.assert_array_equal(
        line(figure, 0, "best so far")[:, 1], [np.nan, np.nan, 2, np.nan]
    )
    np.testing.assert_array_equal(
        line(figure, 0, "a generation's best")[:, 1], [5, 1, 2, np.nan]
    )


def test_noisy_values_are_drawn_as_they_are():
    figure = plot(result([0] * 3, [1, -2, -1], [2, 1, 0], fun=0.5, fun_error=0.1))
    assert figure.axes[0].get_yscale() == "linear"
    np.testing.assert_array_equal(
        line(figure, 0, "a generation's median")[:, 1], [2, 1, 0]
    )
    np.testing.assert_array_equal(line(figure, 0, "mean at the answer")[:, 1], 0.5)


@pytest.mark.parametrize(
    ("best", "fun", "said"),
    [(np.inf, np.inf, "no value"), (1, 1, "all values are equal")],
)
def test_says_why_a_panel_is_empty(best, fun, said):
    figure = plot(result([0, 0], [best] * 2, [best] * 2, fun=fun))
    assert said in labels(figure)


def test_one_generation_is_a_point():
    figure = plot(result([0], [1], [2]))
    (drawn,) = figure.axes[2].get_lines()
    assert drawn.get_marker() == "o" and all(drawn.get_markevery())


def test_a_search_along_the_axes_alone_has_no_distribution():
    found = result([-1, -1], [2, 1], [3, 2])
    for column in ("sigma", "axis_ratio", "sd"):
        found.history[column] = np.full_like(found.history[column], np.nan)
    figure = plot(found)
    for panel in (1, 3):
        assert any("axes only" in text for text in labels(figure, panel))


def test_many_dimensions_have_two_panels_and_other_columns_are_no_matter():
    found = result([0, 0], [2, 1], [3, 2])
    del found.history["mean"], found.history["sd"]
    found.history["novelty"] = np.zeros(2)
    figure = plot(found)
    assert len(figure.axes) == 2 and not figure.legends


def test_many_coordinates_are_named_by_the_first_and_the_last():
    found = result([0, 0], [2, 1], [3, 2], x=np.zeros(12))
    found.history["mean"] = found.history["sd"] = np.ones((2, 12))
    figure = plot(found)
    assert not figure.legends
    assert "x[0] (dark) to x[11] (light)" in figure.get_supxlabel()


def test_an_empty_history_and_a_missing_library_are_said(monkeypatch):
    found = result([0], [1], [2], message="interrupted: by the keyboard")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'ngvi\[plots\]'"):
        plot(found)
    monkeypatch.undo()
    found.history = {}
    with pytest.raises(ValueError, match=r"nothing to draw.*interrupted"):
        plot(found)
