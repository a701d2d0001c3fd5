"""Eight schools: effects of coaching, non-centred.

Eight schools each ran a coaching programme for the SAT-V and reported an estimated
effect with its standard error. The true effects are drawn from a normal population
whose mean and spread are unknown. The effects are written as ``mu + tau * z`` with
standard normal ``z``, which keeps the posterior smooth where ``tau`` is small.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Rubin, D. B. (1981), Estimation in parallel randomized experiments, Journal of "
    "Educational Statistics 6, 377-401; model of Gelman et al., Bayesian Data "
    "Analysis, section 5.5."
)
LICENSE = "A published table of eight estimates: facts, free of copyright."


def model(sigma: ArrayLike, y: ArrayLike | None = None) -> None:
    """Normal estimates ``y`` with known standard errors ``sigma``, one per school."""
    sigma = jnp.asarray(sigma)
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", sigma.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def data() -> dict[str, np.ndarray]:
    """Estimated effects and their standard errors, in points of the test."""
    return {
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    }
