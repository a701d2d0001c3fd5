"""Gaussian process regression: the flow of the Nile.

The yearly volume of the Nile at Aswan, 1871 to 1970, as a smooth curve plus noise. The
curve is a Gaussian process with a squared exponential kernel; it is integrated out
together with the noise, so what remains is a multivariate normal of the hundred
volumes and the posterior of three positive hyperparameters. Volumes are standardised
and time is in decades.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Cobb, G. W. (1978), The problem of the Nile: conditional solution to a "
    "changepoint problem, Biometrika 65, 243-251; statsmodels.datasets.nile."
)
LICENSE = "Public domain."


def model(decade: ArrayLike, volume: ArrayLike | None = None) -> None:
    """Volumes (n,), standardised, at the times ``decade`` (n,)."""
    decade = jnp.asarray(decade)
    # Medians of 1.5 decades, 0.7 and 0.7: no wiggle below a year, no curve beyond the
    # century, and the variance of a standardised series shared by curve and noise.
    length_scale = numpyro.sample("length_scale", dist.LogNormal(jnp.log(1.5), 0.7))
    amplitude = numpyro.sample("amplitude", dist.LogNormal(jnp.log(0.7), 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.7), 0.5))
    distance = (decade[:, None] - decade[None, :]) / length_scale
    kernel = jnp.square(amplitude) * jnp.exp(-0.5 * jnp.square(distance))
    # Relative to the curve's variance, so that float32 has a Cholesky factor even where
    # the noise is very small.
    jitter = 1e-5 * jnp.square(amplitude)
    covariance = kernel + (jnp.square(noise) + jitter) * jnp.eye(decade.shape[0])
    numpyro.sample(
        "volume",
        dist.MultivariateNormal(jnp.zeros(decade.shape[0]), covariance),
        obs=volume,
        infer={"event_dims": ["year"]},
    )


def data() -> dict[str, np.ndarray]:
    """Standardised yearly volumes; decades since the first year."""
    from statsmodels.datasets import nile

    table = nile.load_pandas().data
    year, volume = table["year"].to_numpy(float), table["volume"].to_numpy(float)
    return {
        "decade": (year - year[0]) / 10.0,
        "volume": (volume - volume.mean()) / volume.std(),
    }
