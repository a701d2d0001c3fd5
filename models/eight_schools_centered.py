"""Eight schools, centred: a funnel that no Gaussian fits.

The model of eight_schools with the effects sampled directly around ``mu``. When ``tau``
is small the effects are squeezed together, so their scale depends on ``tau``: the
posterior is a funnel. It is the textbook case of a parameterisation that approximate
methods, and NUTS too, cannot follow to the neck; the non-centred file is the remedy.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Rubin, D. B. (1981), Estimation in parallel randomized experiments, Journal of "
    "Educational Statistics 6, 377-401; the funnel: Betancourt, M. and Girolami, M. "
    "(2015), Hamiltonian Monte Carlo for hierarchical models."
)
LICENSE = "A published table of eight estimates: facts, free of copyright."


def model(sigma: ArrayLike, y: ArrayLike | None = None) -> None:
    """Normal estimates ``y`` with known standard errors ``sigma``, one per school."""
    sigma = jnp.asarray(sigma)
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", sigma.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def data() -> dict[str, np.ndarray]:
    """Estimated effects and their standard errors, in points of the test."""
    return {
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    }
