"""Ten thousand correlated parameters: the structure of a model read off its plates.

Counts in 5,000 groups, each with an intercept and a slope of its own. A full covariance
would have 10⁸ entries; the model's plates leave 0.06 % of them. The pictures are the
pattern of the precision, drawn small and as it was fitted.

    python examples/many_groups.py
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

GROUPS = 5_000


def model(group, x, groups, y=None):
    mean = numpyro.sample("mean", dist.Normal(0, 2).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.LogNormal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("group", groups):
        line = numpyro.sample("line", dist.Normal(mean, sd).to_event(1))
    with numpyro.plate("row", x.shape[0]):
        log_rate = line[group, 0] + line[group, 1] * x
        numpyro.sample("y", dist.Poisson(jnp.exp(log_rate)), obs=y)


def data(groups):
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(groups), 10), rng.normal(size=10 * groups)
    a, b = rng.normal(1.0, 0.7, groups), rng.normal(-0.5, 0.3, groups)
    return group, x, groups, rng.poisson(np.exp(a[group] + b[group] * x)).astype(float)


def main() -> None:
    posterior = ngvi.fit(model, *data(GROUPS))
    print(posterior.structure)
    print(f"\n{posterior.record.diagnostics.seconds_running:.0f} s after compiling")
    print("mean of intercepts and slopes:", np.round(posterior.mean["mean"], 2))
    print("their sds:", np.round(posterior.mean["sd"], 2))

    small = ngvi.fit(model, *data(12), covariance="structured")
    _, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    small.structure.plot(axes[0])
    posterior.structure.plot(axes[1])
    Path("out").mkdir(exist_ok=True)
    plt.savefig("out/many_groups.png", dpi=120)
    print("out/many_groups.png")


if __name__ == "__main__":
    main()
