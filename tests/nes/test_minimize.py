"""`ngvi.minimize`: what it finds, what it says, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.sharding import Mesh

import ngvi
from ngvi.nes import Stopping, attempt


def sphere(x):
    return ((x - 0.5) ** 2).sum()


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_finds_the_minimum_and_says_why_it_stopped():
    found = ngvi.minimize(rosenbrock, np.zeros(4), method="cma", restarts=0)
    np.testing.assert_allclose(found.x, 1, atol=1e-5)
    assert found.success and found.message.startswith("tolfun: ")
    assert found.nfev == 8 * found.nit < 4000
    assert found.nfailed == 0 and found.first_error is None
    history = found.history
    assert len(history["best"]) == found.nit
    assert history["best"].min() == found.fun
    assert found.fun == pytest.approx(float(rosenbrock(found.x)), rel=1e-6)
    assert history["mean"].shape == history["sd"].shape == (found.nit, 4)
    np.testing.assert_array_equal(np.diff(history["evaluations"]), 8)
    assert 1 <= history["axis_ratio"][0] < 1.1 < history["axis_ratio"].max()
    np.testing.assert_allclose(history["mean"][-1], found.distribution.mean)


def called(fun=sphere, x0=(0.0, 0.0, 0.0), **options):
    """A search of a Python function, whose compiled parts all tests share."""
    options = {"method": "cma", "vectorized": False} | options
    return ngvi.minimize(fun, np.asarray(x0), **options)


def test_the_same_seed_gives_the_same_search():
    a, b, c = (called(ftarget=1e-2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.x, b.x)
    assert a.nfev == b.nfev and (a.x != c.x).all()


def test_a_traced_and_a_called_objective_agree():
    traced = ngvi.minimize(sphere, np.zeros(3), ftarget=1e-4, method="cma")
    plain = called(ftarget=1e-4)
    at_once = ngvi.minimize(
        lambda x: np.array([sphere(row) for row in np.asarray(x)]),
        np.zeros(3),
        ftarget=1e-4,
        vectorized=True,
        method="cma",
    )
    assert traced.nfev == plain.nfev == at_once.nfev
    np.testing.assert_allclose(traced.x, plain.x, rtol=1e-9)
    np.testing.assert_array_equal(plain.x, at_once.x)


def test_a_mesh_is_for_compiled_objectives():
    """On several devices: see `tests/test_processes.py`."""
    mesh = Mesh(np.array(jax.devices()), ("points",))
    over = ngvi.minimize(sphere, np.zeros(3), ftarget=1e-4, method="cma", mesh=mesh)
    alone = ngvi.minimize(sphere, np.zeros(3), ftarget=1e-4, method="cma")
    np.testing.assert_array_equal(over.x, alone.x)
    with pytest.raises(ValueError, match="a mesh is for JAX functions"):
        called(mesh=mesh)


def test_a_pytree_keeps_its_structure():
    x0 = {"a": np.zeros((2, 1)), "b": 1.0}

    def fun(x):
        return ((x["a"] - np.array([[1], [2]])) ** 2).sum() + (x["b"] + 1) ** 2

    for vectorized in (None, False):
        found = ngvi.minimize(fun, x0, ftarget=1e-6, vectorized=vectorized)
        assert found.x["a"].shape == (2, 1) and np.shape(found.x["b"]) == ()
        np.testing.assert_allclose(found.x["a"].ravel(), [1, 2], atol=1e-2)
        assert abs(found.x["b"] + 1) < 1e-2
    assert found.message.startswith("ftarget: ")


def test_a_list_and_a_number_are_starts_too():
    found = ngvi.minimize(sphere, [0, 1, 2], ftarget=1e-2, vectorized=False)
    assert found.x.shape == (3,)
    found = ngvi.minimize(lambda x: (x - 2) ** 2, 0.0, ftarget=1e-6)
    assert np.shape(found.x) == () and abs(found.x - 2) < 1e-2


def test_maximises():
    found = called(lambda x: 7 - sphere(x), maximize=True, ftarget=7 - 1e-6)
    np.testing.assert_allclose(found.x, 0.5, atol=1e-2)
    assert found.fun == pytest.approx(7) and found.history["best"].max() == found.fun
    assert "target 7" in found.message


def test_single_precision_stays_single():
    found = ngvi.minimize(rosenbrock, np.zeros(3, np.float32), restarts=0)
    assert found.x.dtype == found.distribution.mean.dtype == np.float32
    assert found.success and found.nfev < 5000
    np.testing.assert_allclose(found.x, 1, atol=1e-2)


def test_restarts_leave_local_optima_until_runs_agree():
    def rastrigin(x):
        return 10 * x.size + (x**2 - 10 * jnp.cos(2 * jnp.pi * x)).sum()

    options = dict(bounds=[(-5, 5)] * 2, seed=0, method="cma")
    once = ngvi.minimize(rastrigin, np.full(2, 3.0), sigma0=0.5, restarts=0, **options)
    assert once.fun > 0.9 and not once.stops and once.success
    found = ngvi.minimize(rastrigin, np.full(2, 3.0), **options)
    assert found.fun < 1e-6 and found.success and found.nfev < 6_000
    count = len(found.stops) + 1
    assert "(found by 3 runs of growing populations)" in found.message
    assert set(found.history["run"]) == set(range(count))
    assert found.history["popsize"].max() >= 12


def test_the_budget_is_never_exceeded():
    found = called(rosenbrock, budget=103)
    assert found.nfev == 98 and not found.success
    assert found.message == "maxfevals: 98 of 103 evaluations are spent"
    found = called(rosenbrock, stopping=Stopping(maxiter=5))
    assert found.nit == 5 and found.message.startswith("maxiter: 5 ")


def test_arguments_are_data_not_program():
    traces = []

    def fun(x, goal):
        traces.append(1)
        return ((x - goal) ** 2).sum()

    options = dict(ftarget=1e-6, restarts=0)
    for goal in (np.ones(3), np.zeros(3)):
        found = ngvi.minimize(fun, np.full(3, 2.0), args=(goal,), **options)
        np.testing.assert_allclose(found.x, goal, atol=1e-2)
    # Each call looks at the function twice; it is compiled in the first one only.
    assert len(traces) < 2 * 2 + 3
    before = attempt._advance._cache_size()
    ngvi.minimize(fun, np.full(3, 2.0), args=(np.full(3, 9.0),), tol=1e-3, **options)
    assert attempt._advance._cache_size() == before


@pytest.mark.parametrize("method", ["sep-cma", "xnes", "isotropic", "spiked-cma"])
def test_every_method_finds_a_sphere(method):
    found = called(method=method, ftarget=1e-4)
    assert found.fun <= 1e-4 and found.method == method


def test_many_dimensions_are_separable():
    scales = np.linspace(1, 10, 300)
    found = ngvi.minimize(
        lambda x: ((scales * x) ** 2).sum(), np.ones(300), ftarget=1e-2
    )
    assert found.method == "sep-cma" and found.success
    assert "mean" not in found.history


def test_callback_sees_and_stops():
    seen = []

    def stop_soon(intermediate_result):
        seen.append(intermediate_result)
        return len(seen) == 3

    def stop_at_once(intermediate_result):
        raise StopIteration

    found = called(callback=stop_soon)
    assert found.message.startswith("callback: ") and not found.success
    assert found.nit == seen[-1].nit and len(seen) == 3
    assert [s.fun for s in seen] == sorted((s.fun for s in seen), reverse=True)
    found = called(callback=stop_at_once)
    assert found.nit == 1 and np.isfinite(found.fun)


def test_the_log_says_when_runs_begin_and_why_they_end(caplog, capsys):
    called(budget=60)
    assert not caplog.records and capsys.readouterr() == ("", "")
    with caplog.at_level("INFO", logger="ngvi.nes"):
        found = called(lambda x: -sphere(x), maximize=True, tol=1e-3, restarts=1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "run 0 begins: population 7, 0 evaluations so far"
    first = found.history["run"] == 0
    spent, value = 7 * first.sum(), found.history["best"][first].max()
    assert lines[1] == (
        f"run 0 ends: {spent} evaluations so far, best value {value:.6g}; "
        f"{found.stops[0]}"
    )
    assert lines[2] == f"run 1 begins: population 14, {spent} evaluations so far"
    assert lines[3] == (
        f"run 1 ends: {found.nfev} evaluations so far, best value {found.fun:.6g}; "
        f"{found.message}"
    )
    assert len(lines) == 4


def test_ctrl_c_returns_what_was_found():
    calls = []

    def fun(x):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return float(sphere(x))

    found = called(fun)
    assert found.message.startswith("interrupted") and not found.success
    assert 0 < found.nfev < 40 and found.fun == float(sphere(found.x))


def test_as_a_method_of_scipy():
    seen = []
    found = scipy.optimize.minimize(
        lambda x, goal: np.sum((x - goal) ** 2),
        [0.0, 0.5],
        args=(np.array([2.0, 0.7]),),
        method=ngvi.nes.scipy_method,
        bounds=[(-1, 1), (0, None)],
        callback=lambda xk: seen.append(xk),
        options={"ftarget": 1.00001, "maxfev": 3000},
    )
    assert found.success and seen[0].shape == (2,)
    np.testing.assert_allclose(found.x, [1, 0.7], atol=1e-2)


@pytest.mark.parametrize(
    ("x0", "options", "message"),
    [
        ([], {}, "x0 is empty"),
        ({}, {}, "x0 is empty"),
        ([0.0, np.nan], {}, r"not at the positions \[1\]"),
        ([0.0, np.inf], {}, "must be finite"),
        ([0.0], {"sigma0": 0.0}, "sigma0 must be positive"),
        ([0.0], {"sigma0": -1.0}, "sigma0 must be positive"),
        ([0.0], {"sigma0": np.nan}, "sigma0 must be positive"),
        ([0.0, 1.0], {"sigma0": [1.0, 1.0, 1.0]}, "one number or 2"),
        ([0.0], {"bounds": [(1, -1)]}, "cross or coincide in .*: at position 0"),
        ([0.0], {"bounds": [(0, 0)]}, "cross or coincide"),
        ([0.0], {"bounds": [(1, 2)]}, "inside the bounds: at position 0 it is 0"),
        ([0.0], {"bounds": [(0, 1), (0, 1)]}, "must be 1 pairs"),
        ([0.0], {"bounds": [(np.nan, 1)]}, "must not be NaN"),
        ([0.0], {"popsize": 1}, "popsize .* at least 2, got 1"),
        ([0.0], {"popsize": 4.5}, "popsize must be a whole number"),
        ([0.0], {"budget": 0}, "at least one generation, 4 evaluations, got 0"),
        ([0.0], {"method": "adam"}, "must be one of 'auto', 'cma'"),
        ([0.0], {"tol": -1.0}, "tol must be at least 0"),
        ([0.0], {"ftarget": np.nan}, "ftarget must not be NaN"),
        ([0.0], {"seed": -1}, "seed must be"),
        ([0.0], {"seed": None}, "seed must be a whole number of at least 0, got None"),
        ([0.0], {"restarts": -1}, "restarts must be"),
        ([0.0], {"workers": 0}, "workers must be"),
    ],
)
def test_bad_input_is_refused(x0, options, message):
    with pytest.raises(ValueError, match=message):
        ngvi.minimize(sphere, x0, **options)


@pytest.mark.parametrize("x0", ["text", [1j], [None, object()]])
def test_a_start_that_is_no_real_array_is_refused(x0):
    with pytest.raises(TypeError, match="x0 must be"):
        ngvi.minimize(sphere, x0)
