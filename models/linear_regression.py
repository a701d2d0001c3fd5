"""Linear regression: progression of diabetes.

Disease progression of 442 patients one year after ten baseline measurements (age, sex,
body mass index, blood pressure and six blood serum values). Predictors and response are
standardised, so a standard normal prior on a coefficient is weakly informative. The
serum values are strongly correlated: the posterior of their coefficients is too.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Efron, B., Hastie, T., Johnstone, I. and Tibshirani, R. (2004), Least angle "
    "regression, Annals of Statistics 32, 407-499; sklearn.datasets.load_diabetes."
)
LICENSE = "Published with the paper; distributed with scikit-learn (BSD-3-Clause)."


def model(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Normal linear regression of ``y`` (n,) on standardised columns ``X`` (n, p)."""
    X = jnp.asarray(X)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 1.0))
    with numpyro.plate("predictor", X.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    with numpyro.plate("patient", X.shape[0]):
        numpyro.sample("y", dist.Normal(alpha + X @ beta, sigma), obs=y)


def data() -> dict[str, np.ndarray]:
    """Ten standardised predictors and the standardised progression."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True, scaled=False)
    return {"X": (X - X.mean(0)) / X.std(0), "y": (y - y.mean()) / y.std()}
