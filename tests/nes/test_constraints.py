"""`ngvi.minimize` under constraints: optima, tolerance, failures, mistakes."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint

import ngvi
from ngvi.nes import Stopping, attempt
from ngvi.nes.lagrangian import Lagrangian, judge


def sphere(x):
    return (x**2).sum()


def called(constraints, fun=sphere, x0=(3.0, 3.0, 3.0), **options):
    """A search of a Python function, whose compiled parts all tests share."""
    options = {"restarts": 0} | options
    return ngvi.minimize(
        fun, np.asarray(x0), constraints=constraints, vectorized=False, **options
    )


BEYOND_ONE = {"type": "ineq", "fun": lambda x: x[0] - 1}


@pytest.mark.parametrize(
    ("constraint", "x"),
    [
        (BEYOND_ONE, [1, 0, 0]),
        ({"type": "ineq", "fun": lambda x: x[0] + 1}, [0, 0, 0]),
        ({"type": "eq", "fun": lambda x: x.sum() - 3}, [1, 1, 1]),
        ({"type": "eq", "fun": lambda x, a: [a - x[1]], "args": (2.0,)}, [0, 2, 0]),
        (LinearConstraint([1.0, 2.0, 2.0], 9, np.inf), [1, 2, 2]),
        (LinearConstraint(scipy.sparse.csr_array([[1, 0, 0]]), -4, -2), [-2, 0, 0]),
        (NonlinearConstraint(lambda x: x @ x, 4, 9), None),
    ],
)
def test_every_form_of_constraint(constraint, x):
    found = called(constraint)
    assert found.success and found.maxcv <= 1e-6
    if x is None:
        assert found.fun == pytest.approx(4, abs=2e-6)
    else:
        np.testing.assert_allclose(found.x, x, atol=1e-5)
    assert found.fun == pytest.approx(float(sphere(found.x)), rel=1e-12)
    assert len(found.history["maxcv"]) == found.nit
    assert found.nfev < 2500


def test_a_traced_and_a_called_search_agree():
    traced = ngvi.minimize(sphere, np.full(3, 3.0), constraints=BEYOND_ONE, restarts=0)
    plain = called(BEYOND_ONE)
    on_the_host = {"type": "ineq", "fun": lambda x: float(x[0]) - 1}
    half = ngvi.minimize(sphere, np.full(3, 3.0), constraints=on_the_host, restarts=0)
    assert traced.nfev == plain.nfev == half.nfev
    np.testing.assert_allclose(traced.x, plain.x, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(half.x, plain.x, rtol=1e-7, atol=1e-9)


def test_points_side_by_side_and_at_once():
    plain = called(BEYOND_ONE)
    with ThreadPoolExecutor(2) as pool:
        beside = called(BEYOND_ONE, executor=pool)
    at_once = ngvi.minimize(
        lambda x: (np.asarray(x) ** 2).sum(1),
        np.full(3, 3.0),
        constraints=BEYOND_ONE,
        vectorized=True,
        restarts=0,
    )
    np.testing.assert_array_equal(beside.x, plain.x)
    np.testing.assert_array_equal(at_once.x, plain.x)


def test_arguments_are_data_not_program():
    def search(bound):
        constraint = LinearConstraint(bound * np.eye(3)[:1], bound, np.inf)
        found = ngvi.minimize(
            sphere, np.full(3, 3.0), constraints=constraint, restarts=0
        )
        np.testing.assert_allclose(found.x, [1, 0, 0], atol=1e-5)
        return attempt._advance._cache_size()

    assert search(2.0) == search(5.0)


@pytest.mark.parametrize(("dim", "active", "most"), [(2, 1, 900), (20, 10, 6500)])
def test_linear_constraints_cost_little(dim, active, most):
    linear = LinearConstraint(np.eye(dim)[:active], 1, np.inf)
    found = ngvi.minimize(
        sphere, np.full(dim, 3.0), sigma0=1.0, constraints=linear, restarts=0
    )
    assert found.success and found.maxcv <= 1e-6 and found.nfev < most
    assert found.fun == pytest.approx(active, rel=1e-6)


def test_an_ill_conditioned_quadratic_beside_slsqp():
    scales = np.logspace(0, 4, 6)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    matrix = rotation * scales @ rotation.T
    constraints = [
        {"type": "ineq", "fun": lambda x: x.sum() - 6},
        {"type": "eq", "fun": lambda x: x[0] * x[1] - 2},
    ]

    def fun(x):
        return x @ matrix @ x

    found = ngvi.minimize(
        fun, np.full(6, 2.0), constraints=constraints, restarts=0, tol=1e-9
    )
    peer = scipy.optimize.minimize(
        fun,
        found.x + 0.1,
        method="SLSQP",
        constraints=constraints,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success and found.maxcv <= 1e-6
    assert found.fun == pytest.approx(peer.fun, rel=1e-7)


def g06(x):
    return (x[0] - 10) ** 3 + (x[1] - 20) ** 3


def g08(x):
    waves = np.sin(2 * np.pi * x[0]) ** 3 * np.sin(2 * np.pi * x[1])
    return -waves / (x[0] ** 3 * (x[0] + x[1]))


# Problems and optima of the CEC 2006 collection, of two variables each, and seeds whose
# first run ends at the optimum: others' take restarts.
PUBLISHED = {
    "g06": (
        g06,
        lambda x: [
            (x[0] - 5) ** 2 + (x[1] - 5) ** 2 - 100,
            82.81 - (x[0] - 6) ** 2 - (x[1] - 5) ** 2,
        ],
        [(13, 100), (0, 100)],
        "ineq",
        -6961.81387558,
        2,
    ),
    "g08": (
        g08,
        lambda x: [x[1] - x[0] ** 2 - 1, x[0] - 1 - (x[1] - 4) ** 2],
        [(1e-9, 10), (1e-9, 10)],
        "ineq",
        -0.0958250414,
        1,
    ),
    "g11": (
        lambda x: x[0] ** 2 + (x[1] - 1) ** 2,
        lambda x: [x[1] - x[0] ** 2, 0],
        [(-1, 1), (-1, 1)],
        "eq",
        0.75,
        0,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_problems(name):
    fun, constraint, bounds, kind, optimum, seed = PUBLISHED[name]
    found = called(
        {"type": kind, "fun": constraint},
        fun,
        np.mean(bounds, 1),
        bounds=bounds,
        seed=seed,
        restarts=None,
        budget=20_000,
        ftarget=optimum + 1e-6 * abs(optimum),
    )
    assert found.success and found.maxcv <= 1e-6
    assert found.fun == pytest.approx(optimum, rel=2e-6)


def test_no_feasible_point_is_said():
    found = called({"type": "eq", "fun": lambda x: x @ x + 1}, budget=3000)
    assert not found.success
    assert found.message.startswith("no feasible point was found: the best one viol")
    assert found.maxcv == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.x, 0, atol=1e-3)
    assert "tolx: " in found.message and found.nfev < 3000


def test_a_point_of_no_known_constraint_has_failed():
    def constraint(x):
        if x[1] > 3.5:
            raise RuntimeError("outside of the model")
        return np.nan if x[2] > 3.5 else x[0] - 1

    found = called({"type": "ineq", "fun": constraint}, sigma0=1.0)
    assert found.success and 0 < found.nfailed < found.nfev / 10
    assert found.first_error == "RuntimeError: outside of the model"
    np.testing.assert_allclose(found.x, [1, 0, 0], atol=1e-5)


def test_a_point_that_fails_twice_counts_once():
    def broken(x):
        if x[1] > 3:
            raise RuntimeError("outside of the model")
        return float(sphere(x))

    found = called({"type": "ineq", "fun": broken}, broken, (3.0, 2.5, 3.0), budget=70)
    assert found.failures["raised"] == found.nfailed > 0
    assert found.failures["not finite"] == 0


def test_maximises_a_pytree():
    def fun(x):
        return -(x["a"] ** 2).sum() - x["b"] ** 2

    found = ngvi.minimize(
        fun,
        {"a": np.full(2, 3.0), "b": 3.0},
        maximize=True,
        constraints=[{"type": "ineq", "fun": lambda x: x["b"] - 1}],
        vectorized=False,
        ftarget=-1 - 1e-7,
    )
    assert found.success and found.message.startswith("ftarget")
    assert found.fun == pytest.approx(-1, abs=1e-5) and found.maxcv <= 1e-6
    assert abs(found.x["b"] - 1) < 1e-3


def test_single_precision():
    found = called(BEYOND_ONE, x0=np.full(3, 3, np.float32))
    assert found.success and found.x.dtype == np.float32 and found.maxcv <= 1e-3
    np.testing.assert_allclose(found.x, [1, 0, 0], atol=5e-3)


def test_as_a_method_of_scipy():
    constraints = [LinearConstraint([1.0, 1.0, 0.0], 2, np.inf)]
    found, peer = (
        scipy.optimize.minimize(
            lambda x: np.sum(x**2),
            np.full(3, 3.0),
            method=method,
            constraints=constraints,
            options=options,
        )
        for method, options in (
            (ngvi.nes.scipy_method, {"restarts": 0}),
            ("SLSQP", {}),
        )
    )
    assert found.success and found.fun == pytest.approx(peer.fun, abs=1e-6)


def test_units_of_values_and_constraints_do_not_matter():
    few = Stopping(maxiter=30)
    one = called(BEYOND_ONE, stopping=few)
    scaled = {"type": "ineq", "fun": lambda x: 2.0**-9 * (x[0] - 1)}
    other = called(scaled, lambda x: 2.0**12 * sphere(x), stopping=few)
    np.testing.assert_allclose(
        other.history["mean"], one.history["mean"], rtol=1e-12, atol=1e-12
    )


def test_a_resumed_search_is_the_same_to_the_last_bit(tmp_path):
    path = tmp_path / "run"
    whole = called(BEYOND_ONE, restarts=1, budget=2800)
    assert whole.stops, "the test needs a restart"
    called(BEYOND_ONE, restarts=1, budget=700, checkpoint=path)
    resumed = called(BEYOND_ONE, restarts=1, budget=2800, checkpoint=path)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert (resumed.nfev, resumed.maxcv, resumed.message, resumed.stops) == (
        whole.nfev,
        whole.maxcv,
        whole.message,
        whole.stops,
    )
    for name, column in whole.history.items():
        np.testing.assert_array_equal(resumed.history[name], column, err_msg=name)
    for other in (None, {"type": "eq", "fun": BEYOND_ONE["fun"]}):
        with pytest.raises(ngvi.nes.CheckpointError, match="kind of constraints"):
            called(other, restarts=1, budget=2800, checkpoint=path)


def test_the_rule_written_out():
    rng = np.random.default_rng(3)
    dim, count = 4, 8
    rows = rng.standard_normal((count, 3)) + np.array([0, 1, -1])
    rows[5, 2] = np.nan
    gamma, omega = np.array([0.5, 0.3]), np.array([2.0, 4.0])
    start = Lagrangian.start(np.array([True, False]), 1e-6, float)
    start = Lagrangian(
        **(vars(start) | {"multiplier": jnp.asarray(gamma), "penalty": omega})
    )
    found = jax.jit(judge, static_argnums=2)(start, jnp.asarray(rows), dim)

    good = np.delete(np.arange(count), 5)
    f, c = rows[:, 0], rows[:, 1:]
    felt = np.stack([c[:, 0], np.maximum(c[:, 1], -gamma[1] / omega[1])], 1)
    values = f + (gamma * felt + omega / 2 * felt**2).sum(1)
    order = good[np.argsort(values[good])]
    np.testing.assert_array_equal(found.ranking.place[:-1], order)
    assert found.failed == 1 and np.isinf(found.ranking.values[-1])

    weights = np.maximum(np.log(4.5) - np.log(np.arange(1, count + 1)), 0)
    weights /= weights.sum()
    mean = weights[:4] @ c[order[:4]]
    limited = np.array([mean[0], max(mean[1], -gamma[1] / omega[1])])
    multiplier = gamma + omega * limited / 5
    np.testing.assert_allclose(found.lagrangian.multiplier, multiplier, rtol=1e-12)

    def spread(x):
        return np.subtract(*np.quantile(x[good], [0.75, 0.25], axis=0))

    active = 1 + int(omega[1] * mean[1] > -gamma[1] or mean[1] > 0)
    bent = dim * (weights**2).sum() + np.sqrt(dim) + active
    wanted = 5 * spread(values) / bent / spread(c) ** 2
    factor = np.clip((wanted / omega) ** 0.2, 0.5, 2)
    np.testing.assert_allclose(found.lagrangian.penalty, omega * factor, rtol=1e-12)

    violations = np.stack([abs(c[:, 0]), np.maximum(c[:, 1], 0)], 1)
    least = good[np.argmin(violations[good].max(1))]
    assert found.best == least + 1
    np.testing.assert_array_equal(found.lagrangian.best, rows[least])


def grows(x):
    return np.ones(1 + (x[0] != 3))


@pytest.mark.parametrize(
    ("constraint", "error", "message"),
    [
        ({"type": "le", "fun": sphere}, ValueError, "type must be 'ineq' or 'eq', got"),
        ({"type": "eq"}, TypeError, "fun must be callable, got None"),
        (sphere, TypeError, "a sequence of them; got function"),
        ([sphere], TypeError, "a sequence of them; got function"),
        (Bounds(0, 1), TypeError, "give them as bounds"),
        (LinearConstraint(np.ones((2, 4))), ValueError, r"3 columns.*\(2, 4\)"),
        (
            NonlinearConstraint(sphere, 0, 1, keep_feasible=True),
            ValueError,
            "keep_feasible is not supported",
        ),
        (NonlinearConstraint(sphere, [0, 0], 1), ValueError, "1 numbers, its lb has 2"),
        (NonlinearConstraint(sphere, np.nan, 1), ValueError, "must not be NaN"),
        (NonlinearConstraint(sphere, 2, 1), ValueError, "lower bound above"),
        (
            NonlinearConstraint(sphere, -np.inf, np.inf),
            ValueError,
            "no bound is finite",
        ),
        (
            {"type": "eq", "fun": lambda x: 1j},
            ValueError,
            "real numbers, got a complex",
        ),
        ({"type": "eq", "fun": lambda x: None}, ValueError, "numbers, got a NoneT"),
        ({"type": "eq", "fun": lambda x: {}[x]}, ValueError, "0 raised at x0: TypeErr"),
        ({"type": "eq", "fun": grows}, ValueError, "as many numbers .* got 2 after 1"),
    ],
)
def test_mistakes_are_named(constraint, error, message):
    with pytest.raises(error, match=message):
        called(constraint)


def test_a_tolerance_below_zero_is_refused():
    with pytest.raises(ValueError, match="ctol must be at least 0, got -1"):
        called(BEYOND_ONE, ctol=-1)


@pytest.mark.parametrize("option", ["noisy", "asynchronous"])
def test_what_constraints_do_not_go_with_is_said(option):
    with pytest.raises(ValueError, match="do not go together with noisy or async"):
        called(BEYOND_ONE, **{option: True})
