"""A few fits, made once: of a model from the zoo, of one with every awkward name and
axis, of a flat prior, of a plain log density, and of a mixture."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from models import eight_schools
from numpyro.distributions import constraints


def awkward(
    x: Any, groups: int, design: dict[str, Any], y: Any = None, counts: Any = None
) -> None:
    """Sites and plates whose names and axes need care."""
    with numpyro.plate("group", groups):
        slope = numpyro.sample("slope/group", dist.Normal(0.0, 1.0))
        numpyro.deterministic("curve", slope[:, None] * design["grid"])
    location = numpyro.sample(
        "location",
        dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        infer={"event_dims": ["axis"]},
    )
    numpyro.sample(
        "factor", dist.LKJCholesky(2, 2.0), infer={"event_dims": ["row", "row"]}
    )
    free = numpyro.sample("free", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    scale = numpyro.sample("draw", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("large", scale > 1)
    numpyro.deterministic("wave", free[:1] + 1j)
    with numpyro.plate("y", x.shape[0]):
        mean = location[0] + slope[jnp.arange(x.shape[0]) % groups] * x
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)
    # No plate: one distribution for all counts.
    numpyro.sample("counts", dist.Poisson(jnp.exp(free.sum())), obs=counts)


AWKWARD = {
    "x": np.array([-1.0, 0.0, 1.0, 2.0]),
    "groups": 2,
    "design": {"grid": np.arange(3.0), "label": "unused"},
    "y": np.array([0.5, 0.0, 1.5, 2.5]),
    "counts": np.array([1, 0, 2, 3, 1]),
}


def flat(x: Any, y: Any = None) -> None:
    """A line with improper priors."""
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (2,)))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(beta[0] + beta[1] * x, sigma), obs=y)


def mixture(y: Any) -> None:
    """Two humps; which one an observation is from is summed out."""
    centre = numpyro.sample("centre", dist.Normal(0.0, 2.0))
    apart = numpyro.sample("apart", dist.LogNormal(1.0, 0.5))
    with numpyro.plate("item", y.shape[0]):
        kind = numpyro.sample("kind", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(centre + apart * (kind - 0.5), 0.5), obs=y)


def log_density(params: dict[str, Any], scale: Any) -> Any:
    """Two correlated normals and an independent one, far from each other in scale."""
    a, b = params["a"], params["b"]
    return -((a[0] / scale) ** 2 + ((a[1] - a[0]) / scale) ** 2 + (b - 3.0) ** 2) / 2


@pytest.fixture(scope="session")
def schools() -> ngvi.Posterior:
    return ngvi.fit(eight_schools.model, **eight_schools.data(), progress=False)


@pytest.fixture(scope="session")
def awkward_posterior() -> ngvi.Posterior:
    return ngvi.fit(awkward, **AWKWARD, progress=False)


@pytest.fixture(scope="session")
def flat_posterior() -> ngvi.Posterior:
    x = np.array([100.0, 120.0, 90.0, 110.0, 105.0])
    return ngvi.fit(flat, x, y=0.5 * x + np.array([1, -2, 0, 2, -1]), progress=False)


@pytest.fixture(scope="session")
def mixture_posterior() -> ngvi.Posterior:
    pytest.importorskip("funsor")
    y = np.array([-1.6, -1.2, -0.9, 1.1, 1.4, 2.0])
    return ngvi.fit(mixture, y, progress=False)


@pytest.fixture(scope="session")
def density_posterior() -> ngvi.Posterior:
    init = {"a": np.zeros(2), "b": 0.0}
    return ngvi.fit(log_density, np.float64(1e-3), init=init, progress=False)
