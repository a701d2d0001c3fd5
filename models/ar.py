"""Autoregression: nine lags of the yearly sunspot number.

The square root of the yearly sunspot number from 1700 to 2008, standardised, as a
linear function of its nine previous values. The order follows the classical analyses;
the square root makes the noise about equally large in quiet and in active years.
Neighbouring lags are strongly correlated, and so are their coefficients.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Yearly sunspot numbers, National Geophysical Data Center; the order: Tong, H. "
    "(1990), Non-linear Time Series, Oxford; statsmodels.datasets.sunspots."
)
LICENSE = "Public domain."

ORDER = 9


def model(lags: ArrayLike, y: ArrayLike | None = None) -> None:
    """Value ``y`` (years,) on its past; row t of ``lags`` is y[t-1], y[t-2], ..."""
    lags = jnp.asarray(lags)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 1.0))
    with numpyro.plate("lag", lags.shape[1]):
        phi = numpyro.sample("phi", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    with numpyro.plate("year", lags.shape[0]):
        numpyro.sample("y", dist.Normal(alpha + lags @ phi, sigma), obs=y)


def data() -> dict[str, np.ndarray]:
    """The standardised square root from 1709 on, and its nine lags."""
    from statsmodels.datasets import sunspots

    root = np.sqrt(sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(dtype=float))
    series = (root - root.mean()) / root.std()
    lags = [series[ORDER - k : -k] for k in range(1, ORDER + 1)]
    return {"lags": np.stack(lags, axis=1), "y": series[ORDER:]}
