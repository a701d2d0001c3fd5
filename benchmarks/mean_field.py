"""Mean fields on the sites' own supports, beside exact answers and NumPyro's guides.

    python benchmarks/mean_field.py [--steps 5000] [--models seeds ...] [--out FILE]

First the conjugate models: how many iterations, and how far the natural parameters are
from the exact posterior's. Then models of the zoo, and a black box: the evidence lower
bound of `family="mean-field"`, of our diagonal Gaussian, and of NumPyro's AutoNormal
trained by Adam at the better of two learning rates, each by the same number of fresh
draws of its own. Times are those of one process, compiling included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import SVI, Trace_ELBO  # noqa: E402
from numpyro.infer.autoguide import AutoNormal  # noqa: E402

import ngvi  # noqa: E402
from ngvi import families, zoo  # noqa: E402

FRESH = 4000
RATES = 0.02, 0.005
MODELS = "eight_schools", "seeds", "linear_regression", "robust_regression"


class Row(NamedTuple):
    model: str
    method: str
    elbo: float
    error: float
    seconds: float
    verdict: str


# -- conjugate models ---------------------------------------------------------------


def beta_binomial(y: Any) -> None:
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    numpyro.sample("y", dist.Binomial(10, p), obs=y)


def gamma_poisson(y: Any) -> None:
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate), obs=y)


def dirichlet_multinomial(y: Any) -> None:
    p = numpyro.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
    numpyro.sample("y", dist.Multinomial(20, p), obs=y)


SCALE = jnp.array([[2.0, 0.3], [0.3, 1.0]])


def normal_inverse_wishart(y: Any) -> None:
    covariance = numpyro.sample("S", dist.InverseWishart(6.0, scale_matrix=SCALE))
    mean = numpyro.sample("m", dist.MultivariateNormal(jnp.zeros(2), covariance / 2))
    numpyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=y)


def conjugate_cases() -> list[tuple[Callable[..., None], np.ndarray, Any]]:
    """Models with their data and exact posteriors."""
    counts, parts = np.array([3, 5, 4]), np.array([[3, 5, 12]])
    vectors = np.random.default_rng(0).standard_normal((12, 2))
    prior = families.NormalInverseWishart(jnp.zeros(2), 2.0, 6.0, SCALE)
    return [
        (
            beta_binomial,
            counts,
            families.Beta(2.0, 3.0).observe(_binomial(10), counts),
        ),
        (
            gamma_poisson,
            counts,
            families.Gamma(2.0, 1.0).observe(families.Poisson, counts),
        ),
        (
            dirichlet_multinomial,
            parts,
            families.Dirichlet(jnp.array([1.0, 2.0, 0.5])).observe(
                _multinomial(20), parts
            ),
        ),
        (normal_inverse_wishart, vectors, prior.observe(families.Gaussian, vectors)),
    ]


def _binomial(total: int) -> families.Binomial:
    return families.Binomial.from_natural(0.0, total_count=total)


def _multinomial(total: int) -> families.Multinomial:
    return families.Multinomial.from_natural(jnp.zeros(2), total_count=total)


def conjugate_rows() -> list[dict[str, Any]]:
    rows = []
    for model, y, exact in conjugate_cases():
        started = time.perf_counter()
        posterior = ngvi.fit(model, y, family="mean-field", progress=False)
        seconds = time.perf_counter() - started
        (q,) = posterior.approximation.members
        one = jax.tree.map(lambda leaf: leaf[0], q)
        found, wanted = exact.flatten(one.natural_params), exact.natural_params
        error = float(jnp.abs(found / exact.flatten(wanted) - 1).max())
        rows.append(
            {
                "model": model.__name__,
                "family": type(q).__name__,
                "iterations": posterior.diagnostics.iterations,
                "relative_error": error,
                "khat": posterior.diagnostics.khat,
                "seconds": seconds,
            }
        )
        r = rows[-1]
        print(
            f"{r['model']:24} {r['family']:22} {r['iterations']:3d} iterations   "
            f"λ within {error:.1e}   {seconds:5.1f} s",
            flush=True,
        )
    return rows


# -- models of the zoo --------------------------------------------------------------


def ours(name: str, method: str, **options: Any) -> Row:
    entry = zoo.load(name)
    started = time.perf_counter()
    posterior = ngvi.fit(entry.model, **entry.data(), progress=False, **options)
    seconds = time.perf_counter() - started
    log_weight = posterior._drawn.at(
        posterior.approximation.sample(jax.random.key(1), FRESH)
    )
    values = log_weight.log_p - log_weight.log_q
    error = values.std() / np.sqrt(FRESH)
    return Row(name, method, values.mean(), error, seconds, posterior.verdict.level)


def auto_normal(name: str, steps: int) -> Row:
    entry = zoo.load(name)
    data = entry.data()
    best: Row | None = None
    started = time.perf_counter()
    for rate in RATES:
        guide = AutoNormal(entry.model)
        svi = SVI(entry.model, guide, numpyro.optim.Adam(rate), Trace_ELBO(8))
        result = svi.run(jax.random.key(0), steps, progress_bar=False, **data)

        def bound(key: Any, guide: Any = guide, params: Any = result.params) -> Any:
            model = handlers.seed(entry.model, 0)
            return -Trace_ELBO().loss(key, params, model, guide, **data)

        keys = jax.random.split(jax.random.key(2), FRESH)
        values = np.asarray(jax.jit(lambda k: jax.lax.map(bound, k))(keys))
        error = values.std() / np.sqrt(FRESH)
        row = Row(name, f"AutoNormal, Adam {rate}", values.mean(), error, 0.0, "")
        if best is None or row.elbo > best.elbo:
            best = row
    assert best is not None
    return best._replace(seconds=time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("out/mean_field.json"))
    options = parser.parse_args()
    conjugate = conjugate_rows()
    rows: list[Row] = []
    for name in options.models:
        methods: list[Callable[[], Row]] = [
            lambda name=name: ours(name, "mean field", family="mean-field"),
            lambda name=name: ours(name, "diagonal", covariance="diagonal"),
            lambda name=name: auto_normal(name, options.steps),
        ]
        for method in methods:
            row = method()
            rows.append(row)
            print(
                f"{row.model:20} {row.method:22} ELBO {row.elbo:10.3f} ± "
                f"{row.error:.3f}   {row.seconds:6.1f} s   {row.verdict}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"conjugate": conjugate, "models": [row._asdict() for row in rows]}
    options.out.write_text(json.dumps(report, indent=1, default=float))


if __name__ == "__main__":
    main()
