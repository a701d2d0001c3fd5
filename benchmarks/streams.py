"""A million rows of a logistic regression, read in batches of a thousand.

    python benchmarks/streams.py [--rows N] [--batch B] [--subset M] [--out FILE.json]

The data lie on disk as .npy files. Each job runs in a fresh process of
its own, in float64, and reports its time and its peak memory:

- full: `ngvi.fit` with all rows in memory, which the others are held against;
- stream: `ngvi.fit` of a stream, once of at most three epochs, once until it converges;
- svi: NumPyro's SVI with AutoMultivariateNormal on a subsampled plate, Adam, as many
  epochs, at four learning rates.

Errors are in posterior sds: the largest over all coefficients. More rows than memory
holds are for `--subset M`: the first M rows are fitted in memory and as a stream, and a
stream of all rows is fitted for its time and memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
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

import ngvi  # noqa: E402

COLUMNS = 20
EPOCHS = 3
RATES = (3e-3, 1e-2, 3e-2, 1e-1)

Row = dict[str, Any]


def model(x: Any, y: Any = None, batch: int | None = None) -> None:
    prior = dist.Normal(0.0, 2.5).expand([x.shape[1]]).to_event(1)
    beta = numpyro.sample("beta", prior)
    with numpyro.plate("row", x.shape[0], subsample_size=batch) as rows:
        if batch is not None:
            x, y = x[rows], y[rows]
        numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def write_data(folder: Path, rows: int) -> None:
    """Correlated columns of several scales and an intercept, a block at a time."""
    rng = np.random.default_rng(0)
    mix = np.eye(COLUMNS) + 0.3 * rng.normal(size=(COLUMNS, COLUMNS))
    mix /= np.linalg.norm(mix, axis=0)
    scales = np.geomspace(0.3, 3.0, COLUMNS)
    beta = rng.normal(size=COLUMNS) * 0.5 / scales
    options = {"mode": "w+", "dtype": np.float64}
    x = np.lib.format.open_memmap(folder / "x.npy", shape=(rows, COLUMNS), **options)
    y = np.lib.format.open_memmap(folder / "y.npy", shape=(rows,), **options)
    for start in range(0, rows, 100_000):
        part = slice(start, min(start + 100_000, rows))
        count = part.stop - part.start
        x[part] = rng.normal(size=(count, COLUMNS)) @ mix * scales
        x[part, 0] = 1.0
        chance = 1 / (1 + np.exp(-(x[part] @ beta)))
        y[part] = rng.uniform(size=count) < chance
    x.flush()
    y.flush()


def peak_memory() -> float:
    """Of this process, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be at least that of the process before exec
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    # The unit of ru_maxrss is 1 KiB, on macOS one byte.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def found(mean: Any, sd: Any, seconds: float, **more: Any) -> Row:
    peak = peak_memory()
    numbers = {"mean": np.asarray(mean).tolist(), "sd": np.asarray(sd).tolist()}
    return numbers | {"seconds": round(seconds, 2), "GiB": round(peak, 2)} | more


def fitted(start: float, *args: Any, **kwargs: Any) -> Row:
    posterior = ngvi.fit(model, *args, progress=False, **kwargs)
    seconds = time.perf_counter() - start
    q, d = posterior.gaussian, posterior.record.diagnostics
    return found(
        q.mean,
        np.sqrt(q.variance),
        seconds,
        running=round(d.seconds_running, 2),
        compiling=round(d.seconds_compiling, 2),
        epochs=d.epochs,
        fisher_length=d.fisher_length,
        converged=d.converged,
        stop_reason=d.stop_reason,
        elbo=d.elbo,
    )


def on_disk(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows, which only come into memory when they are read."""
    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    return x[:rows], y[:rows]


def full(folder: Path, batch: int, rows: int, _: float) -> Row:
    start = time.perf_counter()
    return fitted(start, *(np.array(a) for a in on_disk(folder, rows)))


def stream(folder: Path, batch: int, rows: int, epochs: float) -> Row:
    start = time.perf_counter()
    columns: Any = folder / "x.npy", folder / "y.npy"
    if rows < np.load(columns[0], mmap_mode="r").shape[0]:
        columns = on_disk(folder, rows)
    x, y = columns
    batches = ngvi.Stream.from_arrays(
        x, y=y, batch_size=batch, epochs=int(epochs) or None
    )
    return fitted(start, batches)


def svi(folder: Path, batch: int, rows: int, rate: float) -> Row:
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    start = time.perf_counter()
    x, y = (jnp.asarray(np.array(a)) for a in on_disk(folder, rows))
    guide = AutoMultivariateNormal(model)
    steps = EPOCHS * -(-x.shape[0] // batch)
    inference = SVI(model, guide, numpyro.optim.Adam(rate), Trace_ELBO())
    options = {"batch": batch, "progress_bar": False}
    result = inference.run(jax.random.key(0), steps, x, y=y, **options)
    posterior = jax.block_until_ready(guide.get_posterior(result.params))
    seconds = time.perf_counter() - start
    sd = jnp.sqrt(jnp.diag(posterior.covariance_matrix))
    return found(posterior.mean, sd, seconds, epochs=EPOCHS)


JOBS: dict[str, Callable[[Path, int, int, float], Row]] = {
    "full": full,
    "stream": stream,
    "svi": svi,
}


def run(job: str, folder: Path, batch: int, rows: int, option: float = 0) -> Row:
    """A job in a fresh process."""
    numbers = str(batch), str(rows), str(option)
    command = [sys.executable, __file__, "--job", job, str(folder), *numbers]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def beside(name: str, row: Row, exact: Row, rows: int) -> Row:
    mean, sd = np.array(exact["mean"]), np.array(exact["sd"])
    row["apart"] = float((np.abs(np.array(row["mean"]) - mean) / sd).max())
    ratio = np.array(row["sd"]) / sd
    row["sd_ratio"] = float(ratio.min()), float(ratio.max())
    row["rows_per_second"] = rows * row["epochs"] / row.get("running", row["seconds"])
    print(
        f"{name:24s} {row['epochs']:2d} epochs  means apart {row['apart']:.2g} sd, "
        f"sds {ratio.min():.3f} to {ratio.max():.3f} times  {row['seconds']:6.1f} s  "
        f"{row['rows_per_second']:11,.0f} rows/s  {row['GiB']:.2f} GiB",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--subset", type=int, help="rows that are held in memory")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--job", nargs=5, help="only this, here, as JSON")
    options = parser.parse_args()
    if options.job:
        job, folder, batch, rows, option = options.job
        row = JOBS[job](Path(folder), int(batch), int(rows), float(option))
        print(json.dumps(row))
        return
    batch, rows = options.batch, options.subset or options.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, options.rows)
        exact = run("full", folder, batch, rows)
        results = {"full": beside("all in memory", exact, exact, rows)}
        for label, epochs in (("stream, 3 epochs", EPOCHS), ("stream, to the end", 0)):
            row = run("stream", folder, batch, rows, epochs)
            results[label] = beside(label, row, exact, rows)
        if options.subset:
            row = run("stream", folder, batch, options.rows)
            results["all rows"] = beside("stream of all rows", row, exact, options.rows)
        for rate in [] if options.subset else RATES:
            label = f"SVI, Adam at {rate:g}"
            row = run("svi", folder, batch, rows, rate)
            results[label] = beside(label, row, exact, rows)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
