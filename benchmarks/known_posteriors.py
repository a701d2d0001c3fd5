"""Eleven posteriors with known answers, as NumPyro models.

Each model is the one its reference was drawn from: same priors, same
parameterisation (log for a positive parameter, logit for a bounded one), so that a
Gaussian on the unconstrained space means the same thing here as it does in Stan. Flat
priors are improper: such models have a posterior but no prior to draw from.

The data and the reference values are read from a folder that is not part of the
project; :func:`available` says whether it is there. It is ``data/posteriors`` inside
the folder named by the environment variable ``NGVI_SHARED``, or else inside the folder
``shared`` beside the repository.

    >>> known = load("kidiq")                                    # doctest: +SKIP
    >>> posterior = ngvi.fit(known.model, **known.data)          # doctest: +SKIP
    >>> known.quantities(posterior.sample(2000))["beta[1]"]      # doctest: +SKIP
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import constraints


class Reference(NamedTuple):
    """What is known of one scalar quantity: moments and quantiles of its posterior."""

    mean: float
    sd: float
    q05: float
    median: float
    q95: float


@dataclass(frozen=True)
class KnownPosterior:
    """A model, its data and what its posterior is known to be.

    Attributes:
        name: Short name, one of :func:`names`.
        model: NumPyro model; call it with ``**data``.
        data: Keyword arguments of the model: NumPy arrays and plain numbers.
        reference: Quantity, numbered from 1 ("theta[1]"), to its reference values.
        quantities: From draws of the sites (sample and deterministic, on their own
            support, leading axis S) to the reference's quantities, each of shape (S,).
    """

    name: str
    model: Callable[..., None]
    data: dict[str, Any]
    reference: dict[str, Reference]
    quantities: Callable[[Mapping[str, ArrayLike]], dict[str, np.ndarray]]


def _flat(size: int) -> dist.Distribution:
    """Flat on the real vectors of this size."""
    return dist.ImproperUniform(constraints.real, (), (size,))


def _flat_positive() -> dist.Distribution:
    """Flat on (0, inf)."""
    return dist.ImproperUniform(constraints.positive, (), ())


def _linear(
    X: ArrayLike, y: ArrayLike | None = None, *, sigma_prior: Callable[[], Any]
) -> None:
    X = jnp.asarray(X)
    beta = numpyro.sample("beta", _flat(X.shape[1]))
    sigma = numpyro.sample("sigma", sigma_prior())
    with numpyro.plate("observation", X.shape[0]):
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def kidiq(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Child's test score on the mother's schooling and IQ, raw units."""
    _linear(X, y, sigma_prior=lambda: dist.HalfCauchy(2.5))


