"""Gaussian mixture: two kinds of iris by the length of a petal.

The petal lengths of 150 irises have two humps: one species has short petals, two have
long ones. Each flower belongs to one of two normal components; its membership is a
discrete site that is summed out, which needs the package funsor
(``pip install funsor``). The means are ordered, so that the components cannot swap
their labels. Lengths are standardised.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions.transforms import OrderedTransform

SOURCE = (
    "Fisher, R. A. (1936), The use of multiple measurements in taxonomic problems, "
    "Annals of Eugenics 7, 179-188; sklearn.datasets.load_iris."
)
LICENSE = "CC BY 4.0 (UCI Machine Learning Repository)."

COMPONENTS = 2


def model(flowers: int, length: ArrayLike | None = None) -> None:
    """Lengths (flowers,) from two normal components in order of their means."""
    weights = numpyro.sample(
        "weights",
        dist.Dirichlet(jnp.full(COMPONENTS, 2.0)),
        infer={"event_dims": ["component"]},
    )
    # Ordered: the first mean is N(-1, 1), the log of the gap to the next is N(0, 1).
    start = dist.Normal(jnp.array([-1.0, 0.0]), 1.0).to_event(1)
    mu = numpyro.sample(
        "mu",
        dist.TransformedDistribution(start, OrderedTransform()),
        infer={"event_dims": ["component"]},
    )
    with numpyro.plate("component", COMPONENTS):
        sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0))
    with numpyro.plate("flower", flowers):
        kind = numpyro.sample(
            "kind", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        numpyro.sample("length", dist.Normal(mu[kind], sigma[kind]), obs=length)


def data() -> dict[str, np.ndarray | int]:
    """Standardised petal lengths."""
    from sklearn.datasets import load_iris

    length = load_iris().data[:, 2]
    length = (length - length.mean()) / length.std()
    return {"flowers": int(length.size), "length": length}
