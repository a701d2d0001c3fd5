"""How near mixtures and `posterior.refine()` come, and what that takes beside NUTS.

    python benchmarks/refinement.py [ROW ...] [--out FILE.json]

Every row runs in a fresh process of its own, in float64. The rows:

- banana, three, twenty: targets of known evidence, ∫p = 1: a curved ridge in 2
  dimensions, three modes in 2, five in 20; `ngvi.fit(..., family="mixture")`. Shown are
  the error of the log evidence and the largest error of a mode's weight;
- the names of the posteriors with known answers, and eight_schools_centered (whose
  answers are those of eight_schools): `ngvi.fit(...).refine()`, nothing touched. Shown
  are the rms and the largest error of the means, in reference sds, the largest relative
  error of an sd, the last rung, the verdict, and seconds, beside NUTS (of NumPyro,
  4 chains side by side of 1,000 + 1,000 draws) and its errors.
"""

from __future__ import annotations

import argparse
import json
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
from known_posteriors import KnownPosterior, available, load, names  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

import ngvi  # noqa: E402
from ngvi.families import Gaussian, Mixture  # noqa: E402
from ngvi.linalg import Dense  # noqa: E402

CENTRED = "eight_schools_centered"


def gaussians(weights: list[float], means: Any, roots: Any) -> Mixture:
    """A mixture whose components have these inverse roots of their precisions."""
    precision = Dense.from_inverse_root(jnp.asarray(roots))
    return Mixture(
        jnp.log(jnp.asarray(weights)), Gaussian(jnp.asarray(means), precision)
    )


def three() -> Mixture:
    """Modes of different widths, ten sds apart."""
    roots = np.array([1.0, 0.5, 1.5])[:, None, None] * np.eye(2)
    return gaussians([0.5, 0.2, 0.3], [[-5.0, 0.0], [5.0, 3.0], [0.0, -6.0]], roots)


def twenty() -> Mixture:
    """Five correlated modes in 20 dimensions."""
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(5, 20, 20)) / np.sqrt(20) + 0.5 * np.eye(20)
    means = rng.uniform(-10, 10, (5, 20))
    return gaussians([0.35, 0.25, 0.2, 0.12, 0.08], means, roots)


def banana(z: Any) -> Any:
    """A ridge along a parabola; its density integrates to one."""
    squares = z[0] ** 2 / 4 + (z[1] - z[0] ** 2) ** 2 / 0.25
    return -squares / 2 - jnp.log(2 * jnp.pi)


def centred(sigma: Any, y: Any = None) -> None:
    """Eight schools in the parameterisation that Gaussians follow badly."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", sigma.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def known_target(name: str) -> dict[str, Any]:
    """The row of a target with known evidence."""
    mixture = None if name == "banana" else {"three": three, "twenty": twenty}[name]()
    density = banana if mixture is None else mixture.marginal_log_prob
    dim = 2 if mixture is None else mixture.components.mean.shape[-1]
    start = time.perf_counter()
    posterior = ngvi.fit(density, init=jnp.zeros(dim), family="mixture")
    seconds = time.perf_counter() - start
    row = {
        "row": name,
        "log_evidence_error": posterior.log_evidence,
        "components": len(posterior.approximation.mixture.weights),
        "khat": posterior.diagnostics.khat,
        "verdict": posterior.verdict.level,
        "gradients": posterior.diagnostics.gradient_evaluations,
        "seconds": seconds,
    }
    if mixture is not None:
        points = posterior.approximation.sample(jax.random.key(0), 20_000)
        shares = mixture.responsibilities(points).mean(0)
        row["weight_error"] = float(jnp.abs(shares - mixture.weights).max())
    return row


def errors(known: KnownPosterior, sites: dict[str, Any]) -> dict[str, float]:
    """Of means in reference sds, of sds relative, over the reference's quantities."""
    values = known.quantities(sites)
    means = [(values[q].mean() - r.mean) / r.sd for q, r in known.reference.items()]
    sds = [values[q].std() / r.sd - 1 for q, r in known.reference.items()]
    return {
        "mean_rms": float(np.sqrt(np.mean(np.square(means)))),
        "mean_max": float(np.abs(means).max()),
        "sd_max": float(np.abs(sds).max()),
    }


def case(name: str) -> tuple[KnownPosterior, Callable[..., None]]:
    """The reference and the model."""
    known = load("eight_schools" if name == CENTRED else name)
    return known, centred if name == CENTRED else known.model


def refined(name: str) -> dict[str, Any]:
    """The row of `refine`."""
    known, model = case(name)
    start = time.perf_counter()
    posterior = ngvi.fit(model, **known.data).refine()
    level = posterior.verdict.level
    seconds = time.perf_counter() - start
    assert posterior.refinement is not None
    return {
        "row": name,
        **errors(known, posterior.sample(20_000)),
        "rung": posterior.refinement.rungs[-1].name,
        "verdict": level,
        "seconds": seconds,
        "ladder": str(posterior.refinement),
    }


def by_nuts(name: str) -> dict[str, Any]:
    """NumPyro's NUTS, 4 chains."""
    known, model = case(name)
    options = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=1000, **options)
    start = time.perf_counter()
    mcmc.run(jax.random.key(0), **known.data)
    draws = {site: np.asarray(value) for site, value in mcmc.get_samples().items()}
    seconds = time.perf_counter() - start
    found = {f"nuts_{key}": value for key, value in errors(known, draws).items()}
    return {"row": name, "nuts_seconds": seconds, **found}


TARGETS = ("banana", "three", "twenty")
PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "target": known_target,
    "refine": refined,
    "nuts": by_nuts,
}


def in_a_fresh_process(name: str, part: str) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--part", part]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def show(row: dict[str, Any]) -> None:
    words = []
    for key, value in row.items():
        if key != "ladder":
            words.append(
                f"{key} {value:.3f}" if isinstance(value, float) else str(value)
            )
    print("  ".join(words), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows = [*TARGETS, *names(), CENTRED]
    parser.add_argument("rows", nargs="*", default=rows, metavar="ROW")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--part", choices=PARTS, help="only this, here, as JSON")
    options = parser.parse_args()
    for name in options.rows:
        if name not in rows:
            parser.error(f"no row is called {name!r}; there are: {', '.join(rows)}")
    if options.part:
        for name in options.rows:
            print(json.dumps(PARTS[options.part](name)))
        return
    found = []
    for name in options.rows:
        if name in TARGETS:
            row = in_a_fresh_process(name, "target")
        elif not available():
            print(f"{name} is skipped: the reference posteriors are not there.")
            continue
        else:
            row = in_a_fresh_process(name, "refine")
            row |= in_a_fresh_process(name, "nuts")
        show(row)
        found.append(row)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
