"""A search that is interrupted and goes on, to the same draws."""

import numpy as np
import pytest

import ngvi
from ngvi.checkpoints import Checkpoints
from ngvi.nes import CheckpointError, snapshot
from tests.nes.runs import Killed


def rastrigin(x):
    return float(10 * x.size + (x**2 - 10 * np.cos(2 * np.pi * x)).sum())


def search(fun=rastrigin, x0=(2.0, 3.0, 2.0), **options):
    options = {
        "sigma0": 0.2,
        "budget": 1200,
        "ftarget": 1e-9,
        "method": "cma",
    } | options
    return ngvi.minimize(
        fun, np.asarray(x0), bounds=[(-5, 5)] * 3, vectorized=False, **options
    )


def killed_after(calls, objective=rastrigin):
    left = iter(range(calls))

    def fun(x):
        if next(left, None) is None:
            raise Killed
        return objective(x)

    return fun


def rotated(x):
    """A sum over other coordinates than x's."""
    return rastrigin(np.array([x[0] - x[1], x[0] + x[1], x[2]]))


@pytest.mark.parametrize(
    ("fun", "method", "kills"),
    [
        (rastrigin, "cma", (300, 600)),
        # Along the axes twice, and in the runs that a model helps.
        (rastrigin, "auto", (30, 60)),
        (rotated, "auto", (40, 200)),
    ],
)
def test_a_resumed_search_is_the_same_to_the_last_bit(tmp_path, fun, method, kills):
    options = {"method": method, "budget": 1200 if method == "cma" else 600}
    whole = search(fun, **options)
    assert whole.stops or fun is rastrigin, "the test needs a restart"
    path = tmp_path / "run"
    for calls in kills:
        with pytest.raises(Killed):
            search(killed_after(calls, fun), checkpoint=path, every=7, **options)
    resumed = search(fun, checkpoint=path, every=7, **options)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert (resumed.fun, resumed.nfev, resumed.nit, resumed.message, resumed.stops) == (
        whole.fun,
        whole.nfev,
        whole.nit,
        whole.message,
        whole.stops,
    )
    assert resumed.history.keys() == whole.history.keys()
    for name, column in whole.history.items():
        np.testing.assert_array_equal(resumed.history[name], column, err_msg=name)
    np.testing.assert_array_equal(
        resumed.distribution.precision.root, whole.distribution.precision.root
    )
    # What has ended is not searched again.
    again = search(killed_after(0), checkpoint=path, **options)
    assert (again.fun, again.nfev) == (whole.fun, whole.nfev)


def test_a_kill_loses_few_generations(tmp_path, monkeypatch):
    path = tmp_path / "run"
    written = []
    save = Checkpoints.save

    def save_until_the_end(self, content, facts):
        # A kill -9 leaves no time for the last checkpoint.
        if len(written) < 4:
            save(self, content, facts)
            written.append(len(content.get("history/best", ())))

    monkeypatch.setattr(Checkpoints, "save", save_until_the_end)
    # However long they take.
    monkeypatch.setattr(snapshot, "LARGEST_SHARE", np.inf)
    with pytest.raises(Killed):
        search(killed_after(7 * 35), checkpoint=path, every=10)
    assert written == [0, 10, 20, 30]
    calls = []

    def count(x):
        calls.append(1)
        return rastrigin(x)

    found = search(count, checkpoint=path, budget=7 * 50)
    assert len(calls) == 7 * 20 and found.nfev == 7 * 50


def test_a_larger_budget_goes_on(tmp_path):
    path = tmp_path / "run"
    first = search(checkpoint=path, budget=210)
    assert first.message.startswith("maxfevals") and first.nfev == 210
    np.testing.assert_array_equal(search(checkpoint=path).x, search().x)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"x0": (2.0, 3.0, 2.5)}, "x0"),
        ({"sigma0": 0.4}, "sigma0"),
        ({"popsize": 9}, "popsize"),
        ({"method": "xnes"}, "method"),
        ({"maximize": True}, "direction"),
    ],
)
def test_the_checkpoint_of_another_search_is_refused(tmp_path, options, name):
    path = tmp_path / "run"
    search(checkpoint=path, budget=70)
    with pytest.raises(CheckpointError, match=f"with another {name}"):
        search(checkpoint=path, **options)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(b"not a folder")
    with pytest.raises(CheckpointError, match="is a file"):
        search(checkpoint=path)
    path.unlink()
    with pytest.raises(ValueError, match="every must be"):
        search(checkpoint=path, every=0)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setattr(snapshot, "LARGEST_SHARE", np.inf)
    search(checkpoint=path, budget=210, every=10)
    last = max(path.glob("checkpoint-*"))
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="is damaged"):
        resumed = search(checkpoint=path)
    np.testing.assert_array_equal(resumed.x, search().x)
