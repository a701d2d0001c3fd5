"""Negative binomial regression: visits to the doctor.

Yearly outpatient visits of people in the RAND Health Insurance Experiment, on the terms
of their insurance (coinsurance, deductible, incentives) and their health. Counts vary
more than a Poisson: ``overdispersion`` is the excess of the variance over the mean in
units of the squared mean, and zero would give back the Poisson. Every twentieth record
is used, 1010 in all; predictors are standardised.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Deb, P. and Trivedi, P. K. (2002), The structure of demand for health care: "
    "latent class versus two-part models, Journal of Health Economics 21, 601-625; "
    "statsmodels.datasets.randhie."
)
LICENSE = "Public domain."


def model(X: ArrayLike, visits: ArrayLike | None = None) -> None:
    """Counts ``visits`` (n,) with log mean linear in ``X`` (n, p)."""
    X = jnp.asarray(X)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 2.5))
    with numpyro.plate("predictor", X.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    overdispersion = numpyro.sample("overdispersion", dist.Exponential(1.0))
    with numpyro.plate("person", X.shape[0]):
        mean = jnp.exp(alpha + X @ beta)
        numpyro.sample(
            "visits", dist.NegativeBinomial2(mean, 1.0 / overdispersion), obs=visits
        )


def data() -> dict[str, np.ndarray]:
    """Nine standardised predictors and the number of visits in a year."""
    from statsmodels.datasets import randhie

    # The yearly records of a person, five at most, stand together: rows twenty apart
    # are of different people.
    records = randhie.load_pandas().data.iloc[::20]
    X = records.drop(columns="mdvis").to_numpy(dtype=float)
    return {
        "X": (X - X.mean(0)) / X.std(0),
        "visits": records["mdvis"].to_numpy(dtype=int),
    }
