"""Asking and telling, in every order."""

import pickle

import numpy as np
import pytest

import ngvi
from ngvi.nes import Optimizer, Stopping


def sphere(x):
    return ((x - 0.5) ** 2).sum(-1)


def make(**options):
    return Optimizer(np.zeros(3), 0.3, **options)


def searched(search, generations, order=lambda n: np.arange(n)):
    for _ in range(generations):
        points = search.ask()[order(search.popsize)]
        search.tell(points, sphere(points))
    return search


def test_is_the_search_of_minimize():
    search = make(stopping=Stopping(ftarget=1e-6))
    while not search.stop():
        points = search.ask()
        search.tell(points, sphere(points))
    options = dict(sigma0=0.3, ftarget=1e-6, method="cma")
    found = ngvi.minimize(lambda x: float(sphere(x)), np.zeros(3), **options)
    assert search.stop() == {"ftarget": search.result.fun}
    assert search.result.nfev == found.nfev and search.result.success
    np.testing.assert_array_equal(search.result.x, found.x)


def test_the_order_of_telling_and_the_size_of_asking_do_not_matter():
    plain = searched(make(seed=3), 10).result
    shuffled = searched(make(seed=3), 10, np.random.default_rng(0).permutation).result
    singly = make(seed=3)
    for _ in range(10):
        points = np.concatenate([singly.ask(1), singly.ask(2), singly.ask(4)])
        for x in points[::-1]:
            singly.tell(x, sphere(x))
    for other in (shuffled, singly.result):
        np.testing.assert_array_equal(plain.x, other.x)
        np.testing.assert_array_equal(plain.distribution.mean, other.distribution.mean)


def test_a_generation_is_done_when_enough_values_have_come():
    search = make()
    points = search.ask(20)
    assert points.shape == (20, 3) and len(np.unique(points, axis=0)) == 20
    search.tell(points[:6], sphere(points[:6]))
    assert search.generation == 0 and search.result.nfev == 6
    assert search.result.fun == sphere(points[:6]).min()
    # 14 more: two generations, the second from an earlier distribution.
    search.tell(points[6:], sphere(points[6:]))
    assert search.generation == 2 and search.result.nfev == 20
    assert search.result.message == "in progress" and not search.stop()


def test_late_answers_and_foreign_points_help():
    search = make(seed=1)
    rng = np.random.default_rng(0)
    waiting = search.ask(12)
    while search.result.fun > 1e-6 and search.result.nfev < 2000:
        pick = rng.permutation(len(waiting))
        done, waiting = waiting[pick[:3]], waiting[pick[3:]]
        search.tell(done, sphere(done))
        waiting = np.concatenate([waiting, search.ask(3)])
    assert search.result.nfev < 2000
    plain, injected = make(seed=1), make(seed=1)
    points = plain.ask()
    plain.tell(points, sphere(points))
    injected.inject(np.full((1, 3), 0.5), [0.0])
    points = injected.ask(6)
    injected.tell(points, sphere(points))
    assert injected.result.fun == 0 and injected.result.x.tolist() == [0.5] * 3
    assert injected.generation == plain.generation == 1
    assert sphere(np.asarray(injected.result.distribution.mean)) < sphere(
        np.asarray(plain.result.distribution.mean)
    )


def test_an_array_that_changes_later_moves_no_point():
    search, points = make(), np.full((1, 3), 0.4)
    search.inject(points, [0.0])
    points += 1
    np.testing.assert_array_equal(search.result.x, np.full(3, 0.4))


def test_a_far_point_is_drawn_in():
    search = make()
    search.inject(np.full((7, 3), 1e9), np.arange(7.0))
    assert np.abs(search.result.distribution.mean).max() < 3
    assert search.result.x[0] == 1e9


@pytest.mark.parametrize("method", ["cma", "lra-cma", "cr-fm-nes", "xnes-as"])
def test_a_pickled_copy_goes_on_alike(method):
    search = searched(make(method=method, popsize=7, bounds=[(-1, 1)] * 3), 3)
    search.tell(search.ask(2), [1.0, 2.0])
    copy = pickle.loads(pickle.dumps(search))
    for one in (search, copy):
        rest = one.ask(5)
        one.tell(rest, sphere(rest))
    np.testing.assert_array_equal(search.ask(), copy.ask())
    assert search.generation == copy.generation == 4


def test_bounds_hold_and_failures_count():
    search = make(bounds=[(-0.1, 0.2)] * 3)
    for _ in range(100):
        points = search.ask()
        assert (points >= -0.1).all() and (points <= 0.2).all()
        values = sphere(points)
        values[0] = np.nan
        search.tell(points, values)
    np.testing.assert_allclose(search.result.x, 0.2, atol=1e-3)
    assert search.result.nfailed == 100
    with pytest.raises(ValueError, match="out of bounds"):
        search.inject([[0.0, 0.0, 0.3]], [1.0])


def test_maximises_and_stops_for_the_budget():
    stopping = Stopping(ftarget=10.0, maxfevals=30, maxiter=100)
    search = make(maximize=True, stopping=stopping)
    for _ in range(4):
        points = search.ask()
        search.tell(points, 9 - sphere(points))
    assert search.stop() == {"maxfevals": 28} and 8 < search.result.fun <= 9
    search.inject(np.full((7, 3), 0.4), np.full(7, 11.0))
    assert search.stop()["ftarget"] == 11.0


@pytest.mark.parametrize(
    ("xs", "values", "message"),
    [
        (np.zeros((2, 4)), [0, 0], r"shape \(n, 3\), got \(2, 4\)"),
        (np.zeros(2), 0.0, r"shape \(n, 3\)"),
        (np.zeros((2, 3)), [0.0], "2 points need as many values"),
        (np.zeros((2, 3)), [[0.0], [0.0]], r"got shape \(2, 1\)"),
    ],
)
def test_what_cannot_be_told_is_refused(xs, values, message):
    for take in (make().tell, make().inject):
        with pytest.raises(ValueError, match=message):
            take(xs, values)
    with pytest.raises(ValueError, match="points must be finite"):
        make().inject([[0.0, np.nan, 0.0]], [0.0])


def test_a_value_of_a_point_that_waits_for_none_is_refused():
    search = make()
    points = search.ask()
    with pytest.raises(ValueError, match=r"\[0. 0. 0.\] is waiting for no value"):
        search.tell(np.vstack([points[:2], np.zeros(3)]), np.zeros(3))
    # Nothing of it was taken.
    search.tell(points[0], 1.0)
    with pytest.raises(ValueError, match="told already"):
        search.tell(points[0], 1.0)
    # Two draws that round to one point are two values.
    whole = make(integrality=True, bounds=[(0, 1)] * 3)
    for _ in range(3):
        points = whole.ask()
        assert len(np.unique(points, axis=0)) < len(points)
        whole.tell(points, sphere(points))
    assert whole.generation == 3


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="n must be"):
        make().ask(0)
    with pytest.raises(ValueError, match="popsize"):
        make(popsize=1)
    with pytest.raises(ValueError, match="must be finite"):
        Optimizer([np.nan], 1.0)
