"""Evaluations in flight: in any order, late, failing, hanging, lost."""

import os
import threading
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest

import ngvi
from ngvi.executors import ExecutorError, make_workers
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.layout import Layout
from tests.nes.runs import Killed

LAYOUT, _ = Layout.of(np.zeros(3))
POPSIZE = 7
"""Of a search in three dimensions."""


def sphere(x):
    return float(((x - 0.5) ** 2).sum())


def failures(found):
    """Those there were, by kind."""
    assert sum(found.failures.values()) == found.nfailed
    return {kind: count for kind, count in found.failures.items() if count}


def search(fun=sphere, executor=None, **options):
    defaults = {"method": "cma", "asynchronous": True, "ftarget": 1e-4, "budget": 4000}
    options = defaults | options
    return ngvi.minimize(fun, np.zeros(3), executor=executor, **options)


class Shuffled:
    """An executor that ends what is in flight in random order.

    It counts, and refuses the submission of a given number by raising an error.
    """

    def __init__(self, refuses_at=None, error=None):
        self.rng = np.random.default_rng(0)
        self.pool = ThreadPoolExecutor(1)
        self.open, self.futures, self.points = [], [], []
        self.most = 0
        self.refuses_at, self.error = refuses_at, error

    def submit(self, fun, x, *args):
        if len(self.points) == self.refuses_at:
            raise self.error
        future = Future()
        self.futures.append(future)
        self.points.append(tuple(x))
        self.open.append((future, fun, (x, *args)))
        self.most = max(self.most, len(self.open))
        self.pool.submit(self._end_one)
        return future

    def _end_one(self):
        time.sleep(5e-4)
        one = self.open[self.rng.integers(len(self.open))]
        future, fun, args = one
        if not future.set_running_or_notify_cancel():
            self.open.remove(one)
            return
        try:
            end, result = future.set_result, fun(*args)
        except BaseException as error:
            end, result = future.set_exception, error
        # Before anyone can see that it has ended and submit the next one.
        self.open.remove(one)
        end(result)


def test_the_order_of_arrival_does_not_matter():
    plain = search(vectorized=False, asynchronous=False)
    waiting = search(executor=Shuffled(), asynchronous=False)
    np.testing.assert_array_equal(waiting.x, plain.x)
    assert waiting.nfev == plain.nfev
    for width in (True, 3, 20):
        executor = Shuffled()
        found = search(executor=executor, asynchronous=width)
        assert found.success and found.fun == sphere(found.x) <= 1e-4
        assert executor.most <= (POPSIZE if width is True else width)
        assert len(np.unique(executor.points, axis=0)) == len(executor.points)


def test_a_straggler_idles_nobody():
    others, release = [], threading.Event()
    waited = []

    def fun(x):
        if not waited:
            waited.append(None)
            waited[0] = release.wait(30)
        others.append(x)
        if len(others) == 10 * POPSIZE:
            release.set()
        return sphere(x)

    with ThreadPoolExecutor(4) as pool:
        found = search(fun, pool, ftarget=1e-6)
    # It came back only after ten generations had gone on without it.
    assert waited == [True] and found.success


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_evaluation_that_hangs_is_given_up(asynchronous):
    release, calls = threading.Event(), []

    def fun(x):
        calls.append(x)
        if len(calls) in (3, 10):
            release.wait(30)
        return sphere(x)

    with ThreadPoolExecutor(4) as pool:
        found = search(
            fun, pool, asynchronous=asynchronous, timeout=0.2, budget=84, ftarget=None
        )
        release.set()
    assert failures(found) == {"timed out": 2} and found.nfev == len(calls) == 84
    assert found.first_error == "TimeoutError: evaluation after 0.2 seconds"


def test_a_pool_of_which_every_thread_hangs_ends_no_search():
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        found = search(lambda x: release.wait(30), pool, timeout=0.05, budget=14)
        release.set()
    assert found.nfev == 14 and failures(found) == {"timed out": 14}
    assert found.message.startswith("maxfevals")


@pytest.mark.parametrize("asynchronous", [None, False, True])
def test_what_raises_is_tried_again_within_the_budget(asynchronous):
    """None for no executor."""
    seen, calls = set(), []

    def fun(x):
        calls.append(1)
        key = x.tobytes()
        x += 100
        if key not in seen:
            seen.add(key)
            raise OSError("busy")
        return sphere(x - 100)

    options = dict(ftarget=None, restarts=0, budget=101, retries=1)
    if asynchronous is None:
        found = search(fun, asynchronous=False, vectorized=False, **options)
    else:
        with ThreadPoolExecutor(2) as pool:
            found = search(fun, pool, asynchronous=asynchronous, **options)
    assert found.nfev == len(calls) <= 101 and found.nit >= 6
    # Only what the budget did not allow to be tried again has failed.
    assert found.nfailed <= POPSIZE
    assert failures(found).keys() <= {"raised"}
    np.testing.assert_allclose(found.fun, sphere(found.x))


