"""Robust regression: household expenditure on food.

Engel's 235 Belgian working-class households: what they spent on food, on their income.
Most lie close to a line and a few rich ones far from it. Student-t errors give those
little weight; their degrees of freedom ``nu`` are unknown and come out small. Both
variables are standardised.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Koenker, R. and Bassett, G. (1982), Robust tests of heteroscedasticity based on "
    "regression quantiles, Econometrica 50, 43-61; prior of nu: Juarez, M. A. and "
    "Steel, M. F. J. (2010), Journal of Business and Economic Statistics 28, 52-66; "
    "statsmodels.datasets.engel."
)
LICENSE = "Public domain."


def model(income: ArrayLike, food: ArrayLike | None = None) -> None:
    """Student-t regression of ``food`` (n,) on ``income`` (n,), both standardised."""
    income = jnp.asarray(income)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
    with numpyro.plate("household", income.shape[0]):
        mean = alpha + beta * income
        numpyro.sample("food", dist.StudentT(nu, mean, sigma), obs=food)


def data() -> dict[str, np.ndarray]:
    """Standardised income and food expenditure."""
    from statsmodels.datasets import engel

    table = engel.load_pandas().data[["income", "foodexp"]].to_numpy(dtype=float)
    table = (table - table.mean(0)) / table.std(0)
    return {"income": table[:, 0], "food": table[:, 1]}
