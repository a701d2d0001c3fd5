"""Posteriors with structure: how cost grows, and what is lost by it. Nothing should be.

    python benchmarks/structured.py [ROW ...] [--out FILE.json]

Every fit runs in a fresh process of its own, in float64, and reports its time and its
peak memory. The rows:

- scaling: a hierarchical Poisson regression, G groups with 2 parameters of their own
  and 10 observations each, from G = 10² to 10⁵; between the two largest the slopes of
  log time (of a draw of an iteration) and log memory (less what the smallest takes);
- dense: its ELBO beside that of a full covariance at G = 200, both fitted to small
  tolerances and measured by the same fresh draws; and by how much a full covariance
  could do better, by the natural gradient that it has there;
- nuts: at G = 1,000, the means of the four parameters that all groups share beside
  those of NUTS (1,000 + 1,000 draws), and the times of both, the first time and when
  all is compiled;
- radon: log radon in houses of 85 counties, beside the full covariance;
- crossed: 400 students × 30 items, beside the full covariance;
- chains: stochastic volatility, and a local level with two unknown sds, of 10³ to 10⁵
  steps; the slopes of log time (of a draw of an iteration) and log memory as above;
- volatility: at 100 steps, beside the full covariance, both to small tolerances.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from known_posteriors import available, load  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

import ngvi  # noqa: E402
from ngvi.mirror.loop import Settings  # noqa: E402

GLOBALS = ("mean_a", "mean_b", "sd_a", "sd_b")
SIZES = (100, 1_000, 10_000, 100_000)
CHAINS = (1_000, 10_000, 100_000)
FRESH = 20_000
BATCHES, BATCH_DRAWS = 4, 2_000
# The tolerances of a structured fit are meant for each hundred coordinates.
TIGHT = Settings(tolerance=1e-3, gap_tolerance=1e-4)

Data = dict[str, Any]


def poisson(group: Any, x: Any, groups: int, y: Any = None) -> None:
    """Counts with an intercept and a slope for every group, which ten counts tell well:
    so they are written as they are, not as multiples of their sds."""
    mean_a = numpyro.sample("mean_a", dist.Normal(0.0, 2.0))
    mean_b = numpyro.sample("mean_b", dist.Normal(0.0, 2.0))
    sd_a = numpyro.sample("sd_a", dist.LogNormal(0.0, 1.0))
    sd_b = numpyro.sample("sd_b", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("group", groups):
        a = numpyro.sample("a", dist.Normal(mean_a, sd_a))
        b = numpyro.sample("b", dist.Normal(mean_b, sd_b))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(a[group] + b[group] * x)), obs=y)


def poisson_data(groups: int, each: int = 10) -> Data:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), each)
    x = rng.normal(size=group.size)
    a, b = rng.normal(1.0, 0.7, groups), rng.normal(-0.5, 0.3, groups)
    y = rng.poisson(np.exp(a[group] + b[group] * x)).astype(float)
    return {"group": group, "x": x, "groups": groups, "y": y}


def crossed(student: Any, item: Any, right: Any = None) -> None:
    """Right or wrong answers: abilities of students, difficulties of items."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    sd_student = numpyro.sample("sd_student", dist.LogNormal(0.0, 1.0))
    sd_item = numpyro.sample("sd_item", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("student", 400):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    with numpyro.plate("item", 30):
        ease = numpyro.sample("ease", dist.Normal(0.0, 1.0))
    logits = mean + sd_student * ability[student] + sd_item * ease[item]
    with numpyro.plate("answer", student.shape[0]):
        numpyro.sample("right", dist.Bernoulli(logits=logits), obs=right)


def crossed_data() -> Data:
    rng = np.random.default_rng(0)
    student, item = (i.ravel() for i in np.indices((400, 30)))
    logits = 0.5 + rng.normal(0, 1.0, 400)[student] + rng.normal(0, 0.8, 30)[item]
    right = (rng.uniform(size=logits.size) < 1 / (1 + np.exp(-logits))).astype(float)
    return {"student": student, "item": item, "right": right}


def volatility(y: Any) -> None:
    """Returns whose log variance goes back to its mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    persistence = numpyro.sample("persistence", dist.Beta(20.0, 1.5))
    sd = numpyro.sample("sd", dist.LogNormal(-1.5, 0.7))
    start = sd / jnp.sqrt(1 - persistence**2)
    with numpyro.plate("time", y.shape[0]):
        h = numpyro.sample("h", dist.Normal(mean, start).mask(False))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(h / 2)), obs=y)
    ahead = mean + persistence * (h[:-1] - mean)
    first = dist.Normal(mean, start).log_prob(h[0])
    numpyro.factor("walk", first + dist.Normal(ahead, sd).log_prob(h[1:]).sum())


def volatility_data(steps: int) -> Data:
    rng = np.random.default_rng(0)
    h = np.empty(steps)
    h[0] = rng.normal(0.0, 0.3 / np.sqrt(1 - 0.95**2))
    for t in range(1, steps):
        h[t] = 0.95 * h[t - 1] + 0.3 * rng.normal()
    return {"y": np.exp((h - 1) / 2) * rng.normal(size=steps)}


def local_level(y: Any) -> None:
    """A random walk, seen through noise."""
    walk = numpyro.sample("walk", dist.LogNormal(-1.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
    level = numpyro.sample("level", dist.GaussianRandomWalk(walk, num_steps=len(y)))
    numpyro.sample("y", dist.Normal(level, noise), obs=y)


def local_level_data(steps: int) -> Data:
    rng = np.random.default_rng(0)
    return {"y": np.cumsum(0.5 * rng.normal(size=steps)) + rng.normal(size=steps)}


def fresh_elbo(posterior: ngvi.Posterior) -> tuple[float, float]:
    """The ELBO by fresh draws, the same for every Gaussian, and its standard error."""
    values = []
    for key in jax.random.split(jax.random.key(1), FRESH // 2_000):
        half = jax.random.normal(key, (1_000, posterior.gaussian.dim))
        log_p, log_q, _ = posterior.evaluate(jnp.concatenate([half, -half]))
        values.append((log_p - log_q).reshape(2, -1).mean(0))
    pairs = np.concatenate(values)
    return float(pairs.mean()), float(pairs.std() / np.sqrt(pairs.size))


def short_of_full(posterior: ngvi.Posterior) -> tuple[float, float]:
    """Nats to the best full covariance, and their standard error: half the squared
    length of its natural gradient, as products of independent estimates from Hessians.
    """
    q, target, data = posterior.gaussian, posterior.target, posterior.data
    whiten = q.precision.whiten_gradient
    slopes = jax.grad(lambda z: target.potential(data, z))

    def at(eps: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = q.place(eps)
        return slopes(z), jax.jacfwd(slopes)(z)

    @jax.jit
    def estimate(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        half = jax.random.normal(key, (BATCH_DRAWS // 2, q.dim))
        found = jax.lax.map(at, jnp.concatenate([half, -half]), batch_size=8)
        gradient, hessian = (x.mean(0) for x in found)
        return whiten(gradient), whiten(whiten(hessian).T) - jnp.eye(q.dim)

    batches = [estimate(key) for key in jax.random.split(jax.random.key(2), BATCHES)]
    products = [
        float(a[0] @ b[0] + (a[1] * b[1]).sum() / 2) / 2
        for i, a in enumerate(batches)
        for b in batches[:i]
    ]
    return float(np.mean(products)), float(np.std(products) / len(products) ** 0.5)


def fitted(model: Callable[..., None], data: Data, **options: Any) -> Data:
    """A fit, its cost and what it found."""
    start = time.perf_counter()
    posterior = ngvi.fit(model, **data, progress=False, **options)
    seconds = time.perf_counter() - start
    # The unit of ru_maxrss is 1 KiB, on macOS one byte.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    d = posterior.record.diagnostics
    found = {
        "dim": d.dimension,
        "covariance": d.covariance,
        "converged": d.converged,
        "iterations": d.iterations,
        "draws": d.draws,
        "elbo": d.elbo,
        "compiling": round(d.seconds_compiling, 2),
        "running": round(d.seconds_running, 2),
        "seconds": round(seconds, 2),
        "GiB": round(peak, 2),
        "structure": str(posterior.structure),
    }
    if d.dimension <= 5_000:
        found["fresh_elbo"], found["error"] = fresh_elbo(posterior)
        start = time.perf_counter()
        ngvi.fit(model, **data, progress=False, **options)
        found["again"] = round(time.perf_counter() - start, 2)
        names = posterior.coordinate_names
        sd = np.sqrt(np.asarray(posterior.gaussian.variance))
        mean = np.asarray(posterior.gaussian.mean)
        found["unconstrained"] = {
            n: (float(m), float(s)) for n, m, s in zip(names, mean, sd, strict=True)
        }
    if "settings" in options and model is poisson and d.covariance == "structured":
        found["short of full"] = short_of_full(posterior)
    if model is poisson and d.dimension <= 5_000:
        draws = posterior.sample(4_000)
        found["means"] = {n: float(jnp.mean(draws[n])) for n in GLOBALS}
    return found


def sampled(groups: int) -> Data:
    """NUTS on the same model: means, sds and time."""
    mcmc = MCMC(NUTS(poisson), num_warmup=1000, num_samples=1000, progress_bar=False)
    data = poisson_data(groups)
    seconds = []
    for _ in ("the first time", "all compiled"):
        start = time.perf_counter()
        mcmc.run(jax.random.key(0), **data)
        draws = jax.block_until_ready(mcmc.get_samples())
        seconds.append(round(time.perf_counter() - start, 2))
    return {
        "seconds": seconds[0],
        "again": seconds[1],
        "means": {n: float(draws[n].mean()) for n in GLOBALS},
        "sds": {n: float(draws[n].std()) for n in GLOBALS},
    }


def _radon(**options: Any) -> Data:
    known = load("radon")
    return fitted(known.model, known.data, **options)


JOBS: dict[str, Callable[..., Data]] = {
    "poisson": lambda groups, **o: fitted(poisson, poisson_data(int(groups)), **o),
    "nuts": lambda groups, **_: sampled(int(groups)),
    "volatility": lambda n, **o: fitted(volatility, volatility_data(int(n)), **o),
    "level": lambda n, **o: fitted(local_level, local_level_data(int(n)), **o),
    "radon": lambda _, **options: _radon(**options),
    "crossed": lambda _, **options: fitted(crossed, crossed_data(), **options),
}


def run(
    job: str, argument: int = 0, covariance: str = "auto", tight: bool = False
) -> Data:
    """A job in a fresh process."""
    command = [sys.executable, __file__, "--job", job, str(argument), covariance]
    command += ["tight"] if tight else []
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def scaling(job: str = "poisson", sizes: tuple[int, ...] = SIZES) -> Data:
    rows = {}
    print(
        f"{job}: size, dimensions, iterations, draws, seconds compiling, running, GiB"
    )
    for groups in sizes:
        row = rows[groups] = run(job, groups)
        print(
            f"{groups:7d} {row['dim']:8d} {row['iterations']:6d} {row['draws']:6d} "
            f"{row['compiling']:7.2f} {row['running']:7.2f} {row['GiB']:5.2f}"
            f"{'' if row['converged'] else '  not converged'}",
            flush=True,
        )
    first, *_, before, last = (rows[groups] for groups in sizes)
    steps = np.log10(sizes[-1] / sizes[-2])
    each = [row["running"] / row["iterations"] / row["draws"] for row in (before, last)]
    memory = [row["GiB"] - first["GiB"] for row in (before, last)]
    slopes = {
        "time of a draw": float(np.log10(each[1] / each[0]) / steps),
        "memory": float(np.log10(memory[1] / memory[0]) / steps),
    }
    print("slopes:", {name: round(slope, 2) for name, slope in slopes.items()})
    return {"rows": rows, "slopes": slopes}


def beside_full(name: str, job: str, argument: int, tight: bool) -> Data:
    ours = run(job, argument, "structured", tight)
    full = run(job, argument, "full", tight)
    difference = ours["fresh_elbo"] - full["fresh_elbo"]
    pairs = [
        (ours["unconstrained"][n], full["unconstrained"][n])
        for n in ours["unconstrained"]
    ]
    apart = max(abs(a[0] - b[0]) / b[1] for a, b in pairs)
    ratios = [a[1] / b[1] for a, b in pairs]
    print(
        f"{name} ({ours['dim']} dimensions): ELBO {difference:+.4f} nats beside full; "
        f"means apart by at most {apart:.3f} sd, sds {min(ratios):.3f} to "
        f"{max(ratios):.3f} times; {ours['seconds']} s, full {full['seconds']} s\n"
        f"{ours['structure']}",
        flush=True,
    )
    if "short of full" in ours:
        nats, error = ours["short of full"]
        print(f"A full covariance could gain {nats:.5f} ± {error:.5f} nats", flush=True)
    return {"structured": ours, "full": full, "difference": difference, "apart": apart}


def beside_nuts() -> Data:
    ours, nuts = run("poisson", 1_000), run("nuts", 1_000)
    apart = {n: (ours["means"][n] - nuts["means"][n]) / nuts["sds"][n] for n in GLOBALS}
    rounded = {name: round(value, 2) for name, value in apart.items()}
    print(
        f"NUTS at G = 1,000: {ours['seconds']} s, NUTS {nuts['seconds']} s; compiled "
        f"{ours['again']} s, NUTS {nuts['again']} s; means apart, in sds: {rounded}",
        flush=True,
    )
    return {"structured": ours, "nuts": nuts, "apart": apart}


def radon_row() -> Data:
    if not available():
        print("radon: skipped, its data are not there (see known_posteriors).")
        return {}
    return beside_full("radon", "radon", 0, False)


ROWS: dict[str, Callable[[], Data]] = {
    "dense": lambda: beside_full("Poisson, G = 200", "poisson", 200, True),
    "nuts": beside_nuts,
    "radon": radon_row,
    "crossed": lambda: beside_full("students × items", "crossed", 0, False),
    "scaling": scaling,
    "chains": lambda: {job: scaling(job, CHAINS) for job in ("level", "volatility")},
    "volatility": lambda: beside_full("Volatility", "volatility", 100, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=list(ROWS))
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--job", nargs="+", help="only this, here, as JSON")
    options = parser.parse_args()
    if options.job:
        job, argument, covariance, *tight = options.job
        settings = {"settings": TIGHT} if tight else {}
        found = JOBS[job](int(argument), covariance=covariance, **settings)
        print(json.dumps(found))
        return
    results = {name: ROWS[name]() for name in options.rows}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
