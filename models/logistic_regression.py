"""Logistic regression: malignant breast tumours.

Whether each of 569 tumours is malignant, from ten properties of the cell nuclei seen in
a fine-needle aspirate, averaged over the nuclei (radius, texture, perimeter, area and
so on). Predictors are standardised. Radius, perimeter and area are almost the same
number, so the data leave their separate coefficients to the prior, a normal one of
scale 2.5.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Street, W. N., Wolberg, W. H. and Mangasarian, O. L. (1993), Nuclear feature "
    "extraction for breast tumor diagnosis, Proc. SPIE 1905, 861-870 (Breast Cancer "
    "Wisconsin, Diagnostic); sklearn.datasets.load_breast_cancer."
)
LICENSE = "CC BY 4.0 (UCI Machine Learning Repository)."


def model(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Bernoulli ``y`` (n,), 1 for malignant, with logits linear in ``X`` (n, p)."""
    X = jnp.asarray(X)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 2.5))
    with numpyro.plate("predictor", X.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, 2.5))
    with numpyro.plate("tumour", X.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=alpha + X @ beta), obs=y)


def data() -> dict[str, np.ndarray]:
    """Ten standardised means over the nuclei; 1 for a malignant tumour."""
    from sklearn.datasets import load_breast_cancer

    X, benign = load_breast_cancer(return_X_y=True)
    X = X[:, :10]  # the means; standard errors and extremes follow
    return {"X": (X - X.mean(0)) / X.std(0), "y": 1 - benign}
