"""How loud the noise is, day by day: stochastic volatility over two thousand returns.

The log variance of a return drifts and comes back to its mean. It has a value for every
day, which meets those of the days next to it: the fit finds this chain and keeps its
correlations, at a cost linear in the days. The returns are simulated, so the picture
shows the truth beside the fit, and the pattern of the precision.

    python examples/stochastic_volatility.py
"""

from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

import ngvi  # noqa: E402

DAYS = 2_000


def model(y):
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    persistence = numpyro.sample("persistence", dist.Beta(20, 1.5))
    sd = numpyro.sample("sd", dist.LogNormal(-1.5, 0.7))
    start = sd / jnp.sqrt(1 - persistence**2)
    with numpyro.plate("day", y.shape[0]):
        # Its prior is the walk below, each day around the last one.
        h = numpyro.sample("h", dist.Normal(mean, start).mask(False))
        numpyro.sample("y", dist.Normal(0, jnp.exp(h / 2)), obs=y)
    ahead = mean + persistence * (h[:-1] - mean)
    first = dist.Normal(mean, start).log_prob(h[0])
    numpyro.factor("walk", first + dist.Normal(ahead, sd).log_prob(h[1:]).sum())


def data(days):
    rng = np.random.default_rng(0)
    h = np.empty(days)
    h[0] = -1.0
    for t in range(1, days):
        h[t] = -1.0 + 0.95 * (h[t - 1] + 1.0) + 0.3 * rng.normal()
    return h, np.exp(h / 2) * rng.normal(size=days)


def main() -> None:
    truth, y = data(DAYS)
    posterior = ngvi.fit(model, y)
    print(posterior.structure)
    seconds = posterior.record.diagnostics.seconds_running
    print(f"\n{seconds:.0f} s after compiling")
    for name in ("mean", "persistence", "sd"):
        print(f"{name}: {float(posterior.mean[name]):.2f}")

    volatility = np.exp(np.asarray(posterior.sample(400)["h"]) / 2)
    low, high = np.quantile(volatility, [0.05, 0.95], axis=0)
    inside = np.mean((low < np.exp(truth / 2)) & (np.exp(truth / 2) < high))
    print(f"{inside:.0%} of the days' true volatilities are inside of the 90 % band")

    shape = {"width_ratios": [3, 1]}
    figure, axes = plt.subplots(
        1, 2, figsize=(13, 4), layout="constrained", gridspec_kw=shape
    )
    days = np.arange(DAYS)
    axes[0].plot(days, np.abs(y), ".", color="0.75", ms=2, label="|return|")
    axes[0].fill_between(days, low, high, color="C0", alpha=0.5, label="90 % band")
    axes[0].plot(days, np.exp(truth / 2), color="C1", lw=0.8, label="truth")
    axes[0].set(xlabel="day", ylabel="volatility", xlim=(0, DAYS), ylim=(0, 4))
    axes[0].legend(loc="upper right")
    posterior.structure.plot(axes[1])
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/stochastic_volatility.png", dpi=120)
    print("out/stochastic_volatility.png")


if __name__ == "__main__":
    main()
