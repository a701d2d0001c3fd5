"""GARCH(1,1): inflation with a changing variance.

Quarterly inflation in the United States, 1960 to 2009, as an autoregression of order
four whose variance changes: it is a weighted mean of the long-run variance, the last
squared shock and the last variance. Uniform weights on the simplex make the variance
stationary by construction; ``alpha0``, ``alpha1`` and ``beta1`` are the usual names.
Quarters are predicted one step ahead, so past values are covariates.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Model: Bollerslev, T. (1986), Generalized autoregressive conditional "
    "heteroskedasticity, Journal of Econometrics 31, 307-327. Data: Federal "
    "Reserve Bank of St. Louis; statsmodels.datasets.macrodata."
)
LICENSE = "Public domain."

ORDER = 4


def model(lags: ArrayLike, y: ArrayLike | None = None) -> None:
    """Inflation ``y`` (n,); row t of ``lags`` (n, order + 1) is y[t-1], y[t-2], ..."""
    lags = jnp.asarray(lags)
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    with numpyro.plate("lag", lags.shape[1] - 1):
        phi = numpyro.sample("phi", dist.Normal(0.0, 0.5))
    long_run_sd = numpyro.sample("long_run_sd", dist.HalfNormal(5.0))
    weights = numpyro.sample(
        "weights", dist.Dirichlet(jnp.ones(3)), infer={"event_dims": ["part"]}
    )
    long_run = jnp.square(long_run_sd)
    alpha0 = numpyro.deterministic("alpha0", weights[0] * long_run)
    alpha1 = numpyro.deterministic("alpha1", weights[1])
    beta1 = numpyro.deterministic("beta1", weights[2])

    # The shock of the quarter before, from values that precede the predicted one.
    shock = lags[:, 0] - (intercept + lags[:, 1:] @ phi)

    def next_variance(
        variance: jax.Array, previous_shock: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        variance = alpha0 + alpha1 * jnp.square(previous_shock) + beta1 * variance
        return variance, variance

    _, variance = jax.lax.scan(next_variance, long_run, shock)
    mean = intercept + lags[:, :-1] @ phi
    with numpyro.plate("quarter", lags.shape[0]):
        numpyro.sample("y", dist.Normal(mean, jnp.sqrt(variance)), obs=y)


def data() -> dict[str, np.ndarray]:
    """Annualised percent a quarter, and its five lags."""
    from statsmodels.datasets import macrodata

    # The first quarter has no predecessor and is recorded as zero.
    series = macrodata.load_pandas().data["infl"].to_numpy(dtype=float)[1:]
    lags = [series[ORDER + 1 - k : -k] for k in range(1, ORDER + 2)]
    return {"lags": np.stack(lags, axis=1), "y": series[ORDER + 1 :]}
