"""ngvi beside NumPyro's and blackjax's variational methods and NUTS, on posteriors with
known answers.

    python benchmarks/posteriors.py [NAME ...] [--methods M ...] [--out FILE.json]

Every method runs in a fresh process of its own, so that none finds anything compiled
for it, in float64, at these settings:

- ngvi: `ngvi.fit(model, ...)`, no setting touched;
- Adam, diagonal, low rank: NumPyro's AutoMultivariateNormal, AutoDiagonalNormal and
  AutoLowRankMultivariateNormal, 20,000 steps of Adam, the best of three learning rates
  (its time is that of the first run alone);
- Laplace: AutoLaplaceApproximation at the mode that 20,000 Adam steps find;
- Pathfinder, mean field, full rank: blackjax's, see `posteriors_peers.py`; 2,000 steps
  of Adam of ten draws each, the best of the same learning rates;
- NUTS: 1,000 + 1,000 draws of one chain.

ELBOs are measured by the same 10,000 fresh draws for all Gaussians; errors are those of
the means, in reference standard deviations (rms and largest over the quantities), and
the smallest and largest ratio of standard deviations. Gradients count evaluations of
∇ log p; a Hessian-vector product counts as two. Seconds are wall time from the call to
the answer, split by JAX's own compilation events.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
import posteriors_peers as blackjax_peers  # noqa: E402
from known_posteriors import KnownPosterior, available, load, names  # noqa: E402
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO  # noqa: E402
from numpyro.infer.autoguide import (  # noqa: E402
    AutoDiagonalNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)

import ngvi  # noqa: E402
from ngvi.bayes import compile_time  # noqa: E402
from ngvi.families import Gaussian  # noqa: E402
from ngvi.linalg import Dense  # noqa: E402

STEPS = 20_000
LEARNING_RATES = (1e-3, 1e-2, 1e-1)
FRESH = 10_000


@dataclass
class Row:
    """One method on one posterior."""

    posterior: str
    method: str
    elbo: float
    mean_rms: float
    mean_max: float
    sd_low: float
    sd_high: float
    gradients: int
    compiling: float
    running: float
    note: str = ""


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, seconds compiling, and seconds otherwise."""
    start = time.perf_counter()
    with compile_time.measure() as watch:
        result = jax.block_until_ready(work())
    total = time.perf_counter() - start
    return result, min(watch.seconds, total), max(total - watch.seconds, 0.0)


def errors(known: KnownPosterior, draws: dict[str, np.ndarray]) -> tuple[float, ...]:
    """(rms, largest mean error; smallest, largest sd ratio) against the reference."""
    values = known.quantities(draws)
    mean, sd = (
        np.array([statistic(values[q], r) for q, r in known.reference.items()])
        for statistic in (
            lambda v, r: (v.mean() - r.mean) / r.sd,
            lambda v, r: v.std() / r.sd,
        )
    )
    return float(np.sqrt((mean**2).mean())), float(abs(mean).max()), sd.min(), sd.max()


def measure_gaussian(
    known: KnownPosterior, posterior: ngvi.Posterior, q: Gaussian
) -> tuple[float, ...]:
    """ELBO and errors of any Gaussian on the model's unconstrained space."""
    holder = posterior.with_approximation(q)
    eps = jax.random.normal(jax.random.key(12345), (FRESH, q.dim))
    log_p, log_q, sites = holder.evaluate(eps)
    return float((log_p - log_q).mean()), *errors(known, sites)


def run_ngvi(known: KnownPosterior) -> Row:
    posterior, compiling, running = timed(lambda: ngvi.fit(known.model, **known.data))
    d = posterior.diagnostics
    measured = measure_gaussian(known, posterior, posterior.gaussian)
    cost = (d.gradient_evaluations, compiling, running)
    return Row(known.name, "ngvi", *measured, *cost, posterior.verdict.level)


def measure_covariance(
    known: KnownPosterior, holder: ngvi.Posterior, mean: Any, covariance: Any
) -> tuple[float, ...]:
    """The same; NaN where it is no covariance."""
    root = jnp.linalg.cholesky(jnp.asarray(covariance))
    if not jnp.isfinite(root).all() or not jnp.diagonal(root).min() > 0:
        return (float("nan"),) * 5
    q = Gaussian(jnp.asarray(mean), Dense.from_inverse_root(root))
    return measure_gaussian(known, holder, q)


def best(rows: list[Row]) -> Row:
    return max(rows, key=lambda row: row.elbo if np.isfinite(row.elbo) else -np.inf)


def run_blackjax(known: KnownPosterior, method: str) -> Row:
    holder = ngvi.fit(known.model, **known.data)  # the log density, and where draws lie
    target, data = holder.target, holder.data
    start = jnp.zeros(target.dim)

    def log_density(z: jax.Array) -> jax.Array:
        return -target.potential(data, z)

    candidates = blackjax_peers.PEERS[method](
        log_density, start, jax.random.key(0), STEPS, LEARNING_RATES
    )
    rows, first = [], None
    for note, work in candidates:
        (mean, covariance, gradients), *seconds = timed(work)
        first = first or seconds
        measured = measure_covariance(known, holder, mean, covariance)
        rows.append(Row(known.name, method, *measured, gradients, *first, note))
    return best(rows)


