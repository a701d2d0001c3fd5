"""A few posteriors, made once: fits of a model from the zoo and of a plain log density;
and models with awkward names and axes, flat priors or a summed-out site under Gaussians
written down by hand, which need no compilation of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import ngvi
from models import eight_schools
from ngvi.bayes.archive import Archive
from ngvi.bayes.diagnostics import Diagnostics
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.record import FitRecord
from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite


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
        "square",
        dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2),
        infer={"event_dims": ["row", "row"]},
    )
    free = numpyro.sample("free", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    scale = numpyro.sample("draw", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("large", scale > 1)
    numpyro.deterministic("wave", free[:1] + 1j)
    with numpyro.plate("item", x.shape[0]):
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


def posterior_under(
    mean: Any,
    precision: PositiveDefinite,
    model: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> ngvi.Posterior:
    """A model's posterior under a given Gaussian, as if that had been fitted."""
    target, data, _, trace = model_target(model, args, kwargs, None)
    gaussian = Gaussian(jnp.asarray(mean), precision)
    diagnostics = Diagnostics(
        elbo=-1.5,
        iterations=2,
        gradient_evaluations=8,
        value_evaluations=8,
        rejected_steps=0,
        draws=4,
        seconds_compiling=0.1,
        seconds_running=0.1,
        fisher_length=1e-4,
        gap=0.0,
        khat=float("nan"),
        converged=True,
        stop_reason="given",
        covariance="full",
        dimension=gaussian.dim,
        seed=0,
    )
    history = {"iteration": np.arange(1, 3)}
    history |= {k: np.ones(2) for k in ("elbo", "fisher_length", "step", "draws")}
    record = FitRecord(diagnostics, history, np.zeros(gaussian.dim), model.__name__)
    return ngvi.Posterior(target, data, gaussian, record, trace)


@pytest.fixture(scope="session")
def under() -> Callable[..., ngvi.Posterior]:
    return posterior_under


@pytest.fixture(scope="session")
def schools() -> ngvi.Posterior:
    return ngvi.fit(eight_schools.model, **eight_schools.data(), progress=False)


@pytest.fixture(scope="session")
def schools_archive(schools: ngvi.Posterior) -> Archive:
    return schools.archive(predictive=True, prior=True)


@pytest.fixture(scope="session")
def awkward_archive(awkward_posterior: ngvi.Posterior) -> Archive:
    return awkward_posterior.archive(predictive=True, prior=False)


@pytest.fixture(scope="session")
def density_posterior() -> ngvi.Posterior:
    init = {"a": np.zeros(2), "b": 0.0}
    return ngvi.fit(log_density, np.float64(1e-3), init=init, progress=False)


@pytest.fixture(scope="session")
def awkward_posterior() -> ngvi.Posterior:
    precision = Diagonal(jnp.full(12, 3.0))
    return posterior_under(jnp.zeros(12), precision, awkward, **AWKWARD)


@pytest.fixture(scope="session")
def flat_posterior() -> ngvi.Posterior:
    x = np.array([100.0, 120.0, 90.0, 110.0, 105.0])
    y = 0.5 * x + np.array([1.0, -2.0, 0.0, 2.0, -1.0])
    columns = np.stack([np.ones(5), x], axis=1)
    information = np.eye(3)
    information[:2, :2] = columns.T @ columns / 4.0
    mean = [*np.linalg.lstsq(columns, y)[0], np.log(2.0)]
    return posterior_under(
        mean, Dense.from_dense(jnp.asarray(information)), flat, x, y=y
    )


@pytest.fixture(scope="session")
def mixture_posterior() -> ngvi.Posterior:
    pytest.importorskip("funsor")
    y = np.array([-1.6, -1.2, -0.9, 1.1, 1.4, 2.0])
    return posterior_under([0.1, 1.0], Diagonal(jnp.array([5.0, 10.0])), mixture, y)
