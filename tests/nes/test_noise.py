"""Noisy objectives: populations that grow, answers that are no lucky draws."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ngvi
from ngvi.nes.noise import WINDOW, reserve, stalls, trend
from tests.nes.runs import Killed


def sphere(x):
    return float(((x - 0.5) ** 2).sum())


def noisy_sphere(seed, deviation=1.0):
    rng = np.random.default_rng(seed)
    return lambda x: sphere(x) + deviation * rng.normal()


def search(fun, **options):
    options = dict(vectorized=False, noisy=True, budget=5000) | options
    return ngvi.minimize(fun, np.zeros(3), **options)


@functools.cache
def found_on_the_sphere():
    return search(noisy_sphere(0))


def test_trend_is_kendalls():
    values = np.random.default_rng(0).normal(size=WINDOW) - 0.05 * np.arange(WINDOW)
    tau = scipy.stats.kendalltau(np.arange(WINDOW), values).statistic
    pairs = WINDOW * (WINDOW - 1) / 2
    scale = math.sqrt(WINDOW * (WINDOW - 1) * (2 * WINDOW + 5) / 18)
    assert trend(values) == pytest.approx(tau * pairs / scale)
    assert trend([math.inf] * 5) == 0
    assert trend([math.inf, math.inf, 2.0, 1.0]) < -1


def test_stalls_only_without_a_fall_and_after_a_whole_window():
    falling = np.arange(WINDOW, 0, -1.0)
    assert not stalls(falling) and stalls(falling[::-1])
    assert stalls([1.0] * WINDOW) and not stalls([1.0] * (WINDOW - 1))
    # Normal medians without a trend: z > -1.5 in 93 of 100.
    rng = np.random.default_rng(1)
    share = np.mean([stalls(rng.normal(size=WINDOW)) for _ in range(1000)])
    assert abs(share - scipy.stats.norm.cdf(1.5)) < 4 * math.sqrt(0.07 / 1000)


def test_the_reserve_leaves_a_generation():
    assert reserve(10_000, 40) == 200 and reserve(10**7, 40) == 1000
    assert reserve(45, 40) == 1 and reserve(40, 40) == 0 == reserve(10, 40)


def test_the_population_grows_and_the_answer_is_better_than_the_luckiest_point():
    found = found_on_the_sphere()
    sizes = np.unique(found.history["popsize"])
    assert sizes[0] == 6 * 7 and sizes[-1] > sizes[0]
    assert set(np.diff(np.log2(sizes))) == {1.0}
    assert found.nfev <= 5000 and found.history["evaluations"][-1] < found.nfev
    assert found.history["best"].min() < -2, "the luckiest value is far too good"
    assert sphere(found.x) < 0.05
    # A fair value: its error has the size it says, 1/√100 = .1.
    assert found.fun_error == pytest.approx(0.1, rel=0.3)
    assert abs(found.fun - sphere(found.x)) < 4 * found.fun_error


def test_without_noise_nothing_grows():
    found = search(sphere, ftarget=1e-3)
    assert found.success and set(found.history["popsize"]) == {42}
    assert found.message.startswith("ftarget: the value ")
    assert found.fun_error < 1e-15
    assert sphere(found.x) == pytest.approx(found.fun)


def test_a_lucky_value_reaches_no_target():
    found = search(noisy_sphere(1), ftarget=-1.5, budget=1500)
    assert found.history["best"].min() < -1.5
    assert found.message.startswith("maxfevals") and not found.success


def test_maximises_and_counts_failures():
    noise = noisy_sphere(2, 0.1)

    def fun(x):
        if x[0] > 0.9:
            raise ValueError("outside")
        return 3 - noise(x)

    found = search(fun, maximize=True, budget=1500)
    assert sphere(found.x) < 0.05 and abs(found.fun - 3) < 0.2
    assert found.failures["raised"] == found.nfailed > 0


def test_a_rugged_jax_function_is_noisy_too():
    def fun(x):
        return ((x - 0.5) ** 2).sum() + 0.3 * jnp.sin(1e5 * x).sum()

    found = ngvi.minimize(fun, np.zeros(3), method="snes", noisy=True, budget=3000)
    assert 2500 < found.nfev <= 3000 and sphere(found.x) < 0.05
    assert len(np.unique(found.history["popsize"])) > 1


def test_goes_on_from_a_checkpoint(tmp_path):
    """The objective depends on x alone, so that what is drawn says all."""

    def fun(x, calls=None):
        if calls is not None and next(calls, None) is None:
            raise Killed
        return sphere(x) + np.random.default_rng(x.view(np.uint64)).normal()

    path = tmp_path / "run"
    whole = search(fun)
    with pytest.raises(Killed):
        killed = functools.partial(fun, calls=iter(range(3500)))
        search(killed, checkpoint=path, every=3)
    resumed = search(fun, checkpoint=path)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert (resumed.nfev, resumed.fun) == (whole.nfev, whole.fun)
    again = search(fun, checkpoint=path)
    assert (again.nfev, again.fun) == (whole.nfev, whole.fun)
