"""The one step, and the loop that repeats it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ngvi.bayes.conjugate.update import RobbinsMonro, ascend, conjugate_step
from ngvi.families import Gamma, Poisson


def test_steps_of_length_one_are_bayes_rule() -> None:
    prior, y = Gamma(2.0, 1.0), jnp.array([3.0, 5.0, 1.0])
    statistics = (y.sum(), -3.0)
    moved = conjugate_step(Gamma(9.0, 9.0), prior, statistics)
    exact = prior.observe(Poisson, y)
    np.testing.assert_allclose(moved.concentration, exact.concentration)
    np.testing.assert_allclose(moved.rate, exact.rate)
    # A third of the way, the data counted twice.
    part = conjugate_step(prior, prior, statistics, 1 / 3, 2.0)
    np.testing.assert_allclose([part.concentration, part.rate], [8.0, 3.0])


def test_schedule() -> None:
    rates = [RobbinsMonro(10.0, 0.7).step_size(t) for t in (1, 90)]
    np.testing.assert_allclose(rates, [11**-0.7, 100**-0.7])


def test_ascent_ends() -> None:
    def halve(x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        return x / 2, -x

    done = ascend(halve, jnp.asarray(1.0), 0.1, 100, 512)
    np.testing.assert_allclose(done.history, [-1, -0.5, -0.25, -0.125, -0.0625])
    assert len(ascend(halve, jnp.asarray(1.0), 0.0, 7, 512).history) == 7
    # A bound that is no number ends it.
    done = ascend(lambda x: (x, x * jnp.nan), jnp.asarray(1.0), 0.1, 100, 512)
    assert int(done.iterations) == 2