def run_guide(known: KnownPosterior, guide_class: Any, method: str) -> Row:
    fits = []
    for rate in LEARNING_RATES:
        guide = guide_class(known.model)
        svi = SVI(known.model, guide, numpyro.optim.Adam(rate), Trace_ELBO())

        def fit(svi: SVI = svi) -> Any:
            run = svi.run(jax.random.key(0), STEPS, progress_bar=False, **known.data)
            return run.params

        fits.append((rate, guide, *timed(fit)))
    _, _, _, compiling, running = fits[0]
    holder = ngvi.fit(known.model, **known.data)  # says where draws of the model lie
    rows = []
    for rate, guide, params, _, _ in fits:
        base = guide.get_posterior(params)
        if isinstance(base, dist.Normal):
            base = base.to_event(1)
            covariance = jnp.diag(base.variance)
        else:
            covariance = base.covariance_matrix
        measured = measure_covariance(known, holder, base.mean, covariance)
        note = f"rate {rate:g}"
        rows.append(Row(known.name, method, *measured, STEPS, compiling, running, note))
    return best(rows)


def run_nuts(known: KnownPosterior) -> Row:
    mcmc = MCMC(
        NUTS(known.model), num_warmup=1000, num_samples=1000, progress_bar=False
    )

    def sample() -> Any:
        mcmc.warmup(
            jax.random.key(0),
            extra_fields=("num_steps",),
            collect_warmup=True,
            **known.data,
        )
        warm = mcmc.get_extra_fields()["num_steps"].sum()
        mcmc.run(
            mcmc.post_warmup_state.rng_key, extra_fields=("num_steps",), **known.data
        )
        return warm + mcmc.get_extra_fields()["num_steps"].sum()

    gradients, compiling, running = timed(sample)
    draws = {k: np.asarray(v) for k, v in mcmc.get_samples().items()}
    measured = errors(known, draws)
    return Row(
        known.name, "NUTS", float("nan"), *measured, int(gradients), compiling, running
    )


def show(row: Row) -> None:
    print(
        f"{row.posterior:14} {row.method:10} {row.elbo:12.3f} {row.mean_rms:7.3f} "
        f"{row.mean_max:7.3f} {row.sd_low:6.2f} {row.sd_high:6.2f} {row.gradients:9d} "
        f"{row.compiling:6.2f} {row.running:6.2f}  {row.note}",
        flush=True,
    )


METHODS: dict[str, Callable[[KnownPosterior], Row]] = {
    "ngvi": run_ngvi,
    "Adam": lambda known: run_guide(known, AutoMultivariateNormal, "Adam"),
    "diagonal": lambda known: run_guide(known, AutoDiagonalNormal, "diagonal"),
    "low rank": lambda known: run_guide(
        known, AutoLowRankMultivariateNormal, "low rank"
    ),
    "Laplace": lambda known: run_guide(known, AutoLaplaceApproximation, "Laplace"),
    **{name: partial(run_blackjax, method=name) for name in blackjax_peers.PEERS},
    "NUTS": run_nuts,
}


def in_a_fresh_process(name: str, method: str) -> Row | None:
    """None, and what went wrong is printed, where there is no answer."""
    command = [sys.executable, __file__, name, "--method", method]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{name:14} {method:10} ended with exit code {done.returncode}")
        return None
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=names())
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--method", choices=METHODS, help="only this, here, as JSON")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    options = parser.parse_args()
    if not available():
        print("Skipped: the reference posteriors are not there (see known_posteriors).")
        return
    if options.method:
        for name in options.names:
            print(json.dumps(asdict(METHODS[options.method](load(name)))))
        return
    print(
        f"{'posterior':14} {'method':10} {'ELBO':>12} {'rms':>7} {'max':>7} {'sd':>6} "
        f"{'to':>6} {'gradients':>9} {'comp.':>6} {'run':>6}"
    )
    methods, rows = options.methods, []
    if not blackjax_peers.installed():
        print("Without blackjax, which is not installed.")
        methods = [m for m in methods if m not in blackjax_peers.PEERS]
    for name in options.names:
        by_method = {}
        for method in methods:
            if row := in_a_fresh_process(name, method):
                by_method[method] = row
                show(row)
        rows += by_method.values()
        if not {"ngvi", "Adam", "NUTS"} <= by_method.keys():
            continue
        ours, adam, nuts = (by_method[m] for m in ("ngvi", "Adam", "NUTS"))
        ratio = (ours.compiling + ours.running) / (adam.compiling + adam.running)
        print(
            f"{'':14} ngvi / Adam: wall time {ratio:.2f}, gradients "
            f"{ours.gradients / adam.gradients:.4f}; ELBO {ours.elbo - adam.elbo:+.3f} "
            f"nats; ngvi / NUTS: gradients {ours.gradients / nuts.gradients:.4f}\n",
            flush=True,
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