def test_failures_are_counted_by_kind():
    def fun(x):
        if x[0] < -0.1:
            raise ValueError("outside")
        if x[1] < -0.1:
            raise BrokenExecutor("gone")
        if x[2] < -0.1:
            raise SystemExit
        return np.inf if x[0] > 0.6 else sphere(x)

    found = search(fun, Shuffled())
    assert found.success
    assert failures(found).keys() == {"raised", "lost", "not finite"}


def test_the_budget_is_exact():
    calls = []

    def fun(x):
        calls.append(1)
        time.sleep(1e-4 * (len(calls) % 7))
        if len(calls) % 5 == 0:
            raise ValueError
        return float(np.floor(10 * np.abs(x)).sum())

    with ThreadPoolExecutor(4) as pool:
        options = dict(restarts=1, ftarget=None)
        found = search(fun, pool, budget=600, retries=2, **options)
    assert found.stops and found.nfev == len(calls) <= 600
    evaluations = found.history["evaluations"]
    assert (np.diff(evaluations) >= POPSIZE).all() and evaluations[-1] <= found.nfev


def test_ctrl_c_returns_the_best_and_cancels():
    executor = Shuffled(40, KeyboardInterrupt)
    found = search(executor=executor)
    assert found.message.startswith("interrupted") and not found.success
    assert np.isfinite(found.fun) and found.fun == sphere(found.x)
    assert found.nfev <= 40 and all(f.done() for f in executor.futures)


def test_an_executor_that_takes_no_more_ends_the_search():
    found = search(executor=Shuffled(40, RuntimeError("shut down")))
    assert found.message.startswith("executor: it takes no more evaluations (Runtime")
    assert np.isfinite(found.fun) and not found.success
    with pytest.raises(ExecutorError, match="shut down"):
        search(executor=Shuffled(0, RuntimeError("shut down")))


def test_what_was_in_flight_is_asked_again(tmp_path):
    path = tmp_path / "run"
    first, second = Shuffled(60, Killed), Shuffled()
    with pytest.raises(Killed):
        search(executor=first, checkpoint=path)
    found = search(executor=second, checkpoint=path)
    assert found.success and found.fun == sphere(found.x)
    again = [point in first.points for point in second.points]
    count = sum(again)
    assert 0 < count < 2 * POPSIZE and all(again[:count])
    # No value that had come in was lost, and none counts twice.
    assert found.nfev <= len(first.points) + len(second.points)
    assert found.nfev >= len(set(first.points) | set(second.points)) - POPSIZE


class OfPool:
    """Futures that only have `get`, as those of a `multiprocessing.Pool`."""

    def __init__(self, pool):
        self.pool = pool

    def submit(self, fun, *args):
        return self.pool.apply_async(fun, args)


@pytest.mark.parametrize("adapter", [ngvi.nes.PoolExecutor, OfPool])
def test_pools_of_multiprocessing_are_executors(adapter):
    def fun(x):
        if x[0] < -0.1:
            raise ValueError("outside")
        return sphere(x)

    with ThreadPool(2) as pool:
        found = search(fun, adapter(pool), timeout=5)
    assert found.success and failures(found).keys() <= {"raised"}


def unreliable(x):
    if x[0] == 3:
        os._exit(1)
    if x[0] == 6:
        time.sleep(60)
    if x[0] == 9:
        raise SystemExit
    return sphere(x)


def test_workers_that_die_or_hang_are_replaced():
    points = np.arange(12.0).reshape(4, 3)
    workers = make_workers(2, unreliable)
    try:
        objective = HostObjective(unreliable, LAYOUT, executor=workers, timeout=0.5)
        values = objective(points)
    finally:
        workers.close()
    np.testing.assert_array_equal(values, [sphere(points[0]), *[np.nan] * 3])
    tally = objective.tally
    assert (tally.lost, tally.timed_out, tally.raised) == (1, 1, 1)
    assert tally.extra == 1


def test_options_are_checked():
    with pytest.raises(ValueError, match="asynchronous evaluation needs an executor"):
        search()
    with pytest.raises(ValueError, match="a timeout needs an executor"):
        search(asynchronous=False, timeout=1.0)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="timeout must be positive, got 0"):
            search(executor=pool, timeout=0)
        with pytest.raises(ValueError, match="asynchronous must be a whole number"):
            search(executor=pool, asynchronous=0.5)
        with pytest.raises(ValueError, match="retries must be"):
            search(executor=pool, retries=-1)


def test_a_dask_client_is_an_executor():
    distributed = pytest.importorskip("distributed")

    def fun(x):
        # A client keeps the results of equal calls, unless it is told not to. A
        # generator from outside would be sent along, and begin anew in every call.
        return sphere(x) + 1e-3 * np.random.default_rng().normal()

    options = dict(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with (
        distributed.LocalCluster(processes=False, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = search(fun, client, timeout=30, noisy=True, budget=300, ftarget=None)
    assert found.nfailed == 0 and found.nfev <= 300 and found.fun_error > 1e-5