def earnings(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Earnings in dollars on height in inches, raw units."""
    _linear(X, y, sigma_prior=_flat_positive)


def mesquite(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Log yield of mesquite bushes on logs of their sizes."""
    _linear(X, y, sigma_prior=_flat_positive)


def wells(X: ArrayLike, switched: ArrayLike | None = None) -> None:
    """Logistic regression of switching to another well."""
    X = jnp.asarray(X)
    alpha = numpyro.sample("alpha", dist.ImproperUniform(constraints.real, (), ()))
    beta = numpyro.sample("beta", _flat(X.shape[1]))
    with numpyro.plate("household", X.shape[0]):
        logits = alpha + X @ beta
        numpyro.sample("switched", dist.Bernoulli(logits=logits), obs=switched)


def garch(y: ArrayLike, sigma1: ArrayLike) -> None:
    """GARCH(1, 1); ``y`` is a covariate too: it drives the variance."""
    y = jnp.asarray(y)
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = numpyro.sample("alpha0", _flat_positive())
    # Flat on the triangle {alpha1 >= 0, beta1 >= 0, alpha1 + beta1 <= 1}, in Stan's
    # unconstrained coordinates: the side of the triangle left for beta1 has length
    # 1 - alpha1, which is the density of Beta(1, 2) up to a constant.
    alpha1 = numpyro.sample("alpha1", dist.Beta(1.0, 2.0))
    share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    beta1 = numpyro.deterministic("beta1", (1.0 - alpha1) * share)

    def next_variance(variance: jax.Array, shock: jax.Array) -> tuple:
        variance = alpha0 + alpha1 * shock + beta1 * variance
        return variance, variance

    first = jnp.square(jnp.asarray(sigma1, y.dtype))
    _, later = jax.lax.scan(next_variance, first, jnp.square(y[:-1] - mu))
    scale = jnp.sqrt(jnp.concatenate([first[None], later]))
    with numpyro.plate("time", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def eight_schools(sigma: ArrayLike, y: ArrayLike | None = None) -> None:
    """Effects of coaching in eight schools, non-centred."""
    sigma = jnp.asarray(sigma)
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", sigma.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def gp_poisson(x: ArrayLike, k: ArrayLike | None = None) -> None:
    """Poisson counts whose log rate is a Gaussian process."""
    x = jnp.asarray(x)
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    squares = jnp.square((x[:, None] - x[None, :]) / rho)
    # The reference adds 1e-10; float32 cannot hold that beside a variance near 1.
    jitter = 1e-10 if x.dtype == jnp.float64 else 1e-5 * jnp.square(alpha)
    cov = jnp.square(alpha) * jnp.exp(-0.5 * squares) + jitter * jnp.eye(x.shape[0])
    with numpyro.plate("point", x.shape[0]):
        f_tilde = numpyro.sample("f_tilde", dist.Normal(0.0, 1.0))
        f = numpyro.deterministic("f", jnp.linalg.cholesky(cov) @ f_tilde)
        numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def glm_poisson(year: ArrayLike, C: ArrayLike | None = None) -> None:
    """Counts of peregrine pairs over forty years: a cubic log rate."""
    year = jnp.asarray(year)
    alpha = numpyro.sample("alpha", dist.Uniform(-20.0, 20.0))
    beta1 = numpyro.sample("beta1", dist.Uniform(-10.0, 10.0))
    beta2 = numpyro.sample("beta2", dist.Uniform(-10.0, 10.0))
    beta3 = numpyro.sample("beta3", dist.Uniform(-10.0, 10.0))
    log_rate = alpha + beta1 * year + beta2 * year**2 + beta3 * year**3
    with numpyro.plate("year_index", year.shape[0]):
        numpyro.sample("C", dist.Poisson(jnp.exp(log_rate)), obs=C)


def ark(lags: ArrayLike, y: ArrayLike | None = None) -> None:
    """Autoregression of order K; row t of ``lags`` is y[t-1], ..., y[t-K]."""
    lags = jnp.asarray(lags)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    with numpyro.plate("lag", lags.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("time", lags.shape[0]):
        numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def seeds(
    x1: ArrayLike, x2: ArrayLike, N: ArrayLike, n: ArrayLike | None = None
) -> None:
    """Germination on 21 plates, a random effect for each, centred."""
    x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
    alpha0 = numpyro.sample("alpha0", dist.Normal(0.0, 1.0))
    alpha1 = numpyro.sample("alpha1", dist.Normal(0.0, 1.0))
    alpha12 = numpyro.sample("alpha12", dist.Normal(0.0, 1.0))
    alpha2 = numpyro.sample("alpha2", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
    with numpyro.plate("seed_plate", x1.shape[0]):
        b = numpyro.sample("b", dist.Normal(0.0, sigma))
        logits = alpha0 + alpha1 * x1 + alpha2 * x2 + alpha12 * x1 * x2 + b
        numpyro.sample("n", dist.Binomial(N, logits=logits), obs=n)


def radon(
    county: ArrayLike,
    uranium: ArrayLike,
    floor: ArrayLike,
    counties: int,
    log_radon: ArrayLike | None = None,
) -> None:
    """Log radon in houses of 85 counties: varying intercepts, non-centred."""
    county, uranium, floor = map(jnp.asarray, (county, uranium, floor))
    sigma_alpha = numpyro.sample("sigma_alpha", dist.HalfNormal(1.0))
    sigma_y = numpyro.sample("sigma_y", dist.HalfNormal(1.0))
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(0.0, 10.0))
    with numpyro.plate("covariate", 2):
        beta = numpyro.sample("beta", dist.Normal(0.0, 10.0))
    with numpyro.plate("county_index", counties):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        alpha = numpyro.deterministic("alpha", mu_alpha + sigma_alpha * z)
    with numpyro.plate("house", county.shape[0]):
        mean = alpha[county] + beta[0] * uranium + beta[1] * floor
        numpyro.sample("log_radon", dist.Normal(mean, sigma_y), obs=log_radon)


class _Entry(NamedTuple):
    model: Callable[..., None]
    file: str
    sites: tuple[str, ...]  # the sites that the reference speaks of


_ENTRIES: dict[str, _Entry] = {
    "kidiq": _Entry(kidiq, "kidiq-kidscore_interaction", ("beta", "sigma")),
    "earnings": _Entry(earnings, "earnings-earn_height", ("beta", "sigma")),
    "mesquite": _Entry(mesquite, "mesquite-logmesquite_logvash", ("beta", "sigma")),
    "wells": _Entry(wells, "wells_data-wells_dae_c_model", ("alpha", "beta")),
    "garch": _Entry(garch, "garch-garch11", ("mu", "alpha0", "alpha1", "beta1")),
    "eight_schools": _Entry(
        eight_schools, "eight_schools-eight_schools_noncentered", ("theta", "mu", "tau")
    ),
    "gp_poisson": _Entry(
        gp_poisson, "gp_pois_regr-gp_pois_regr", ("rho", "alpha", "f")
    ),
    "glm_poisson": _Entry(
        glm_poisson,
        "GLM_Poisson_Data-GLM_Poisson_model",
        ("alpha", "beta1", "beta2", "beta3"),
    ),
    "arK": _Entry(ark, "arK-arK", ("alpha", "beta", "sigma")),
    "seeds": _Entry(
        seeds,
        "seeds_data-seeds_stanified_model",
        ("alpha0", "alpha1", "alpha12", "alpha2", "b", "sigma"),
    ),
    "radon": _Entry(
        radon,
        "radon_mn-radon_hierarchical_intercept_noncentered",
        ("beta", "mu_alpha", "sigma_alpha", "sigma_y", "alpha"),
    ),
}


def _folder() -> Path:
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    return Path(os.environ.get("NGVI_SHARED") or beside) / "data" / "posteriors"


def available() -> bool:
    """Whether the folder with the data and the references is there."""
    return all((_folder() / f"{e.file}.json").is_file() for e in _ENTRIES.values())


def names() -> list[str]:
    """Short names of the models, easy ones first."""
    return list(_ENTRIES)


def _quantities(
    draws: Mapping[str, ArrayLike], *, sites: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Split the sites into scalars, numbered from 1 as in Stan."""
    scalars = {}
    for site in sites:
        values = np.asarray(draws[site])
        if values.ndim == 1:
            scalars[site] = values
        else:
            for i in range(values.shape[1]):
                scalars[f"{site}[{i + 1}]"] = values[:, i]
    return scalars


def load(name: str) -> KnownPosterior:
    """Read one model's data and reference.

    Args:
        name: One of :func:`names`.

    Raises:
        ValueError: If there is no model of this name.
        FileNotFoundError: If the folder of the references is missing.
    """
    if name not in _ENTRIES:
        known = ", ".join(_ENTRIES)
        raise ValueError(f"no known posterior is called {name!r}; there are: {known}")
    entry = _ENTRIES[name]
    path = _folder() / f"{entry.file}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} was not found in {path.parent}; set NGVI_SHARED to the "
            "folder that holds data/posteriors"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    return KnownPosterior(
        name=name,
        model=entry.model,
        data={
            key: np.asarray(value) if isinstance(value, list) else value
            for key, value in content["data"].items()
        },
        reference={
            quantity: Reference(*values)
            for quantity, values in content["reference"]["quantities"].items()
        },
        quantities=partial(_quantities, sites=entry.sites),
    )
