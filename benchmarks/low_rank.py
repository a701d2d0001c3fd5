"""Low-rank posteriors of many correlated coefficients, beside full, diagonal and SVI.

    python benchmarks/low_rank.py [--dim 500] [--rows 5000] [--rank 10] [--steps 5000]

A logistic regression whose columns share ten factors. Every posterior is measured by
the same fresh base draws: the evidence lower bound with its standard error, and which
part of the gap between the diagonal and the full covariance it closes. NumPyro's
AutoLowRankMultivariateNormal trains by Adam at the better of two learning rates. Times
are those of one process, with compiling and without.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import SVI, Trace_ELBO, autoguide  # noqa: E402

import ngvi  # noqa: E402

FACTORS, FRESH = 10, 4000


class Found(NamedTuple):
    elbo: float
    error: float
    seconds: float
    running: float


def model(x: jax.Array, y: jax.Array) -> None:
    """Standard normal coefficients."""
    prior = dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1)
    b = numpyro.sample("b", prior)
    numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)


def simulate(rows: int, dim: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((rows, FACTORS)) @ rng.standard_normal((FACTORS, dim))
    x = shared + rng.standard_normal((rows, dim))
    x /= x.std(0)
    b = 1.5 * rng.standard_normal(dim) / np.sqrt(dim)
    y = rng.uniform(size=rows) < 1 / (1 + np.exp(-x @ b))
    return jnp.asarray(x), jnp.asarray(y, float)


@jax.jit
def log_joint(b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = x @ b
    fit = (y * logits - jnp.logaddexp(0, logits)).sum()
    return fit - b @ b / 2 - len(b) * jnp.log(2 * jnp.pi) / 2


@jax.jit
def _terms(points: jax.Array, eps: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    values = jax.lax.map(lambda b: log_joint(b, x, y), points, batch_size=100)
    return values + (eps**2).sum(1) / 2


def measured(
    points: jax.Array, eps: jax.Array, logdet: Any, data: tuple, seconds: tuple
) -> Found:
    """From draws m + Aε and the log determinant of their covariance."""
    terms = np.asarray(_terms(points, eps, *data))
    constant = eps.shape[1] * np.log(2 * np.pi) / 2 + float(logdet) / 2
    error = terms.std() / np.sqrt(len(terms))
    return Found(float(terms.mean()) + constant, float(error), *seconds)


def ours(data: tuple, eps: jax.Array, **options: Any) -> Found:
    start = time.perf_counter()
    posterior = ngvi.fit(model, *data, progress=False, **options)
    seconds = time.perf_counter() - start
    q, run = posterior.gaussian, posterior.record.diagnostics.seconds_running
    print(f"  {posterior.structure}".replace("\n", "; "))
    return measured(q.place(eps), eps, -q.precision.logdet(), data, (seconds, run))


def svi(data: tuple, eps: jax.Array, rank: int, steps: int, rate: float) -> Found:
    guide = autoguide.AutoLowRankMultivariateNormal(model, rank=rank, init_scale=0.05)
    trainer = SVI(model, guide, numpyro.optim.Adam(rate), Trace_ELBO())
    start = time.perf_counter()
    found = trainer.run(jax.random.key(0), steps, *data, progress_bar=False)
    jax.block_until_ready(found.params)
    seconds = time.perf_counter() - start
    q = guide.get_posterior(found.params)
    scale = np.asarray(jnp.sqrt(q.cov_diag))
    factor = np.asarray(q.cov_factor)
    root = np.linalg.cholesky(np.diag(scale**2) + factor @ factor.T)
    points = jnp.asarray(np.asarray(q.loc) + np.asarray(eps) @ root.T)
    logdet = 2 * np.log(np.diag(root)).sum()
    return measured(points, eps, logdet, data, (seconds, np.nan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=500)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    data = simulate(options.rows, options.dim)
    half = np.random.default_rng(1).standard_normal((FRESH // 2, options.dim))
    eps = jnp.asarray(np.concatenate([half, -half]))
    rank = {"covariance": "low-rank", "rank": options.rank}
    results = {
        "full": ours(data, eps, covariance="full"),
        "diagonal": ours(data, eps, covariance="diagonal"),
        f"rank {options.rank}": ours(data, eps, **rank),
        "rank that grows": ours(data, eps, covariance="low-rank"),
    }
    trials = [svi(data, eps, options.rank, options.steps, r) for r in (0.01, 0.001)]
    results[f"SVI, rank {options.rank}"] = max(trials)
    top, bottom = results["full"].elbo, results["diagonal"].elbo
    print("| | ELBO | of the gap | s | running |")
    print("|---|---|---|---|---|")
    for name, found in results.items():
        closed = 100 * (found.elbo - bottom) / (top - bottom)
        print(
            f"| {name} | {found.elbo:.2f} ± {found.error:.2f} | {closed:.1f} % | "
            f"{found.seconds:.0f} | {found.running:.1f} |"
        )


if __name__ == "__main__":
    main()
